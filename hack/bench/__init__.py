"""Recovery measured side by side on one local cluster: `make bench-recovery`.

run.yaml   the run that all systems train: ours as it is, the peers with its pods and configuration
trials     pure: what is to be measured, in which order, and what has been
peers      pure: manifests of the peers, made from the pods of our own training Job
measure    pure: log lines and the time of a fault -> phases of the recovery
report     pure: trials -> recovery.json and the table of docs/benchmarks.md
logs       follows the container logs of all nodes: the one clock of all systems
recreate   the controller loop of the peer that recreates everything
systems    the three systems: start, stop, victims, when whole
faults     the faults, each done to a pod or a node at a given step
ground     the cluster with the operator, the text and the volume
"""
