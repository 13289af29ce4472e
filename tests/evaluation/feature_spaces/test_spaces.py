"""What every space must hold, over all of them: positive controls are nearest, contrast and mirrors hide nothing."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from fedsynth.data import ImageSet
from fedsynth.data.format import COLUMNS, Header, Origin
from fedsynth.errors import ConfigError, ImageSetError
from fedsynth.evaluation.feature_spaces.encoder import Encoder
from fedsynth.evaluation.feature_spaces.pixels import REGIONS, Components, Masks, Pixels, RegionPixels
from fedsynth.evaluation.feature_spaces.space import Space, default_spaces, reidentification, spaces_named
from fedsynth.evaluation.nearest_neighbours import patient_distances

MAKE: dict[str, Callable[[], Space]] = {
    "pixels": Pixels,
    "components": Components,
    "encoder": lambda: Encoder(steps=8),
    "centre": lambda: RegionPixels("centre"),
}


def blob_patients(n: int = 14, slices: int = 2, *, axes: int = 2, size: int = 32, channels: int = 2) -> ImageSet:
    """An ellipsoidal head on black, with a pattern of the patient's own inside; slices differ by a little."""
    rng = np.random.default_rng(7)
    frame = np.stack(np.meshgrid(*[np.linspace(-1, 1, size)] * axes, indexing="ij"))
    images, masks, rows = [], [], []
    for patient in range(n):
        head = sum((frame[axis] / rng.uniform(0.55, 0.8)) ** 2 for axis in range(axes)) < 1
        own = ndimage.gaussian_filter(rng.normal(size=(channels, *[size] * axes)), (0, *[2.5] * axes))
        spot = sum((frame[axis] - rng.uniform(-0.3, 0.3)) ** 2 for axis in range(axes)) < rng.uniform(0.03, 0.1)
        for number in range(slices):
            other = ndimage.gaussian_filter(rng.normal(size=own.shape), (0, *[2.5] * axes))
            texture = own / own.std() + 0.3 * other / other.std()
            images.append(np.clip(0.5 + 0.14 * texture, 0.15, 1) * head)
            masks.append(spot)
            name = f"p{patient:02d}"
            rows.append({"case": f"{name}-{number}", "patient": name})
    header = Header(
        name="blobs",
        origin="real",
        channels=tuple("abcd"[:channels]),
        spacing_mm=(1.0,) * axes,
        mask_labels=("background", "tumour"),
    )
    voxels = (np.array(images) * 255).astype(np.uint8)
    cases = pd.DataFrame(rows).assign(site="a", role="", slice="", **{"class": ""})
    return ImageSet(header=header, cases=cases[list(COLUMNS)], images=voxels, masks=np.array(masks, np.uint8))


def with_images(
    base: ImageSet, images: np.ndarray, masks: np.ndarray | None = None, origin: Origin = "synthetic"
) -> ImageSet:
    cases = base.cases.assign(case=[f"made-{row}" for row in range(len(base))])
    masks = np.asarray(base.masks) if masks is None else masks
    return ImageSet(header=replace(base.header, origin=origin), cases=cases, images=images, masks=masks)


def owners(images: ImageSet) -> np.ndarray:
    return np.unique(images.cases["patient"].to_numpy().astype(str), return_inverse=True)[1]


@pytest.fixture(scope="module")
def real() -> ImageSet:
    return blob_patients()


@pytest.fixture(scope="module", params=MAKE)
def fitted(request: pytest.FixtureRequest, real: ImageSet) -> Space:
    space = MAKE[request.param]()
    space.fit(real, seed=1)
    return space


def ratios(space: Space, real: ImageSet, made: ImageSet) -> tuple[np.ndarray, np.ndarray]:
    found = patient_distances(space.views(made), space.features(real), owners(real), 2)
    return found.distances[:, 0] / np.maximum(found.distances[:, 1], 1e-9), found.patients[:, 0]


def as_float(images: ImageSet) -> np.ndarray:
    return np.asarray(images.images, np.float32) / 255


def test_features_are_finite_rows_of_float32_and_the_first_view(fitted: Space, real: ImageSet):
    features = fitted.features(real)
    assert features.dtype == np.float32
    assert features.shape[0] == len(real)
    assert np.isfinite(features).all()
    np.testing.assert_allclose(next(iter(fitted.views(real))), features, atol=1e-5)


CHANGES = {
    "exact": lambda image: image,
    "mirrored": lambda image: image[..., ::-1],
    "darker": lambda image: image**2,
    "brighter": lambda image: image**0.6,
}


def test_copies_are_nearest_to_their_patient_by_far(fitted: Space, real: ImageSet):
    """A region is held against whole frames in its own place and as it is: exact copies are all that it promises."""
    for change in ["exact"] if fitted.name == "centre" else CHANGES:
        ratio, patient = ratios(fitted, real, with_images(real, CHANGES[change](as_float(real)).astype(np.float32)))
        np.testing.assert_array_equal(patient, owners(real), err_msg=change)
        assert np.median(ratio) < (1e-3 if change in ("exact", "mirrored") else 0.5), change


@pytest.mark.parametrize("change", ["turned", "inverted", "shifted", "rotated", "zoomed"])
def test_pixels_see_through_pose_and_inversion(real: ImageSet, change: str):
    def moved(image: np.ndarray) -> np.ndarray:
        if change == "turned":
            return np.rot90(image, 1, (2, 3))
        if change == "inverted":
            return 1 - image
        if change == "shifted":
            return np.roll(image, (2, -1), (2, 3))
        if change == "rotated":
            return ndimage.rotate(image, 10, axes=(2, 3), reshape=False, order=1)
        return ndimage.zoom(image, (1, 1, 1.25, 1.25), order=1)[:, :, 4:36, 4:36]

    space = Pixels()
    space.fit(real, seed=0)
    made = with_images(real, np.clip(moved(as_float(real)), 0, 1).astype(np.float32))
    ratio, patient = ratios(space, real, made)
    assert (patient == owners(real)).mean() > 0.9
    assert np.median(ratio) < (1e-3 if change in ("turned", "inverted") else 0.6)


def test_components_see_through_mixed_channels_and_noise(real: ImageSet):
    space = Components()
    space.fit(real, seed=0)
    ratio, _ = ratios(space, real, with_images(real, np.asarray(real.images)[:, ::-1]))
    assert ratio.max() < 1e-3
    noisy = as_float(real) + np.random.default_rng(0).normal(0, 0.03, real.images.shape)
    ratio, patient = ratios(space, real, with_images(real, np.clip(noisy, 0, 1).astype(np.float32)))
    np.testing.assert_array_equal(patient, owners(real))
    assert np.median(ratio) < 0.6


def test_a_collage_shows_in_the_regions_that_it_took(real: ImageSet):
    images = np.array(real.images)
    other = np.roll(images, 2, axis=0)
    images[..., :16] = other[..., :16]
    found = {}
    for region in REGIONS:
        space = RegionPixels(region)
        space.fit(real, seed=0)
        found[region] = np.median(ratios(space, real, with_images(real, images))[0])
    assert max(found["left"], found["right"]) < 0.6
    assert min(found["upper"], found["lower"]) > 0.8


def test_blank_images_are_copies_of_nobody(fitted: Space, real: ImageSet):
    """One patient's image is blank, and so is every made one: they must not all count as that patient's."""
    images = np.array(real.images)
    images[0] = 0
    images[2] = 128
    with_blank = with_images(real, images, origin="real")
    space = MAKE[fitted.name]()
    space.fit(with_blank, seed=0)
    for blank in (0, 77, 255):
        made = with_images(real, np.full_like(images, blank))
        features = space.features(made)
        assert np.isfinite(features).all()
        ratio, _ = ratios(space, with_blank, made)
        assert ratio.min() > 0.5


def test_blank_images_of_the_same_name_in_two_sets_are_not_copies():
    one, other = blob_patients(6), blob_patients(6)
    masks = np.zeros_like(np.asarray(one.masks))
    images = np.random.default_rng(0).integers(0, 255, one.images.shape, dtype=np.uint8)
    real = ImageSet(header=one.header, cases=one.cases, images=one.images, masks=masks)
    made = ImageSet(header=other.header, cases=other.cases, images=images, masks=masks)
    space = Masks()
    space.fit(blob_patients(6), seed=0)
    assert ratios(space, real, made)[0].min() > 0.5


def test_only_blank_images_give_finite_features(real: ImageSet):
    blank = with_images(real, np.zeros_like(np.asarray(real.images)))
    for make in MAKE.values():
        space = make()
        space.fit(blank, seed=0)
        assert np.isfinite(space.features(blank)).all()


def test_the_order_of_rows_and_the_roles_do_not_matter_to_pixels_and_components(real: ImageSet):
    order = np.random.default_rng(0).permutation(len(real))
    roles = np.where(np.arange(len(real)) < len(real) // 2, "member", "holdout")
    shuffled = real.with_cases(real.cases.assign(role=roles)).rows(order)
    for make in (Pixels, Components):
        one, other = make(), make()
        one.fit(real, seed=0)
        other.fit(shuffled, seed=0)
        first, second = one.features(real)[order], other.features(shuffled)
        np.testing.assert_allclose(
            np.linalg.norm(first - first[:1], axis=1), np.linalg.norm(second - second[:1], axis=1), rtol=0.01, atol=0.01
        )


def test_the_encoder_is_the_same_for_the_same_seed_and_leaves_global_randomness_alone(real: ImageSet):
    import torch

    before = torch.random.get_rng_state()
    features = []
    for seed in (3, 3, 4):
        space = Encoder(steps=3)
        space.fit(real, seed=seed)
        features.append(space.features(real))
    np.testing.assert_array_equal(features[0], features[1])
    assert not np.array_equal(features[0], features[2])
    assert torch.equal(before, torch.random.get_rng_state())


def test_training_brings_slices_of_a_patient_together(real: ImageSet):
    untrained, trained = Encoder(steps=1), Encoder(steps=40)
    for space in (untrained, trained):
        space.fit(real, seed=0)

    def gap(space: Encoder) -> float:
        features = space.features(real)
        apart = np.linalg.norm(features[::2] - np.roll(features[::2], 1, axis=0), axis=1).mean()
        return float(np.linalg.norm(features[::2] - features[1::2], axis=1).mean() / apart)

    assert gap(trained) < 0.8 * gap(untrained)


@pytest.mark.parametrize("channels", [1, 3])
def test_volumes_go_through_every_space(channels: int):
    volumes = blob_patients(6, 1, axes=3, size=16, channels=channels)
    for space in [Pixels(), Components(), Encoder(steps=2), Masks(), RegionPixels("left")]:
        space.fit(volumes, seed=0)
        ratio, patient = ratios(space, volumes, volumes)
        np.testing.assert_array_equal(patient, owners(volumes))
        assert ratio.max() < 1e-3
        assert len(list(space.views(volumes))) > 1


def test_frames_that_are_not_square_are_not_turned():
    square = blob_patients(5, 1)
    flat = with_images(square, np.asarray(square.images)[:, :, :, :24], np.asarray(square.masks)[:, :, :24])
    space = Pixels()
    space.fit(flat, seed=0)
    assert len(list(space.views(flat))) == 4 + 2
    assert ratios(space, flat, flat)[0].max() < 1e-3


def test_masks_of_a_member_under_a_new_image_are_seen_and_empty_ones_are_not(real: ImageSet):
    rng = np.random.default_rng(0)
    space = Masks()
    space.fit(real, seed=0)
    fresh = rng.integers(0, 255, real.images.shape, dtype=np.uint8)
    ratio, patient = ratios(space, real, with_images(real, fresh))
    np.testing.assert_array_equal(patient, owners(real))
    assert ratio.max() < 1e-3
    masks = np.array(real.masks)
    masks[0] = 0
    masks[2:4] = 0
    masks[2:4, 5, 5] = 1
    emptied = with_images(real, fresh, masks, origin="real")
    space.fit(emptied, seed=0)
    few = np.zeros_like(masks)
    few[1::2, 9, 9] = 1
    assert ratios(space, emptied, with_images(real, fresh, few))[0].min() > 0.5


def test_masks_are_asked_of_a_set_that_has_them(real: ImageSet):
    bare = ImageSet(header=replace(real.header, mask_labels=()), cases=real.cases, images=real.images)
    assert [space.name for space in default_spaces(bare)] == ["pixels", "components", "encoder"]
    assert [space.name for space in default_spaces(real)] == ["pixels", "components", "encoder", "masks"]
    space = Masks()
    space.fit(real, seed=0)
    with pytest.raises(ImageSetError, match="no masks"):
        space.features(bare)
    assert [space.name for space in spaces_named(("left", "pixels", "left"), real)] == ["left", "pixels"]
    with pytest.raises(ConfigError, match="did you mean 'pixels'"):
        spaces_named(("pixel",), real)


def test_reidentification_is_one_for_twins_and_unknown_without_second_images(real: ImageSet):
    twins = with_images(real, np.repeat(np.asarray(real.images)[::2], 2, axis=0))
    space = Pixels()
    space.fit(twins, seed=0)
    score = reidentification(space, twins)
    assert score.value == score.low == score.high == 1
    assert score.baseline == pytest.approx(1 / 27)
    assert score.n == 14
    alone = real.rows(np.arange(0, len(real), 2))
    assert reidentification(space, alone).value is None
    assert reidentification(space, real.rows(np.arange(2))).value is None
