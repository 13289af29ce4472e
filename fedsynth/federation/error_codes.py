"""What a site says when it cannot answer: one of a few neutral reasons. What really happened stays in its own log.

The text of an exception names paths and patients; Flower would send it to the server as it is.
"""

import errno
import os
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import torch

from fedsynth.errors import (
    BudgetSpentError,
    ConfigError,
    FedSynthError,
    ImageSetError,
    LostChargesError,
    RefusedError,
    SourceError,
)
from fedsynth.training.divergence_check import DivergedError

LOG = "site.log"
SAME_POOL = "take the same public set and the same version of fedsynth at the server and at every site"


class ErrorCode(StrEnum):
    """Every reason that may cross from a site to the server, or that the server itself gives in `rounds.csv`."""

    FAILED = "failed"
    POLICY = "refused by its policy"
    POLICY_PLAIN = "refused by its policy: allow-plain"
    POLICY_EPSILON = "refused by its policy: max-epsilon"
    POLICY_DELTA = "refused by its policy: delta"
    POLICY_PATIENTS = "refused by its policy: min-patients"
    POLICY_GENERATORS = "refused by its policy: generators"
    POLICY_NETWORKS = "refused by its policy: networks"
    POLICY_METRICS = "refused by its policy: metrics"
    POLICY_SECURE_SUM = "refused by its policy: secure-sum"
    POLICY_ONE_SHOT = "refused by its policy: allow-one-shot"
    POLICY_ROUNDS = "refused by its policy: max-rounds"
    POLICY_LOCAL_STEPS = "refused by its policy: max-local-steps"
    POLICY_BATCH = "refused by its policy: max-batch"
    POLICY_PARAMETERS = "refused by its policy: max-parameters"
    POLICY_RUNS = "refused by its policy: runs-kept"
    POLICY_MINUTES = "refused by its policy: minutes-a-day"
    POLICY_MEGABYTES = "refused by its policy: megabytes-a-day"
    POLICY_APPROVED = "refused by its policy: approved"
    BUDGET = "privacy budget spent"
    LEDGER = "its ledger lacks private steps that it was charged"
    STATE = "lost what it had trained"
    REFUSED = "refused"
    SETTINGS = "settings do not fit the site"
    POOL = "its public pool is another one"
    DATA = "its images cannot be used"
    DIVERGED = "training diverged"
    MEMORY = "out of memory"
    DISK = "its disk is full or refuses access"
    BUSY = "still busy with an earlier round"
    LATE = "did not answer in time"
    UNREACHABLE = "cannot be reached"
    NAME = "its key is another hospital's"
    SHAPE = "sent another shape"
    NOT_FINITE = "sent what is not a number"
    TOO_LARGE = "sent far too large an update"

    @classmethod
    def parse(cls, text: str) -> "ErrorCode":
        """The code that a site sent; anything else it may have written is not repeated."""
        return cls(text) if text in {code.value for code in cls} else cls.FAILED

    @property
    def is_decision(self) -> bool:
        """Whether somebody decided so beforehand, by a policy or a budget; otherwise something went wrong."""
        return self is ErrorCode.BUDGET or self.value.startswith(ErrorCode.REFUSED.value)

    @property
    def is_final(self) -> bool:
        """Whether asking again in this run is of no use: a policy or a budget says so, and no new day changes it."""
        decided = self is ErrorCode.BUDGET or self.value.startswith(ErrorCode.POLICY.value)
        return decided and self not in (ErrorCode.POLICY_MINUTES, ErrorCode.POLICY_MEGABYTES)


class NeutralError(Exception):
    """What a site's app may raise: its text is a code and nothing else."""

    def __init__(self, code: ErrorCode) -> None:
        super().__init__(code.value)
        self.code = code


class PolicyRefusedError(RefusedError):
    """The site's own policy forbids what was asked; `code` names the rule where that gives nothing away."""

    def __init__(self, problem: str, code: ErrorCode) -> None:
        super().__init__(f"the site's policy refuses: {problem}")
        self.code = code


class OtherPoolError(FedSynthError):
    """A site lacks the public pool of the run, or has another one: its sum would mean something else."""


def to_code(error: BaseException) -> ErrorCode:
    """The neutral reason for an exception, also for one that another was raised from."""
    return next((code for code in map(_code_of, _chain(error)) if code is not None), ErrorCode.FAILED)


def keep_to_itself(error: BaseException, folder: Path, *, doing: str) -> ErrorCode:
    """Write the exception with its traceback into the site's log and give the code that may leave.

    A log that cannot be written stops nothing: the code still leaves.
    """
    code = to_code(error)
    log_only(folder, f"{doing}: {code.value}\n{''.join(traceback.format_exception(error))}")
    return code


def log_only(folder: Path, text: str) -> None:
    """Write it into the site's log, and nowhere else."""
    when = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / LOG).open("a", encoding="utf-8") as log:
            log.write(f"{when} {text}\n")
            log.flush()
            os.fsync(log.fileno())
    except OSError:
        pass


def _code_of(error: BaseException) -> ErrorCode | None:
    if isinstance(error, NeutralError | PolicyRefusedError):
        return error.code
    for kind, code in _KINDS:
        if isinstance(error, kind):
            return code
    if isinstance(error, OSError) and error.errno in _DISK:
        return ErrorCode.DISK
    if isinstance(error, RuntimeError) and "can't allocate memory" in str(error):  # torch on a CPU has no class for it
        return ErrorCode.MEMORY
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__


_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM})
_KINDS: tuple[tuple[type[BaseException], ErrorCode], ...] = (
    (BudgetSpentError, ErrorCode.BUDGET),
    (LostChargesError, ErrorCode.LEDGER),
    (OtherPoolError, ErrorCode.POOL),
    (RefusedError, ErrorCode.REFUSED),
    (ConfigError, ErrorCode.SETTINGS),
    (ImageSetError, ErrorCode.DATA),
    (SourceError, ErrorCode.DATA),
    (DivergedError, ErrorCode.DIVERGED),
    (MemoryError, ErrorCode.MEMORY),
    (torch.OutOfMemoryError, ErrorCode.MEMORY),
)
