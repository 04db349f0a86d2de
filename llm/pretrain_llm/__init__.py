"""What runs inside the pods of a run: data, training, export, post-training, serving checks.

Never imports the operator or a Kubernetes client. `contract` is what both sides agree on.
"""
