"""The private discriminator step against the plain one and against what a user would otherwise take, in one run.

    python benchmarks/speed/private_step.py [--discriminator dcgan64|default] [--device cpu|cuda] [--repeats 5] [--batch
    64]

One step: 64 real and 64 generated images through the discriminator, one Adam update. Every method runs in turn, over
and over, so that a busy machine slows all alike; the figure is the median of processor seconds (wall seconds on a GPU)
over that of the plain step. Peak memory is taken in a process of its own per method.
"""

import argparse
import copy
import os
import platform
import resource
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812
from opacus.grad_sample import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

from fedsynth.privacy.clipping_engines import MappedEngine
from fedsynth.privacy.per_patient_gradients import PatientGradients
from fedsynth.privacy.secure_rng import SecretRandomness

NOISE, CLIP = 1.0, 1.0
Step = Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A discriminator, what comes after the image in its call, and the two halves of a batch."""

    discriminator: nn.Module
    rest: tuple[object, ...]
    real: Tensor
    fake: Tensor

    @property
    def batch(self) -> int:
        """Real images in a step."""
        return len(self.real)

    def copy(self) -> tuple[nn.Module, torch.optim.Optimizer]:
        """A discriminator of the method's own, and its optimiser."""
        discriminator = copy.deepcopy(self.discriminator)
        return discriminator, torch.optim.Adam(discriminator.parameters(), 2e-4)


def dcgan64(device: str, batch: int) -> Setting:
    """The discriminator of DCGAN for 64 x 64 images: 2.76 million parameters, no norm."""
    widths, layers = [3, 64, 128, 256, 512], []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Conv2d(inputs, outputs, 4, 2, 1), nn.LeakyReLU(0.2)]
    discriminator = nn.Sequential(*layers, nn.Conv2d(512, 1, 4), nn.Flatten(0)).to(device)
    images = torch.rand(2 * batch, 3, 64, 64, device=device) * 2 - 1
    return Setting(discriminator=discriminator, rest=(), real=images[:batch], fake=images[batch:])


def default(device: str, batch: int) -> Setting:
    """The discriminator that fedsynth gives a private dcgan for 64 x 64 images of two channels with four labels."""
    from fedsynth.models.base import ImageShape
    from fedsynth.models.generators.catalog import build

    family = build("dcgan", ImageShape(channels=2, size=(64, 64), n_labels=4), private=True)
    images = torch.rand(2 * batch, 6, 64, 64, device=device) * 2 - 1
    discriminator = family.nets["discriminator"].to(device)
    return Setting(discriminator=discriminator, rest=(None, 1.0), real=images[:batch], fake=images[batch:])


def plain(setting: Setting) -> Step:
    """What a user without privacy runs: both halves in one batch."""
    discriminator, optimiser = setting.copy()
    images = torch.cat([setting.real, setting.fake])

    def step() -> None:
        optimiser.zero_grad()
        scores = discriminator(images, *setting.rest)
        real, fake = scores[: setting.batch], scores[setting.batch :]
        (F.softplus(-real).mean() + F.softplus(fake).mean()).backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return step


def opacus(setting: Setting, *, functorch: bool) -> Step:
    """As Opacus's own GAN example has it: both halves through the wrapped discriminator, one backward pass."""
    discriminator, optimiser = setting.copy()
    for module in discriminator.modules():
        module.requires_grad_(True)
    wrapped = GradSampleModule(discriminator, force_functorch=functorch)
    private = DPOptimizer(optimiser, noise_multiplier=NOISE, max_grad_norm=CLIP, expected_batch_size=setting.batch)

    def step() -> None:
        private.zero_grad()
        real, fake = wrapped(setting.real, *setting.rest), wrapped(setting.fake, *setting.rest)
        (F.softplus(-real).mean() + F.softplus(fake).mean()).backward()  # type: ignore[no-untyped-call]
        private.step()

    return step


def guarded(discriminator: nn.Module, setting: Setting) -> tuple[PatientGradients, PatientGradients]:
    """Ours for the real half and for the fake half of the loss."""

    def real_loss(batch: dict[str, Tensor], noise: dict[str, Tensor], progress: float) -> Tensor:
        return F.softplus(-discriminator(batch["image"], *setting.rest))

    def fake_loss(batch: dict[str, Tensor], noise: dict[str, Tensor], progress: float) -> Tensor:
        return F.softplus(discriminator(batch["image"], *setting.rest))

    probe: tuple[dict[str, Tensor], dict[str, Tensor]] = ({"image": torch.rand_like(setting.real[:4])}, {})
    return PatientGradients(discriminator, real_loss, clip=CLIP, probe=probe), PatientGradients(
        discriminator, fake_loss, clip=CLIP, probe=probe
    )


def ours(setting: Setting, *, clip_fakes: bool, mapped: bool = False) -> Step:
    """Clipped sum of the reals, secret noise, public batch; then the fakes, clipped like reals or as a plain mean."""
    discriminator, optimiser = setting.copy()
    real, fake = guarded(discriminator, setting)
    for gradients in (real, fake):
        path = gradients.path()
        assert path.fast, path.reason
        if mapped:
            engine = MappedEngine(discriminator, gradients.loss, path.parameters)
            object.__setattr__(path, "engine", engine)
            object.__setattr__(path, "samples", 16)
    randomness, everybody = SecretRandomness(), torch.arange(setting.batch)
    names = dict(discriminator.named_parameters())

    def step() -> None:
        sums = real.clipped_sum(everybody, lambda indices: ({"image": setting.real[indices, None]}, {}))
        if clip_fakes:
            _, free = fake.clipped_mean({"image": setting.fake}, {})
        else:
            loss = F.softplus(discriminator(setting.fake, *setting.rest)).mean()
            free = dict(zip(names, torch.autograd.grad(loss, list(names.values())), strict=True))
        for name, parameter in names.items():
            noise = randomness.gaussian(tuple(parameter.shape), NOISE * CLIP).to(parameter.device)
            parameter.grad = noise.add_(sums[name]).to(parameter.dtype) / setting.batch + free[name]
        optimiser.step()

    return step


METHODS: dict[str, Callable[[Setting], Step]] = {
    "plain step": plain,
    "Opacus, hooks": lambda setting: opacus(setting, functorch=False),
    "Opacus, functorch": lambda setting: opacus(setting, functorch=True),
    "vmap(grad), chunks of 16, plain fakes": lambda setting: ours(setting, clip_fakes=False, mapped=True),
    "ours, plain fakes": lambda setting: ours(setting, clip_fakes=False),
    "ours, every fake clipped like a patient": lambda setting: ours(setting, clip_fakes=True),
}


def disagreement(setting: Setting) -> float:
    """Relative difference of our clipped sum from the one by vmap(grad)."""
    real, _ = guarded(setting.discriminator, setting)
    everybody = torch.arange(setting.batch)
    mine = real.clipped_sum(everybody, lambda indices: ({"image": setting.real[indices, None]}, {}))
    path = real.path()
    object.__setattr__(path, "engine", MappedEngine(setting.discriminator, real.loss, path.parameters))
    object.__setattr__(path, "samples", 16)
    theirs = real.clipped_sum(everybody, lambda indices: ({"image": setting.real[indices, None]}, {}))
    apart = sum(float((mine[name] - theirs[name]).square().sum()) for name in mine)
    return float((apart / sum(float(value.square().sum()) for value in theirs.values())) ** 0.5)


def peak_megabytes(method: Callable[[Setting], Step], setting: Setting) -> float:
    """What three steps need beyond what was there: in a forked process on a CPU, by the allocator on a GPU."""
    if setting.real.is_cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before, step = torch.cuda.memory_allocated(), method(setting)
        for _ in range(3):
            step()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    reading, writing = os.pipe()
    if os.fork() == 0:
        before, step = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, method(setting)
        for _ in range(3):
            step()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        os.write(writing, str((peak - before) / 1024).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.wait()
    return float(text)


def measure(setting: Setting, repeats: int) -> dict[str, list[float]]:
    """Seconds of every method, taken in turn."""
    steps = {name: method(setting) for name, method in METHODS.items()}
    for step in steps.values():
        step()
    clock = time.perf_counter if setting.real.is_cuda else time.process_time
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            start = clock()
            step()
            if setting.real.is_cuda:
                torch.cuda.synchronize()
            seconds[name].append(clock() - start)
    return seconds


def main() -> None:
    """Print one table per discriminator."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--discriminator", choices=["dcgan64", "default"], nargs="+", default=["dcgan64", "default"])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    where = (
        torch.cuda.get_device_name() if options.device == "cuda" else f"{platform.machine()}, {options.threads} thread"
    )
    for name in options.discriminator:
        setting = {"dcgan64": dcgan64, "default": default}[name](options.device, options.batch)
        size = sum(parameter.numel() for parameter in setting.discriminator.parameters())
        print(f"\n{name}: {size:,} parameters, {options.batch} real + {options.batch} generated images; {where}, "
              f"torch {torch.__version__}; clipped sum against vmap(grad): {disagreement(setting):.1e}\n")  # fmt: skip
        memory = {method: peak_megabytes(METHODS[method], setting) for method in METHODS}
        seconds = measure(setting, options.repeats)
        plain_seconds = statistics.median(seconds["plain step"])
        print(
            "| method | milliseconds | times the plain step | (fastest by fastest) | peak MB |\n|---|---|---|---|---|"
        )
        for method, taken in seconds.items():
            median, least = statistics.median(taken), min(taken) / min(seconds["plain step"])
            print(
                f"| {method} | {median * 1e3:.0f} | {median / plain_seconds:.2f} | {least:.2f} | {memory[method]:.0f} |"
            )


if __name__ == "__main__":
    main()
