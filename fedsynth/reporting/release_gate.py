"""The release gate: a synthetic set leaves only when every criterion that a hospital wrote down is met.

What was not measured is not met. The set goes out with a card that says what it is and what it is not.
"""

import math
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedsynth import atomic_files
from fedsynth.config import parse_toml
from fedsynth.data import ImageSet
from fedsynth.data.export import Format, export
from fedsynth.data.huggingface import front_matter
from fedsynth.errors import ConfigError, nearest
from fedsynth.evaluation.result_owner import synthetic_hash
from fedsynth.evaluation.score import Result, Score, content_hash
from fedsynth.privacy.accounting import rounded_up
from fedsynth.reporting.answer import LIMITS, NOT_PRIVATE_OUTPUT, lineage_lines
from fedsynth.reporting.comparison import mixed
from fedsynth.reporting.signed_manifest import sign_folder
from fedsynth.reporting.summary import BENCHMARKS, ELSEWHERE, Facts
from fedsynth.reporting.usefulness import patients_added
from fedsynth.training.checkpoint import CARD as CHECKPOINT_CARD

VERDICTS = ("pass", "leak", "depends", "inconclusive", "invalid", "fail", "no contradiction found")
LEAKAGE = ("memorization", "membership")
JUDGED = ("memorization", "membership", "audit", "audit-mechanism")
STRONGEST = "strongest"
KINDS = ("real", "synthetic")
TOLD: dict[str, tuple[str, ...]] = {
    "segmentation": tuple(
        f"{name}/synthetic*"
        for name in ("dice", "fp_area", "dice_mean", "brats_slice_dice", "dice_ratio", "dice_skill")
    ),
    "classification": ("accuracy/synthetic*", "accuracy_ratio/synthetic*", "accuracy_skill/synthetic*"),
    "readers": ("accuracy", *(f"{what}/{kind}" for what in ("called_real", "quality", "plausible") for kind in KINDS)),
}
"""The scores that a card tells, by the patterns of their names; of other benchmarks all. No reader's name is one."""

CARD = "README.md"
GATE_ANSWER = (
    "The gate's own answer depends on real patients and no epsilon covers it: released or not is one bit about them, "
    "and every other set that it is asked about tells another bit."
)
MADE_BY = ("generator", "trained-on", "privacy", "steps")
"""What a generator's card and the sets that it draws both say."""


@dataclass(frozen=True, kw_only=True)
class Criteria:
    """What must hold. `verdicts` names benchmarks and the verdicts that let a set pass.

    Both of leakage must pass unless it names them: what it does not name stays as it is, so that nothing is dropped by
    leaving it out.

    `most` and `least` bound scores as `benchmark.score`: the worse end of the interval counts, where there is one.
    `membership.strongest` is the attack that told members apart best, whichever that was.
    `max_epsilon` of 0 asks for no guarantee; anything else refuses runs without one. It bounds what patients have spent
    over all runs, which must be known; with `this_run_alone`, as where hospitals keep their ledgers, this run only.
    """

    verdicts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    most: dict[str, float] = field(default_factory=dict)
    least: dict[str, float] = field(default_factory=dict)
    max_epsilon: float = 0.0
    this_run_alone: bool = False
    licence: str = "not stated"
    contact: str = "not stated"

    def __post_init__(self) -> None:
        for name, accepted in self.verdicts.items():
            if name not in BENCHMARKS:
                raise ConfigError("there is no such benchmark", value=name, remedy=nearest(name, BENCHMARKS))
            for verdict in accepted:
                if verdict not in VERDICTS:
                    raise ConfigError("there is no such verdict", value=verdict, remedy=nearest(verdict, VERDICTS))
            if name not in JUDGED:
                remedy = f"bound a score of it, as in [most] or [least]; verdicts have {', '.join(JUDGED)}"
                raise ConfigError("the benchmark has scores and no verdict", value=name, remedy=remedy)
        for name, bound in (*self.most.items(), *self.least.items(), ("max-epsilon", self.max_epsilon)):
            if math.isnan(bound):
                raise ConfigError(f"the bound {name!r} is not a number: nothing would ever exceed it", value=bound)
        for name in (*self.most, *self.least):
            if name.split(".")[0] not in BENCHMARKS or "." not in name:
                remedy = "write benchmark.score, as in membership.discriminator"
                raise ConfigError("a bound names no score of a benchmark", value=name, remedy=remedy)
        if self.max_epsilon < 0:
            raise ConfigError("'max-epsilon' must not be negative", value=self.max_epsilon)

    @property
    def required(self) -> dict[str, tuple[str, ...]]:
        """By benchmark, the verdicts that are accepted."""
        return {**dict.fromkeys(LEAKAGE, ("pass",)), **self.verdicts}


def objections(facts: Facts, criteria: Criteria, synthetic: ImageSet) -> list[str]:
    """Why the set may not leave; empty when it may. A bound on a score that a benchmark does not have is an error."""
    found = [*facts.damaged, *mixed(facts)]
    for name, accepted in criteria.required.items():
        result = facts.results.get(name)
        if name in facts.strange:
            found.append(f"{name} was measured on another set than the one in the run: run it again")
        elif result is None:
            found.append(f"{name} was not run")
        elif result.verdict not in accepted:
            found.append(f"{name}: the verdict is {result.verdict}, not {' or '.join(accepted)}")
    found += [f for name, bound in criteria.most.items() if (f := _objection(facts, name, most=bound))]
    found += [f for name, bound in criteria.least.items() if (f := _objection(facts, name, least=bound))]
    found += _about_epsilon(facts, criteria)
    found += _about_maker(facts, synthetic)
    measured = {r.inputs["synthetic"].sha256 for r in facts.results.values() if "synthetic" in r.inputs}
    if measured and measured != {content_hash(synthetic)}:
        found.append("the synthetic set is not the one that was measured: run the benchmarks again")
    return found


def release(
    facts: Facts,
    criteria: Criteria,
    synthetic: ImageSet,
    out: Path,
    *,
    form: Format | None = None,
    key: Ed25519PrivateKey | None = None,
) -> None:
    """Copy the set out, as an image set or in the form that a receiver wants, with its card and a manifest.

    Whoever calls this has looked at `objections`. A `key` signs the manifest.
    """
    if form is None:
        synthetic.save(out)
    else:
        export(synthetic, out, form, licence=criteria.licence)
    top = front_matter(synthetic, criteria.licence) if form == "huggingface" else ""
    atomic_files.write_text(out / CARD, top + card(facts, criteria, synthetic))
    sign_folder(out, _release(facts, criteria, synthetic), key)


def _release(facts: Facts, criteria: Criteria, synthetic: ImageSet) -> dict[str, Any]:
    """What the manifest says of the release, for programs; the card says it for people."""
    return {
        "name": synthetic.header.name,
        "images": len(synthetic),
        "content": content_hash(synthetic),
        "epsilon": facts.cells["epsilon"].text,
        "measured-against": _real_sets(facts),
        "verdicts": {name: result.verdict for name, result in facts.results.items() if result.verdict},
        "licence": criteria.licence,
        "contact": criteria.contact,
    }


def _real_sets(facts: Facts) -> str:
    """The content of the real images that results are of, which a hospital can compare with its own set's."""
    found = {result.inputs["real"].sha256[:16] for result in facts.results.values() if "real" in result.inputs}
    return ", ".join(sorted(found)) or "nothing"


def card(facts: Facts, criteria: Criteria, synthetic: ImageSet) -> str:
    """What it is, how it was made, what was measured, and what that does not mean."""
    header = synthetic.header
    lines = [
        f"# {header.name}",
        "",
        f"{len(synthetic)} synthetic images of {' x '.join(map(str, synthetic.size))} voxels; channels "
        f"{', '.join(header.channels)}; classes {', '.join(header.classes) or 'none'}; labels "
        f"{', '.join(header.mask_labels) or 'none'}. No image shows a person as such; none is for diagnosis.",
        "",
        "## How it was made",
        *_origin(facts),
        "",
        "## What was measured",
        f"- Against real images with the hash {_real_sets(facts)}. {_whether_trained_on(facts)}",
        *(f"- {name}: {_told(facts, name)}" for name in BENCHMARKS if name in facts.results),
        *(f"- {sentence}" for sentence in patients_added(facts.results)),
        "",
        "## Limits",
        f"- {NOT_PRIVATE_OUTPUT}",
        f"- {GATE_ANSWER}",
        *(f"- {limit}" for limit in LIMITS),
        "",
        f"Licence: {criteria.licence}. Contact: {criteria.contact}.",
    ]
    return "\n".join(lines) + "\n"


def _whether_trained_on(facts: Facts) -> str:
    """Results say something of patients whom the generator was trained on; of others they say nothing."""
    if facts.cells["epsilon"].why == ELSEWHERE:
        return (
            "Whether the generator was trained on these patients is not known: of other patients nothing was measured."
        )
    return "The generator was trained on the members among them."


def _origin(facts: Facts) -> list[str]:
    cells = facts.cells
    if cells["epsilon"].why == ELSEWHERE:
        return ["Not known: the set was made elsewhere. Whether there is any guarantee of privacy is not known either."]
    where = "over the whole lineage of the run" if len(facts.lineage.counted) > 1 else "in this run"
    return [
        f"Generator `{cells['generator'].text}`, {cells['federation'].text}.",
        f"Privacy per patient: epsilon {cells['epsilon'].text} {where}; over all runs {_over_all(facts)}.",
        *lineage_lines(facts),
    ]


def _over_all(facts: Facts) -> str:
    total = facts.cells["cumulative"]
    if facts.public and total.value is None:
        return "nothing is spent, as phantoms are nobody"
    return total.text if total.value is not None and not total.why else f"not known ({total.why or total.text})"


def _told(facts: Facts, name: str) -> str:
    result = facts.results[name]
    verdict = f"{result.verdict}; " if result.verdict else ""
    known = {key: score for key, score in result.scores.items() if score.value is not None}
    if STRONGEST in result.details:
        known = {key: score for key, score in known.items() if key == result.details[STRONGEST]}
    wanted = [key for key in known if any(fnmatchcase(key, pattern) for pattern in TOLD.get(name, ("*",)))]
    effect = result.details.get("effect", {}).get("sentence", "")
    return verdict + ", ".join(f"{key} {known[key]}" for key in wanted[:8]) + (f". {effect}" if effect else "")


def _objection(facts: Facts, name: str, *, most: float | None = None, least: float | None = None) -> str:
    benchmark, _, key = name.partition(".")
    result = facts.results.get(benchmark)
    if result is None:
        return f"{name} is not known: {benchmark} was not run"
    score = _score(result, key)
    if score.value is None:
        return f"{name} is not known: {score.why}"
    worst = _worst(score, high=most is not None)
    if most is not None and worst > most:
        return f"{name} is up to {worst:.3g}, more than {most:g}"
    if least is not None and worst < least:
        return f"{name} may be as low as {worst:.3g}, less than {least:g}"
    return ""


def _score(result: Result, key: str) -> Score:
    if key == STRONGEST and result.benchmark == "membership":
        key = str(result.details.get(STRONGEST, key))
    if key not in result.scores:
        problem = f"a bound names a score that {result.benchmark} does not have"
        raise ConfigError(problem, value=key, remedy=nearest(key, result.scores))
    return result.scores[key]


def _worst(score: Score, *, high: bool) -> float:
    end = score.high if high else score.low
    assert score.value is not None
    return score.value if end is None else end


def _about_maker(facts: Facts, synthetic: ImageSet) -> list[str]:
    """What a run says of itself is true of the set that its generator drew into it, and of no other."""
    if not facts.run.config.is_file():
        return []
    if synthetic_hash(facts.run) != content_hash(synthetic):
        return [f"the set is not the one in {facts.run.synthetic}: what the run says of epsilon is not said of it"]
    made, card = synthetic.header.provenance, parse_toml(facts.run.checkpoints / CHECKPOINT_CARD)
    if made.get("federation") == "none":  # every hospital's generator drew a share, and each has a card of its own
        return []
    wrong = [
        key for key in MADE_BY if key in card and (key in made or card.get("private")) and made.get(key) != card[key]
    ]
    return [f"the set says of itself that another generator made it: {key} {made.get(key)!r}" for key in wrong[:1]]


def _about_epsilon(facts: Facts, criteria: Criteria) -> list[str]:
    if not criteria.max_epsilon:
        return []
    spent = facts.cells["epsilon"]
    if spent.value is None:
        is_what = spent.why or f"the run is {spent.text}"
        return [f"a guarantee of epsilon {criteria.max_epsilon:g} is asked for, and {is_what}"]
    total = facts.cells["cumulative"]
    worst = max(spent.value, total.value or 0.0)
    if worst > criteria.max_epsilon:
        return [f"patients have spent epsilon {rounded_up(worst, 3):g}, more than {criteria.max_epsilon:g}"]
    if facts.public or criteria.this_run_alone or (total.value is not None and not total.why):
        return []
    return [
        f"what patients have spent over all runs is not known: {total.why} ('this-run-alone' asks for this run only)"
    ]
