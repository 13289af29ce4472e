"""The question first: may these images be shared? Answered from the results that there are, never beyond them.

It decides nothing that the benchmarks left open: what was not measured is said to be missing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fedsynth.reporting.summary import ELSEWHERE, Facts
from fedsynth.reporting.table_cells import INSECURE, NO_GUARANTEE, PLAIN
from fedsynth.reporting.usefulness import (
    TASKS,
    Use,
    added_in_brief,
    patients_added,
    use_in_brief,
    use_of,
    use_sentences,
)

QUESTION = "May these images be shared instead of the real ones?"
LEAKAGE, ADDED, GUARANTEE, USE = "Leakage", "Patients added", "Guarantee", "Use"
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
    memory, membership = (facts.results.get(name) for name in ("memorization", "membership"))
    verdict = None if memory is None else memory.verdict
    if verdict == "pass":
        headline, tone = _without_copies(None if membership is None else membership.verdict, use_of(facts))
    else:
        headline, tone = _headline(verdict)
    brief, guarantee = _guarantee(facts)
    parts = [
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


def _without_copies(membership: str | None, use: Use) -> tuple[str, Tone]:
    """Tests alone never make a yes: noise is nobody's copy, and who asks wants images that are good for something."""
    if membership == "leak":
        return "No copies were found, but those who were trained on can be told from others", "open"
    if use.reasons:
        how = "of no use that was measured" if use.none else "of no use for everything that was measured"
        return f"No copies were found, but the images are {how}: {'; '.join(use.reasons)}", "open"
    if membership != "pass":
        return "No copies were found; whether those who were trained on can be told from others is not known", "open"
    if not use.measured:
        return "No copies were found; what the images are good for was not measured", "open"
    return "The tests found no copies, and would have found them at the tolerated share", "yes"


def _headline(verdict: str | None) -> tuple[str, Tone]:
    if verdict == "leak":
        return "No: the set holds copies of patients", "no"
    if verdict == "depends":
        return "Not without a guarantee: the images depend on who was trained on", "open"
    if verdict == "invalid":
        return "Unknown: the test itself did not hold its controls", "open"
    if verdict == "inconclusive":
        return "Unknown: there was too little to measure with", "open"
    return "Unknown: the leakage test was not run", "open"


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
    total = facts.cells["cumulative"]
    over_all = f"over all runs {total.text}" if total.value is not None else f"over all runs: {total.why}"
    where = "over the whole lineage of this run" if len(facts.lineage.counted) > 1 else "in this run"
    said = f"Epsilon {epsilon.text} per patient {where}"
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
