"""Which requests the door lets in: exactly those that a hospital's node sends, read strictly.

It knows no sockets: bytes in, a request or a refusal out.
"""

from dataclasses import dataclass

_POSTED = (
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
ALLOWED = {f"/v1/fleet/{name}": ("POST",) for name in _POSTED} | {"/health": ("GET", "HEAD")}
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
