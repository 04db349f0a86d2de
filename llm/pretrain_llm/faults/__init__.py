"""Faults on request, inside a training pod that allows them: `python -m pretrain_llm.faults KIND`.

kinds are contract.injection's; docs/failure-handling.md says what each one leads to.

__main__      finds the worker, sends signals, leaves requests
requests      what is asked of a worker, as a file in the pod's scratch folder
hook          what a worker looks for at each step boundary; not there unless the run allows it
delay         a slow device
acts          what a worker then does to itself
checkpoints   damage to the newest verified checkpoint

Nothing here imports torch before it acts: the program answers in a fraction of a second.
"""
