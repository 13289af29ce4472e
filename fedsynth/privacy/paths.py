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
TOGETHER = {"cpu": 16, "cuda": 64}  # samples; more are little faster, and the last chunk of a draw is filled up


@dataclass(frozen=True, kw_only=True)
class Path:
    """How gradients are taken at one stage of growth, why, by which parameters, and how many samples at once.

    Patients go in chunks of `patients`, always full: each one's gradient is then the same to the bit whoever else was
    drawn, since a kernel's rounding depends on the shape of its input and not on the neighbours' numbers.
    """

    fast: bool
    reason: str
    parameters: tuple[str, ...]
    samples: int
    patients: int
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
        self._even: dict[tuple[tuple[str, ...], bool, int], bool] = {}

    def choose(self, names: tuple[str, ...], size: int, progress: float) -> Path:
        """The path for these parameters, where the fast one needs `size` bytes for each sample.

        The engines are compared at the weights as they are, and the first time at variations of them.
        """
        mapped = MappedEngine(self._net, self._loss, names)
        if not names:
            reason = "the loss uses no parameter"
            return Path(fast=True, reason=reason, parameters=(), samples=1, patients=1, engine=mapped)
        own = sum(p.numel() * p.element_size() for name, p in self._net.named_parameters() if name in names)
        try:
            fast = self._fast(mapped, names, progress)
        except NotFollowedError as why:
            return self._path(False, str(why), names, self._memory // (size // 2 + 5 * own), mapped, progress)
        reason = "plain layers, each called once, agree with vmap(grad)"
        return self._path(True, reason, names, self._memory // size, fast, progress)

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

    def _path(
        self, fast: bool, reason: str, names: tuple[str, ...], room: int, engine: Engine, progress: float
    ) -> Path:
        samples = max(1, room)
        device = next(self._net.parameters()).device.type
        patients = max(1, min(samples, TOGETHER.get(device, 1)) // self._views)
        key = names, fast, patients
        if key not in self._even:
            self._even[key] = self._alike_everywhere(engine, patients, progress)
        if not self._even[key]:
            patients, reason = 1, f"{reason}; one patient at a time, since rounding differs by place"
        return Path(fast=fast, reason=reason, parameters=names, samples=samples, patients=patients, engine=engine)

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
        """The engines must give the same clipped sum of the probe, at a clip norm that binds for some samples."""
        for variation in variations:
            with varied(self._whole, variation):
                clip = float(mapped.norms(self._probe, progress).median())
                if not (0 < clip < math.inf) and variation != AS_THEY_ARE:
                    continue  # nothing to be seen at weights that we made up
                ours = fast.clipped(self._probe, progress, clip or 1.0).sums
                theirs = mapped.clipped(self._probe, progress, clip or 1.0).sums
            if set(ours) != set(names):
                raise NotFollowedError("a parameter is used outside its layer")
            difference = math.sqrt(sum(float((ours[name] - theirs[name]).square().sum()) for name in names))
            if not difference <= AGREEMENT * clip * self._probe.patients:
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
