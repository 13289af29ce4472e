"""Label maps of simulated heads, with the images that the simulator shows of them: no patient's shape is in any.

What is fitted to patients is one number: how many of the heads have skull and scalp. It follows from sums over images.
"""

import hashlib
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from fedsynth.code_digest import code_digest
from fedsynth.data.phantoms.style import names
from fedsynth.models import phantom_simulator
from fedsynth.models.base import Family, ImageShape, Phase, RandomSource, Tensors
from fedsynth.models.depth_profile import DEPTHS, Profile, depth_profile, share_of_first
from fedsynth.models.generators.catalog import Entry, Recipe, register
from fedsynth.models.kept_arrays import kept_arrays
from fedsynth.models.phantom_simulator import PhantomSimulator
from fedsynth.models.pseudo_patient import PseudoPatient, Shown
from fedsynth.models.public_pool import numpy_and_scipy

NET = "heads"
DRAWS = 2**62
COMPARED, STREAM = 100, 4
"""How many simulated heads of each kind patients are compared with."""
KEYS = ("head", "brain")


class Share(nn.Module):
    """Which share of the heads has skull and scalp."""

    head: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("head", torch.tensor(0.5, dtype=torch.float64))


class PhantomMaps(Family):
    """Draws label maps, each with an image of the same head; it takes no step."""

    phases: tuple[Phase, ...] = ()
    shared = (NET,)
    sampler = (NET,)
    passes = 1
    fitted = (NET,)
    pooled = (NET,)

    def __init__(self, shape: ImageShape, simulators: dict[bool, PhantomSimulator]) -> None:
        super().__init__(shape, {NET: Share()})
        self.simulators = simulators

    @property
    def share(self) -> Tensor:
        """What is fitted."""
        found: Tensor = self.nets[NET].get_buffer("head")
        return found

    def noise(self, n: int, rng: RandomSource) -> Tensors:
        """A seed for each map."""
        return {"draw": rng.integers(DRAWS, (n,))}

    def sums(self, number: int, batch: Tensors) -> Tensors:
        """What lies how deep in the images."""
        return {f"{NET}.profile": torch.from_numpy(depth_profile(batch["image"].float()))}

    def fit(self, number: int, sums: Tensors) -> None:
        """The share of heads with which simulated ones come nearest."""
        found = share_of_first(sums[f"{NET}.profile"].cpu().numpy(), *self._known())
        self.share.fill_(found)

    def sample(self, condition: Tensors, noise: Tensors) -> Tensors:
        """One-hot maps under `mask`, and images in [-1, 1] of the channels that the simulator shows."""
        seeds, share = noise["draw"].cpu().tolist(), float(self.share)
        labels = condition.get("label", torch.zeros(len(seeds), 0)).cpu()
        shown = [self._slice(seed, share, label) for seed, label in zip(seeds, labels, strict=True)]
        image = torch.from_numpy(np.stack([image for image, _ in shown])).float() / 127.5 - 1
        mask = torch.eye(self.shape.n_labels)[torch.from_numpy(np.stack([mask for _, mask in shown])).long()]
        device = noise["draw"].device
        return {"image": image.to(device), "mask": mask.movedim(-1, 1).to(device)}

    def _slice(self, seed: int, share: float, label: Tensor) -> Shown:
        rng = np.random.default_rng(seed)
        simulator = self.simulators[bool(rng.random() < share)]
        own = simulator.classes[int(label.argmax())] if label.any() else None
        return simulator.slices(_without_noise(simulator, simulator.draw(rng, own)), rng, 1)[0]

    def _known(self) -> list[Profile]:
        """The profiles of simulated heads and of simulated brains."""
        facts = (self.simulators[True].source, COMPARED, DEPTHS, numpy_and_scipy())
        code = code_digest((*self.simulators[True].code, "models/depth_profile.py", "models/tissue.py"))
        name = hashlib.sha256(repr((facts, code)).encode()).hexdigest()[:32]
        kept = kept_arrays(name, KEYS, lambda: dict(zip(KEYS, map(self._profile, (True, False)), strict=True)))
        return [kept[key] for key in KEYS]

    def _profile(self, head: bool) -> Profile:
        rng, simulator = np.random.default_rng([STREAM, head]), self.simulators[head]
        shown = [simulator.slices(simulator.draw(rng), rng, 1)[0][0] for _ in range(COMPARED)]
        return depth_profile(torch.from_numpy(np.stack(shown)).float() / 127.5 - 1)


def _without_noise(simulator: PhantomSimulator, patient: PseudoPatient) -> PseudoPatient:
    """The same with the least noise: a map says where the head ends, and the renderer adds the patients' noise."""
    style, place = patient.style.copy(), names(head=simulator.head).index(("scanner", "noise"))
    style[place] = simulator.limits[0, place]
    return replace(patient, style=style)


def build(shape: ImageShape, *, private: bool = False, shown: tuple[str, ...] = ("t1",)) -> PhantomMaps:
    """A new one; its images have the channels `shown`."""
    drawn = ImageShape(
        channels=len(shown),
        size=shape.size,
        n_classes=shape.n_classes,
        n_labels=shape.n_labels,
        channel_names=tuple(shown),
        class_names=shape.class_names,
        label_names=shape.label_names,
    )
    remedy = "take pca-maps, which are fitted to patients"
    simulators = {head: PhantomSimulator(shape=drawn, head=head, remedy=remedy) for head in (True, False)}
    return PhantomMaps(shape, simulators)


register(
    Entry(
        name="phantom-maps",
        summary="label maps of simulated heads, of which patients decide nothing but whether they have a skull",
        kind="maps",
        build=build,
        recipe=Recipe(augment=False),
        not_private="the sums over patients that it is fitted by are not clipped yet; take a joint family",
        dimensions="2",
        check_size=phantom_simulator.check_size,
    )
)
