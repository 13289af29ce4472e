"""The embedded TLS proxy before the server, for tests on loopback and the first hour: it passes what hospitals' nodes
need, and answers 403 to everything else. For months, and for many hospitals, `nginx_files.py` writes what nginx needs.

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
from fedsynth.federation.deploy.proxy_limits import Limits

# Which requests the proxy lets in: exactly those that a hospital's node sends, read strictly.
#
# It knows no sockets: bytes in, a request or a refusal out.


POSTED = (
    "activate-node",
    "deactivate-node",
    "send-node-heartbeat",
    "pull-messages",
    "push-messages",
    "get-run",
    "get-fab",
    "push-object",
    "pull-object",
    "confirm-message-received",
)
ALLOWED = {f"/v1/fleet/{name}": ("POST",) for name in POSTED} | {"/health": ("GET", "HEAD")}
"""What passes: path and methods. A node registering itself is left out: keys are registered on the server only."""

LARGEST_HEAD = 32 * 1024
LARGEST_BODY = 8 * 1024 * 1024  # Flower cuts arrays into pieces of 5 MiB; a body is read before its signature is
_DIGITS = 16
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


@dataclass(frozen=True, kw_only=True)
class Request:
    """The head of one request."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    length: int


class RefusedRequestError(Exception):
    """The request is not passed on; `status` is all that the other side is told."""

    def __init__(self, status: int) -> None:
        self.status = status


def read_head(head: bytes) -> Request:
    """Parse the head of a request, ending in an empty line; what is unusual in any way is refused."""
    try:
        first, *lines = head.decode("ascii").removesuffix("\r\n\r\n").split("\r\n")
        method, target, version = first.split(" ")
    except ValueError:
        raise RefusedRequestError(400) from None
    headers = tuple(_read_header(line) for line in lines)
    lengths = [value for name, value in headers if name == "content-length"]
    coded = any(name == "transfer-encoding" for name, _ in headers)
    numbers = all(value.isdigit() and len(value) < _DIGITS for value in lengths)
    if not _TOKEN.issuperset(method) or version != "HTTP/1.1" or coded or len(lengths) > 1 or not numbers:
        raise RefusedRequestError(400)
    length = int(lengths[0]) if lengths else 0
    if length > LARGEST_BODY:
        raise RefusedRequestError(413)
    return Request(method=method, target=target, headers=headers, length=length)


def is_allowed(request: Request) -> bool:
    """Only the exact paths: no query, no escapes, no host in the path, nothing to normalise."""
    return request.method in ALLOWED.get(request.target, ())


def _read_header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not name or not _TOKEN.issuperset(name) or not value.isprintable():
        raise RefusedRequestError(400)
    return name.lower(), value.strip(" ")


# How one request and its answer pass the proxy: written anew, so that both sides agree where each of them ends.
#
# It knows neither who asks nor what may pass.


SLOW = 60.0  # seconds without a byte after which a conversation ends
_PIECE = 64 * 1024
_HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade", "expect", "host", "content-length")
)
_OF_OTHERS = ("x-forwarded-", "x-real-ip", "forwarded")  # what a client says of itself is not believed
_REASONS = {400: "Bad Request", 403: "Forbidden", 413: "Content Too Large", 502: "Bad Gateway"}


def _write_head(request: Request, peer: str) -> bytes:
    lines = [f"{request.method} {request.target} HTTP/1.1", "host: 127.0.0.1", "connection: close"]
    lines += [f"content-length: {request.length}", f"x-forwarded-for: {peer}"]
    others = [one for one in request.headers if one[0] not in _HOP_BY_HOP and "_" not in one[0]]
    own = [one for one in others if not one[0].startswith(_OF_OTHERS)]  # x_forwarded_for is read as the same by some
    lines += [f"{name}: {value}" for name, value in own]
    return "\r\n".join([*lines, "", ""]).encode("ascii")


async def send(request: Request, peer: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Give the node's request to the server; false when the server did not take all of it, and yet may answer.

    A node that leaves meanwhile ends the conversation: nobody waits for an answer to it.
    """
    writer.write(_write_head(request, peer))
    left = request.length
    while left:
        piece = await asyncio.wait_for(reader.read(min(left, _PIECE)), SLOW)
        if not piece:
            raise asyncio.IncompleteReadError(piece, left)
        left -= len(piece)
        try:
            writer.write(piece)
            await asyncio.wait_for(writer.drain(), SLOW)
        except ConnectionError:
            return False
    return True


async def give_back(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Give the server's answer to the node; true when its end was marked by a length, so that the node can go on."""
    try:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), SLOW)
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
        while piece := await asyncio.wait_for(reader.read(_PIECE), SLOW):
            writer.write(piece)
            await asyncio.wait_for(writer.drain(), SLOW)
    return measured


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, length: int) -> None:
    while length:
        piece = await asyncio.wait_for(reader.read(min(length, _PIECE)), SLOW)
        if not piece:
            raise asyncio.IncompleteReadError(piece, length)
        writer.write(piece)
        await asyncio.wait_for(writer.drain(), SLOW)
        length -= len(piece)


async def refuse(status: int, length: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer after taking a short body, because a client that is still sending would not read the answer."""
    with suppress(TimeoutError, OSError, asyncio.IncompleteReadError):
        await asyncio.wait_for(reader.readexactly(min(length, _PIECE)), 5)
    body = b'{"detail":"fedsynth: this server takes hospitals\' nodes only"}' if status == 403 else b""
    head = f"HTTP/1.1 {status} {_REASONS[status]}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    writer.write(f"{head}connection: close\r\n\r\n".encode() + body)
    await asyncio.wait_for(writer.drain(), SLOW)


_QUEUE = 128  # of connections that the system holds until they are taken


@dataclass(frozen=True, kw_only=True)
class ProxySettings:
    """Where the proxy is and what stands behind it."""

    address: str
    port: int
    certificate: Path
    key: Path
    inner_port: int
    inner_authority: Path
    limits: Limits = field(default_factory=Limits)


@contextmanager
def running_proxy(settings: ProxySettings, report: Callable[[str], None]) -> Iterator[None]:
    """The proxy is open during the block, in a thread of its own. `report` gets a line for each refusal."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="proxy", daemon=True)
    thread.start()
    try:
        proxy = asyncio.run_coroutine_threadsafe(_open(settings, report), loop).result()
        try:
            yield
        finally:
            asyncio.run_coroutine_threadsafe(proxy.close(), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def check_free(settings: ProxySettings) -> None:
    """Say that the port is in use before anything is started."""
    _listen(settings).close()


async def _open(settings: ProxySettings, report: Callable[[str], None]) -> "_Proxy":
    outer = _Certificate(settings)
    inner = ssl.create_default_context(cafile=settings.inner_authority)
    listening = _listen(settings)
    proxy = _Proxy(settings=settings, listening=listening, outer=outer, inner=inner, report=report)
    proxy.accepting = asyncio.create_task(proxy.accept())
    return proxy


class _Certificate:
    """The proxy's own, read again when its files change: whoever connects after `deploy renew` gets the new one.

    While only one of the two files is new they do not fit, and the pair that stands goes on.
    """

    def __init__(self, settings: ProxySettings) -> None:
        self._files = (settings.certificate, settings.key)
        self._read, self._context = self._changed(), self._load()

    def current(self) -> ssl.SSLContext:
        """For the next handshake."""
        with suppress(OSError):  # ssl.SSLError is one
            if (changed := self._changed()) != self._read:
                self._context = self._load()
                self._read = changed
        return self._context

    def _load(self) -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        made.load_cert_chain(*self._files)
        return made

    def _changed(self) -> tuple[int, ...]:
        return tuple(path.stat().st_mtime_ns for path in self._files)


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
class _Proxy:
    """All conversations through one proxy."""

    settings: ProxySettings
    listening: socket.socket
    outer: _Certificate
    inner: ssl.SSLContext
    report: Callable[[str], None]
    accepting: "asyncio.Task[None] | None" = None
    writers: set[asyncio.StreamWriter] = field(default_factory=set)
    talks: "dict[asyncio.Task[None], str]" = field(default_factory=dict)

    async def close(self) -> None:
        """Shut the proxy and cut every connection."""
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
                lambda: protocol, connection, ssl=self.outer.current(), ssl_handshake_timeout=limits.handshake
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
                return await self._pass_on(request, peer, reader, writer)
            self.report(f"refused {request.method[:10]} {request.target[:80]!r} from {peer}")
            status, length = 403, request.length
        except RefusedRequestError as refused:
            status = refused.status
        await refuse(status, length, reader, writer)
        return False

    async def _pass_on(
        self, request: Request, peer: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        behind = asyncio.open_connection("127.0.0.1", self.settings.inner_port, ssl=self.inner, limit=LARGEST_HEAD)
        try:
            inner_reader, inner_writer = await asyncio.wait_for(behind, SLOW)
        except (OSError, TimeoutError):
            raise RefusedRequestError(502) from None  # nodes take this as: come back later
        self.writers.add(inner_writer)
        try:
            taken = await asyncio.wait_for(send(request, peer, reader, inner_writer), self.settings.limits.body)
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
