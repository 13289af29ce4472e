"""What sets one hospital apart from another: its scanner and its case mix. Knows nothing of brains or files."""

from dataclasses import dataclass, field, fields

from fedsynth.data.phantoms.appearance import Lesions
from fedsynth.errors import ConfigError

CLASSES = ("healthy", "low-grade", "high-grade")

_RANGES = {
    "gain": (0.2, 2.0),
    "contrast": (0.2, 2.0),
    "gamma": (0.3, 3.0),
    "shoulder": (0.0, 3.0),
    "bias": (0.0, 1.0),
    "noise": (0.0, 0.5),
    "blur": (0.0, 20.0),
}


@dataclass(frozen=True, kw_only=True)
class Scanner:
    """How one machine turns tissue into grey values of 0 to 1.

    Per channel, `gain` scales the brightness and `contrast` the differences between tissues. `gamma` bends the grey
    scale (above 1: darker middle), `shoulder` flattens its bright end, `bias` is the coil's uneven brightness
    (standard deviation, as a share), `noise` is the Rician noise (standard deviation, as a share of full white),
    `blur_mm` the in-plane resolution (full width at half maximum).
    """

    t1_gain: float = 1.0
    t2_gain: float = 1.0
    flair_gain: float = 1.0
    t1ce_gain: float = 1.0
    t1_contrast: float = 1.0
    t2_contrast: float = 1.0
    flair_contrast: float = 1.0
    t1ce_contrast: float = 1.0
    gamma: float = 1.0
    shoulder: float = 0.0
    bias: float = 0.1
    noise: float = 0.02
    blur_mm: float = 2.0

    def __post_init__(self) -> None:
        for entry in fields(self):
            low, high = next(limits for word, limits in _RANGES.items() if word in entry.name)
            value = getattr(self, entry.name)
            if not low <= value <= high:
                key = entry.name.replace("_", "-")
                raise ConfigError(f"the scanner's {key!r} must be {low:g} to {high:g}", value=value)


@dataclass(frozen=True, kw_only=True)
class CaseMix:
    """The share of each class among a hospital's patients; the three add up to one."""

    healthy: float = 0.34
    low_grade: float = 0.33
    high_grade: float = 0.33

    def __post_init__(self) -> None:
        if any(not 0 <= share <= 1 for share in self.shares) or abs(sum(self.shares) - 1) > 1e-6:
            problem = "the case mix of healthy, low-grade and high-grade must be 0 to 1 each and add up to 1"
            raise ConfigError(problem, value=self.shares)

    @property
    def shares(self) -> tuple[float, float, float]:
        """The shares in the order of `CLASSES`."""
        return self.healthy, self.low_grade, self.high_grade


@dataclass(frozen=True, kw_only=True)
class Hospital:
    """One site of a phantom federation."""

    name: str
    scanner: Scanner = field(default_factory=Scanner)
    lesions: Lesions = field(default_factory=Lesions)
    case_mix: CaseMix = field(default_factory=CaseMix)


_FIRST_FOUR = (
    Hospital(
        name="hospital-1",
        scanner=Scanner(
            noise=0.02,
            blur_mm=1.5,
            bias=0.2,
            shoulder=0.6,
            t1_gain=0.9,
            t1_contrast=1.1,
            t2_gain=0.95,
            t1ce_gain=0.75,
            gamma=1.2,
        ),
        case_mix=CaseMix(healthy=0.30, low_grade=0.25, high_grade=0.45),
    ),
    Hospital(
        name="hospital-2",
        scanner=Scanner(
            noise=0.045,
            blur_mm=3.5,
            bias=0.14,
            shoulder=1.0,
            t1_gain=0.85,
            t1_contrast=0.8,
            t2_contrast=0.85,
            flair_gain=1.05,
            t1ce_gain=0.8,
            gamma=1.2,
        ),
        lesions=Lesions(flair=0.4, texture=0.35),
        case_mix=CaseMix(healthy=0.40, low_grade=0.35, high_grade=0.25),
    ),
    Hospital(
        name="hospital-3",
        scanner=Scanner(
            noise=0.025,
            blur_mm=2.5,
            bias=0.16,
            shoulder=0.8,
            t1_gain=0.95,
            t2_gain=0.75,
            flair_gain=0.8,
            flair_contrast=1.25,
            t1ce_gain=0.75,
        ),
        lesions=Lesions(flair=0.5, texture=0.25),
        case_mix=CaseMix(healthy=0.35, low_grade=0.40, high_grade=0.25),
    ),
    Hospital(
        name="hospital-4",
        scanner=Scanner(
            noise=0.03,
            blur_mm=2.0,
            bias=0.28,
            shoulder=1.2,
            t1_gain=0.8,
            t1ce_gain=0.7,
            t2_gain=0.9,
            t2_contrast=1.15,
            gamma=1.5,
        ),
        lesions=Lesions(edge=1.3),
        case_mix=CaseMix(healthy=0.25, low_grade=0.30, high_grade=0.45),
    ),
)

_SPREAD = {
    "t1_gain": (0.7, 1.0),
    "t2_gain": (0.7, 1.0),
    "flair_gain": (0.7, 1.1),
    "t1ce_gain": (0.65, 0.85),
    "t1_contrast": (0.7, 1.2),
    "t2_contrast": (0.7, 1.2),
    "flair_contrast": (0.7, 1.25),
    "t1ce_contrast": (0.8, 1.2),
    "gamma": (1.0, 1.5),
    "shoulder": (0.6, 1.4),
    "bias": (0.12, 0.3),
    "noise": (0.015, 0.045),
    "blur_mm": (1.2, 4.0),
}


def default_hospitals(count: int) -> tuple[Hospital, ...]:
    """`count` hospitals, each with a scanner and a case mix of its own; hospital i is the same for every count."""
    return tuple(_FIRST_FOUR[i] if i < len(_FIRST_FOUR) else _further_hospital(i) for i in range(count))


def _further_hospital(index: int) -> Hospital:
    """Spread evenly over `_SPREAD` by an additive recurrence: no two of them are alike, and nothing is drawn."""
    steps = {name: 0.5 ** (1 / (place + 1.5)) for place, name in enumerate(_SPREAD)}
    values = {name: low + (high - low) * (index * steps[name] % 1.0) for name, (low, high) in _SPREAD.items()}
    ill = 0.5 + 0.3 * (index * 0.618 % 1.0)
    high_grade = round(ill * (0.3 + 0.4 * (index * 0.414 % 1.0)), 2)
    low_grade = round(ill - high_grade, 2)
    mix = CaseMix(healthy=1 - low_grade - high_grade, low_grade=low_grade, high_grade=high_grade)
    return Hospital(name=f"hospital-{index + 1}", scanner=Scanner(**values), case_mix=mix)
