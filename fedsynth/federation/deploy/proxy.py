"""The one door to the server: a TLS proxy that passes what hospitals' nodes need, and answers 403 to everything else.

On Flower 1.41 one port serves the nodes and the commands that register keys and start code, and the commands ask for no
account. So the SuperLink listens on loopback only, and this stands before it. Requests are read strictly and written
anew, so that both sides agree where one ends; anything unusual is refused. It knows nothing of what the bodies say.
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

_PIECE = 64 * 1024
_IDLE = 120.0  # seconds; nodes ask every 3 s and beat every 30 s
_SLOW = 60.0
_MOST_CONNECTIONS = 1024
_HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade", "expect", "host", "content-length")
)
_REASONS = {400: "Bad Request", 403: "Forbidden", 413: "Content Too Large", 502: "Bad Gateway"}


@dataclass(frozen=True, kw_only=True)
class ProxySettings:
    """Where the door is and what stands behind it."""

    address: str
    port: int
    certificate: Path
    key: Path
    inner_port: int
    inner_authority: Path


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
    try:
        family, kind, _, _, where = socket.getaddrinfo(settings.address, settings.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except OSError as error:
        raise _not_opened(settings, error) from error


async def _open(settings: ProxySettings, report: Callable[[str], None]) -> "_Door":
    outer = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    outer.minimum_version = ssl.TLSVersion.TLSv1_2
    outer.load_cert_chain(settings.certificate, settings.key)
    inner = ssl.create_default_context(cafile=settings.inner_authority)
    door = _Door(inner_port=settings.inner_port, inner=inner, report=report)
    try:
        door.server = await asyncio.start_server(
            door.serve, settings.address, settings.port, ssl=outer, limit=LARGEST_HEAD, ssl_handshake_timeout=15
        )
    except OSError as error:
        raise _not_opened(settings, error) from error
    return door


def _not_opened(settings: ProxySettings, error: OSError) -> FedSynthError:
    reason = (error.strerror or str(error)).lower()
    remedy = "end what uses it, or choose another port in server.toml"
    return FedSynthError(f"the port {settings.port} of {settings.address} cannot be opened: {reason}", remedy=remedy)


@dataclass(kw_only=True)
class _Door:
    """All conversations through one door."""

    inner_port: int
    inner: ssl.SSLContext
    report: Callable[[str], None]
    server: asyncio.Server | None = None
    writers: set[asyncio.StreamWriter] = field(default_factory=set)
    talks: set["asyncio.Task[None]"] = field(default_factory=set)

    async def close(self) -> None:
        """Shut the door and cut every connection."""
        if self.server is not None:
            self.server.close()
        for writer in self.writers:
            writer.transport.abort()
        if self.talks:
            await asyncio.wait(self.talks, timeout=10)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection from outside, from its first request to its end."""
        peer = writer.get_extra_info("peername") or ("?",)
        task = asyncio.current_task()
        assert task is not None
        self.talks.add(task)
        self.writers.add(writer)
        try:
            if len(self.talks) <= _MOST_CONNECTIONS:
                while await self._answer(reader, writer, str(peer[0])):
                    pass
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ssl.SSLError):
            pass  # the other side left, stalled or sent no HTTP
        finally:
            await self._part(writer)
            self.talks.discard(task)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: str) -> bool:
        """Answer one request; true when another may follow on this connection."""
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _IDLE)
        length = 0
        try:
            request = read_head(head)
            if is_allowed(request):
                return await self._pass_on(request, reader, writer)
            self.report(f"refused {request.method[:10]} {request.target[:80]!r} from {peer}")
            status, length = 403, request.length
        except RefusedRequestError as refused:
            status = refused.status
        await _refuse(status, length, reader, writer)
        return False

    async def _pass_on(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        try:
            inner_reader, inner_writer = await asyncio.wait_for(
                asyncio.open_connection("127.0.0.1", self.inner_port, ssl=self.inner, limit=LARGEST_HEAD), _SLOW
            )
        except (OSError, TimeoutError):
            raise RefusedRequestError(502) from None  # nodes take this as: come back later
        self.writers.add(inner_writer)
        try:
            taken = await _send(request, reader, inner_writer)
            return await _return(request, inner_reader, writer) and taken
        finally:
            await self._part(inner_writer)

    async def _part(self, writer: asyncio.StreamWriter) -> None:
        writer.close()
        with suppress(OSError, TimeoutError):
            await asyncio.wait_for(writer.wait_closed(), 5)
        self.writers.discard(writer)


def _write_head(request: Request) -> bytes:
    lines = [f"{request.method} {request.target} HTTP/1.1", "host: 127.0.0.1", "connection: close"]
    lines += [f"content-length: {request.length}"]
    lines += [f"{name}: {value}" for name, value in request.headers if name not in _HOP_BY_HOP]
    return "\r\n".join([*lines, "", ""]).encode("ascii")


async def _send(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Give the node's request to the server; false when the server did not take all of it, and yet may answer."""
    try:
        writer.write(_write_head(request))
        await _copy(reader, writer, request.length)
    except ConnectionError:
        return False
    return True


async def _return(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Give the server's answer to the node; true when its end was marked by a length, so that the node can go on."""
    try:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _SLOW)
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        raise RefusedRequestError(502) from None
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    kept = [line for line in lines if not line.lower().startswith((b"connection:", b"keep-alive:"))]
    lengths = [int(line.split(b":")[1]) for line in kept if line.lower().startswith(b"content-length:")]
    measured = bool(lengths)
    writer.write(b"\r\n".join([first, *kept, b"connection: " + (b"keep-alive" if measured else b"close"), b"", b""]))
    if request.method == "HEAD":
        await writer.drain()
    elif measured:
        await _copy(reader, writer, lengths[0])
    else:
        while piece := await asyncio.wait_for(reader.read(_PIECE), _SLOW):
            writer.write(piece)
            await asyncio.wait_for(writer.drain(), _SLOW)
    return measured


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, length: int) -> None:
    while length:
        piece = await asyncio.wait_for(reader.read(min(length, _PIECE)), _SLOW)
        if not piece:
            raise asyncio.IncompleteReadError(piece, length)
        writer.write(piece)
        await asyncio.wait_for(writer.drain(), _SLOW)
        length -= len(piece)


async def _refuse(status: int, length: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer after taking a short body, because a client that is still sending would not read the answer."""
    with suppress(TimeoutError, OSError, asyncio.IncompleteReadError):
        await asyncio.wait_for(reader.readexactly(min(length, _PIECE)), 5)
    body = b'{"detail":"fedsynth: this server takes hospitals\' nodes only"}' if status == 403 else b""
    head = f"HTTP/1.1 {status} {_REASONS[status]}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    writer.write(f"{head}connection: close\r\n\r\n".encode() + body)
    await asyncio.wait_for(writer.drain(), _SLOW)
