"""Recovery measured side by side on one local cluster: `make bench-recovery`.

run.yaml      the run that all systems train; the peers have its pods and its configuration
trials        pure: what is to be measured, in which order, and what has been
peers         pure: manifests of the peers, made from the pods of our own training Job
plain_worker  what the peers' torchrun starts
measure       pure: log lines and the time of a fault -> phases of the recovery
record        what has been measured so far, a line a trial
report        pure: trials -> recovery.json and the table of docs/benchmarks.md
logs          follows the container logs of all nodes: the one clock of all systems
recreate      the controller loop of the peer that recreates everything
systems       the three systems: start, stop, victims, when whole
faults        the faults, each done to a pod or a node at a given step
ground        the cluster with the operator, the text and the volume
versions      the machine and the versions that figures depend on
"""
