"""One clipped gradient per patient, summed: the path is chosen here, and the sum is taken in bounded memory.

Removing one patient changes the sum by at most the clip norm, whatever the views. Knows nothing of noise, budgets,
ledgers or how patients were drawn; nothing here divides by how many there were.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor, nn

from fedsynth.errors import RefusedError
from fedsynth.privacy.engines import Chunk, Engine, LossPerSample, MappedEngine, RecordedEngine, Tensors
from fedsynth.privacy.layers import Sums
from fedsynth.privacy.recording import NotFollowedError

Fetch: TypeAlias = Callable[[Tensor], tuple[Tensors, Tensors]]
"""`fetch(indices)`: batch and noise of these patients, every tensor (patients, views, ...)."""

AGREEMENT = 1e-4  # of the two engines on the probe, relative to the largest norm


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


class PatientGradients:
    """Clipped gradient sums of one loss by the parameters of one network.

    `probe` is a batch and noise of at least two made-up samples (sample axis first, no patients), on which the path is
    chosen and checked against vmap: so the choice is the same whatever the data. `growing` networks are probed again
    at every new progress. `memory` bounds the bytes of gradients and activations held at once, of every network in
    `whole`, which the loss may run as well.
    """

    def __init__(
        self,
        net: nn.Module,
        loss: LossPerSample,
        *,
        clip: float,
        probe: tuple[Tensors, Tensors],
        views: int = 1,
        growing: bool = False,
        whole: nn.Module | None = None,
        memory: int = 512 * 2**20,
    ) -> None:
        if not (clip > 0 and math.isfinite(clip)):
            raise RefusedError("the clip norm must be a positive number", value=clip)
        self.net, self.loss, self.clip, self.views = net, loss, clip, views
        self._probe = Chunk(batch=_with_views(probe[0]), noise=_with_views(probe[1]))
        self._growing, self._memory, self._whole = growing, memory, net if whole is None else whole
        self._paths: dict[tuple[str, ...], Path] = {}
        self._last: tuple[float, Path] | None = None

    def path(self, progress: float = 1.0) -> Path:
        """How gradients are taken at this progress."""
        if self._last is None or (self._growing and self._last[0] != progress):
            names, size = self._reached(progress)
            if names not in self._paths:
                with _full_precision():
                    self._paths[names] = self._choose(names, size, progress)
            self._last = (progress, self._paths[names])
        return self._last[1]

    def clipped_sum(self, patients: Tensor, fetch: Fetch, progress: float = 1.0) -> Sums:
        """The sum over `patients` of their gradients, each averaged over its views and then clipped to the clip norm.

        Keys are names of the parameters that this stage uses. A patient whose gradient is not finite counts as zero;
        no patient at all gives zeros by the same code.
        """
        path = self.path(progress)
        return self._added(self._chunks(patients, path, fetch), path, progress)[0] if path.parameters else {}

    def clipped_mean(self, batch: Tensors, noise: Tensors, progress: float = 1.0) -> tuple[Tensor, Sums]:
        """The mean loss of samples that are no patients, and the mean of their gradients, each clipped like one.

        The free half, balanced with the other. The number of samples must be fixed and public.
        """
        path, whole = self.path(progress), Chunk(batch=_with_views(batch), noise=_with_views(noise))
        if not path.parameters:
            with torch.no_grad():
                return self.loss(*whole.flat(), progress).mean(), {}
        sums, losses = self._added(whole.split(path.samples), path, progress)
        return torch.cat(losses).mean(), {name: value / whole.patients for name, value in sums.items()}

    def norms(self, patients: Tensor, fetch: Fetch, progress: float = 1.0) -> Tensor:
        """Each gradient norm before clipping: for made-up samples and tests. Norms of patients are secret."""
        path = self.path(progress)
        with _full_precision():
            return torch.cat([path.engine.norms(chunk, progress) for chunk in self._chunks(patients, path, fetch)])

    def _added(self, chunks: Iterator[Chunk], path: Path, progress: float) -> tuple[Sums, list[Tensor]]:
        """The chunks' clipped sums added up, and their losses, which nobody may keep where they are patients'.

        From the second chunk on in float64: rounding at every chunk would let one patient move the sum by more than
        the clip norm. Rounding within a chunk is covered by the engines' slack.
        """
        total: Sums = {}
        losses: list[Tensor] = []
        with _full_precision():
            for chunk in chunks:
                found = path.engine.clipped(chunk, progress, self.clip)
                losses.append(found.losses)
                for name, value in found.sums.items():
                    total[name] = total[name].double().add_(value) if name in total else value
        used = {name: p for name, p in self.net.named_parameters() if name in path.parameters}
        return {
            name: total[name].to(p.dtype) if name in total else torch.zeros_like(p) for name, p in used.items()
        }, losses

    def _chunks(self, patients: Tensor, path: Path, fetch: Fetch) -> Iterator[Chunk]:
        step = max(1, path.samples // self.views)
        for start in range(0, len(patients), step):
            batch, noise = fetch(patients[start : start + step])
            chunk = Chunk(batch=dict(batch), noise=dict(noise))
            if chunk.views != self.views:
                raise ValueError(f"fetch gave {chunk.views} views per patient where {self.views} are declared")
            yield chunk

    def _choose(self, names: tuple[str, ...], size: int, progress: float) -> Path:
        mapped = MappedEngine(self.net, self.loss, names)
        if not names:
            return Path(fast=True, reason="the loss uses no parameter", parameters=(), samples=1, engine=mapped)
        own = sum(p.numel() * p.element_size() for name, p in self.net.named_parameters() if name in names)
        try:
            fast: Engine = RecordedEngine(self.net, self.loss)
            self._compare(fast, mapped, names, progress)
        except NotFollowedError as why:
            room = max(1, self._memory // (2 * size + 3 * own))
            return Path(fast=False, reason=str(why), parameters=names, samples=room, engine=mapped)
        room = max(1, self._memory // (4 * size))
        reason = "plain layers, each called once, agree with vmap(grad)"
        return Path(fast=True, reason=reason, parameters=names, samples=room, engine=fast)

    def _compare(self, fast: Engine, mapped: Engine, names: tuple[str, ...], progress: float) -> None:
        """The engines must give the same clipped sum of the probe, at a clip norm that binds for some samples."""
        clip = float(mapped.norms(self._probe, progress).median())
        ours = fast.clipped(self._probe, progress, clip).sums
        theirs = mapped.clipped(self._probe, progress, clip).sums
        if set(ours) != set(names):
            raise NotFollowedError("a parameter is used outside its layer")
        difference = math.sqrt(sum(float((ours[name] - theirs[name]).detach().square().sum()) for name in names))
        if not difference <= AGREEMENT * clip * self._probe.patients:
            raise NotFollowedError("the loss is more than its layers' outputs (a gradient penalty?)")

    def _reached(self, progress: float) -> tuple[tuple[str, ...], int]:
        """The trainable parameters that the loss uses at this stage, and the bytes that one sample keeps alive."""
        trainable = {name: p for name, p in self.net.named_parameters() if p.requires_grad}
        with _counted_outputs(self._whole) as kept:
            total = self.loss(*self._probe.flat(), progress).sum()
        if not total.requires_grad:
            return (), 1
        found = torch.autograd.grad(total, list(trainable.values()), allow_unused=True)
        names = tuple(name for name, one in zip(trainable, found, strict=True) if one is not None)
        return names, max(1, sum(kept) // self._probe.patients)


def _with_views(tensors: Tensors) -> dict[str, Tensor]:
    return {name: value[:, None] for name, value in tensors.items()}


@contextmanager
def _counted_outputs(net: nn.Module) -> Iterator[list[int]]:
    """The bytes of every output of every module: about what a forward pass keeps alive for the way back."""
    sizes: list[int] = []

    def count(module: nn.Module, given: object, output: object) -> None:
        if isinstance(output, Tensor):
            sizes.append(output.numel() * output.element_size())

    handles = [module.register_forward_hook(count) for module in net.modules()]
    try:
        yield sizes
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _full_precision() -> Iterator[None]:
    """No TF32 on a GPU: a norm of one precision must not clip a gradient of another."""
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = convolutions, products
