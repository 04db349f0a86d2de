"""The worker: one torchtitan process, one per device.

mesh           arithmetic of the parallel degrees                               pure
preconditions  what must hold of a configuration before anything is built      pure
inputs         the finished Data stage's folder, as the worker needs it
documents      where packed documents start, and who sees whom
titan          the adapter: RunConfig to torchtitan's Trainer, and its numbers to reports
checkpointing  torchtitan's checkpoint manager, with manifests
own_time       how long a rank computes by itself: what tells a slow one
cpu            every difference between a CPU and an accelerator
reporting      one worker's reports to its agent
agreement      all ranks agree when to stop, and how often to save
wandb_run      one W&B run for one run, over its restarts
preload        what a fork server imports, so that workers start warm
worker         the body of a worker process
"""
