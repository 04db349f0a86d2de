"""Imported by the fork server, and by nothing else: multiprocessing's hook is a module name."""

import os

from . import fork_server

fork_server.prepare()

FORK_SERVER_PID = os.getpid()  # what a forked worker must have as its parent
