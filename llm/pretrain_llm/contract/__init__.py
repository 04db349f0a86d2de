"""What the operator and the pods agree on: names, exit codes, documents. Standard library only.

environment   names of environment variables, ports and mount points
exit_codes    what a process's exit code means
layout        where things lie on the run's volume
curriculum    the segments of a run, and what it has consumed at a step
config        the rendered configuration that every pod of a run reads
meshes        the parallel degrees of a run that has fewer nodes than it asks for
intervals     how often to save
reports       what workers and agents report
memory        checkpoints in the memory of the training pods
protocol      how an agent and its coordinator talk
status        the document that the coordinator serves to the operator
data_steps    which batch each step trains on, and which are skipped
symptoms      what a program's own words say of why it failed
results       what a finished or failed stage leaves in its termination message
injection     the faults that can be injected inside a training pod
manifests     which files make up a checkpoint or an artifact
codec         dataclass <-> JSON
"""
