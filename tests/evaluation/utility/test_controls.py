"""The controls: found where the answer is known, and what they are made of."""

from dataclasses import replace

import numpy as np
import pytest

from fedsynth.evaluation.utility.controls import fit_threshold, has_lesions, majority_class, mean_image_set
from fedsynth.evaluation.utility.segmentation import measures, score_arm
from tests.evaluation.utility.test_overlap import block, images_of


def thresholdable(gains, *, dark=False, dtype=np.uint8):
    """A lesion that stands out in the second of two channels; one image a patient, each with a gain of its own."""
    rng = np.random.default_rng(0)
    masks = [block(slice(i, i + 3), slice(2, 5), label=1 + i % 2) for i in range(len(gains))]
    images = images_of(masks, [f"p{i}" for i in range(len(gains))])
    pixels = rng.integers(60, 140, (len(gains), 2, 8, 8)).astype(float)
    pixels[:, 1] = np.where(images.masks > 0, 70 if dark else 160, 100 + pixels[:, 1] / 10)
    pixels *= np.array(gains)[:, None, None, None]
    header = replace(images.header, channels=("t1", "flair"))
    return replace(
        images, header=header, images=pixels.astype(np.uint8) if dtype is np.uint8 else (pixels / 255).astype(dtype)
    )


@pytest.mark.parametrize(("gains", "standardised"), [([1, 1, 1, 1], False), ([0.5, 1, 1.5, 0.7], True)])
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_threshold_is_found(gains, standardised, dark, dtype):
    images = thresholdable(gains, dark=dark, dtype=dtype)
    found = fit_threshold(images)
    assert (found.channel, found.bright, found.standardised) == (1, not dark, standardised)
    scores = measures([score_arm({None: found}, images)])
    assert scores["dice"].value(scores["dice"].rows) == 1
    assert scores["dice_mean"].value(scores["dice_mean"].rows) == 0.5  # all is called by one label


def test_background_is_never_a_lesion():
    images = thresholdable([1, 1])
    pixels = np.asarray(images.images).copy()
    pixels[:, :, :, 6:] = 0
    images = replace(images, images=pixels)
    (first, _) = fit_threshold(replace(images, images=255 - pixels * (pixels > 0))).predict(images)
    assert (first.argmax(0)[:, 6:] == 0).all()


def test_the_mean_image_has_lesions_as_bright_as_on_average():
    images = images_of(
        [block(slice(0, 2), slice(0, 2)), block(slice(4, 6), slice(4, 6)), np.zeros((8, 8), np.uint8)], ["p", "q", "r"]
    )
    pixels = np.full((3, 1, 8, 8), 90, np.uint8)
    pixels[0, 0, :2, :2], pixels[1, 0, 4:6, 4:6] = 150, 180
    made = mean_image_set(replace(images, images=pixels))
    assert made.header.origin == "synthetic"
    assert set(made.cases["patient"]) == {""}
    np.testing.assert_array_equal(made.masks, images.masks)
    mean = pixels.mean(0)[0]
    contrast = np.mean([150 - mean[0, 0], 180 - mean[4, 4]])
    assert made.images[2, 0].tolist() == np.rint(mean).tolist()
    assert made.images[0, 0, 0, 0] == np.rint(mean[0, 0] + contrast)
    assert made.images[0, 0, 4, 4] == np.rint(mean[4, 4])


def test_controls_need_lesions():
    assert not has_lesions(None)
    assert not has_lesions(images_of([np.zeros((8, 8), np.uint8)], ["p"]))
    assert has_lesions(images_of([block(slice(0, 2), slice(0, 2))], ["p"]))


def test_the_majority_class_answers_the_same_for_all():
    found = majority_class(["b", "a", "b"], ("a", "b"))
    images = images_of([np.zeros((8, 8), np.uint8)] * 3, ["p"] * 3)
    assert [answer.tolist() for answer in found.predict(images)] == [[0, 1]] * 3
