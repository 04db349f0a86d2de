"""Names that the operator sets in a pod and the pod's program reads."""

# Set in every pod of a run.
CONFIG = "PRETRAIN_CONFIG"  # path of the mounted run configuration (contract.config.RunConfig)
STAGE_NAME = "PRETRAIN_STAGE_NAME"  # which entry of postTraining this pod is
INPUT = "PRETRAIN_INPUT"  # folder of the finished artifact that a later stage starts from
TERMINATION_LOG = "PRETRAIN_TERMINATION_LOG"  # where to leave the result; default below

# Set in training pods.
ATTEMPT = "PRETRAIN_ATTEMPT"
COORDINATOR = "PRETRAIN_COORDINATOR"  # host:port of the coordinator's HTTP server
STORE = "PRETRAIN_STORE"  # host:port of the rendezvous store
SLOT = "JOB_COMPLETION_INDEX"  # set by the Job controller: the node slot
POD_NAME = "PRETRAIN_POD_NAME"
POD_UID = "PRETRAIN_POD_UID"
NODE_NAME = "PRETRAIN_NODE_NAME"
GRACE_SECONDS = "PRETRAIN_GRACE_SECONDS"  # the pod's terminationGracePeriodSeconds; default 30
SCRATCH = "PRETRAIN_SCRATCH"  # default SCRATCH_PATH
POD_IP = "PRETRAIN_POD_IP"  # where other agents of the run reach this one's memory
MEMORY_TOKEN = "PRETRAIN_MEMORY_TOKEN"  # noqa: S105  its name: what they must show
MEMORY = "PRETRAIN_MEMORY"  # default MEMORY_PATH
FAULT_INJECTION = "PRETRAIN_FAULT_INJECTION"  # "true" where spec.recovery.faultInjection is

# Set by the agent for its workers.
REPORT_SOCKET = "PRETRAIN_REPORT_SOCKET"  # Unix datagram socket that takes contract.reports
ERROR_FILE = "PRETRAIN_ERROR_FILE"  # where a worker leaves a StageError before it exits
STACK_FILE = "PRETRAIN_STACK_FILE"  # where a worker's stacks go when its agent asks for them
ROUND = "PRETRAIN_ROUND"
RESTORE = "PRETRAIN_RESTORE"  # contract.memory.Generation that is in this node's memory
RESTORE_SOURCE = "PRETRAIN_RESTORE_SOURCE"  # how it came there: reports.MEMORY | PEER
INTERVAL_FILE = "PRETRAIN_INTERVAL_FILE"  # with the steps between two saves, as they change
SKIPPED = "PRETRAIN_SKIPPED"  # contract.data_steps.SkippedData, as the coordinator has it

CONFIG_PATH = "/etc/pretrain/run.json"
TERMINATION_LOG_PATH = "/dev/termination-log"
VOLUME_PATH = "/workspace"  # where the run's storage is mounted
SCRATCH_PATH = "/tmp"  # noqa: S108  an emptyDir of the pod's own: the root file system is read-only
MEMORY_PATH = "/memory"  # a tmpfs of the pod's own

COORDINATOR_HTTP_PORT = 8080
STORE_PORT = 29400
MEMORY_PORT = 29500
SERVING_PORT = 8000
