"""Distances with known answers, and the order that sets must come out in."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.metrics.regression import MultiScaleSSIMMetric
from torch.nn import functional

from fedsynth.data.phantoms.cohort import make_phantoms
from fedsynth.data.phantoms.settings import PhantomSettings
from fedsynth.errors import ImageSetError
from fedsynth.evaluation.fidelity.benchmark import run_fidelity
from fedsynth.evaluation.fidelity.distances import KernelDistance, cover, frechet
from fedsynth.evaluation.fidelity.diversity import (
    WEIGHTS,
    inception_score,
    ms_ssim,
    ms_ssim_of_pairs,
    pairs_within,
    random_pairs,
)
from fedsynth.evaluation.fidelity.features import spaces


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    settings = PhantomSettings(size=32, patients=50, slices=3, sites=2)
    return make_phantoms(tmp_path_factory.mktemp("set") / "set", settings, workers=1)


def gaussians(n, d, seeds=(0, 1)):
    return tuple(np.random.default_rng(seed).normal(size=(n, d)) for seed in seeds)


def test_the_frechet_distance_of_known_normals():
    """Of N(0, 1) and N(m, s^2) in one dimension: m^2 + (1 - s)^2; equal samples lie at zero."""
    x = gaussians(200000, 1)[0]
    assert frechet(x, 3 * x + 2) == pytest.approx(2**2 + (1 - 3) ** 2, rel=0.02)
    assert frechet(x, x) == pytest.approx(0, abs=1e-9)


def test_equal_distributions_are_far_apart_at_few_images_in_many_dimensions():
    """Published measurement: 508 at 200 images in 512 dimensions, 2.3 at 1000 in 64."""
    assert frechet(*gaussians(200, 512)) == pytest.approx(508, rel=0.03)
    assert frechet(*gaussians(1000, 64)) == pytest.approx(2.3, rel=0.05)


def test_the_kernel_distance_is_nothing_on_average_for_one_distribution_and_grows_with_the_gap():
    found = [KernelDistance.of(*gaussians(100, 8, (seed, 1000 + seed))).value() for seed in range(60)]
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(60)
    x, y = gaussians(100, 8)
    assert KernelDistance.of(x, y + 1).value() > KernelDistance.of(x, y + 0.5).value() > 3 * np.std(found)


def test_images_of_one_patient_do_not_pass_for_a_distance():
    rng = np.random.default_rng(0)
    found, blind = [], []
    for _ in range(60):
        patients = np.repeat(np.arange(40), 5).astype(str)
        a, b = (np.repeat(rng.normal(size=(40, 8)), 5, axis=0) + 0.3 * rng.normal(size=(200, 8)) for _ in range(2))
        found.append(KernelDistance.of(a, b, patients=patients, generated_patients=patients).value())
        blind.append(KernelDistance.of(a, b).value())
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(60)
    assert np.mean(blind) > 6 * np.std(blind) / np.sqrt(60)


def test_cover_of_one_distribution_and_of_copies():
    """Coverage of independent samples is 1 - 2^-5 (Naeem et al. 2020); copies cover everything."""
    x, y = gaussians(1000, 16)
    found = cover(x, y)
    assert found.coverage == pytest.approx(1 - 2**-5, abs=0.01)
    assert found.density == pytest.approx(1, abs=0.05)
    copies = cover(x, x)
    assert (copies.precision, copies.recall, copies.coverage) == (1, 1, 1)
    assert cover(x, y + 100).precision == 0


def test_the_inception_score_by_hand():
    assert inception_score(np.eye(3)) == pytest.approx(3, rel=1e-6)
    assert inception_score(np.full((5, 3), 1 / 3)) == pytest.approx(1)


def test_the_same_image_is_wholly_alike_and_pairs_are_of_different_images(real):
    assert ms_ssim_of_pairs(real, np.array([[3, 3]]))[0] == pytest.approx(1, abs=1e-5)
    pairs = random_pairs(10, 500, 0)
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert set(pairs.ravel()) == set(range(10))


def test_ms_ssim_is_monais_where_images_are_large_enough_for_it():
    first = torch.rand(3, 1, 176, 176, generator=torch.Generator().manual_seed(0))
    first = functional.interpolate(functional.max_pool2d(first, 16) ** 200, 176, mode="bilinear")
    second = 0.4 * first + 0.1 + 0.5 * first.flip(3)
    expected = MultiScaleSSIMMetric(2, reduction="none")(first, second)[:, 0]
    np.testing.assert_allclose(ms_ssim(first, second, np.array(WEIGHTS)), expected, rtol=1e-5)
    assert 0.1 < expected.min() < expected.max() < 0.95  # neither nothing nor all


def test_brightness_counts_at_the_last_scale_only():
    """A constant image beside a brighter one: contrast and structure are 1, luminance is that of the last scale."""
    first, second = torch.full((1, 1, 44, 44), 0.2), torch.full((1, 1, 44, 44), 0.6)
    luminance = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    assert ms_ssim(first, second, np.array([0.25, 0.25, 0.5]))[0] == pytest.approx(luminance**0.5, rel=1e-4)


def test_volumes_and_images_smaller_than_the_window_have_a_number_too():
    volume = torch.rand(2, 1, 12, 12, 8, generator=torch.Generator().manual_seed(0))
    assert ms_ssim(volume, volume, np.ones(1)) == pytest.approx([1, 1], rel=1e-5)


def test_pairs_are_within_a_class_and_every_class_has_its_share():
    classes = np.array(["a", "b", "a", "b", "b", "c", ""])
    pairs = pairs_within(classes, np.array(["a", "b"]), 101, 0)
    assert (classes[pairs[:, 0]] == classes[pairs[:, 1]]).all()
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert dict(zip(*np.unique(classes[pairs[:, 0]], return_counts=True), strict=True)) == {"a": 51, "b": 50}
    assert set(pairs_within(classes, np.array([], str), 500, 0).ravel()) == set(range(7))


def test_features_do_not_depend_on_the_voxel_type(real):
    floats = replace(real, images=np.asarray(real.images, np.float32) / 255)
    for space in spaces():
        np.testing.assert_allclose(space.of(real), space.of(floats), atol=1e-6)


def test_noise_is_worse_than_blur_and_blur_worse_than_other_patients(real):
    """Holdout images stand in for a perfect generator: near the real-against-real value beside them."""
    rng = np.random.default_rng(0)
    generated = real.select(role="member")
    pixels = np.asarray(generated.images)
    noise = rng.permuted(pixels.reshape(*pixels.shape[:2], -1), axis=2).reshape(pixels.shape)
    blur = pixels.copy()
    blur[..., 1:-1] = (pixels[..., :-2].astype(int) + pixels[..., 1:-1] + pixels[..., 2:]) // 3
    found = {}
    for name, shown in (("right", pixels), ("blur", blur), ("noise", noise)):
        cases = generated.cases.assign(patient="", site="", role="")
        header = replace(generated.header, origin="synthetic", split=None)
        found[name] = run_fidelity(real, replace(generated, images=shown, cases=cases, header=header)).scores
    for measure in ("fd/grid", "fd/filters", "kid/filters"):
        assert found["right"][measure].value < found["blur"][measure].value < found["noise"][measure].value
    assert found["right"]["fd/grid"].value == pytest.approx(found["right"]["fd/grid"].control, rel=0.5)
    precision = {name: scores["precision/filters"].value for name, scores in found.items()}
    assert precision["noise"] < precision["right"] / 3  # distractors of these phantoms look a little like noise
    same = replace(generated, images=np.broadcast_to(pixels[:1], pixels.shape), cases=cases, header=header)
    assert run_fidelity(real, same).scores["ms_ssim"].value > 0.99


def test_too_few_images_are_refused(real):
    with pytest.raises(ImageSetError, match="too few"):
        run_fidelity(real, real.rows(np.arange(5)))
