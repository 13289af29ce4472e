"""What a user may choose in each benchmark, with every default and its help text once."""

from dataclasses import dataclass
from typing import Literal

from fedsynth.config import setting
from fedsynth.errors import ConfigError
from fedsynth.training.settings import Device, TaskSettings

ONE_SEED = "One seed gives one result."
TaskStrategy = Literal["fedavg", "fedprox", "fedavgm", "fedadam", "fedmedian", "trimmed-mean", "fedbn"]
"""Those of generators, by the same names, and FedBN, which leaves each site a network of its own."""


@dataclass(frozen=True, kw_only=True)
class Seeded:
    """Every benchmark repeats to the bit from its seed."""

    seed: int = setting(0, ONE_SEED)

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError("--seed must not be negative", value=self.seed)


@dataclass(frozen=True, kw_only=True)
class MemorizationSettings(Seeded):
    """Of the tests of dependence and replication."""

    tolerance: float = setting(0.01, "The copied share that may stand.")
    spaces: tuple[str, ...] = setting((), "Feature spaces, as in pixels,encoder; all that fit if not given.")
    full: bool = setting(False, "Insert every kind of positive control.")
    control_repeats: int = setting(20, "Repeats of each negative control.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.tolerance < 1:
            raise ConfigError("the tolerance is a share between 0 and 1", value=self.tolerance)
        if self.control_repeats < 1:
            raise ConfigError("--control-repeats must be at least 1", value=self.control_repeats)


@dataclass(frozen=True, kw_only=True)
class MembershipSettings(Seeded):
    """Of the attacks on every patient."""

    spaces: tuple[str, ...] = setting(("pixels", "components", "encoder"), "Feature spaces, as in pixels,encoder.")
    halves: int = setting(10, "Random halves of the members, each attacked as the honest control.")
    permutations: int = setting(1999, "Permutations of the exact test.")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (("halves", self.halves), ("permutations", self.permutations)):
            if value < 1:
                raise ConfigError(f"--{name} must be at least 1", value=value)


@dataclass(frozen=True, kw_only=True)
class FidelitySettings(Seeded):
    """Of the distances between synthetic and real images."""

    steps: int = setting(400, "Steps of the classifier behind the Inception Score; 0: none.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 0:
            raise ConfigError("--steps must not be negative", value=self.steps)


@dataclass(frozen=True, kw_only=True)
class UtilitySettings(Seeded):
    """Of the arms that are compared, and of the task networks that are trained on them."""

    arms: tuple[str, ...] = setting(
        ("real", "synthetic", "real+synthetic"),
        "real, real-local, real-federated, real-federated-fine-tuned, synthetic, real+synthetic, "
        "synthetic-then-10%-real.",
    )
    network: str
    strategy: TaskStrategy = setting(
        "fedavg",
        "How the sites' task networks become one in the federated arms; with fedbn normalisation layers stay local",
    )
    strategy_options: dict[str, float] = setting(
        {}, "A setting of the strategy, as in mu=0.1 of fedprox.", flag="strategy-option"
    )
    augmentation: Literal["none", "classical", "both"] = setting("classical", "Classical augmentation in training")
    seeds: int = setting(3, "Trainings of each arm; three are needed to claim a difference.")
    steps: int = setting(
        TaskSettings.steps, "The most steps; training ends before when reference patients show no more gain."
    )
    batch: int = setting(TaskSettings.batch, "Images per step.")
    rate: float = setting(TaskSettings.rate, "Learning rate.")
    device: Device = setting(TaskSettings.device, "Where networks are computed.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seeds < 1:
            raise ConfigError("--seeds must be at least 1", value=self.seeds)
        _ = self.task

    @property
    def task(self) -> TaskSettings:
        """For the training of each network; its seed and augmentation follow from the arm."""
        return TaskSettings(
            network=self.network, steps=self.steps, batch=self.batch, rate=self.rate, device=self.device
        )


@dataclass(frozen=True, kw_only=True)
class SegmentationSettings(UtilitySettings):
    """Of segmentation."""

    network: str = setting("unet", "unet or swin.")


@dataclass(frozen=True, kw_only=True)
class ClassificationSettings(UtilitySettings):
    """Of classification."""

    network: str = setting("resnet", "resnet, densenet or vit.")
