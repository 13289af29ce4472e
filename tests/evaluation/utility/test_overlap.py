"""Dice, Hausdorff distance and accuracy by hand, and what is not counted."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from fedsynth.data import Header, ImageSet
from fedsynth.evaluation.utility.classification import (
    accuracy,
    auc,
    balanced_accuracy,
    calibration_error,
    measures,
)
from fedsynth.evaluation.utility.segmentation import brats_dice, count_lesions, hausdorff95, score_masks


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


NOTHING = np.zeros((8, 8), np.uint8)


def scored(truth, guess, **more):
    return score_masks(images_of(truth, ["p"] * len(truth), **more), guess).iloc[0]


def test_dice_counts_the_pixels_of_all_images_of_a_patient_together():
    found = scored(
        [block(slice(0, 2), slice(0, 2)), block(slice(0, 4), slice(0, 4))], [block(slice(0, 2), slice(0, 2)), NOTHING]
    )
    assert found["dice"] == found["dice_oedema"] == found["dice_mean"] == pytest.approx(2 * 4 / (4 + 20))
    assert np.isnan(found["dice_core"])
    assert found["hd95"] == pytest.approx((0 + np.hypot(8, 8)) / 2)


def test_the_whole_lesion_does_not_ask_which_label_and_the_mean_over_labels_does():
    found = scored([block(slice(0, 2), slice(0, 2), 1)], [block(slice(0, 2), slice(0, 2), 2)])
    assert (found["dice"], found["dice_mean"], found["dice_oedema"]) == (1, 0, 0)
    both = block(slice(0, 2), slice(0, 2), 1) + block(slice(4, 6), slice(0, 2), 2)
    assert scored([both], [block(slice(0, 2), slice(0, 2), 1)])["dice_mean"] == pytest.approx((1 + 0) / 2)


def test_one_foreground_label_is_the_whole_lesion():
    truth = [block(slice(0, 2), slice(0, 2))]
    found = scored(truth, truth, labels=("background", "lesion"))
    assert (found["dice"], found["dice_mean"]) == (1, 1)
    assert "dice_lesion" not in found


def test_false_positives_are_counted_in_images_without_a_lesion_alone():
    lesion, paint = block(slice(0, 2), slice(0, 2)), block(slice(4, 8), slice(4, 8))
    found = scored([lesion, NOTHING, NOTHING], [lesion + paint, paint, NOTHING])
    assert found["fp_area"] == (16 + 0) / 2
    assert np.isnan(scored([lesion], [lesion + paint])["fp_area"])


def test_the_brats_convention_by_hand():
    """Empty on empty is 1, anything on empty is 0, nothing on a lesion is 0; per patient over all pixels together."""
    assert [brats_dice(0, 0, 0), brats_dice(0, 3, 0), brats_dice(0, 0, 3), brats_dice(2, 4, 2)] == [1, 0, 0, 4 / 6]
    lesion, dot = block(slice(0, 2), slice(0, 2)), block(slice(7, 8), slice(7, 8))
    ill = scored([lesion, NOTHING, NOTHING, lesion], [lesion, NOTHING, dot, NOTHING])
    assert ill["brats_slice_dice"] == (1 + 1 + 0 + 0) / 4
    assert ill["brats_dice"] == ill["dice"] == pytest.approx(2 * 4 / (5 + 8))
    assert scored([NOTHING, NOTHING], [NOTHING, NOTHING])["brats_dice"] == 1
    healthy = scored([NOTHING, NOTHING], [NOTHING, dot])
    assert (healthy["brats_dice"], healthy["brats_slice_dice"]) == (0, 0.5)
    assert np.isnan(healthy["dice"])


def test_lesions_are_counted_by_components():
    """Two lesions, of which one is found; two spots, of which one is a lesion. Diagonal neighbours are one."""
    first, second = block(slice(0, 2), slice(0, 2)) > 0, block(slice(6, 8), slice(6, 8)) > 0
    spot = block(slice(0, 1), slice(7, 8)) > 0
    assert count_lesions(first | spot, first | second).tolist() == [1, 2, 1, 2]
    assert count_lesions(np.eye(8, dtype=bool), np.eye(8, dtype=bool)).tolist() == [1, 1, 1, 1]
    everything = np.ones((8, 8), bool)
    assert count_lesions(everything, first).tolist() == [0, 1, 0, 1]  # 4 of 64 pixels: below a tenth
    found = scored([first * np.uint8(1), second * np.uint8(1)], [first | spot, NOTHING > 0])
    assert (found["lesion_sensitivity"], found["lesion_precision"]) == (0.5, 0.5)
    nobody = scored([NOTHING], [NOTHING])
    assert np.isnan([nobody["lesion_sensitivity"], nobody["lesion_precision"]]).all()


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


TRUTH = np.array([0, 0, 0, 1])
CHANCES = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])


def test_accuracy_by_hand():
    assert accuracy(TRUTH, CHANCES) == 0.5
    assert balanced_accuracy(TRUTH, CHANCES) == pytest.approx((2 / 3 + 0) / 2)
    assert auc(TRUTH, CHANCES) == pytest.approx(2 / 3)  # of three pairs, one stands the wrong way round
    assert calibration_error(TRUTH, CHANCES) == pytest.approx((0.1 + 0.2 + 0.7 + 0.6) / 4)


def test_the_area_is_scikit_learns_with_ties_too():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 60)
    chances = rng.integers(1, 5, (60, 3)) / 10
    expected = roc_auc_score(np.eye(3)[truth], chances, average="macro")
    assert auc(truth, chances) == pytest.approx(expected)


def shifted(networks, n=40):
    """Two sites of which each ranks its own patients perfectly, the logits of the second shifted; two images each."""
    site = np.repeat(["a", "b"], [n, 3 * n])
    truth = np.tile([0, 1, 1, 0], n)
    logit = np.where(truth == 1, 1.0, -1.0) + np.where(site == "b", 5.0, 0.0)
    chance = 1 / (1 + np.exp(-logit))
    patients = [f"p{row // 2}" for row in range(4 * n)]
    return pd.DataFrame(
        {"case": patients, "patient": patients, "site": site, "truth": truth, "network": networks(site)}
        | {"p0": 1 - chance, "p1": chance}
    )


def test_networks_of_different_sites_are_not_ranked_against_each_other():
    each, one = (measures([shifted(of)]) for of in (lambda site: site, lambda site: ""))
    rows = each["auc"].rows
    assert each["auc"].value(rows) == 1
    assert one["auc"].value(rows) < 0.95
    own = [each["calibration"].value(each["calibration"].at(site)) for site in "ab"]
    assert each["calibration"].value(rows) == pytest.approx(np.average(own, weights=[1, 3]))
    assert each["accuracy"].value(rows) == one["accuracy"].value(rows)
    twice = np.concatenate([each["auc"].at("a"), each["auc"].at("a"), each["auc"].at("b")])  # as a bootstrap may draw
    assert each["calibration"].value(twice) == pytest.approx(np.average(own, weights=[2, 3]))


def test_a_site_with_one_class_alone_does_not_count_in_the_auc():
    table = shifted(lambda site: site)
    table.loc[table["site"] == "a", "truth"] = 1
    auc_of = measures([table])["auc"]
    assert auc_of.value(auc_of.rows) == 1
    assert np.isnan(auc_of.value(auc_of.at("a")))
