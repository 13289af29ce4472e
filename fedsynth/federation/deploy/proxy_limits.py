"""What one outsider may hold of the embedded proxy; `[limits]` in `server.toml` sets it."""

import math
from dataclasses import dataclass, fields

from fedsynth.config import key_of
from fedsynth.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Seconds, and numbers of connections.

    `handshake` and `first` bound how long a connection stands that has said nothing yet, `idle` how long one stands
    between two requests: nodes ask every 3 s and beat every 30 s, over two or three connections each. `body` is for all
    of a request's body, however it comes. `parting` is how long the other side may take to say farewell, before it is
    cut off and counts no more. Every one of `connections` takes two of the files that the system lets a process open,
    of which many systems allow 1024.
    """

    handshake: float = 15.0
    first: float = 30.0
    idle: float = 120.0
    body: float = 300.0
    parting: float = 5.0
    connections: int = 400
    per_peer: int = 64

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if not 0 < value < math.inf:
                raise ConfigError(f"{key_of(entry.name)!r} must be a positive number", value=value)
