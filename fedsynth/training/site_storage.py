"""Where one site keeps what must not leave it, and the names under which its patients are charged."""

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fedsynth import atomic_files
from fedsynth.errors import RefusedError
from fedsynth.privacy.accounting import Budget
from fedsynth.privacy.ledger import LEDGER
from fedsynth.runs import Run

CENTRALISED, STATE, RUN_NAME = "centralised", "state.safetensors", "ledger-name"
RELEASE = "release.safetensors"


@dataclass(frozen=True, kw_only=True)
class SiteStorage:
    """The site's own storage: where a run keeps what must not leave, and the names under which it is charged.

    `site` is the site in ledgers, `run` the readable part of the run's name there, `states` a pattern for what only
    a run that has been charged leaves behind. `cap` bounds what every patient may spend over all runs. `store` is the
    site's own, where the run cannot choose one.
    """

    folder: Path
    run: str
    site: str = CENTRALISED
    states: str = STATE
    cap: Budget | None = None
    store: Path | None = None

    @classmethod
    def of(cls, run: Run) -> "SiteStorage":
        """Of the one site of a centralised run."""
        return cls(folder=run.site(CENTRALISED), run=run.folder.name)

    @property
    def charges(self) -> Path:
        """The copy of the run's charges."""
        return self.folder / LEDGER

    @property
    def release(self) -> Path:
        """The noised sum of a private fit, as it was released."""
        return self.folder / RELEASE

    def ledger_name(self, *, phantoms: bool) -> str:
        """What this run is called in ledgers: unlike any other run, whatever its folder is called, and kept in it.

        Runs of phantoms have none: so a run cannot turn from phantoms to patients, or back, when it is resumed.
        """
        place = self.folder / RUN_NAME
        if phantoms:
            if place.exists():
                remedy = "resume it with the images that it was started with"
                raise RefusedError(
                    "the run was charged to patients, and the images are phantoms", file=place, remedy=remedy
                )
            return "phantoms"
        if not place.exists():
            if any(self.folder.glob(self.states)):
                problem = "the run has no name in the ledger: nobody knows what its networks have cost patients"
                raise RefusedError(
                    problem, file=place, remedy="put the file back where it was lost, or start a new run"
                )
            atomic_files.write_text(place, f"{self.run}-{secrets.token_hex(8)}\n")
        return place.read_text(encoding="utf-8").strip()

    def find_name(self, charged: Iterable[str]) -> None:
        """Take the run's name back from the names that its ledger has charged, where the whole folder was lost.

        Only for runs whose readable part is unlike any other's: what they were charged before goes on counting.
        """
        pattern = re.compile(re.escape(self.run) + r"-[0-9a-f]{16}")
        found = sorted({name for name in charged if pattern.fullmatch(name)})
        if not found or (self.folder / RUN_NAME).exists() or any(self.folder.glob(self.states)):
            return
        if len(found) > 1:
            problem = "the ledger has several names of this run, and the folder that tells which one it is was lost"
            raise RefusedError(problem, file=self.folder, value=found, remedy="put the folder back, or start a new run")
        atomic_files.write_text(self.folder / RUN_NAME, f"{found[0]}\n")
