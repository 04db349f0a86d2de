"""The main job on a cluster, step by step: `make demo` shows it, tests/e2e repeats it with faults.

kube       kubectl and helm as commands, nothing else
place      where it runs: a local cluster of its own, or the current context
scenario   the steps: install, load the corpus, apply, watch, kill a worker, chat
report     pure: what was seen -> report.json and report.md
"""
