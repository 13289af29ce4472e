"""Which engine takes the gradients of a loss, and how many patients at once: chosen on made-up samples, no patients.

Knows nothing of clip norms, noise or budgets.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fedsynth.privacy.engines import Chunk, Engine, LossPerSample, MappedEngine, RecordedEngine
from fedsynth.privacy.layers import exact_bytes
from fedsynth.privacy.recording import NotFollowedError
from fedsynth.privacy.variations import AS_THEY_ARE, VARIATIONS, Variation, varied

AGREEMENT = 1e-4  # of the two engines on the probe, relative to the clip norm
SAMPLES = {"cpu": 32, "cuda": 256}  # at once: more are not faster
FULL = {"cpu": 16, "cuda": 64}  # of patients: the last chunk of a draw is filled up, which costs time


@dataclass(frozen=True, kw_only=True)
class Path:
    """How gradients are taken at one stage of growth, why, by which parameters, and how many samples at once."""

    fast: bool
    reason: str
    parameters: tuple[str, ...]
    samples: int
    engine: Engine = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """For people."""
        return "fast path" if self.fast else "vmap(grad)"


class Chooser:
    """Chooses paths for one loss of one network. `probe` has one view per made-up sample; `whole` is all that runs."""

    def __init__(
        self, net: nn.Module, loss: LossPerSample, probe: Chunk, *, whole: nn.Module, views: int, memory: int
    ) -> None:
        self._net, self._loss, self._probe, self._whole = net, loss, probe, whole
        self._views, self._memory = views, memory
        self._slow: dict[tuple[str, ...], str] = {}
        self._examined: set[tuple[str, ...]] = set()
        self._together: dict[tuple[tuple[str, ...], bool], int] = {}

    def choose(self, names: tuple[str, ...], size: int, progress: float) -> Path:
        """The path for these parameters, where the fast one needs `size` bytes for each sample.

        The engines are compared at the weights as they are, and the first time at variations of them.
        """
        mapped = MappedEngine(self._net, self._loss, names)
        if not names:
            reason = "the loss uses no parameter"
            return Path(fast=True, reason=reason, parameters=(), samples=1, engine=mapped)
        own = sum(p.numel() * p.element_size() for name, p in self._net.named_parameters() if name in names)
        try:
            fast = self._fast(mapped, names, progress)
        except NotFollowedError as why:
            room = self._room(size // 2 + 5 * own)
            return Path(fast=False, reason=str(why), parameters=names, samples=room, engine=mapped)
        room = self._room(size)
        reason = "plain layers, each called once, agree with vmap(grad)"
        return Path(fast=True, reason=reason, parameters=names, samples=room, engine=fast)

    def together(self, path: Path, progress: float) -> int:
        """How many patients make a chunk, which must always be full.

        A kernel's rounding depends on the shape of its input, not on the neighbours' numbers: so each patient's
        gradient is the same to the bit whoever else was drawn. Where it depends on the place in a chunk, as a probe
        tells, patients go one by one.
        """
        key = path.parameters, path.fast
        if key not in self._together:
            patients = max(1, min(path.samples, FULL[self._device]) // self._views)
            self._together[key] = patients if self._alike_everywhere(path.engine, patients, progress) else 1
        return self._together[key]

    def reached(self, progress: float) -> tuple[tuple[str, ...], int]:
        """The trainable parameters that the loss uses at this stage, and what the fast path needs per sample."""
        trainable = {name: p for name, p in self._net.named_parameters() if p.requires_grad}
        with _counted_outputs(self._whole) as kept:
            total = self._loss(*self._probe.flat(), progress).sum()
        if not total.requires_grad:
            return (), 1
        found = torch.autograd.grad(total, list(trainable.values()), allow_unused=True)
        names = tuple(name for name, one in zip(trainable, found, strict=True) if one is not None)
        return names, max(1, sum(kept) // self._probe.patients)

    @property
    def _device(self) -> str:
        return "cuda" if next(self._net.parameters()).is_cuda else "cpu"

    def _room(self, size: int) -> int:
        return max(1, min(self._memory // size, SAMPLES[self._device]))

    def _fast(self, mapped: Engine, names: tuple[str, ...], progress: float) -> Engine:
        if names in self._slow:
            raise NotFollowedError(self._slow[names])
        variations = (AS_THEY_ARE,) if names in self._examined else VARIATIONS
        try:
            fast = RecordedEngine(self._net, self._loss)
            self._compare(fast, mapped, names, progress, variations)
        except NotFollowedError as why:
            if names not in self._examined:
                self._slow[names] = str(why)
            raise
        self._examined.add(names)
        return fast

    def _compare(
        self,
        fast: Engine,
        mapped: Engine,
        names: tuple[str, ...],
        progress: float,
        variations: Sequence[Variation],
    ) -> None:
        """The engines must give the same clipped sum of the probe, at a clip norm that binds for some samples.

        From one variation to the next the samples stand in another order, and at every second there is one fewer: a
        layer's rows could be sorted by what they show, or be as many as the samples by chance.
        """
        for turn, variation in enumerate(variations):
            chunk = self._probe.rolled(turn + 1).first(self._probe.patients - turn % 2)
            with varied(self._whole, variation):
                clip = float(mapped.norms(chunk, progress).median()) or 1.0
                ours = fast.clipped(chunk, progress, clip).sums
                theirs = mapped.clipped(chunk, progress, clip).sums
            if set(ours) != set(names):
                raise NotFollowedError("a parameter is used outside its layer")
            difference = math.sqrt(sum(float((ours[name] - theirs[name]).square().sum()) for name in names))
            seen = math.isfinite(clip) or variation == AS_THEY_ARE  # else they overflow, at weights that we made up
            if seen and not difference <= AGREEMENT * clip * chunk.patients:
                raise NotFollowedError("the loss is more than its layers' outputs (a gradient penalty?)")

    def _alike_everywhere(self, engine: Engine, patients: int, progress: float) -> bool:
        """Whether a patient's norm is the same to the bit at every place of a full chunk."""
        if patients == 1:
            return True
        n, places, found = self._probe.patients, torch.arange(patients)[:, None], set()
        for turn in range(n):
            order = (places + turn + torch.arange(self._views)) % n  # (patients, views): which made-up sample
            batch, noise = (
                {name: value[:, 0][order] for name, value in part.items()}
                for part in (self._probe.batch, self._probe.noise)
            )
            norms = engine.norms(Chunk(batch=batch, noise=noise), progress)
            found |= set(zip(order[:, 0].tolist(), norms.tolist(), strict=True))
        return len(found) == n


@contextmanager
def _counted_outputs(net: nn.Module) -> Iterator[list[int]]:
    """About what every module's output costs: four times itself there and back, and the layers' copies."""
    sizes: list[int] = []

    def count(module: nn.Module, given: object, output: object) -> None:
        if isinstance(output, Tensor):
            sizes.append(4 * output.numel() * output.element_size() + exact_bytes(module, output))

    handles = [module.register_forward_hook(count) for module in net.modules()]
    try:
        yield sizes
    finally:
        for handle in handles:
            handle.remove()
