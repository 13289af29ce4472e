"""How one request and its answer pass the door: written anew, so that both sides agree where each of them ends.

It knows neither who asks nor what may pass.
"""

import asyncio
from contextlib import suppress

from fedsynth.federation.deploy.admission import RefusedRequestError, Request

SLOW = 60.0  # seconds without a byte after which a conversation ends
_PIECE = 64 * 1024
_HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade", "expect", "host", "content-length")
)
_REASONS = {400: "Bad Request", 403: "Forbidden", 413: "Content Too Large", 502: "Bad Gateway"}


def _write_head(request: Request) -> bytes:
    lines = [f"{request.method} {request.target} HTTP/1.1", "host: 127.0.0.1", "connection: close"]
    lines += [f"content-length: {request.length}"]
    lines += [f"{name}: {value}" for name, value in request.headers if name not in _HOP_BY_HOP]
    return "\r\n".join([*lines, "", ""]).encode("ascii")


async def send(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Give the node's request to the server; false when the server did not take all of it, and yet may answer."""
    try:
        writer.write(_write_head(request))
        await _copy(reader, writer, request.length)
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
