"""What a training run is told, resolved: the user's words over the family's recipe."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fedsynth.config import setting
from fedsynth.errors import ConfigError
from fedsynth.models.facts import is_fitted
from fedsynth.models.recipe import Precision, Recipe

if TYPE_CHECKING:
    import torch

    from fedsynth.privacy.plan import PrivateSettings

Device = Literal["auto", "cpu", "cuda"]
Tracker = Literal["tensorboard", "mlflow", "wandb"]
TRACKED = "Show the losses in tensorboard, mlflow or wandb too, as files of the run; nothing is sent."
PRIVACY = "Privacy"  # the panel of the help page
SIMULATED = Path("phantoms")
"""As the `start` of a run: networks that were trained on simulated heads (`public_start.py`)."""
TWO_STAGE, SIMULATED_MAPS = "two-stage", "phantom-maps"
TASK_EMA = 20.0
"""Half-life in steps of the exponential moving average (EMA) of a task network's weights, which is what is scored."""


@dataclass(frozen=True, kw_only=True)
class Privacy:
    """What a private run declares in public, before it sees a patient."""

    epsilon: float = setting(help="Train privately, with this budget per patient.", panel=PRIVACY)
    patients: int = setting(
        help="The declared public number of patients of a site, a round number never counted from the data.",
        panel=PRIVACY,
    )
    delta: float = setting(1e-5, "Public, and far below 1 / patients.", panel=PRIVACY)
    expected_batch_size: int | None = setting(
        None, "Expected patients per step; a quarter of the declared if not given.", panel=PRIVACY
    )
    clip: float = setting(1.0, "Clip norm of a patient's gradient.", panel=PRIVACY)
    slices_per_patient: int = setting(1, "Slices of each sampled patient, averaged before the clip.", panel=PRIVACY)
    fakes: int = setting(128, "Synthetic images of a private step; a fixed public number.", panel=PRIVACY)
    insecure_seed: int | None = setting(
        None, "Tests only: repeatable randomness. The result is NOT PRIVATE.", panel=PRIVACY
    )
    store: Path | None = setting(None, "Where the ledger lives; else $FEDSYNTH_STORE.", panel=PRIVACY)

    def __post_init__(self) -> None:
        if self.fakes < 1:
            remedy = "leave it out for 128"
            raise ConfigError("a private step needs at least one fake image", value=self.fakes, remedy=remedy)

    def settings(self) -> "PrivateSettings":
        """As the mechanism wants it; a quarter of the patients are drawn where nothing else is said."""
        from fedsynth.privacy.plan import PrivateSettings

        expected_batch_size = (
            max(1, round(self.patients / 4)) if self.expected_batch_size is None else self.expected_batch_size
        )
        return PrivateSettings(
            epsilon=self.epsilon,
            delta=self.delta,
            patients=self.patients,
            batch=expected_batch_size,
            clip=self.clip,
            slices_per_patient=self.slices_per_patient,
        )


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """One run of one site. What is None takes the family's recipe.

    One CPU thread repeats to the bit, and more are seldom faster for networks of this size, never on a busy machine.
    """

    generator: str = setting(
        None, "Family, as in `list generators`; two-stage where there are masks, else dcgan, if not given.", short="-g"
    )
    images: Path
    steps: int | None = setting(None, "How many steps; the family's own number if not given.")
    batch: int | None = setting(None, "Images per step (plain runs).")
    rate: float | None = setting(None, "Learning rate of every network.")
    pairing: str = setting("", "What a paired family turns into what: label-to-image, t1-to-flair, ...")
    start: Path | None = setting(
        None,
        "Go on from another run's networks, whose cost to patients counts too; or, with `phantoms`, from networks "
        "trained on simulated heads, which show nobody.",
        also="from",
        metavar="RUN",
        word=str(SIMULATED),
    )
    start_steps: int | None = setting(
        None, "Steps on simulated heads before --start phantoms; the family's own number if not given."
    )
    public_start: bool = setting(False, "Declare that the images behind --from are public; every statement says so.")
    private_networks: bool = setting(
        False, "Build a plain run's networks as a private run's are, for one that goes on --from it."
    )
    seed: int = setting(0, "One seed gives one plain result, to the bit, on one CPU thread.")
    device: Device = setting("auto", "Where networks are computed.")
    precision: Precision | None = setting(None, "Of plain runs; the family's own if not given.")
    threads: int = setting(1, "CPU threads; one repeats to the bit and is as fast for small networks.")
    sheets: int = setting(5, "How many sample sheets to write on the way.")
    options: dict[str, Any] = setting({}, "A setting of the family itself, as in latent=32.", flag="option")
    trackers: tuple[Tracker, ...] = setting((), TRACKED, flag="tracker", repeated="NAME")
    privacy: Privacy | None = None

    def __post_init__(self) -> None:
        for name, value in (
            ("steps", self.steps),
            ("start-steps", self.start_steps),
            ("batch", self.batch),
            ("threads", self.threads),
        ):
            if value is not None and value < 1:
                raise ConfigError(f"--{name} must be at least 1", value=value)
        if self.start_steps is not None and self.start != SIMULATED:
            raise ConfigError("--start-steps is for --start phantoms", value=self.start_steps, remedy="leave it away")
        refuse_trackers(self.trackers, self.privacy)
        if self.privacy is not None:
            self.privacy.settings()  # checks the declared numbers before anything is opened
            if self.batch is not None:
                raise ConfigError(
                    "--batch is for plain runs", remedy="give --expected-batch-size, the expected patients per step"
                )
            if self.pairing:
                remedy = "train a joint family privately, or the pairing without --epsilon"
                raise ConfigError(
                    "paired families read patients as sources too and are not trained privately", remedy=remedy
                )
        object.__setattr__(self, "options", started_options(self.generator, self.start, self.options))
        if self.start is not None and is_fitted(self.generator):
            remedy = "leave --from away"
            raise ConfigError("a fitted family goes on from nothing: a fit writes all of it anew", remedy=remedy)
        if self.private_networks and self.pairing:
            raise ConfigError("paired families have no private networks", remedy="leave out --private-networks")
        if self.rate is not None and not 0 < self.rate < 1:
            raise ConfigError("--rate must lie between 0 and 1", value=self.rate)

    def over(self, recipe: Recipe) -> Recipe:
        """The recipe with what was said put in its place; a given rate holds for every network."""
        changed = replace(recipe, steps=self.steps or recipe.steps, batch=self.batch or recipe.batch)
        return changed if self.rate is None else replace(changed, rate=self.rate, rates={})


def refuse_trackers(trackers: tuple[Tracker, ...], privacy: Privacy | None) -> None:
    """Private runs have none: trackers note when they were told, and time tells how many patients a step drew."""
    if trackers and privacy is not None:
        problem = "a private run has no trackers: they note the time, which tells how many patients a step drew"
        raise ConfigError(problem, value=trackers[0], remedy="leave --tracker away: rounds.csv has the losses")


def started_options(generator: str, start: Path | None, options: dict[str, Any]) -> dict[str, Any]:
    """A family's options in a run with this start: two stages that begin with simulated heads draw theirs too."""
    if start != SIMULATED or generator != TWO_STAGE:
        return options
    return {"maps": SIMULATED_MAPS, **options}


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """How a task network is trained: the same for every arm that is compared. `steps` is the ceiling."""

    network: str = "unet"
    steps: int = 800
    batch: int = 16
    rate: float = 2e-3
    augment: bool = True
    seed: int = 0
    device: Device = "auto"
    threads: int = 1

    def __post_init__(self) -> None:
        for name, value in (("steps", self.steps), ("batch", self.batch), ("threads", self.threads)):
            if value < 1:
                raise ConfigError(f"--{name} must be at least 1", value=value)
        if not 0 < self.rate < 1:
            raise ConfigError("--rate must lie between 0 and 1", value=self.rate)

    @property
    def recipe(self) -> Recipe:
        """For the training loop."""
        return Recipe(
            steps=self.steps,
            batch=self.batch,
            rate=self.rate,
            betas=(0.9, 0.999),
            ema=TASK_EMA,
            decay=0.0,  # the end is not known beforehand: the moving average stands in for a falling rate
            augment=False,
        )


ENOUGH = 500
"""Synthetic images that memorization needs for its default tolerance (404), rounded up."""


@dataclass(frozen=True, kw_only=True)
class GenerateSettings:
    """What is drawn from a trained generator."""

    count: int = setting(ENOUGH, "How many images; so many bound the share of copies by 1 %.")
    mix: str | None = setting(None, "Shares of the classes, as in high-grade=0.5,healthy=0.5.")
    source: Path | None = setting(None, "The image set that a paired generator starts from.")
    edit: tuple[str, ...] = setting(
        (), "Edit the label maps: grow=1.5, shrink=0.7 or shift=10,0 (mm).", repeated="EDIT"
    )
    transplant: bool = setting(False, "Put the source's tumours into its healthy brains.")
    arm: Literal["fitted", "placebo", "public"] = setting(
        "fitted",
        "Of a simulator: as fitted, as fitted to a random direction, or the public one without a fit",
    )
    seed: int = setting(0, "Image i depends on the seed and i only.")
    format: Literal["imageset", "nifti", "png", "huggingface"] = setting(
        "imageset", "The form of the files; nifti is BIDS-like"
    )

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError("--count must be at least 1", value=self.count)


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """Declared, public numbers: none is counted from data."""

    patients: int = setting(help="Declared patients of a hospital.")
    epsilon: float = setting(8.0, "Budget of a patient.")
    delta: float = setting(1e-5, "Far below 1 / patients.")
    sites: int = setting(1, "Hospitals with about as many patients each.")
    size: int = setting(64, "Side of the images, in pixels.")
    channels: int = setting(4, "Channels of the images.")
    labels: int = setting(4, "Labels of the masks with background; 0 without masks.")
    classes: int = setting(3, "Classes; 0 without.")

    def __post_init__(self) -> None:
        for name in ("patients", "sites", "size", "channels"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name} must be at least 1", value=getattr(self, name))


def open_device(wanted: Device) -> "torch.device":
    """The device of that name; asking for CUDA where there is none is an error, not a slow surprise."""
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("CUDA was asked for and there is none", remedy="give --device cpu, or leave --device away")
    name = "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"
    return torch.device(name)


def computes_bfloat16(device: "torch.device") -> bool:
    """Whether the device multiplies bfloat16 numbers itself; elsewhere they are slower than float32."""
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """torch computes with so many threads during the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
