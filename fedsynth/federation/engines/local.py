"""The apps in this process: a grid of threads, one torch thread each, that keeps Flower's promises to both sides.

Every site gets its own copy of a message; what it keeps in its context counts only when it succeeds; an exception
becomes an error without its text; a site that stalls past the deadline is left behind and counts as busy until it
ends. Knows nothing of networks or images.
"""

import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from threading import Condition, Thread
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedsynth.federation.engines.flower_names import SERVER_NODE, FlowerRun, identity, number
from fedsynth.federation.error_codes import ErrorCode, to_code
from fedsynth.federation.rounds import Watch

FIRST_NODE = 1000
ERROR_CODE = 2
WAIT_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True)
class _Job:
    message: Message
    node: int


class LocalGrid(Grid):
    """`sites` nodes and at most `workers` of them at work at a time."""

    pause = 0.0  # pulling waits by itself

    def __init__(
        self,
        client_app: ClientApp,
        *,
        sites: int,
        run_config: Mapping[str, Any],
        run: FlowerRun,
        workers: int = 1,
        watch: Watch = lambda progress: None,
    ) -> None:
        self.watch = watch
        self._app, self._workers, self._run = client_app, max(1, workers), run
        self._contexts = {
            FIRST_NODE + i: Context(
                run_id=run.run_id,
                node_id=FIRST_NODE + i,
                node_config={"partition-id": i, "num-partitions": sites},
                state=RecordDict(),
                run_config=dict(run_config),
            )
            for i in range(sites)
        }
        self._changed = Condition()
        self._waiting: deque[_Job] = deque()
        self._running: dict[int, str] = {}  # node -> number of the message that it works on
        self._left_behind: set[str] = set()
        self._replies: dict[str, Message] = {}
        self._numbered = 0

    def set_run(self, run: FlowerRun) -> None:
        """Nothing: there is one run."""

    @property
    def run(self) -> FlowerRun:
        """The run, empty."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A new message."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """All nodes, in the order of the sites."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Start as many as there are workers; the others wait."""
        with self._changed:
            numbers = [self._push(message) for message in messages]
            self._start_waiting()
            return numbers

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies that are there; waits a moment for the first."""
        wanted = set(message_ids)
        with self._changed:
            if wanted.isdisjoint(self._replies):
                self._changed.wait(WAIT_SECONDS)
            return [self._replies.pop(name) for name in sorted(wanted & self._replies.keys())]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Push, and pull until all are there or the time is over."""
        missing, found = set(self.push_messages(messages)), list[Message]()
        end = None if timeout is None else time.monotonic() + timeout
        while missing and (end is None or time.monotonic() < end):
            found += (arrived := self.pull_messages(missing))
            missing -= {reply.metadata.reply_to_message_id for reply in arrived}
        self.forget(missing)
        return found

    def forget(self, message_ids: Iterable[str]) -> None:
        """Nobody waits for these any more: who has not begun never will, who has is left behind."""
        with self._changed:
            late = set(message_ids)
            self._left_behind |= late & set(self._running.values())
            self._waiting = deque(job for job in self._waiting if job.message.metadata.message_id not in late)
            self._start_waiting()

    def _push(self, message: Message) -> str:
        self._numbered += 1
        name, node = f"m{self._numbered}", message.metadata.dst_node_id
        number(message, name)
        if node not in self._contexts:
            self._replies[name] = _error(message, ErrorCode.UNREACHABLE)
        elif node in self._running:
            self._replies[name] = _error(message, ErrorCode.BUSY)
        else:
            self._waiting.append(_Job(message=message, node=node))
        return name

    def _start_waiting(self) -> None:
        """Called with the lock held. Whoever was left behind takes no worker away."""
        while self._waiting and len(set(self._running.values()) - self._left_behind) < self._workers:
            job = self._waiting.popleft()
            self._running[job.node] = job.message.metadata.message_id
            Thread(target=self._work, args=(job,), daemon=True, name=f"site-{job.node - FIRST_NODE}").start()

    def _work(self, job: _Job) -> None:
        reply = self._answer(job)
        with self._changed:
            name = self._running.pop(job.node)
            if name not in self._left_behind:
                self._replies[name] = reply
            self._left_behind.discard(name)
            self._start_waiting()
            self._changed.notify_all()

    def _answer(self, job: _Job) -> Message:
        kept = self._contexts[job.node]
        context = Context(
            run_id=kept.run_id,
            node_id=kept.node_id,
            node_config=dict(kept.node_config),
            state=_own_copy(kept.state),
            run_config=dict(kept.run_config),
        )
        message = Message(_own_copy(job.message.content), metadata=job.message.metadata)  # type: ignore[call-overload]
        try:
            reply = self._app(message, context)
            kept.state = context.state
        except Exception as error:  # the text would name paths and patients
            reply = _error(job.message, to_code(error))
        return number(reply, f"r{job.message.metadata.message_id}")


def run_locally(
    server_app: ServerApp,
    client_app: ClientApp,
    *,
    sites: int,
    run_config: Mapping[str, Any],
    workers: int,
    watch: Watch = lambda progress: None,
) -> None:
    """Both apps in this process, to the end of the run."""
    with identity() as run:
        grid = LocalGrid(client_app, sites=sites, run_config=run_config, run=run, workers=workers, watch=watch)
        context = Context(
            run_id=run.run_id,
            node_id=SERVER_NODE,
            node_config={},
            state=RecordDict(),
            run_config=dict(run_config),
        )
        server_app(grid, context)


def _own_copy(content: RecordDict) -> RecordDict:
    """Records of its own; the arrays in them are bytes, which nobody can change."""
    return RecordDict({name: record.copy() for name, record in content.items()})


def _error(message: Message, code: ErrorCode) -> Message:
    return Message(Error(code=ERROR_CODE, reason=code.value), reply_to=message)
