"""Who trained, as the rounds say it: a hospital that was asked and never answered is not counted among the sites."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedsynth.config import parse_toml
from fedsynth.errors import FedSynthError

REFUSED = "refused"
NO_ANSWER = "no round has an answer of it, and nothing says why"


@dataclass(frozen=True, kw_only=True)
class Hospitals:
    """How many were asked, who trained in how many of the `rounds`, and why each of the others did not."""

    asked: int
    rounds: int
    trained: Mapping[str, int] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """As in a table: `4 sites`, or `3 of 4 sites; hospital-3 refused`."""
        if not self.rounds:
            return f"{self.asked} sites asked"
        if not self.absent and len(self.trained) >= self.asked:
            return f"{self.asked} sites"
        who = [f"{name} {REFUSED if why.startswith(REFUSED) else 'did not train'}" for name, why in self.absent.items()]
        if nameless := self.asked - len(self.trained) - len(self.absent):
            who.append(f"{nameless} did not train")
        return f"{len(self.trained)} of {self.asked} sites; {', '.join(who)}"

    @property
    def why(self) -> str:
        """The reasons of those who did not train, and who trained in some rounds only."""
        said = [f"{name} did not train: {why}" for name, why in self.absent.items()]
        some = [(name, n) for name, n in self.trained.items() if n < self.rounds]
        return "; ".join([*said, *(f"{name} trained in {n} of {self.rounds} rounds" for name, n in some)])


def hospitals_of(folder: Path, settings: Mapping[str, Any], rows: Sequence[Mapping[str, str]]) -> Hospitals | None:
    """Read from `rounds.csv`, one row per round and site; None for a run of one holder."""
    if "federation" not in settings:
        return None
    trained: dict[str, int] = {}
    reasons: dict[str, str] = {}
    for row in rows:
        if row.get("answered") == "true":
            trained[row["site"]] = trained.get(row["site"], 0) + 1
        else:
            reasons[row["site"]] = row.get("reason") or NO_ANSWER
    absent = {name: why for name, why in reasons.items() if name not in trained}
    asked = max(int(settings.get("sites") or 0), len(trained) + len(absent))
    if len(trained) + len(absent) < asked:  # not even a row: the file of sites knows the names, if anything does
        names = [name for name in _named(folder) if name not in trained and name not in absent]
        absent |= dict.fromkeys(names[: asked - len(trained) - len(absent)], NO_ANSWER)
    n_rounds = len({row["round"] for row in rows})
    return Hospitals(asked=asked, rounds=n_rounds, trained=dict(sorted(trained.items())), absent=absent)


def _named(folder: Path) -> list[str]:
    try:
        sites = parse_toml(folder / "sites.toml").get("site", [])
    except FedSynthError:
        return []
    return [str(one["name"]) for one in sites if "name" in one]
