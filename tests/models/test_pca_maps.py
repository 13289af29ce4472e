"""The model of label maps: fitted by sums that add up over sites, and its maps are nobody's."""

import numpy as np
import pytest
import torch

from fedsynth.errors import ConfigError, FedSynthError
from fedsynth.models.base import Family, ImageShape, SeededSource, Tensors, global_randomness
from fedsynth.models.generators import pca_maps
from fedsynth.models.generators.catalog import build
from fedsynth.models.generators.pca_maps import shifted

SHAPE = ImageShape(channels=0, size=(16, 16), n_classes=3, n_labels=3)
SMALL, LARGE, HEALTHY = 0, 1, 2


def maps(n: int = 60, seed: int = 0, size: tuple[int, ...] = (16, 16)) -> Tensors:
    """Cores within rims: small in the first class, large in the second; every fifth map and the third class: empty."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.arange(side) for side in size), indexing="ij"))
    label, masks = np.arange(n) % 3, np.zeros((n, *size), np.uint8)
    for i in range(n):
        if label[i] == HEALTHY or i % 5 == 0:
            continue
        centre = rng.uniform(6, np.array(size) - 6).reshape(-1, *[1] * len(size))
        stretch = rng.uniform(0.8, 1.25, len(size)).reshape(centre.shape)
        apart = np.sqrt((((grid - centre) * stretch) ** 2).sum(0))
        radius = {SMALL: 2.0, LARGE: 4.0}[int(label[i])] + rng.uniform(0, 0.8)
        masks[i] = (apart < radius).astype(np.uint8) + (apart < radius / 2)
    mask = torch.eye(3)[torch.from_numpy(masks).long()].movedim(-1, 1)
    return {"image": mask[:, :0], "mask": mask, "label": torch.eye(3)[torch.from_numpy(label)]}


def fresh(shape: ImageShape = SHAPE, seed: int = 0) -> Family:
    with global_randomness(seed):
        return build("pca-maps", shape)


def fitted(*batches: Tensors, shape: ImageShape = SHAPE) -> Family:
    """Fitted to all batches as sites would: each tells its sums, which are added."""
    family = fresh(shape)
    for number in range(family.passes):
        sums = [family.sums(number, batch) for batch in batches]
        family.fit(number, {name: torch.stack([one[name] for one in sums]).sum(0) for name in sums[0]})
    return family


def drawn(family: Family, label: int, n: int = 60, seed: int = 1) -> np.ndarray:
    condition = {"label": torch.eye(3)[torch.full((n,), label)]}
    made: np.ndarray = family.sample(condition, family.noise(n, SeededSource(seed)))["mask"].argmax(1).numpy()
    return made


def halves(batch: Tensors) -> tuple[Tensors, Tensors]:
    """An uneven cut, through no class or label alike."""
    return {k: v[:17] for k, v in batch.items()}, {k: v[17:] for k, v in batch.items()}


def test_sites_that_add_up_their_sums_fit_what_one_site_fits() -> None:
    whole, apart = fitted(maps()), fitted(*halves(maps()))
    for name, value in whole.nets.state_dict().items():
        torch.testing.assert_close(value, apart.nets.state_dict()[name], rtol=1e-3, atol=1e-3, msg=name)


def test_classes_keep_their_sizes_and_their_share_of_empty_maps() -> None:
    family = fitted(maps(120))
    small, large = drawn(family, SMALL), drawn(family, LARGE)
    areas = [np.median((masks[(masks > 0).any((1, 2))] > 0).sum((1, 2))) for masks in (small, large)]
    assert 10 < areas[0] < 30 < areas[1] < 80
    assert not drawn(family, HEALTHY).any()
    assert 0.05 < 1 - (large > 0).any((1, 2)).mean() < 0.4  # a fifth of them
    ill = large[(large > 0).any((1, 2))]
    assert ((ill == 2).any((1, 2))).mean() > 0.9  # the core within the rim


def test_every_label_has_the_area_that_real_maps_have() -> None:
    batch = maps(120)
    for label in (SMALL, LARGE):
        real = batch["mask"][batch["label"][:, label] > 0].argmax(1).numpy()
        made = drawn(fitted(batch), label, n=120)
        for own in (1, 2):
            areas = [(one == own).sum() / (one > 0).any((1, 2)).sum() for one in (real, made)]
            assert areas[1] == pytest.approx(areas[0], rel=0.2)


def test_drawn_maps_are_no_members() -> None:
    batch = maps(120)
    members = {mask.tobytes() for mask in batch["mask"].argmax(1).numpy() if mask.any()}
    made = [mask for mask in drawn(fitted(batch), LARGE) if mask.any()]
    copies = sum(mask.tobytes() in members for mask in made)
    assert len({mask.tobytes() for mask in made}) > 0.8 * len(made)
    assert copies == 0


def test_volumes_have_maps_too_and_one_seed_gives_one_map() -> None:
    shape = ImageShape(channels=0, size=(16, 16, 16), n_classes=3, n_labels=3)
    family = fitted(maps(48, size=shape.size), shape=shape)
    made = drawn(family, LARGE, n=4)
    assert made.shape == (4, *shape.size)
    assert made.any()
    assert np.array_equal(made, drawn(family, LARGE, n=4))


def test_a_class_with_hardly_any_lesions_borrows_the_shapes_of_all() -> None:
    batch = maps(60)
    own = [i for i in range(60) if int(batch["label"][i].argmax()) == SMALL and batch["mask"][i, 1:].any()]
    kept = torch.tensor([i for i in range(60) if i not in own[2:]])
    made = drawn(fitted({name: value[kept] for name, value in batch.items()}), SMALL)
    assert (made > 0).any()


def test_empty_maps_are_said_to_teach_nothing() -> None:
    batch = maps(12)
    batch["mask"][:, 1:], batch["mask"][:, 0] = 0, 1
    with pytest.raises(FedSynthError, match="would draw empty ones only: 0 of 12 label maps name anything"):
        fitted(batch)


def test_it_draws_maps_and_no_images() -> None:
    with pytest.raises(ConfigError, match="draws label maps alone; give --generator two-stage --maps pca-maps"):
        build("pca-maps", ImageShape(channels=1, size=(16, 16), n_labels=3))


@pytest.mark.parametrize("label", [0, 1, 2])
def test_a_labels_area_by_its_width_is_that_of_the_drawn_maps(label: int) -> None:
    """Fields of whole numbers: many voxels where labels reach equally far, or none does."""
    fields = torch.randint(-2, 3, (7, 3, 9, 8), generator=torch.Generator().manual_seed(0)).float()
    widths = torch.tensor([1.0, -1.0, 0.0])
    area = pca_maps._area_by_width(fields, widths, label)
    for width in (-3.0, -1.0, 0.0, 0.5, 2.0):
        widths[label] = width
        assert area(widths[label]) == float((pca_maps._labels(fields, widths) == label + 1).sum())
    assert area(torch.tensor(2.0)) > area(torch.tensor(0.0)) > area(torch.tensor(-3.0))


def test_what_is_shifted_off_the_grid_is_lost() -> None:
    mask = np.array([[1, 2], [3, 0]], np.uint8)
    assert shifted(mask, np.array([1.0, 0.0])).tolist() == [[0, 0], [1, 2]]
    assert shifted(mask, np.array([0.0, -1.0])).tolist() == [[2, 0], [0, 0]]
    assert not shifted(mask, np.array([5.0, 0.0])).any()
