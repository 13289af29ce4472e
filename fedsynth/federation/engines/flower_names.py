"""Every private name of Flower that fedsynth needs, in one place. A canary test tells when Flower moves one.

Silences Flower's calls home as well: import this before anything of Flower that starts.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from fedsynth.federation.flower_start import QUIET

os.environ.update(QUIET)

from flwr.app import Message
from flwr.common.constant import ErrorCode
from flwr.supercore.run import Run as FlowerRun
from flwr.supercore.task_identity import TaskIdentity

__all__ = ["GONE", "QUIET", "SERVER_NODE", "FlowerRun", "TaskIdentity", "identity", "number"]

SERVER_NODE = 1
GONE = (ErrorCode.NODE_UNAVAILABLE, ErrorCode.CLIENT_APP_CRASHED)
"""Codes of the errors that Flower itself puts in the place of an answer: the node, or its program, has died."""


@contextmanager
def identity(run_id: int = 1) -> Iterator[FlowerRun]:
    """This process may make messages during the block, as the server of an empty run."""
    before = (TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id)
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, run_id, SERVER_NODE
    try:
        yield FlowerRun.create_empty(run_id=run_id)
    finally:
        TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id = before


def number(message: Message, name: str) -> Message:
    """Give a message its number, which otherwise the SuperLink does."""
    message.metadata.__dict__["_message_id"] = name
    return message
