"""Dice, Hausdorff distance and accuracy by hand, and what is not counted."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from fedsynth.benchmark.utility.accuracy import accuracy, auc, balanced_accuracy, calibration_error, most_frequent
from fedsynth.benchmark.utility.overlap import everything_dice, hausdorff95, score_masks
from fedsynth.images import Header, ImageSet


def images_of(masks, patients, spacing=(1.0, 1.0), labels=("background", "oedema", "core")):
    n = len(masks)
    header = Header(name="set", origin="real", channels=("t1",), classes=(), mask_labels=labels, spacing_mm=spacing)
    rows = [
        {"case": f"c{i}", "patient": patients[i], "site": "a", "role": "holdout", "class": "", "slice": ""}
        for i in range(n)
    ]
    pictures = np.full((n, 1, *masks[0].shape), 255, np.uint8)
    return ImageSet(header=header, cases=pd.DataFrame(rows), images=pictures, masks=np.stack(masks))


def block(rows, columns, label=1, size=8):
    mask = np.zeros((size, size), np.uint8)
    mask[rows, columns] = label
    return mask


def test_dice_counts_the_pixels_of_all_images_of_a_patient_together():
    truth = [block(slice(0, 2), slice(0, 2)), block(slice(0, 4), slice(0, 4))]
    guess = [block(slice(0, 2), slice(0, 2)), np.zeros((8, 8), np.uint8)]
    table = score_masks(images_of(truth, ["p", "p"]), guess).set_index("label")
    assert table.loc["oedema", "dice"] == pytest.approx(2 * 4 / (4 + 20))
    assert table.loc["whole", "dice"] == pytest.approx(2 * 4 / (4 + 20))
    assert np.isnan(table.loc["core", "dice"])
    assert table.loc["core", "false_alarm"] == 0
    assert np.isnan(table.loc["oedema", "false_alarm"])
    assert table.loc["oedema", "hd95"] == pytest.approx((0 + np.hypot(8, 8)) / 2)


def test_the_whole_lesion_does_not_ask_which_label():
    truth, guess = [block(slice(0, 2), slice(0, 2), 1)], [block(slice(0, 2), slice(0, 2), 2)]
    table = score_masks(images_of(truth, ["p"]), guess).set_index("label")
    assert table["dice"].fillna(-1).to_dict() == {"oedema": 0.0, "core": -1.0, "whole": 1.0}
    assert table.loc["core", "false_alarm"] == 1


def test_one_foreground_label_has_no_whole():
    truth = [block(slice(0, 2), slice(0, 2))]
    table = score_masks(images_of(truth, ["p"], labels=("background", "lesion")), truth)
    assert table["label"].tolist() == ["lesion"]


def test_the_distance_is_in_millimetres_along_each_axis():
    here, there = block(slice(0, 1), slice(0, 1)) > 0, block(slice(2, 3), slice(3, 4)) > 0
    assert hausdorff95(here, there, (1.0, 1.0)) == pytest.approx(np.hypot(2, 3))
    assert hausdorff95(here, there, (2.0, 1.0)) == pytest.approx(5)


def test_a_missed_lesion_is_as_far_as_the_image_is_wide():
    """Two images with a lesion, of which one was found, and one without: its paint is no distance."""
    lesion, nothing = block(slice(0, 2), slice(0, 2)), np.zeros((8, 8), np.uint8)
    images = images_of([lesion, lesion, nothing], ["p"] * 3, spacing=(2.0, 1.0), labels=("background", "lesion"))
    found = score_masks(images, [lesion, nothing, lesion]).iloc[0]
    assert found["hd95"] == pytest.approx((0 + np.hypot(16, 8)) / 2)
    assert found["missed"] == 0.5
    assert hausdorff95(nothing > 0, lesion > 0, (2.0, 1.0)) == pytest.approx(np.hypot(16, 8))
    nobody = score_masks(images_of([nothing], ["p"], labels=("background", "lesion")), [lesion]).iloc[0]
    assert np.isnan([nobody["hd95"], nobody["missed"]]).all()


def test_missing_small_lesions_makes_the_distance_worse():
    large, small = block(slice(0, 4), slice(0, 4)), block(slice(0, 1), slice(0, 1))
    images = images_of([large, small], ["p", "q"], labels=("background", "lesion"))
    careful = score_masks(images, [block(slice(0, 4), slice(0, 5)), block(slice(2, 3), slice(2, 3))])["hd95"].mean()
    careless = score_masks(images, [block(slice(0, 4), slice(0, 5)), np.zeros((8, 8), np.uint8)])["hd95"].mean()
    assert careful < careless


def test_the_baseline_calls_everything_a_lesion():
    found = everything_dice(images_of([block(slice(0, 4), slice(0, 8))], ["p"]))
    assert found == {"oedema": pytest.approx(2 * 32 / (64 + 32)), "whole": pytest.approx(2 * 32 / (64 + 32))}


TRUTH = np.array([0, 0, 0, 1])
CHANCES = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])


def test_accuracy_by_hand():
    assert accuracy(TRUTH, CHANCES) == 0.5
    assert balanced_accuracy(TRUTH, CHANCES) == pytest.approx((2 / 3 + 0) / 2)
    assert auc(TRUTH, CHANCES) == pytest.approx(2 / 3)  # of three pairs, one stands the wrong way round
    assert calibration_error(TRUTH, CHANCES) == pytest.approx((0.1 + 0.2 + 0.7 + 0.6) / 4)
    assert most_frequent(TRUTH) == 0.75


def test_the_area_is_scikit_learns_with_ties_too():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 60)
    chances = rng.integers(1, 5, (60, 3)) / 10
    expected = roc_auc_score(np.eye(3)[truth], chances, average="macro")
    assert auc(truth, chances) == pytest.approx(expected)
