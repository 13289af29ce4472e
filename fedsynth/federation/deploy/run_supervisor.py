"""Carry out one run on a running server: hand Flower the app, watch it, and hand it over again when it failed.

What is learned lies in the run directory, not in Flower: a new run of Flower's goes on where the last one ended.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from fedsynth.config import load_toml
from fedsynth.errors import ConfigError, FedSynthError, RefusedError
from fedsynth.federation.checkpoints import rounds_of
from fedsynth.federation.deploy.flower_programs import CONNECTION
from fedsynth.federation.deploy.server_files import ServerFolder
from fedsynth.federation.deploy.superlink import Hospitals, SuperLink
from fedsynth.federation.error_codes import ErrorCode
from fedsynth.federation.flower_start import write_app
from fedsynth.federation.outputs import SHEET, drawing_of, write_sheet
from fedsynth.federation.round_log import read_rounds
from fedsynth.federation.server_app import read_refusals, refuse_other_settings
from fedsynth.federation.settings import FederationSettings, check_family
from fedsynth.runs import Run
from fedsynth.training.checkpoint import CARD
from fedsynth.training.trackers import require_trackers

T = TypeVar("T")
FRUITLESS = 3  # failures in a row, without a round between them, after which it is given up
DEPLOYED = ("average", "one-shot")
BETWEEN = 30.0  # seconds between two looks at Flower's list: each look starts a program
_ENDING = 5.0  # the same, once the result is there


def load_settings(place: ServerFolder) -> FederationSettings:
    """What is to be trained; refused where it needs another engine, or a run stands there with other settings."""
    settings = load_toml(FederationSettings, place.settings)
    if settings.federation not in DEPLOYED:
        remedy = f"take {' or '.join(DEPLOYED)}; the other ways are for simulations"
        raise ConfigError(
            "'federation' cannot be deployed", file=place.settings, value=settings.federation, remedy=remedy
        )
    check_family(settings)
    require_trackers(settings.trackers)
    run = Run(folder=place.run)
    if run.config.is_file():
        refuse_other_settings(run, settings)
    return settings


def write_bundle(place: ServerFolder, settings: FederationSettings) -> Path:
    """What Flower is handed: the settings, and where the server keeps what it needs."""
    return write_app(place.state / "app", settings.to_run_config(place.run, nodes=place.nodes))


def is_trained(place: ServerFolder) -> bool:
    """Whether the rounds are over: the generator is released, with its card, which is written last."""
    return (Run(folder=place.run).checkpoints / CARD).is_file()


def draw(place: ServerFolder, settings: FederationSettings) -> bool:
    """The synthetic image set and a sheet of it; false where it was drawn before, or has nothing to start from."""
    run = Run(folder=place.run)
    drawing = drawing_of(run.checkpoints, count=settings.count, seed=settings.seed)
    if drawing is None or (run.samples / SHEET).is_file():
        return False
    with run.locked():
        made = drawing.write(run.synthetic, overwrite=True)
        write_sheet(run.samples / SHEET, made)
    return True


class TurnedDownError(RefusedError):
    """So many hospitals decided against the run that too few are left. Nothing is tried again."""

    def __init__(self, refusals: Mapping[str, ErrorCode], run: Path) -> None:
        said = ", ".join(f"{site}: {code.value}" for site, code in sorted(refusals.items()))
        remedy = "change federation.toml, or have the hospitals change or approve, and start again with --run"
        super().__init__(f"too few hospitals take part ({said})", file=run, remedy=remedy)


@dataclass(kw_only=True)
class Carrier:
    """One run of the app after the other, until the run directory is complete."""

    place: ServerFolder
    link: SuperLink
    hospitals: Hospitals
    report: Callable[[str], None]
    settings: FederationSettings
    seen: int = field(default=0)
    begun: int = field(default=0)
    refused: dict[str, ErrorCode] = field(default_factory=dict)

    def carry_out(self) -> None:
        """Start or resume the run, and stay until it is complete."""
        app = write_bundle(self.place, self.settings)
        self._stop_leftovers()
        self.seen, fruitless = len(self._rows()), 0
        while fruitless < FRUITLESS:
            before = self._n_rounds()
            status, details = self._watch(self._submit(app))
            if status == "finished:completed":
                return
            if status == "finished:stopped":
                raise FedSynthError("the run was stopped", remedy="start again with --run to resume it")
            if refusals := self._final_refusals():
                raise TurnedDownError(refusals, self.place.run)
            fruitless = 0 if self._n_rounds() > before else fruitless + 1
            self.report(f"the run failed ({details or 'no reason given'}); it is resumed")
        remedy = f"see {self.place.state / 'superlink.log'}, mend it, and start again with --run"
        raise FedSynthError(f"the run failed {FRUITLESS} times without finishing a round: {details}", remedy=remedy)

    def _final_refusals(self) -> dict[str, ErrorCode]:
        """Who decided against the run, where that leaves too few: asking again would be of no use."""
        refused = {site: code for site, code in read_refusals(self.place.run).items() if code.is_final}
        rows = self._rows()[self.begun :]
        last = [row for row in rows if row["round"] == rows[-1]["round"] and row["answered"] != "true"]
        codes = {row["site"]: ErrorCode.parse(row["reason"]) for row in last}
        refused |= {site: code for site, code in codes.items() if code.is_final}
        return refused if self.settings.sites - len(refused) < self.settings.quorum else {}

    def _tell_refusals(self) -> None:
        """Say at once who will not take part."""
        for site, code in read_refusals(self.place.run).items():
            if self.refused.get(site) is not code:
                self.refused[site] = code
                self.report(f"{site} will not take part: {code.value}")

    def _submit(self, app: Path) -> str:
        self.begun = len(self._rows())
        answer = self.link.flower.ask("run", str(app), CONNECTION)
        self.report(f"Flower's run {answer['run-id']} begins, in {self.place.run}")
        return str(answer["run-id"])

    def _watch(self, run_id: str) -> tuple[str, str]:
        """Show rounds as they end; the run's last status and what Flower says of it."""
        looked = time.monotonic()
        while True:
            self.link.check_alive()
            self._tell_refusals()
            self._tell_rounds()
            self._asking(self.hospitals.reconcile)
            ending = is_trained(self.place) or self._final_refusals()
            if time.monotonic() - looked >= (_ENDING if ending else BETWEEN):
                looked = time.monotonic()
                found = self._asking(lambda: self._look(run_id))
                if found is not None and found[0].startswith("finished"):
                    self._tell_refusals()
                    self._tell_rounds()
                    return found
            time.sleep(0.5)

    def _asking(self, ask: Callable[[], T]) -> T | None:
        """The answer; none where there was none in time: it is asked again, whatever became of the others."""
        try:
            return ask()
        except FedSynthError as error:
            self.report(f"Flower did not answer: {error}")
            time.sleep(_ENDING)
            return None

    def _look(self, run_id: str) -> tuple[str, str]:
        run = self.link.flower.ask("ls", "--run-id", run_id)["runs"][0]
        return str(run["status"]), str(run.get("status-details") or "")

    def _stop_leftovers(self) -> None:
        """What a killed server left running in Flower's memory keeps hospitals busy for nobody."""
        for run in self.link.flower.ask("ls")["runs"]:
            if not str(run["status"]).startswith("finished"):
                self.link.flower.ask("stop", str(run["run-id"]))

    def _tell_rounds(self) -> None:
        rows = self._rows()
        for row in rows[self.seen :]:
            how = f"answered, {row['steps']} steps" if row["answered"] == "true" else f"left out: {row['reason']}"
            note = f" ({row['note']})" if row.get("note") else ""
            self.report(f"round {row['round']}: {row['site']} {how}{note}")
        self.seen = max(len(rows), self.seen)

    def _n_rounds(self) -> int:
        return max(rounds_of(Run(folder=self.place.run).checkpoints), default=-1)

    def _rows(self) -> list[dict[str, str]]:
        return read_rounds(Run(folder=self.place.run).rounds)
