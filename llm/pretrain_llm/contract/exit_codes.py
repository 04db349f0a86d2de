"""What the exit code of a pod's program means. The operator's fault table reads these."""

OK = 0
ERROR = 1  # anything unforeseen: worth another try
BAD_INPUT = 64  # the spec or its data is wrong: a retry cannot cure it
OUT_OF_MEMORY = 66  # the device ran out of memory
SAVED = 75  # asked to stop (SIGTERM), saved a checkpoint, left
DO_NOT_RESTART = 93  # NVRx's contract (ft_launcher): the verdict is not to requeue

# A new process would end the same way.
FINAL = (BAD_INPUT, DO_NOT_RESTART)

MEANINGS = {
    OK: "finished",
    ERROR: "failed",
    BAD_INPUT: "the spec or its data is wrong",
    OUT_OF_MEMORY: "the device ran out of memory",
    SAVED: "stopped on request after saving a checkpoint",
    DO_NOT_RESTART: "the program asked not to be restarted",
}
