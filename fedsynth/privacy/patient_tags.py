"""Salted tags for patients: enough to see that two runs share some, never enough to name one.

Knows the store's secret salt. Tags and salt stay in the store; only the digest of a group leaves it, with the ledger.
"""

import hashlib
import hmac
import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fedsynth import atomic_files
from fedsynth.errors import FedSynthError, RefusedError

SALT = "salt"
GROUPS = "patients"


@dataclass(frozen=True)
class Group:
    """The patients of one run at one site: `digest` names them, `tags` (one per patient) tell overlap."""

    digest: str
    tags: frozenset[str]


class Identities:
    """The salt of one store and the groups it has seen: `salt` (readable by the owner) and `patients/<digest>.tags`."""

    def __init__(self, store: Path) -> None:
        self.store = store

    def group(self, patients: Iterable[str]) -> Group:
        """The group of these patients, without writing anything but a missing salt."""
        names = set(patients)
        if not names:
            raise RefusedError("a private run needs named patients", file=self.store)
        tags = frozenset(self._tag(name) for name in names)
        return Group(digest=self._digest(tags), tags=tags)

    def remember(self, group: Group) -> None:
        """Write the group's tags beside the ledger, before its first charge."""
        path = self._path(group.digest)
        if not path.exists():
            atomic_files.write_text(path, "\n".join([self._mark, *sorted(group.tags)]) + "\n")
            os.chmod(path, 0o600)

    def tags(self, digest: str) -> frozenset[str] | None:
        """The tags behind a digest; None where they cannot be compared (lost, or of another salt)."""
        try:
            mark, *tags = self._path(digest).read_text(encoding="ascii").split()
        except (OSError, ValueError):
            return None
        return frozenset(tags) if mark == self._mark and self._digest(frozenset(tags)) == digest else None

    def shares(self, patients: Iterable[str], digest: str) -> bool | None:
        """Whether somebody of these patients is in the group of that digest; None where they cannot be compared."""
        others = self.tags(digest) if digest else None
        return None if others is None else not others.isdisjoint(self.group(patients).tags)

    def fingerprint(self, content: str) -> str:
        """A keyed digest of something that must not be guessed, such as the hash of a real image set."""
        return self._keyed("content", content)

    def _tag(self, name: str) -> str:
        return self._keyed("patient", name)

    def _digest(self, tags: frozenset[str]) -> str:
        return self._keyed("group", "\n".join(sorted(tags)))

    def _path(self, digest: str) -> Path:
        return self.store / GROUPS / f"{digest}.tags"

    @cached_property
    def _mark(self) -> str:
        """Tells tags of one salt from those of another, without telling the salt."""
        return self._keyed("mark", "")

    def _keyed(self, kind: str, text: str) -> str:
        return hmac.new(self._salt, f"{kind}\0{text}".encode(), hashlib.sha256).hexdigest()[:32]

    @cached_property
    def _salt(self) -> bytes:
        path = self.store / SALT
        if not path.exists():
            self._make_salt(path)
        try:
            salt = bytes.fromhex(path.read_text(encoding="ascii"))
        except (OSError, ValueError):
            salt = b""
        if len(salt) != 32:
            raise FedSynthError("the salt cannot be read", file=path, remedy="restore it from a backup of the store")
        return salt

    def _make_salt(self, path: Path) -> None:
        if any(self.store.glob("*/ledger.jsonl")):
            remedy = "restore it from a backup: without it overlap with earlier runs cannot be seen"
            raise FedSynthError("the store has ledgers but its salt is gone", file=path, remedy=remedy)
        with atomic_files.told_when_unwritable(path):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=".salt.")  # readable by the owner alone
            with os.fdopen(handle, "w") as file:
                file.write(os.urandom(32).hex())
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):  # another process was first: its salt counts
                os.link(name, path)
            Path(name).unlink()
