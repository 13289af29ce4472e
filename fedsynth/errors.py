"""What a user can act on. The command line shows these as one line; anything else is a bug."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

_LONGEST_VALUE = 200
_MOST_NAMES = 20


class FedSynthError(Exception):
    """Something is wrong that the user can mend.

    The message is one line: where (file and row), what is wrong, the value found, and what to do.
    """

    def __init__(
        self,
        problem: str,
        *,
        file: Path | str | None = None,
        row: int | str | None = None,
        value: object = None,
        remedy: str = "",
    ) -> None:
        where = "" if file is None else f"{file}: "
        if row is not None:
            where += f"row {row}: "
        found = "" if value is None else f" (found {_short(repr(value))})"
        todo = f"; {remedy}" if remedy else ""
        lines = f"{where}{problem}{found}{todo}".splitlines()
        super().__init__(" ".join(line.strip() for line in lines if line.strip()))


class ConfigError(FedSynthError):
    """A setting, a TOML file or a command's options are wrong."""


class ImageSetError(FedSynthError):
    """An image set does not keep the format, or sets do not fit together."""


class SourceError(FedSynthError):
    """A source file that an import reads is missing, damaged or not what it should be."""


class RefusedError(FedSynthError):
    """The request is understood and refused: it would lose data or break a promise."""


class DamagedError(FedSynthError):
    """A file that this program wrote is not what was written: cut short, or a bit has changed."""


class LostChargesError(RefusedError):
    """Somebody knows of private steps that the ledger does not: it was lost, or is another store's."""


class BudgetSpentError(RefusedError):
    """The steps asked for would spend more than a patient was promised."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A remedy naming the nearest known spelling, or what is known when none is near."""
    names = sorted(set(known))
    lowered = {name.lower(): name for name in names}
    close = get_close_matches(word.lower(), lowered, n=1)
    if close:
        return f"did you mean {lowered[close[0]]!r}?"
    listed = ", ".join(names[:_MOST_NAMES]) or "none"
    further = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"known: {listed}{further}"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."
