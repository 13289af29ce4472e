"""Clipped per-patient gradients: the per-sample gradient of DP-SGD with the patient as the sample.

Removing one patient changes the sum by at most the clip norm, whatever the number of slices, the weights and the
rounding. Knows nothing of noise, budgets, ledgers or how patients were drawn; nothing here divides by how many there
were.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor, nn

from fedsynth.errors import RefusedError
from fedsynth.privacy.clipping_engines import Chunk, LossPerSample, Tensors
from fedsynth.privacy.ghost_norm import EXACT, Sums
from fedsynth.privacy.paths import Chooser, Path
from fedsynth.privacy.sample_mixing import check_independence
from fedsynth.privacy.variations import AS_THEY_ARE

Fetch: TypeAlias = Callable[[Tensor], tuple[Tensors, Tensors]]
"""`fetch(indices)`: batch and noise of these patients, every tensor (patients, slices, ...)."""


class PatientGradients:
    """Clipped gradient sums of one loss by the parameters of one network.

    `probe` is a batch and noise of at least two made-up samples (sample axis first, no patients), on which the path is
    chosen and checked against vmap: so the choice is the same whatever the data. `growing` networks are probed again
    at every new progress, and all of them after `renew`. `memory` bounds the bytes of gradients and activations held
    at once, of every network in `whole`, which the loss may run as well.
    """

    def __init__(
        self,
        net: nn.Module,
        loss: LossPerSample,
        *,
        clip: float,
        probe: tuple[Tensors, Tensors],
        slices_per_patient: int = 1,
        growing: bool = False,
        whole: nn.Module | None = None,
        memory: int = 512 * 2**20,
    ) -> None:
        self.grid: float | None = None  # gradients lie on none
        if not (clip > 0 and math.isfinite(clip)):
            raise RefusedError("the clip norm must be a positive number", value=clip)
        self.net, self.loss, self.clip, self.slices_per_patient = net, loss, clip, slices_per_patient
        self._probe = probe
        self._growing, self._whole = growing, net if whole is None else whole
        made_up = Chunk(batch=_with_slices(probe[0]), noise=_with_slices(probe[1]))
        self._chooser = Chooser(
            net, loss, made_up, whole=self._whole, slices_per_patient=slices_per_patient, memory=memory
        )
        self._paths: dict[tuple[str, ...], Path] = {}
        self._last: tuple[float, Path] | None = None
        self._trusted = True

    def renew(self) -> None:
        """Weights may have come from elsewhere: look at them before the next patient, on made-up samples.

        The paths are chosen again, and a network that mixes samples at these weights is refused.
        """
        self._paths.clear()
        self._last, self._trusted = None, False

    def path(self, progress: float = 1.0) -> Path:
        """How gradients are taken at this progress."""
        if self._last is None or (self._growing and self._last[0] != progress):
            names, size = self._chooser.reached(progress)
            if names not in self._paths:
                with _full_precision():
                    self._paths[names] = self._chooser.choose(names, size, progress)
            self._last = (progress, self._paths[names])
        return self._last[1]

    def clipped_sum(self, patients: Tensor, fetch: Fetch, progress: float = 1.0) -> Sums:
        """The sum over `patients` of their gradients, each averaged over its slices and then clipped to the clip norm.

        Keys are names of the parameters that this stage uses; the sums are float64, to be rounded once there is noise
        on them. A patient whose gradient is not finite counts as zero; no patient at all gives zeros by the same code.
        """
        if not self._trusted:
            now = [AS_THEY_ARE]
            check_independence(self._whole, self.net, self.loss, self._probe, stages=[progress], variations=now)
            self._trusted = True
        path = self.path(progress)
        return self._added(self._chunks(patients, path, fetch, progress), path, progress)[0] if path.parameters else {}

    def clipped_mean(self, batch: Tensors, noise: Tensors, progress: float = 1.0) -> tuple[Tensor, Sums]:
        """The mean loss of samples that are no patients, and the mean of their gradients, each clipped like one.

        The fake half, balanced with the other. The number of samples must be fixed and public.
        """
        whole = Chunk(batch=_with_slices(batch), noise=_with_slices(noise), precision=torch.float32)
        path = self.path(progress)
        if not path.parameters:
            with torch.no_grad():
                return self.loss(*whole.flat(), progress).mean(), {}
        sums, losses = self._added(whole.split(path.samples), path, progress)
        parameters = dict(self.net.named_parameters())
        means = {name: (value / whole.patients).to(parameters[name].dtype) for name, value in sums.items()}
        return torch.cat(losses).mean(), means

    def norms(self, patients: Tensor, fetch: Fetch, progress: float = 1.0) -> Tensor:
        """Each gradient norm before clipping: for made-up samples and tests. Norms of patients are secret."""
        path = self.path(progress)
        with _full_precision():
            found = [path.engine.norms(chunk, progress) for chunk in self._chunks(patients, path, fetch, progress)]
        return torch.cat(found)[: len(patients)]

    def _added(self, chunks: Iterator[Chunk], path: Path, progress: float) -> tuple[Sums, list[Tensor]]:
        """The chunks' clipped sums added up, and their losses, which nobody may keep where they are patients'."""
        used = {name: p for name, p in self.net.named_parameters() if name in path.parameters}
        total = {name: torch.zeros_like(p, dtype=EXACT) for name, p in used.items()}
        losses: list[Tensor] = []
        with _full_precision():
            for chunk in chunks:
                found = path.engine.clipped(chunk, progress, self.clip)
                losses.append(found.losses)
                for name, value in found.sums.items():
                    total[name].add_(value)
        return total, losses

    def _chunks(self, patients: Tensor, path: Path, fetch: Fetch, progress: float) -> Iterator[Chunk]:
        with _full_precision():
            together = self._chooser.together(path, progress)
        for start in range(0, len(patients), together):
            batch, noise = fetch(patients[start : start + together])
            chunk = Chunk(batch=dict(batch), noise=dict(noise))
            if chunk.slices_per_patient != self.slices_per_patient:
                raise ValueError(
                    f"fetch gave {chunk.slices_per_patient} slices per patient where {self.slices_per_patient} are "
                    f"declared"
                )
            yield self._filled(chunk, together - chunk.patients)

    def _filled(self, chunk: Chunk, fillers: int) -> Chunk:
        """A copy of the chunk, its memory aligned like any other's, with a made-up sample in each empty place."""

        def fill(values: Tensor, made_up: Tensor) -> Tensor:
            extra = made_up[:1, None].to(values).expand(fillers, chunk.slices_per_patient, *made_up.shape[1:])
            return torch.cat([values, extra])

        batch, noise = (
            {name: fill(value, made_up[name]) for name, value in part.items()}
            for part, made_up in zip((chunk.batch, chunk.noise), self._probe, strict=True)
        )
        return Chunk(batch=batch, noise=noise, fillers=fillers)


def _with_slices(tensors: Tensors) -> dict[str, Tensor]:
    return {name: value[:, None] for name, value in tensors.items()}


@contextmanager
def _full_precision() -> Iterator[None]:
    """No TF32 on a GPU: a norm of one precision must not clip a gradient of another."""
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = convolutions, products
