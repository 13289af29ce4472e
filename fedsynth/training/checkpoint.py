"""Saved networks: safetensors with keys `<network>.<parameter>`, and a readable card beside the released sampler.

Nothing is unpickled, and a file of another family or a damaged one is refused before anything is changed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from fedsynth import atomic_files
from fedsynth.config import load_toml, save_toml
from fedsynth.errors import DamagedError, FedSynthError
from fedsynth.models.base import Family, ImageShape, Model, global_randomness
from fedsynth.models.generators.catalog import build, find
from fedsynth.models.mixture import SiteMixture
from fedsynth.privacy.lineage import Lineage
from fedsynth.training.content_hash import Entry, entry_of, hashed, read_whole
from fedsynth.training.trainer import Trainer, laid_out_as

WEIGHTS, CARD, DISCRIMINATOR = "generator.safetensors", "generator.toml", "discriminator.safetensors"


@dataclass(frozen=True, kw_only=True)
class Card:
    """What the released sampler is and what its output means: enough to build it again and to write image sets.

    `private` says how it was trained; a plain run may have taken the `private_networks` of its family all the same.
    `lineage` is where the weights came from; `privacy` is what all of it promises, in one sentence. `mixture` are the
    shares of the sites where each has a sampler of its own.
    """

    generator: str
    shape: ImageShape
    channels: tuple[str, ...]
    classes: tuple[str, ...]
    mask_labels: tuple[str, ...]
    spacing_mm: tuple[float, ...]
    class_shares: tuple[float, ...]
    steps: int
    trained_on: str
    privacy: str
    private: bool = False
    private_networks: bool = False
    pairing: str = ""
    lineage: Lineage = field(default_factory=Lineage)
    mixture: tuple[float, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def two_stage(self) -> bool:
        """Whether it draws label maps first: it can be given others."""
        return find(self.generator).kind == "two-stage"


def save_generator(folder: Path, trainer: Trainer, card: Card) -> None:
    """Write the averaged sampler and its card; these two files are what is released."""
    save_sampler(folder, trainer.ema.values, card)


def save_sampler(folder: Path, values: Mapping[str, Tensor], card: Card) -> None:
    """Write the sampler's weights, wherever they were averaged, and its card."""
    save_tensors(folder / WEIGHTS, values, {"generator": card.generator})
    save_toml(folder / CARD, card)


def save_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    notes: Mapping[str, str],
    *,
    synced: bool = True,
    over: Path | None = None,
) -> None:
    """Write tensors with notes and the hash of both, in one step. For the others see `atomic_files.write_bytes`."""
    entries = {name: _entry(value.detach().cpu()) for name, value in tensors.items()}
    atomic_files.write_bytes(path, hashed(entries, notes), synced=synced, over=over)


def _entry(value: Tensor) -> Entry:
    if value.dtype == torch.bfloat16:
        return entry_of(value.contiguous().view(torch.int16).numpy(), "BF16")
    return entry_of(value.numpy())


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What `save_tensors` wrote; `DamagedError` where the file holds anything else."""
    try:
        content, notes = read_whole(path)
        return load(content), notes
    except (SafetensorError, ValueError) as error:
        raise DamagedError(f"is damaged: {error}", file=path, remedy="use an earlier one") from error


def load_card(folder: Path) -> Card:
    """What the released sampler in `folder` is."""
    return load_toml(Card, folder / CARD)


def load_generator(folder: Path) -> tuple[Family, Card]:
    """Build the released sampler again from its card and weights."""
    card = load_card(folder)
    with global_randomness():  # the first weights are overwritten; others' draws must not move
        small = card.private or card.private_networks
        families = [build(card.generator, card.shape, private=small, **card.options) for _ in card.mixture or (1.0,)]
    family = SiteMixture(families, card.mixture) if card.mixture else families[0]
    tensors, _ = _read(folder / WEIGHTS, card.generator)
    own = {name: value for name, value in family.nets.state_dict().items() if name.split(".")[0] in family.sampler}
    _fits(folder / WEIGHTS, own, tensors)
    family.nets.load_state_dict(tensors, strict=False)
    return family.eval(), card


def save_state(
    path: Path,
    trainer: Trainer,
    generator: str,
    *,
    shown: str = "patients",
    notes: Mapping[str, str] | None = None,
    synced: bool = True,
    over: Path | None = None,
) -> None:
    """Everything that a resumed run needs: networks, moving average, optimisers, the step, and whom images showed.

    `notes` are kept beside it, for `read_notes`; the others are those of `save_tensors`.
    """
    tensors = {f"nets.{name}": value for name, value in trainer.family.nets.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in trainer.ema.values.items()}
    for net, optimiser in trainer.optimisers.items():
        for index, values in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{net}.{index}.{key}": value for key, value in values.items()}
    described = {"generator": generator, "step": str(trainer.step), "total-steps": str(trainer.total_steps)}
    described |= {"shown": shown} | dict(notes or {})
    save_tensors(path, tensors, described, synced=synced, over=over)


def load_state(path: Path, trainer: Trainer, generator: str, *, shown: str = "patients") -> None:
    """Put a trainer back to where `save_state` left it; nothing is changed when the file does not fit.

    `DamagedError` where it is not what was written: an earlier state may still be whole.
    """
    tensors, described = _read(path, generator)
    nets = {name[5:]: value for name, value in tensors.items() if name.startswith("nets.")}
    ema = {name[8:]: value for name, value in tensors.items() if name.startswith("average.")}
    _fits(path, trainer.family.nets.state_dict(), nets)
    _fits(path, trainer.ema.values, ema)
    if int(described["total-steps"]) != trainer.total_steps:
        problem = f"the state belongs to a run of {described['total-steps']} steps, not {trainer.total_steps}"
        raise FedSynthError(problem, file=path, remedy="resume with the same settings")
    if (was := described.get("shown", shown)) != shown:
        remedy = "resume with the images that it was started with"
        raise FedSynthError(f"the run was trained on {was}, and the images are {shown}", file=path, remedy=remedy)
    trainer.family.nets.load_state_dict(nets)
    for name, value in ema.items():
        trainer.ema.values[name].copy_(value)
    for net, optimiser in trainer.optimisers.items():
        _load_optimiser(optimiser, f"optimiser.{net}.", tensors)
    trainer.step = int(described["step"])


def read_notes(path: Path) -> dict[str, str]:
    """What was noted beside a state; nothing where the file is absent or damaged."""
    try:
        return read_whole(path)[1]
    except (FileNotFoundError, DamagedError):
        return {}


def start_from(path: Path, family: Model, generator: str, *, remedy: str = "") -> None:
    """Give a fresh family the networks of another run's state; optimisers and averages start anew, and so does what is
    fitted, for a fit begins from first values."""
    tensors, _ = _read(path, generator)
    nets = {name[5:]: value for name, value in tensors.items() if name.startswith("nets.")}
    _start(path, nets, family, remedy)


def start_from_release(folder: Path, family: Model, generator: str, *, remedy: str = "") -> None:
    """The same with the networks that a federation released."""
    parts = [path for path in (folder / WEIGHTS, folder / DISCRIMINATOR) if path.exists()]
    nets = {name: value for path in parts for name, value in _read(path, generator)[0].items()}
    _start(folder, nets, family, remedy)


def _start(path: Path, nets: dict[str, Tensor], family: Model, remedy: str) -> None:
    names = family.nets.keys() - set(family.fitted)
    own, read = (
        {name: value for name, value in side.items() if name.split(".")[0] in names}
        for side in (family.nets.state_dict(), nets)
    )
    _fits(path, own, read, remedy)
    family.nets.load_state_dict(read, strict=False)


def _load_optimiser(optimiser: torch.optim.Optimizer, prefix: str, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    (group,) = optimiser.param_groups
    for name, value in tensors.items():
        if name.startswith(prefix):
            index, key = name[len(prefix) :].split(".")
            own = group["params"][int(index)]
            state.setdefault(int(index), {})[key] = laid_out_as(own, value) if value.shape == own.shape else value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def _read(path: Path, generator: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        tensors, described = load_tensors(path)
    except FileNotFoundError as error:
        raise FedSynthError("there is no such file", file=path, remedy="the run has not got that far") from error
    if described.get("generator") != generator:
        raise FedSynthError(f"holds networks of {described.get('generator')}, not of {generator}", file=path)
    return tensors, described


def _fits(path: Path, own: dict[str, Tensor], read: dict[str, Tensor], remedy: str = "") -> None:
    wanted, found = ({name: tuple(value.shape) for name, value in side.items()} for side in (own, read))
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            problem = f"the network differs at {name}: {found.get(name)} in the file, {wanted.get(name)} in the family"
            raise FedSynthError(problem, file=path, remedy=remedy)
