"""The words of the report page: each defined once in plain words, and footnotes, both listed at the foot where used."""

from collections.abc import Mapping
from dataclasses import dataclass, field

TERMS: Mapping[str, tuple[str, str]] = {
    "epsilon": (
        "Epsilon",
        "The size of the guarantee of differential privacy: whether one patient took part changes the probability of "
        "any output by at most a factor e to the power of epsilon, up to delta. Delta is a small probability, such as "
        "0.00001, by which that may be exceeded. Smaller protects more; without a number there is no guarantee.",
    ),
    "memorization": (
        "Memorization",
        "The images depend on who was in the training data, or copy somebody. A synthetic image counts as a copy where "
        "it lies clearly nearer to one patient than real images lie to each other.",
    ),
    "membership": (
        "Membership inference",
        "An attacker tries to tell patients who were trained on from patients who were never seen. AUC: 0.5 is "
        "guessing, 1 is always right.",
    ),
    "dice": (
        "Dice",
        "Twice the overlap of two masks over their sum: 1 where a network marks exactly what the expert marked, 0 "
        "where nothing overlaps.",
    ),
    "accuracy": ("Accuracy", "The share of images whose class a classifier tells right."),
    "ratio": (
        "Ratio to real",
        "The score of a network trained on synthetic images over that of one trained on real images, both measured on "
        "the same real holdout patients. 100 % is as good as real images.",
    ),
    "baseline": (
        "Trivial baseline",
        "What needs no learning: always the most frequent class, a threshold, one mean image with bright lesions. "
        "Images after which a network does no better are of no use for the task.",
    ),
    "public": (
        "Public images",
        "Images that show no patient of these hospitals, as of a simulator. What they teach needs no patient's image.",
    ),
    "placebo": (
        "Placebo",
        "The same procedure fitted to a random direction in place of the patients: it shows what the procedure gives "
        "without them.",
    ),
    "interval": (
        "95 % interval",
        "A range that holds the true value in 95 of 100 such measurements; over patients and trainings unless it says "
        "otherwise.",
    ),
    "holdout": ("Holdout", "Real patients who were never trained on, only measured against."),
    "member": ("Member", "A patient whose images were trained on."),
}
"""By key: the term as docs/glossary.md has it, and what it means to somebody who has not read it."""

NOTES: Mapping[str, str] = {
    "intervals": (
        "95 % intervals; of Dice, accuracy and false positives over holdout patients and trainings, of membership over "
        "members and holdout patients, of KID over holdout patients and synthetic images, of the copied share over "
        "synthetic images, of readers over the images shown. What has no interval beside it has none, and what another "
        "training of the same generator would give is in none."
    ),
    "columns": (
        "Round brackets: as the column says. Skill: 0 is the best control, 1 is real images. Delta is that of "
        "epsilon, not of what all runs spent."
    ),
    "groups": (
        "Groups are looked at after the fact and each has few patients: an interval that lies apart is a reason to "
        "look, not a finding. Groups of fewer than six patients are not shown."
    ),
}


@dataclass
class Words:
    """Which terms and footnotes a page has used so far, in order; the template asks as it goes."""

    terms: dict[str, None] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)
    tips: int = 0

    def tip(self) -> str:
        """An identifier for the next definition beside a term."""
        self.tips += 1
        return f"tip-{self.tips}"

    def term(self, key: str) -> str:
        """The definition of a term, which the glossary will list."""
        self.terms[key] = None
        return TERMS[key][1]

    def note(self, key: str) -> int:
        """The number of a footnote, which the foot will tell."""
        self.notes[key] = None
        return list(self.notes).index(key) + 1

    @property
    def glossary(self) -> list[tuple[str, str, str]]:
        """Key, term and definition, by name."""
        return sorted(((key, *TERMS[key]) for key in self.terms), key=lambda one: one[1].lower())
