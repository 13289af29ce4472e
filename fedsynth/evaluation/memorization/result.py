"""The memorization benchmark's findings in the published form of results. docs/leakage.md tells every field."""

from dataclasses import asdict
from typing import Any

from fedsynth.evaluation.bootstrap import clopper_pearson
from fedsynth.evaluation.feature_spaces import reidentification
from fedsynth.evaluation.memorization.benchmark import Memorization
from fedsynth.evaluation.memorization.negative_controls import BLIND_LEVEL
from fedsynth.evaluation.memorization.positive_controls import Power, ladder, smallest_share
from fedsynth.evaluation.memorization.replication import Copies, in_both_roles, without
from fedsynth.evaluation.score import Input, Result, Score

NAME = "memorization"


def as_result(found: Memorization) -> Result:
    """The published form; docs/leakage.md tells every field."""
    people, copies, telling = found.evidence.cohort, found.copies, _telling(found)
    return Result(
        benchmark=NAME,
        verdict=found.verdict.verdict,
        scores={
            "copied_share": found.share,
            "recognised_members": found.effect.recognised,
            "minimal_detectable_share": _detectable_score(found),
            **{f"detection_power/{kind}": _power_score(power) for kind, power in found.powers.items()},
        },
        per_site=_per_site(found),
        details={
            "sentences": list(found.verdict.sentences),
            "notes": notes_of(found),
            "tolerance": found.settings.tolerance,
            "bound": found.bound,
            "effect": {
                "sentence": str(found.effect),
                "certain": found.effect.certain,
                "certain_of_holdout": found.effect.wrong,
                "epsilon_at_least": found.effect.epsilon,
            },
            "dependence": asdict(found.dependence) | {"rejects": found.dependence.rejects},
            "extraction": {
                "images": telling.of(people.member),
                "control_images": telling.of(~people.member),
                "images_of_both_roles": len(copies.rows) - len(telling.rows),
                "control_rate": telling.of(~people.member) / len(found.evidence.synthetic),
                "equal_to_a_real_image": found.equal,
                "why": copies.why,
                "thresholds": {name: asdict(threshold) for name, threshold in copies.thresholds.items()},
                "copies": _copies(found),
                "alike_patients": [[people.names[one], people.names[other]] for one, other in copies.twins],
            },
            "patients": {
                "rate": found.flagged.rate,
                "by_site": {site: list(names) for site, names in found.flagged.by_site.items()},
                "shortest_list": dict(found.flagged.shortest),
                "smallest_p": found.annotation.smallest,
            },
            "spaces": _spaces(found),
            "power": _powers(found),
            "controls": _controls_as_table(found),
            "comparators": {space: {k: asdict(v) for k, v in of.items()} for space, of in found.comparators.items()},
        },
        inputs={"real": Input.of(found.evidence.whole), "synthetic": Input.of(found.evidence.synthetic)},
        seed=found.settings.seed,
        settings=asdict(found.settings),
        seconds=found.seconds,
    )


def notes_of(found: Memorization) -> list[str]:
    """What a reader must know about the sets, names of patients left out."""
    member = found.evidence.cohort.member
    across = sum(bool(member[one] != member[other]) for one, other in found.copies.twins)
    notes = list(found.evidence.notes)
    if found.copies.twins:
        notes.append(
            f"{len(found.copies.twins)} pairs of patients are so alike that they may be one person each, {across} of "
            "them across members and holdout; they count as one (alike_patients)"
        )
    return notes


def _detectable_score(found: Memorization) -> Score:
    n = len(found.evidence.synthetic)
    if found.detectable is None:
        return Score(value=None, why=f"positive controls ({found.weakest or 'of any kind'}) are not found", n=n)
    return Score(value=found.detectable, baseline=1 / n, n=n)


def _power_score(power: Power) -> Score:
    low, high = clopper_pearson(power.found, power.inserted)
    return Score(value=power.share, low=low, high=high, baseline=0.0, n=power.inserted)


def _per_site(found: Memorization) -> dict[str, dict[str, Score]]:
    people, copies, n = found.evidence.cohort, _telling(found), len(found.evidence.synthetic)
    power_low = found.powers[found.weakest].low if found.weakest else 0.0
    scores: dict[str, dict[str, Score]] = {}
    for number, site in enumerate(people.sites):
        here = people.site == number
        hits, control = copies.of(here & people.member), copies.of(here & ~people.member)
        low, high = clopper_pearson(hits, n)
        high = min(1.0, high / power_low) if power_low else 1.0  # copies that were not seen included, as in `bound`
        p = found.dependence.per_site.get(site)
        few = found.dependence.why or "too few patients for a test of its own, or the only site"
        scores[site] = {
            "copied_images_share": Score(value=hits / n, low=low, high=high, baseline=0.0, control=control / n, n=n),
            "dependence_p": Score(value=p, why="" if p is not None else few, n=int(here.sum())),
            "flagged_patients": Score(value=len(found.flagged.by_site[site]), n=int((here & people.member).sum())),
        }
    return scores


def _telling(found: Memorization) -> Copies:
    return without(found.copies, in_both_roles(found.reference.person, found.evidence.cohort.member))


def _copies(found: Memorization) -> list[dict[str, Any]]:
    people, cases = found.evidence.cohort, found.evidence.synthetic.cases["case"]
    return [
        {
            "case": str(cases.iloc[row]),
            "patient": people.names[patient],
            "role": "member" if people.member[patient] else "holdout",
            "site": people.sites[people.site[patient]],
            "space": space,
            "ratio": float(ratio),
            "p": float(found.annotation.p[row]),
        }
        for row, patient, space, ratio in zip(
            found.copies.rows, found.copies.patients, found.copies.spaces, found.copies.ratios, strict=True
        )
    ]


def _spaces(found: Memorization) -> dict[str, Any]:
    return {
        name: {"reidentification": asdict(reidentification(space.space, found.evidence.real))}
        for name, space in found.measured.items()
    }


def _powers(found: Memorization) -> dict[str, Any]:
    n = len(found.evidence.synthetic)
    return {
        kind: {
            "power": power.share,
            "inserted": power.inserted,
            "by_space": {name: hits / power.inserted for name, hits in power.by_space.items()},
            "smallest_share": power.smallest_share(n),
            "smallest_share_by_space": {
                name: smallest_share(hits / power.inserted, n) for name, hits in power.by_space.items()
            },
            "ladder": ladder(power, n),
        }
        for kind, power in found.powers.items()
    }


def _controls_as_table(found: Memorization) -> dict[str, Any]:
    listed: dict[str, Any] = {name: asdict(control) for name, control in found.controls.items()}
    return listed | {"blind baseline": asdict(found.blind) | {"holds": not found.blind.rejects(BLIND_LEVEL)}}
