"""Two stages as one family: a model of label maps given the class, and a renderer of maps into images.

Networks are named `maps-<network>` and `renderer-<network>`, so that one training, one checkpoint and one card hold
both. Each stage is a family of its own and learns from patients' own maps; maps are drawn only when images are.

A map of lesions says nothing of the anatomy around them. With `tissue` a third stage, `tissue-maps`, draws classes of
tissue that were found in the images without labels, and the renderer is told both. Maps of simulated heads
(`phantom-maps`) come with an image, in which tissue is found the same way.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from fedsynth.errors import ConfigError
from fedsynth.models.augmentation import Augmentation
from fedsynth.models.base import Family, ImageShape, Phase, RandomSource, Tensors
from fedsynth.models.generators import catalog
from fedsynth.models.generators.catalog import Entry, Recipe, register
from fedsynth.models.layers import local_mean
from fedsynth.models.pairing import one_hot
from fedsynth.models.tissue import SHARES, tissue_of

MAPS, TISSUE, RENDERER = "maps", "tissue", "renderer"
DEFAULTS = {MAPS: "pca-maps", RENDERER: "render-vae"}
SIMULATED = "phantom-maps"
TOLD_TISSUE = ("render-vae", "spade")
CLASSES, NAMED = 3, ("csf", "grey", "white")
"""Classes of tissue, where no label names any."""
SPECK, TIE = 0.01, 1e-3


class TwoStage(Family):
    """Delegates to them; a `source` in a condition takes the place of the map of lesions that would be drawn."""

    def __init__(
        self,
        shape: ImageShape,
        maps: Family,
        renderer: Family,
        tissue: Family | None = None,
        *,
        classes: int = 0,
        simulated: bool = False,
    ) -> None:
        by_stage = {MAPS: maps, RENDERER: renderer} | ({} if tissue is None else {TISSUE: tissue})
        nets = {f"{name}-{net}": module for name, family in by_stage.items() for net, module in family.nets.items()}
        super().__init__(shape, nets)
        self._by_stage = by_stage  # in a dict, so that no network is registered twice
        self.tissue, self.simulated = classes, simulated
        self.phases = tuple(
            replace(phase, net=f"{name}-{phase.net}") for name, family in by_stage.items() for phase in family.phases
        )
        self.shared, self.sampler, self.fitted, self.pooled = (
            tuple(f"{name}-{net}" for name, family in by_stage.items() for net in getattr(family, kind))
            for kind in ("shared", "sampler", "fitted", "pooled")
        )
        self.passes = max(family.passes for family in by_stage.values())
        self.mixes_samples = any(family.mixes_samples for family in by_stage.values())

    def stages(self) -> tuple[float, ...]:
        """Those of both."""
        return tuple(sorted({stage for family in self._by_stage.values() for stage in family.stages()}))

    def noise(self, n: int, rng: RandomSource) -> Tensors:
        """That of both, by `<stage>/<name>`."""
        return {
            f"{stage}/{name}": value
            for stage, family in self._by_stage.items()
            for name, value in family.noise(n, rng).items()
        }

    def real_loss(self, phase: Phase, batch: Tensors, noise: Tensors, progress: float) -> Tensor:
        """That of the phase's stage."""
        stage, own = _split(phase.net)
        shown = self._for_stage(stage, batch)
        return self._stage(stage).real_loss(replace(phase, net=own), shown, _under(stage, noise), progress)

    def fake_loss(self, phase: Phase, condition: Tensors, noise: Tensors, progress: float) -> Tensor:
        """That of the phase's stage."""
        stage, own = _split(phase.net)
        return self._stage(stage).fake_loss(replace(phase, net=own), condition, _under(stage, noise), progress)

    def sums(self, number: int, batch: Tensors) -> Tensors:
        """Those of both, in the same pass."""
        return {
            f"{stage}-{name}": value
            for stage, family in self._by_stage.items()
            if number < family.passes
            for name, value in family.sums(number, self._for_stage(stage, batch)).items()
        }

    def fit(self, number: int, sums: Tensors) -> None:
        """See `sums`; what a stage finds no sums for stays as it is."""
        for stage, family in self._by_stage.items():
            own = {name[len(stage) + 1 :]: value for name, value in sums.items() if name.startswith(f"{stage}-")}
            if own:
                family.fit(number, own)

    def after_update(self, net: str) -> None:
        """Told to the stage."""
        stage, own = _split(net)
        self._by_stage[stage].after_update(own)

    def sample(self, condition: Tensors, noise: Tensors) -> Tensors:
        """Maps, and an image for each."""
        maps, simulated = condition.get("source"), self.simulated and self.tissue > 0
        drawn: Tensors = {}
        if maps is None or simulated:
            drawn = self._by_stage[MAPS].sample(condition, _under(MAPS, noise))
        if maps is None:
            maps = one_hot(drawn["mask"].argmax(1), self.shape.n_labels)
        source = maps
        if self.tissue:
            tissue = tissue_of(drawn["image"], self.tissue) if simulated else self._drawn_tissue(maps, noise)
            maps = _within(maps, tissue) if condition.get("source") is None else maps
            source = _beside(maps, tissue)
        made = self._by_stage[RENDERER].sample(condition | {"source": source}, _under(RENDERER, noise))
        return {"image": made["image"], "mask": maps}

    def _drawn_tissue(self, maps: Tensor, noise: Tensors) -> Tensor:
        """Tissue (n, classes, ...) for these maps; blank slices, if there were any, have no lesion."""
        noise = _under(TISSUE, noise)
        ill = (maps[:, 1:].flatten(1).sum(1) > 0).to(noise["chance"])
        chance = torch.cat([noise["chance"][:, :1] * (1 - ill)[:, None], noise["chance"][:, 1:]], 1)
        drawn = self._by_stage[TISSUE].sample({}, noise | {"chance": chance})["mask"]
        return _smoothed(_without_specks(drawn)).to(maps)

    def _for_stage(self, stage: str, batch: Tensors) -> Tensors:
        """Maps and class without a picture; or the map as the picture's source."""
        if stage == MAPS and self.simulated:
            return batch
        if stage == MAPS:
            return batch | {"image": batch["image"][:, :0]}
        tissue = tissue_of(batch["image"], self.tissue) if self.tissue else batch["mask"][:, :0]
        if stage == TISSUE:
            return {"image": batch["image"][:, :0], "mask": _filled(tissue, batch["mask"])}
        rest = {name: value for name, value in batch.items() if name != "mask"}
        return rest | {"source": _beside(batch["mask"], tissue)}

    def _stage(self, name: str) -> Family:
        """The stage, showing its discriminator augmented samples where this family was told to."""
        family, augment = self._by_stage[name], self.augment
        if name == MAPS and isinstance(augment, Augmentation):
            augment = replace(augment, image_channels=0)
        family.augment = augment
        return family


def _split(net: str) -> tuple[str, str]:
    stage, _, own = net.partition("-")
    return stage, own


def _under(stage: str, noise: Tensors) -> Tensors:
    """The stage's own noise, and that of nobody in particular (augmentation)."""
    own = {name: value for name, value in noise.items() if "/" not in name or name.startswith(f"{stage}/")}
    return {name.removeprefix(f"{stage}/"): value for name, value in own.items()}


def _beside(maps: Tensor, tissue: Tensor) -> Tensor:
    """The map of lesions, and tissue where it names nothing."""
    return torch.cat([maps, tissue * maps[:, :1]], 1)


def _within(maps: Tensor, tissue: Tensor) -> Tensor:
    """Drawn lesions without what lies outside the drawn head, if there is one."""
    head = tissue.sum(1, keepdim=True)
    lesions = maps[:, 1:] * torch.where(head.flatten(1).sum(1).reshape(-1, *[1] * (head.dim() - 1)) > 0, head, 1)
    return torch.cat([1 - lesions.sum(1, keepdim=True), lesions], 1)


def _without_specks(drawn: Tensor) -> Tensor:
    """Tissue (n, classes, ...) of drawn maps: specks and holes below a hundredth of the head are drawing errors."""
    tissue = drawn[:, 1:].clone()
    middle = tissue.shape[1] // 2
    for one in tissue:
        there = one.sum(0).cpu().numpy() > 0
        holes = ndimage.binary_fill_holes(there) & ~there  # air that reaches the border is none
        one[:, _small(there, there.sum()).to(one.device)] = 0
        filled = _small(holes, there.sum()).to(one.device)
        one[middle, filled] = 1
    return tissue


def _smoothed(tissue: Tensor) -> Tensor:
    """Tissue (n, classes, ...) whose head has a smooth outline and as many voxels as before: random sums of shapes fray
    it. What is added is of the darkest class, as the rim of a head is."""
    head = tissue.sum(1, keepdim=True)
    within, smooth = local_mean(local_mean(head)) + TIE * head, torch.zeros_like(head)
    for one, score, voxels in zip(smooth, within, head.flatten(1).sum(1).long().tolist(), strict=True):
        if voxels:
            one[score >= score.flatten().topk(voxels).values[-1]] = 1
    kept, added = tissue * smooth, smooth * (1 - head)
    return torch.cat([kept[:, :1] + added, kept[:, 1:]], 1)


def _small(region: NDArray[np.bool_], head: int) -> Tensor:
    """Pieces of the region below `SPECK` of the head."""
    pieces, _ = ndimage.label(region)
    return torch.from_numpy((np.bincount(pieces.ravel()) < SPECK * head)[pieces] & region)


def _filled(tissue: Tensor, maps: Tensor) -> Tensor:
    """Tissue as label maps, with the middle class where a lesion hides what was there."""
    lesion = 1 - maps[:, :1]
    middle = torch.zeros_like(tissue)
    middle[:, tissue.shape[1] // 2] = 1
    tissue = torch.where(lesion > 0, middle, tissue)
    return torch.cat([1 - tissue.sum(1, keepdim=True), tissue], 1)


def build(
    shape: ImageShape,
    *,
    private: bool = False,
    maps: str = DEFAULTS[MAPS],
    renderer: str = DEFAULTS[RENDERER],
    tissue: int | None = None,
    **options: Any,
) -> TwoStage:
    """A new one of the families of those names; other options are the renderer's.

    So many classes of `tissue` are told to the renderer: three for render-vae and spade where no label names any, else
    none.
    """
    named = any(name in NAMED for name in shape.label_names)
    usual = CLASSES if renderer in TOLD_TISSUE and not named else 0
    classes = usual if tissue is None else tissue
    if classes not in (0, *SHARES):
        raise ConfigError("'tissue' has an unknown value", value=tissue, remedy=f"take 0 or one of {sorted(SHARES)}")
    of_maps = replace(shape, channels=0, channel_names=())
    of_images = replace(shape, n_labels=0, source_channels=shape.n_labels + classes)
    if renderer == DEFAULTS[RENDERER]:
        options["tissue"] = classes
    heads = replace(of_maps, n_labels=classes + 1, n_classes=0)  # of all classes together: more maps, better shapes
    simulated = maps == SIMULATED
    of_tissue = catalog.build(DEFAULTS[MAPS], heads) if classes and not simulated else None
    shown: dict[str, Any] = {"shown": shape.channel_names} if simulated else {}
    drawn = catalog.build(maps, of_maps, **shown)
    rendered = catalog.build(renderer, of_images, **options)
    return TwoStage(shape, drawn, rendered, of_tissue, classes=classes, simulated=simulated)


def recipe(maps: str = DEFAULTS[MAPS], renderer: str = DEFAULTS[RENDERER], **_: Any) -> Recipe:
    """The renderer's; the networks of the maps keep their own rates."""
    of_maps, of_images = catalog.find(maps), catalog.find(renderer)
    if of_images.kind not in ("paired", "joint or paired", "training-free"):
        remedy = "take render-vae, spade, pix2pix or diffusion"
        raise ConfigError("this family makes no images of label maps", value=renderer, remedy=remedy)
    if of_maps.kind not in ("maps", "joint", "joint or paired"):
        raise ConfigError(
            "this family draws no label maps", value=maps, remedy="take pca-maps, phantom-maps, dcgan or vae"
        )
    rates = {
        f"{stage}-{net}": rate
        for stage, entry in ((MAPS, of_maps), (RENDERER, of_images))
        for net, rate in entry.recipe.rates.items()
    }
    augment = of_maps.recipe.augment or of_images.recipe.augment
    return replace(of_images.recipe, rates=rates | {MAPS: of_maps.recipe.rate}, augment=augment)


register(
    Entry(
        name="two-stage",
        summary="a model of label maps, then a renderer of them (pca-maps and render-vae): teaches most",
        kind="two-stage",
        build=build,
        derived=recipe,
        not_private="the sums over patients that it is fitted by are not clipped yet; take a joint family",
    )
)
