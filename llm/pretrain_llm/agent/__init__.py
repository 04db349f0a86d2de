"""The agent: the program of a training pod. Starts, watches, stops and restarts its workers.

It decides nothing about rounds (the coordinator does) and knows nothing of training: a worker is
any function that reads torch's environment variables and reports through pretrain_llm.reports.

    PID 1 (init)             reaps, passes signals on
      └─ agent               heartbeat, rounds, logs
           └─ fork server    has imported what workers need, holds no device
                ├─ worker    one per device; a group of its own
                └─ worker

Each process is killed by the kernel when the one above it dies, so a worker never outlives its
agent, whatever ended that.

__main__     from the environment to an exit code
init         the smallest PID 1
settings     what the environment says
elastic      torch's SimpleElasticAgent with our workers and our rendezvous
rendezvous   torch's RendezvousHandler over the coordinator
workers      the worker processes of one round
worker_main  what runs inside a worker before and after its function
fork_server  starts the fork server; lifeline ties a process to its parent
link         talks to the coordinator          outbox  what it has not acknowledged yet (pure)
replicas     checkpoints in this node's memory    peers   moves them between agents
inbox        takes the workers' reports        memory  the kernel's count of OOM kills
output       what workers write: to the pod's log, and its end kept
"""
