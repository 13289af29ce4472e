"""The cells of the privacy/utility table: a text for people and the number behind it, from results and rounds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fedsynth.config import parse_toml
from fedsynth.errors import FedSynthError
from fedsynth.evaluation.score import Result, Score
from fedsynth.privacy.accounting import rounded_up
from fedsynth.privacy.ledger import default_store
from fedsynth.privacy.lineage import Lineage
from fedsynth.privacy.patient_tags import Identities
from fedsynth.privacy.report import statement
from fedsynth.runs import Run

# Who trained, as the rounds say it: a hospital that was asked and never answered is not counted among the sites.


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
    """Read from `rounds.csv`, one row per round and site; None for a run of one site."""
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


PLAIN, INSECURE = "not private", "NOT PRIVATE (repeatable randomness)"
NO_GUARANTEE = "no guarantee"
NOT_RUN, OTHER_SET = "not run", "of another set"
NO_BETTER = "no better than a trivial baseline"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What stands in a table: text, the number behind it with interval, baseline and control, or why there is none."""

    text: str
    value: float | None = None
    why: str = ""
    low: float | None = None
    high: float | None = None
    control: float | None = None
    baseline: float | None = None

    @property
    def bare(self) -> str:
        """The text without what stands in brackets behind the number."""
        return self.text.partition(" (")[0]

    @property
    def is_trivial(self) -> bool:
        """The interval holds the baseline or lies below it: no better than the best control."""
        low = self.value if self.low is None else self.low
        return low is not None and self.baseline is not None and low <= self.baseline


def cell_of_another_set(name: str) -> Cell:
    """In the place of a result that is not of the set that lies in the run."""
    return Cell(text=OTHER_SET, why=f"{name} was measured on another set than the one in the run: run it again")


def federation_cell(settings: Mapping[str, Any], hospitals: Hospitals | None) -> Cell:
    """How it was shared out, and who trained."""
    if hospitals is None:
        return Cell(text="centralised")
    names = {"average": str(settings.get("strategy", "fedavg")), "none": "each alone"}
    way = names.get(str(settings["federation"]), str(settings["federation"]))
    return Cell(text=f"{way}, {hospitals}" if hospitals.asked else way, why=hospitals.why)


def privacy_cells(
    run: Run,
    settings: Mapping[str, Any],
    rounds: list[dict[str, str]],
    hospitals: Hospitals | None,
    lineage: Lineage,
) -> dict[str, Cell]:
    """What the lineage of the run and all runs of its patients spent of one, or why there is no guarantee."""
    own = epsilon_cell(settings, rounds, lineage)
    total = own if own.value is None else _cumulative(run, settings["privacy"], hospitals, lineage)
    delta = None if own.value is None else delta_of(settings, lineage)
    told = Cell(text="-") if delta is None else Cell(text=f"{delta:g}", value=delta)
    return {"epsilon": own, "delta": told, "cumulative": total}


def epsilon_cell(settings: Mapping[str, Any], rounds: Sequence[Mapping[str, str]], lineage: Lineage) -> Cell:
    """What the lineage of the run spent per patient, or why there is no guarantee."""
    declared = settings.get("privacy")
    if not declared:
        return Cell(text=PLAIN)
    if declared.get("insecure-seed") is not None:
        return Cell(text=INSECURE)
    spent = [float(row["epsilon"]) for row in rounds if row.get("epsilon")]
    own = lineage.runs[-1].patients if lineage.runs and lineage.runs[-1].training == "private" else ()
    here = max([*(spent or [float(declared["epsilon"])]), *(group.epsilon for group in own)])
    if "start" in settings and len(lineage.runs) < 2:
        return Cell(text=NO_GUARANTEE, why="the run goes on from another and does not say what that cost whom")
    if lineage.exposed:
        return Cell(text=NO_GUARANTEE, why=f"it goes on from {lineage.guarantee().why}")
    return _of_lineage(here, lineage)


def delta_of(settings: Mapping[str, Any], lineage: Lineage) -> float | None:
    """The delta at which that epsilon holds; None where the run does not say it."""
    if len(lineage.counted) > 1 and not lineage.exposed:
        return lineage.guarantee().delta
    declared: Mapping[str, Any] = settings.get("privacy") or {}
    return None if "delta" not in declared else float(declared["delta"])


def _of_lineage(here: float, lineage: Lineage) -> Cell:
    """The run's own epsilon, or the whole lineage's where others count; what rests on a user's word or a secure sum."""
    earlier = len(lineage.counted) > 1
    total = lineage.guarantee().epsilon if earlier else here
    assert total is not None  # exposed lineages are told before
    notes = [f"this run alone {rounded_up(here, 3):g}"] if earlier else []
    notes += ["declared public: " + ", ".join(run.run for run in lineage.declared)] if lineage.declared else []
    notes += sorted({f"only against {against}" for _, against in lineage.assumptions})
    return Cell(text=f"{rounded_up(total, 3):g}" + (f" ({'; '.join(notes)})" if notes else ""), value=total)


def _cumulative(run: Run, declared: Mapping[str, Any], hospitals: Hospitals | None, lineage: Lineage) -> Cell:
    """What the patient who paid most has spent over all runs; with a reason where that is a part of it at best."""
    store = Path(declared["store"]) if "store" in declared else None
    try:
        found = statement(run.folder, store=store)["per_site"]
    except FedSynthError:
        return Cell(text="-", why="no ledger: phantoms need none, and a hospital's own stays with it")
    without = [name for name in (hospitals.trained if hospitals else ()) if name not in found]
    unknown = [f"the ledger of {', '.join(without)} is not here"] if without else []
    if aside := [name for name, one in found.items() if "why" in one and one["private"]]:  # it names the store's path
        unknown.append(
            f"the store does not know this run at {', '.join(aside)}: what was spent elsewhere is not counted"
        )
    known = Identities(default_store() if store is None else store)
    unknown += [
        f"what patients of {earlier.run} spent elsewhere is not counted"
        for earlier in lineage.counted[:-1]
        if any(group.site not in found or known.tags(group.digest) is None for group in earlier.patients)
    ]
    totals = [one["epsilon"] for one in found.values()]
    totals += [lineage.guarantee().epsilon] if len(lineage.counted) > 1 else []
    if not totals or None in totals:
        return Cell(text="?", why="; ".join([*unknown, "a run of theirs had no guarantee at all"]))
    most = max(totals)
    text = f"{rounded_up(most, 3):g}"
    return Cell(text=f"at least {text}" if unknown else text, value=most, why="; ".join(unknown))


def leakage_cells(results: Mapping[str, Result]) -> dict[str, Cell]:
    """What the tests of leakage found."""
    memory = results.get("memorization")
    verdict = Cell(text=NOT_RUN, why=NOT_RUN) if memory is None else Cell(text=str(memory.verdict))
    return {
        "audit": _cell(results.get("audit-mechanism", results.get("audit")), "epsilon_lower_bound", interval=False),
        "verdict": verdict,
        "copied": _cell(memory, "copied_share"),
        "recognised": _cell(memory, "recognised_members"),
        "detectable": _cell(memory, "minimal_detectable_share", interval=False),
        "membership": _strongest(results.get("membership")),
    }


def _strongest(result: Result | None) -> Cell:
    """The attack that told members apart best: the worst case is what a hospital asks for."""
    name = "" if result is None else str(result.details.get("strongest", ""))
    cell = _cell(result, name)
    return cell if cell.value is None else Cell(text=f"{cell.text} ({name})", value=cell.value)


def utility_cells(results: Mapping[str, Result], arm: str) -> dict[str, Cell]:
    """What the images are good for, each beside the best control or what real images give."""
    segmentation, classification = results.get("segmentation"), results.get("classification")

    def of(result: Result | None, measure: str) -> Cell:
        return _cell(result, *_names(measure, arm))

    return {
        "dice": _beside_baseline(of(segmentation, "dice")),
        "fp_area": _beside_real(of(segmentation, "fp_area")),
        "dice_mean": _beside_baseline(of(segmentation, "dice_mean")),
        "slice_dice": _beside_baseline(of(segmentation, "brats_slice_dice")),
        "dice_ratio": of(segmentation, "dice_ratio"),
        "dice_skill": of(segmentation, "dice_skill"),
        "accuracy": _beside_baseline(of(classification, "accuracy")),
        "accuracy_ratio": of(classification, "accuracy_ratio"),
        "accuracy_skill": of(classification, "accuracy_skill"),
        "over_public": of(segmentation, "dice_over_public"),
        "over_placebo": of(segmentation, "dice_over_placebo"),
        "kid": _beside_real(_cell(results.get("fidelity"), "kid/filters")),
        "readers": _cell(results.get("readers"), "accuracy"),
    }


def _beside_baseline(cell: Cell) -> Cell:
    if cell.value is None or cell.baseline is None:
        return cell
    verdict = f", {NO_BETTER}" if cell.is_trivial else ""
    return replace(cell, text=f"{cell.text} ({cell.baseline:.3g}){verdict}")


def _beside_real(cell: Cell) -> Cell:
    return (
        cell if cell.value is None or cell.control is None else replace(cell, text=f"{cell.text} ({cell.control:.3g})")
    )


def _names(measure: str, arm: str) -> tuple[str, str]:
    return f"{measure}/{arm}", f"{measure}/{arm}+augmentation"


def _cell(result: Result | None, *names: str, interval: bool = True) -> Cell:
    """The first of the named scores that the result has."""
    if result is None:
        return Cell(text=NOT_RUN, why=NOT_RUN)
    score = next((result.scores[name] for name in names if name in result.scores), None)
    if score is None:
        return Cell(text="-", why=f"{result.benchmark} did not measure it")
    if score.value is None:
        return Cell(text="?", why=score.why)
    text = _text(score) if interval else f"{score.value:.3g}"
    cell = replace(Cell(text=text, value=score.value), low=score.low, high=score.high)
    return replace(cell, control=score.control, baseline=score.baseline)


def _text(score: Score) -> str:
    assert score.value is not None
    if score.low is None or score.high is None:
        return f"{score.value:.3g}"
    return f"{score.value:.3g} [{score.low:.3g}, {score.high:.3g}]"


def traffic_cell(rounds: list[dict[str, str]], settings: Mapping[str, Any]) -> Cell:
    """What went over the wire."""
    if "federation" not in settings:
        return Cell(text="images centralised", why="a centralised run moves the images themselves")
    total = sum(int(row[name] or 0) for row in rounds for name in ("bytes_up", "bytes_down")) / 1e6
    return Cell(text=f"{total:.1f}", value=total)


def seconds_cell(rounds: list[dict[str, str]], *, private: bool) -> Cell:
    """The slowest site of each round counts: they work at the same time."""
    times: dict[str, float] = {}
    for row in rounds:
        if row.get("seconds"):
            times[row["round"]] = max(times.get(row["round"], 0.0), float(row["seconds"]))
    if not times:
        why = (
            "private runs are not timed: time tells how many patients were drawn" if private else "nothing was trained"
        )
        return Cell(text="-", why=why)
    total = sum(times.values())
    return Cell(text=f"{total:.0f}", value=total)
