"""`pretrain` and `kubectl pretrain`: what a user asks about a run, answered from the API server.

    pretrain status demo --watch      pretrain logs demo --stage training --follow
    pretrain chat demo "What is a tuple?"

render     pure: a run object to what the terminal shows
commands   one coroutine a command
"""

from .commands import main

__all__ = ["main"]
