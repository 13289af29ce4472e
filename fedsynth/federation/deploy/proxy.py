"""The one door to the server: a TLS proxy that passes what hospitals' nodes need, and answers 403 to everything else.

On Flower 1.41 one port serves the nodes and the commands that register keys and start code, and the commands ask for no
account. So the SuperLink listens on loopback only, and this stands before it. Requests are read strictly, anything
unusual is refused, and nobody holds more than a share of the connections. It knows nothing of what the bodies say.
"""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from fedsynth.errors import FedSynthError
from fedsynth.federation.deploy.admission import LARGEST_HEAD, RefusedRequestError, Request, is_allowed, read_head
from fedsynth.federation.deploy.relay import SLOW, give_back, refuse, send

_QUEUE = 128  # of connections that the system holds until they are taken


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one outsider may hold, in seconds and in connections.

    `handshake` and `first` bound how long a connection stands that has said nothing yet, `idle` how long one stands
    between two requests: nodes ask every 3 s and beat every 30 s, over two or three connections each. `parting` is how
    long the other side may take to say farewell, before it is cut off and counts no more. Every one of `connections`
    takes two of the files that the system lets a process open, of which many systems allow 1024.
    """

    handshake: float = 15.0
    first: float = 30.0
    idle: float = 120.0
    parting: float = 5.0
    connections: int = 400
    per_peer: int = 64


@dataclass(frozen=True, kw_only=True)
class ProxySettings:
    """Where the door is and what stands behind it."""

    address: str
    port: int
    certificate: Path
    key: Path
    inner_port: int
    inner_authority: Path
    limits: Limits = Limits()


@contextmanager
def running_proxy(settings: ProxySettings, report: Callable[[str], None]) -> Iterator[None]:
    """The door is open during the block, in a thread of its own. `report` gets a line for each refusal."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="proxy", daemon=True)
    thread.start()
    try:
        door = asyncio.run_coroutine_threadsafe(_open(settings, report), loop).result()
        try:
            yield
        finally:
            asyncio.run_coroutine_threadsafe(door.close(), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def check_free(settings: ProxySettings) -> None:
    """Say that the port is in use before anything is started."""
    _listen(settings).close()


async def _open(settings: ProxySettings, report: Callable[[str], None]) -> "_Door":
    outer = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    outer.minimum_version = ssl.TLSVersion.TLSv1_2
    outer.load_cert_chain(settings.certificate, settings.key)
    inner = ssl.create_default_context(cafile=settings.inner_authority)
    listening = _listen(settings)
    door = _Door(settings=settings, listening=listening, outer=outer, inner=inner, report=report)
    door.accepting = asyncio.create_task(door.accept())
    return door


def _listen(settings: ProxySettings) -> socket.socket:
    try:
        family, kind, _, _, where = socket.getaddrinfo(settings.address, settings.port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(where)
            listening.listen(_QUEUE)
            listening.setblocking(False)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        problem = f"the port {settings.port} of {settings.address} cannot be opened: {reason}"
        raise FedSynthError(problem, remedy="end what uses it, or choose another port in server.toml") from error
    return listening


@dataclass(kw_only=True)
class _Door:
    """All conversations through one door."""

    settings: ProxySettings
    listening: socket.socket
    outer: ssl.SSLContext
    inner: ssl.SSLContext
    report: Callable[[str], None]
    accepting: "asyncio.Task[None] | None" = None
    writers: set[asyncio.StreamWriter] = field(default_factory=set)
    talks: "dict[asyncio.Task[None], str]" = field(default_factory=dict)

    async def close(self) -> None:
        """Shut the door and cut every connection."""
        tasks = [*self.talks, *([self.accepting] if self.accepting else [])]
        for writer in self.writers:
            writer.transport.abort()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=10)
        self.listening.close()

    async def accept(self) -> None:
        """Take whoever comes, as many as there is room for; a connection counts from before its handshake."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(self.listening)
            except OSError:  # too many open files, or the other side has left already
                await asyncio.sleep(0.1)
                continue
            peer = str(address[0])
            if not self._has_room(peer):
                connection.close()
                continue
            task = asyncio.create_task(self._welcome(connection, peer))
            self.talks[task] = peer
            task.add_done_callback(lambda ended: self.talks.pop(ended, None))

    def _has_room(self, peer: str) -> bool:
        limits = self.settings.limits
        return len(self.talks) < limits.connections and list(self.talks.values()).count(peer) < limits.per_peer

    async def _welcome(self, connection: socket.socket, peer: str) -> None:
        """One connection from outside, from its handshake to its end."""
        loop, limits = asyncio.get_running_loop(), self.settings.limits
        reader = asyncio.StreamReader(limit=LARGEST_HEAD)
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, connection, ssl=self.outer, ssl_handshake_timeout=limits.handshake
            )
        except (OSError, TimeoutError):  # no TLS, or nothing at all
            connection.close()
            return
        await self._talk(reader, asyncio.StreamWriter(transport, protocol, reader, loop), peer)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: str) -> None:
        self.writers.add(writer)
        patience = self.settings.limits.first
        try:
            while await self._answer(reader, writer, peer, patience):
                patience = self.settings.limits.idle
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the other side left, stalled or sent no HTTP
        finally:
            await self._part(writer)

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: str, patience: float
    ) -> bool:
        """Answer one request; true when another may follow on this connection."""
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), patience)
        length = 0
        try:
            request = read_head(head)
            if is_allowed(request):
                return await self._pass_on(request, reader, writer)
            self.report(f"refused {request.method[:10]} {request.target[:80]!r} from {peer}")
            status, length = 403, request.length
        except RefusedRequestError as refused:
            status = refused.status
        await refuse(status, length, reader, writer)
        return False

    async def _pass_on(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        behind = asyncio.open_connection("127.0.0.1", self.settings.inner_port, ssl=self.inner, limit=LARGEST_HEAD)
        try:
            inner_reader, inner_writer = await asyncio.wait_for(behind, SLOW)
        except (OSError, TimeoutError):
            raise RefusedRequestError(502) from None  # nodes take this as: come back later
        self.writers.add(inner_writer)
        try:
            taken = await send(request, reader, inner_writer)
            return await give_back(request, inner_reader, writer) and taken
        finally:
            await self._part(inner_writer)

    async def _part(self, writer: asyncio.StreamWriter) -> None:
        writer.close()
        try:
            with suppress(OSError, TimeoutError):
                await asyncio.wait_for(writer.wait_closed(), self.settings.limits.parting)
        finally:
            writer.transport.abort()  # else it stands, uncounted, until TLS has given up hope of a farewell: 30 s
            self.writers.discard(writer)
