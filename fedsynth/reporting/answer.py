"""The question first: may these images be shared? Answered from the results that there are, never beyond them.

It decides nothing that the benchmarks left open: what was not measured is said to be missing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fedsynth.reporting.comparison import mixed
from fedsynth.reporting.short_table import delta_in_brief, strongest_attack
from fedsynth.reporting.summary import ELSEWHERE, Facts
from fedsynth.reporting.table_cells import INSECURE, NO_GUARANTEE, PLAIN
from fedsynth.reporting.usefulness import (
    TASKS,
    added_in_brief,
    patients_added,
    use_in_brief,
    use_of,
    use_sentences,
)

QUESTION = "May these images be shared instead of the real ones?"
LEAKAGE, ADDED, GUARANTEE, USE, RESULTS = "Leakage", "Patients added", "Guarantee", "Use", "Results"
NOT_PRIVATE_OUTPUT = (
    "Numbers measured on real patients are not themselves private outputs: epsilon covers the generator and what is "
    "drawn from it, not this page."
)
LIMITS = (
    "A test that found nothing is no proof: it found nothing that it could have found, as large as it says.",
    "A model trained on these images must be tested on real patients before anybody relies on it.",
)
"""What holds of every set; the card of a release says it too."""

DISCRIMINATOR = "discriminator"
FEW_TRAININGS = 3
"""With fewer of each arm no difference is claimed."""

ASKS = {
    "memorization": "copies of patients",
    "membership": "whether members can be told from others",
    "segmentation": "use for segmentation",
    "classification": "use for classification",
    "fidelity": "likeness to real images and variety",
    "readers": "reading by physicians",
}
NEVER_ASKED = ("attributes of a patient that an image gives away", "other hospitals' patients")

COPIES = {
    "pass": "no copies were found",
    "depends": "the images depend on who was trained on",
    "invalid": "the test for copies did not hold its controls",
    "inconclusive": "there was too little to look for copies with",
}
"""What the test of memorization found besides a leak, beside what speaks against a set."""

OPEN = {
    "depends": "Not without a guarantee: the images depend on who was trained on",
    "invalid": "Unknown: the test itself did not hold its controls",
    "inconclusive": "Unknown: there was too little to measure with",
}
"""Headlines where nothing is known to speak against a set, by the verdict on memorization."""

Tone = Literal["yes", "no", "open"]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One question of a data steward: a `brief` answer for a first look, and the `sentences` that it rests on."""

    question: str
    brief: str
    sentences: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A short answer, how it is meant, the questions behind it, and what nobody tested."""

    headline: str
    tone: Tone
    parts: Sequence[Part] = ()
    untested: Sequence[str] = ()

    @property
    def sentences(self) -> list[str]:
        """All of them, in the order of the questions."""
        return [sentence for part in self.parts for sentence in part.sentences]


def answer(facts: Facts) -> Answer:
    """From what leaked first, then the guarantee, then what the images are good for."""
    if facts.unfinished:
        return Answer(headline=f"Unknown: {facts.cells['generator'].text}", tone="open")
    headline, tone = _headline(facts)
    brief, guarantee = _guarantee(facts)
    apart = apart_from_the_set(facts)
    parts = [
        Part(question=RESULTS, brief="; ".join(apart), sentences=[f"{one[:1].upper()}{one[1:]}." for one in apart]),
        Part(question=LEAKAGE, brief=headline, sentences=[*_leak(facts), *_membership(facts)]),
        Part(question=ADDED, brief=added_in_brief(facts.results), sentences=patients_added(facts.results)),
        Part(question=GUARANTEE, brief=brief, sentences=[guarantee, *lineage_lines(facts), *_hospitals(facts)]),
        Part(question=USE, brief=use_in_brief(facts, headline), sentences=use_sentences(facts)),
    ]
    return Answer(
        headline=headline, tone=tone, parts=[part for part in parts if part.sentences], untested=untested(facts)
    )


def untested(facts: Facts) -> list[str]:
    """What no result here says anything about, the gravest first."""
    missing = [what for name, what in ASKS.items() if name not in facts.results]
    undecided = [
        f"{what} ({facts.results[name].verdict})"
        for name, what in ASKS.items()
        if name in facts.results and facts.results[name].verdict in ("inconclusive", "invalid")
    ]
    trained = [int(facts.results[name].settings.get("seeds", FEW_TRAININGS)) for name in TASKS if name in facts.results]
    few = min(trained, default=FEW_TRAININGS)
    again = [f"other trainings ({'one' if few == 1 else few} of each)"] if few < FEW_TRAININGS else []
    return [*undecided, *missing, *again, *NEVER_ASKED]


def apart_from_the_set(facts: Facts) -> list[str]:
    """Which results are not of this set, or of another than the rest, or cannot be read: they answer nothing together.

    A damaged file is not named: the name is a path.
    """
    found = mixed(facts)
    if facts.strange:
        found.append(f"{', '.join(facts.strange)} was measured on another set than the one in the run: run it again")
    if facts.damaged:
        n = len(facts.damaged)
        found.append(f"{n} result{'' if n == 1 else 's'} cannot be read: run the benchmarks again")
    return found


def _headline(facts: Facts) -> tuple[str, Tone]:
    """What speaks against the set first, whatever else is known; a yes only where nothing is open."""
    verdicts = {name: result.verdict for name, result in facts.results.items()}
    if against := _against(facts, verdicts.get("memorization"), verdicts.get("membership")):
        return f"No: {against}", "no"
    if apart_from_the_set(facts):
        return "Unknown: the results do not belong together", "open"
    if verdicts.get("memorization") != "pass":
        return OPEN.get(str(verdicts.get("memorization")), "Unknown: the leakage test was not run"), "open"
    if open_because := _open_because(facts, verdicts.get("membership")):
        return f"No copies were found{open_because}", "open"
    return "The tests found no copies, and would have found them at the tolerated share", "yes"


def _against(facts: Facts, memory: str | None, membership: str | None) -> str:
    """Copies, members who can be told from others, and an audit that failed: all that were found."""
    found = ["the set holds copies of patients"] if memory == "leak" else []
    if membership == "leak":
        attack = strongest_attack(facts)
        found.append(f"members can be told from others{f' by {attack}' if attack else ''}")
    if facts.refuted_by is not None:
        found.append("the audit contradicts the guarantee")
    if not found or memory == "leak":
        return ", and ".join(found)
    return f"{', and '.join(found)}; {COPIES.get(str(memory), 'the test for copies was not run')}"


def _open_because(facts: Facts, membership: str | None) -> str:
    """Tests alone never make a yes: noise is nobody's copy, and who asks wants images that are good for something."""
    use = use_of(facts)
    if facts.cells["epsilon"].text == INSECURE:
        return ", but the run is NOT PRIVATE: its randomness can be repeated"
    if facts.cells["epsilon"].text == NO_GUARANTEE or any(
        run in facts.lineage.exposed for run in facts.lineage.runs[:-1]
    ):
        return ", but the weights come from a run without a guarantee, and nobody tested for its patients"
    if use.reasons:
        return f", but {'the images are of no use that was measured: ' if use.none else ''}{'; '.join(use.reasons)}"
    if membership != "pass":
        return "; whether those who were trained on can be told from others is not known"
    if not use.measured:
        return "; what the images are good for was not measured"
    if use.unknown:
        return f"; what the images are good for is not known: {'; '.join(use.unknown)}"
    return ""


def _leak(facts: Facts) -> list[str]:
    """The benchmark's own sentences, and how much single patients are told, which not all of its verdicts hold."""
    if "memorization" not in facts.results:
        return ["Run the test first: fedsynth benchmark memorization RUN"]
    details = facts.results["memorization"].details
    effect = details.get("effect", {}).get("sentence", "")
    said = [f"Memorization: {facts.cells['verdict'].text}.", *details.get("sentences", ())]
    return said if not effect or effect in said else [*said, effect]


def _membership(facts: Facts) -> list[str]:
    result = facts.results.get("membership")
    if result is None:
        return []
    said = f"Membership: {result.verdict or 'no verdict'}."
    words = str(
        result.details.get("words", f"The strongest attack reaches an AUC of {facts.cells['membership'].text}.")
    )
    server = "That attack needs the networks: the server has them, who gets the images has not."
    return [said, words, *([server] if result.details.get("strongest") == DISCRIMINATOR else [])]


def _guarantee(facts: Facts) -> tuple[str, str]:
    """In brief, and as a sentence."""
    epsilon = facts.cells["epsilon"]
    if epsilon.why == ELSEWHERE:
        return "Not known: made elsewhere", "Whether there is a guarantee is not known: the set was made elsewhere."
    why = {
        PLAIN: "trained without differential privacy",
        INSECURE: "the run's randomness can be repeated",
        NO_GUARANTEE: epsilon.why,
    }.get(epsilon.text)
    if why is not None:
        look = " Tests can only look." if epsilon.text == PLAIN else ""
        return f"None: {why}", f"There is no guarantee: {why}.{look}"
    if (audit := facts.refuted_by) is not None:
        lower = audit.scores.get("epsilon_lower_bound")
        bound = "" if lower is None or lower.value is None else f": it found epsilon {lower.value:.3g} at least"
        said = f"Epsilon {epsilon.text} per patient is contradicted by the audit{bound}"
        return f"Contradicted by the audit{bound}", f"{said}."
    total = facts.cells["cumulative"]
    over_all = f"over all runs {total.text}" if total.value is not None else f"over all runs: {total.why}"
    where = "over the whole lineage of this run" if len(facts.lineage.counted) > 1 else "in this run"
    said = f"Epsilon {epsilon.text} at {delta_in_brief(facts)} per patient {where}"
    return said, f"{said}; {over_all}."


def lineage_lines(facts: Facts) -> list[str]:
    """Where the weights came from, run by run; nothing where the run began from fresh ones."""
    return [f"Lineage: {line}." for line in facts.lineage.history()] if len(facts.lineage.runs) > 1 else []


def _hospitals(facts: Facts) -> list[str]:
    """Who was asked and did not train: the images say nothing of their patients."""
    told = facts.hospitals
    if told is None or len(told.trained) >= told.asked:
        return []
    return [f"Trained by {told}. The images hold nothing of those who did not train."]
