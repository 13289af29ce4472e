"""The one door to the server: a TLS proxy that passes what hospitals' nodes need, and answers 403 to everything else.

On Flower 1.41 one port serves the nodes and the commands that register keys and start code, and the commands ask for no
account. So the SuperLink listens on loopback only, and this stands before it. Requests are read strictly and written
anew, so that both sides agree where one ends; anything unusual is refused. It knows nothing of what the bodies say.
"""

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
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
        server = asyncio.run_coroutine_threadsafe(open_door(settings, report), loop).result()
        try:
            yield
        finally:
            asyncio.run_coroutine_threadsafe(_close(server), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def open_door(settings: ProxySettings, report: Callable[[str], None]) -> asyncio.Server:
    """Listen. The caller decides how long."""
    outer = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    outer.minimum_version = ssl.TLSVersion.TLSv1_2
    outer.load_cert_chain(settings.certificate, settings.key)
    inner = ssl.create_default_context(cafile=settings.inner_authority)
    door = _Door(settings.inner_port, inner, report)
    try:
        return await asyncio.start_server(
            door.serve, settings.address, settings.port, ssl=outer, limit=LARGEST_HEAD, ssl_handshake_timeout=15
        )
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        remedy = "end what uses it, or choose another port in server.toml"
        raise FedSynthError(
            f"the port {settings.port} of {settings.address} cannot be opened: {reason}", remedy=remedy
        ) from error


@dataclass
class _Door:
    """All conversations through one door."""

    inner_port: int
    inner: ssl.SSLContext
    report: Callable[[str], None]
    n_open: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection from outside, from its first request to its end."""
        peer = writer.get_extra_info("peername") or ("?",)
        self.n_open += 1
        try:
            if self.n_open <= _MOST_CONNECTIONS:
                while await self._answer(reader, writer, str(peer[0])):
                    pass
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ssl.SSLError):
            pass  # the other side left, stalled or sent no HTTP
        finally:
            self.n_open -= 1
            writer.close()
            with suppress(OSError, ssl.SSLError, TimeoutError):
                await asyncio.wait_for(writer.wait_closed(), 5)

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
        try:
            taken = await _send(request, reader, inner_writer)
            return await _return(request, inner_reader, writer) and taken
        finally:
            inner_writer.close()
            with suppress(OSError, ssl.SSLError, TimeoutError):
                await asyncio.wait_for(inner_writer.wait_closed(), 5)


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


async def _close(server: asyncio.Server) -> None:
    server.close()
    everything = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in everything:
        task.cancel()
    await asyncio.gather(*everything, return_exceptions=True)
