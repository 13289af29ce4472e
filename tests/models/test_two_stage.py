"""Two stages as one family: each learns as it does alone, and what is drawn by the first is rendered by the second."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedsynth.errors import ConfigError
from fedsynth.models.augmentation import Augmentation
from fedsynth.models.base import Family, ImageShape, SeededSource, Tensors, global_randomness
from fedsynth.models.generators.catalog import build, find, recipe_for
from fedsynth.models.generators.two_stage import _smoothed, _without_specks
from fedsynth.models.mixture import SiteMixture
from fedsynth.models.tissue import tissue_of
from tests.models.test_pca_maps import maps

SHAPE = ImageShape(channels=2, size=(16, 16), n_classes=3, n_labels=3)


def two_stage(seed: int = 0, **options: object) -> Family:
    with global_randomness(seed):
        return build("two-stage", SHAPE, base=4, **options)


def batch() -> Tensors:
    shown = maps()
    return shown | {"image": shown["mask"][:, 1:] - 0.5}


def fit(family: Family, shown: Tensors) -> Family:
    for number in range(family.passes):
        family.fit(number, family.sums(number, shown))
    return family


def test_each_stage_has_the_loss_that_it_has_alone() -> None:
    family = two_stage(maps="dcgan", renderer="pix2pix")
    shown, noise = batch(), family.noise(60, SeededSource(0))
    with global_randomness(0):
        build("dcgan", ImageShape(channels=0, size=(16, 16), n_classes=3, n_labels=3))
        alone = build("pix2pix", ImageShape(channels=2, size=(16, 16), n_classes=3, source_channels=3), base=4)
    own = {"image": shown["image"], "source": shown["mask"], "label": shown["label"]}
    named = {phase.net: phase for phase in family.phases}
    assert set(named) == {"maps-discriminator", "maps-generator", "renderer-discriminator", "renderer-generator"}
    for phase in alone.phases:
        mine = family.real_loss(named[f"renderer-{phase.net}"], shown, noise, 1.0)
        theirs = alone.real_loss(phase, own, {"channel": noise["renderer/channel"]}, 1.0)
        assert torch.equal(mine, theirs)
    free = family.fake_loss(named["maps-generator"], {"label": shown["label"]}, noise, 1.0)
    assert free.shape == (60,)


def test_images_come_with_the_maps_that_they_were_rendered_from() -> None:
    family = fit(two_stage(), batch())
    noise, label = family.noise(20, SeededSource(1)), torch.eye(3)[torch.arange(20) % 2]
    with torch.no_grad():
        made = family.sample({"label": label}, noise)
        again = family.sample({"label": label, "source": made["mask"]}, noise)
        other = family.sample({"label": label, "source": made["mask"].flip(0)}, noise)
    assert made["mask"][:, 1:].any()
    assert torch.equal(made["mask"].sum(1), torch.ones(20, 16, 16))
    assert torch.equal(made["image"], again["image"])
    assert torch.equal(other["mask"], made["mask"].flip(0))


def test_networks_are_registered_once_and_move_together() -> None:
    family = two_stage()
    names = [name for name, _ in family.named_parameters()]
    assert all(name.startswith("nets.") for name in names)
    assert family.fitted == ("maps-maps", "renderer-prior", "tissue-maps")
    assert family.pooled == ("maps-maps", "tissue-maps")
    family.nets.load_state_dict({name: value + 1 for name, value in family.nets.state_dict().items()})
    assert float(family._by_stage["maps"].statistics.counts[0, 0]) == 1  # type: ignore[attr-defined]


def test_discriminators_of_maps_are_shown_augmented_maps() -> None:
    family = two_stage(maps="dcgan", renderer="spade")
    augmentation = Augmentation(image_channels=2)
    noise = family.noise(60, SeededSource(0)) | augmentation.noise(60, 2, SeededSource(1))
    discriminator = next(phase for phase in family.phases if phase.net == "maps-discriminator")
    plain = family.real_loss(discriminator, batch(), noise, 1.0)
    family.augment = augmentation
    assert not torch.equal(family.real_loss(discriminator, batch(), noise, 1.0), plain)


def test_the_recipe_is_the_renderers_with_the_rates_of_both() -> None:
    recipe = recipe_for("two-stage", {"maps": "dcgan", "renderer": "spade"})
    own = find("spade").recipe
    assert (recipe.batch, recipe.steps, recipe.rate) == (own.batch, own.steps, own.rate)
    assert recipe.rates == {"maps": find("dcgan").recipe.rate, "renderer-discriminator": own.rates["discriminator"]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"renderer": "dcgan"}, "makes no images of label maps"),
        ({"maps": "pix2pix"}, "draws no label maps"),
        ({"maps": "pca"}, "unknown generator"),
    ],
)
def test_stages_that_are_none_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe_for("two-stage", options)


def test_without_masks_or_with_privacy_it_says_why_not() -> None:
    with pytest.raises(ConfigError, match="this image set has no masks; choose a joint family such as dcgan"):
        build("two-stage", ImageShape(channels=1, size=(16, 16), n_classes=2))
    with pytest.raises(ConfigError, match="cannot be trained privately: the sums over patients"):
        build("two-stage", SHAPE, private=True)
    with pytest.raises(ConfigError, match="render-vae has no such option"):
        two_stage(wide=3)


def test_one_class_or_none_is_enough() -> None:
    shown = batch()
    for n_classes in (0, 1):
        shape = ImageShape(channels=2, size=(16, 16), n_classes=n_classes, n_labels=3)
        with global_randomness(0):
            family = build("two-stage", shape, base=4)
        condition = {"label": torch.ones(60, 1)} if n_classes else {}
        own = {"image": shown["image"], "mask": shown["mask"]} | condition
        fit(family, own)
        with torch.no_grad():
            made = family.sample(condition, family.noise(60, SeededSource(0)))
        assert made["mask"][:, 1:].any()


def test_a_mixture_draws_each_image_by_one_site_and_by_its_share() -> None:
    members = [fit(two_stage(seed=seed), batch()) for seed in (0, 1)]
    mixture = SiteMixture(members, (0.8, 0.2))
    noise, label = mixture.noise(200, SeededSource(2)), torch.eye(3)[torch.zeros(200, dtype=torch.long)]
    with torch.no_grad():
        made = mixture.sample({"label": label}, noise)["image"].flatten(1)
        each = [member.sample({"label": label}, noise)["image"].flatten(1) for member in members]
    by = np.array([torch.isclose(made, one, atol=1e-4).all(1).numpy() for one in each])
    assert (by.sum(0) == 1).all()
    assert 0.1 < by[1].mean() < 0.3


def test_the_renderer_is_told_tissue_where_no_lesion_is() -> None:
    family = two_stage()
    shown = batch()
    told = family._for_stage("renderer", shown)["source"]  # type: ignore[attr-defined]
    assert torch.equal(told[:, :3], shown["mask"])
    assert torch.equal(told[:, 3:], tissue_of(shown["image"], 3) * shown["mask"][:, :1])
    learnt = family._for_stage("tissue", shown)["mask"]  # type: ignore[attr-defined]
    assert torch.equal(learnt.sum(1), torch.ones(60, 16, 16))
    assert learnt[:, 2][shown["mask"][:, 0] == 0].all(), "what a lesion hides is taken for the middle class"


def test_drawn_lesions_end_with_the_head_and_all_outside_is_black() -> None:
    family, shown = two_stage(), batch()
    shown["image"][:, :, :, :4] = -1  # all heads and lesions end at the fourth column
    shown["mask"][:, 1:, :, :4], shown["mask"][:, 0, :, :4] = 0, 1
    family = fit(family, shown)
    noise = family.noise(60, SeededSource(0))
    own = {name.removeprefix("tissue/"): value for name, value in noise.items()}
    head = _smoothed(_without_specks(family._by_stage["tissue"].sample({}, own)["mask"])).sum(1, keepdim=True)
    made = family.sample({"label": shown["label"][:60]}, noise)
    assert 0 < head.mean() < 1
    assert made["mask"][:, 1:].sum() > 0
    assert not (made["mask"][:, 1:] * (1 - head)).any()
    outside = (1 - head).bool().expand_as(made["image"])
    assert made["image"][outside].max() < -0.5


def test_the_outline_of_a_drawn_head_is_smoothed_and_what_is_thin_inside_it_stays() -> None:
    straight = torch.zeros(1, 2, 24, 24)
    straight[:, 0, :, 9], straight[:, 1, :, :9] = 1, 1  # a dark rim, one voxel wide
    frayed = straight.clone()
    frayed[:, 1, ::4, 10] = 1  # every fourth row reaches one voxel further
    frayed[:, 0, 2::4, 9] = 0  # and every fourth falls one short
    assert torch.equal(_smoothed(straight), straight)
    assert torch.equal(_smoothed(frayed), straight)


@pytest.mark.parametrize("size", [(16, 16), (12, 12, 12)])
def test_no_head_is_too_small_or_too_thin_to_keep_its_size(size: tuple[int, ...]) -> None:
    away = [(torch.arange(side) - (side - 1) / 2).square() for side in size]
    far = sum(part.reshape([-1 if i == axis else 1 for i in range(len(size))]) for axis, part in enumerate(away))
    heads = torch.stack([far < 2, far < 16, (far > 20) & (far < 32), far < 0]).float()  # tiny, small, a ring, none
    made = _smoothed(torch.stack([heads * 0, heads], 1)).sum(1)
    assert made.max() == 1
    assert made.flatten(1).sum(1).tolist() == pytest.approx(heads.flatten(1).sum(1).tolist(), rel=0.05)


def test_a_hole_that_is_mended_is_not_dark() -> None:
    drawn = torch.zeros(1, 4, 40, 40)
    drawn[:, 0], drawn[:, :2, 5:35, 5:35] = 1, torch.tensor([0.0, 1.0])[:, None, None]
    drawn[:, 0, 10:12, 10:12], drawn[:, 1, 10:12, 10:12] = 1, 0
    assert _smoothed(_without_specks(drawn))[0, :, 10, 10].tolist() == [0, 1, 0]


def test_specks_and_holes_of_a_drawn_head_are_mended_and_larger_ones_are_kept() -> None:
    drawn = torch.zeros(1, 4, 40, 40)
    drawn[:, 0] = 1
    drawn[:, :2, 5:35, 5:35] = torch.tensor([0.0, 1.0])[:, None, None]
    drawn[:, 0, 2, 2], drawn[:, 1, 2, 2] = 0, 1  # a speck
    drawn[:, 0, 10, 10:12], drawn[:, 1, 10, 10:12] = 1, 0  # a hole of two voxels
    drawn[:, 0, 20:25, 20:25], drawn[:, 1, 20:25, 20:25] = 1, 0  # a cavity
    tissue = _without_specks(drawn)
    assert not tissue[0, :, 2, 2].any()
    assert tissue[0, :, 10, 10:12].tolist() == [[0, 0], [1, 1], [0, 0]]
    assert not tissue[0, :, 20:25, 20:25].any()
    assert tissue.sum() == 30 * 30 - 25


def test_air_beside_a_head_that_fills_the_frame_is_no_hole() -> None:
    ahead = (torch.arange(64) - 31.5).square()
    disc = (ahead[:, None] + ahead[None] < 42**2).float()
    drawn = torch.stack([1 - disc, disc])[None]
    assert 0 < float((1 - disc).sum()) < 0.01 * float(disc.sum()) * 4
    assert torch.equal(_without_specks(drawn)[0, 0], disc)


def test_no_lesion_is_drawn_without_a_head() -> None:
    """A third of the training slices are blank, and blank tissue is drawn as often, but not where there is a lesion."""
    shown = batch()
    blank = torch.arange(60) % 3 == 0
    shown["image"][blank] = -1
    shown["mask"][blank, 1:], shown["mask"][blank, 0] = 0, 1
    family = fit(two_stage(), shown)
    noise = family.noise(90, SeededSource(0))
    label = torch.eye(3)[torch.arange(90) % 2]
    maps = family._by_stage["maps"].sample({"label": label}, {k[5:]: v for k, v in noise.items() if k[:5] == "maps/"})
    made = family.sample({"label": label}, noise)
    ill = maps["mask"][:, 1:].flatten(1).any(1)
    kept = made["mask"][:, 1:].flatten(1).any(1)
    assert 0 < int(ill.sum()) < 90
    assert torch.equal(ill, kept)
    assert (made["image"][kept].flatten(1).amax(1) > -0.9).all()


def test_another_lesion_is_drawn_into_the_same_anatomy() -> None:
    family = fit(two_stage(), batch())
    noise, label = family.noise(8, SeededSource(1)), torch.eye(3)[torch.arange(8) % 2]
    seen: list[torch.Tensor] = []
    renderer = family._by_stage["renderer"]  # type: ignore[attr-defined]
    real = renderer.sample
    renderer.sample = lambda condition, own: seen.append(condition["source"]) or real(condition, own)
    blank = torch.eye(3)[torch.zeros(8, 16, 16, dtype=torch.int64)].movedim(-1, 1)
    with torch.no_grad():
        made = family.sample({"label": label}, noise)
        family.sample({"label": label, "source": blank}, noise)
    here = made["mask"][:, :1]
    assert torch.equal(seen[0][:, 3:], seen[1][:, 3:] * here)
    assert seen[1][:, 3:].any()


def test_tissue_is_not_looked_for_where_labels_name_it_or_nobody_wants_it() -> None:
    named = replace(SHAPE, label_names=("background", "white", "tumour"))
    assert build("two-stage", named, base=4).tissue == 0  # type: ignore[attr-defined]
    assert two_stage(tissue=0).tissue == 0  # type: ignore[attr-defined]
    assert two_stage(renderer="spade").tissue == 3  # type: ignore[attr-defined]
    assert two_stage(renderer="pix2pix").tissue == 0  # type: ignore[attr-defined]
    assert two_stage(tissue=2, renderer="pix2pix").tissue == 2  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="tissue"):
        two_stage(tissue=7)
