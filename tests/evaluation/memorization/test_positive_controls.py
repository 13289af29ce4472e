"""Positive controls are copies of members, changed and no more than that, of as many patients as there are."""

import numpy as np
import pandas as pd
import pytest

from fedsynth.data import Header, ImageSet
from fedsynth.evaluation.memorization.positive_controls import (
    CHANGES,
    KINDS,
    NEIGHBOUR,
    SAME_PATIENT,
    Power,
    change_all,
    ladder,
    make_positive_control,
    smallest_share,
)


def image_set(*, patients=6, each=3, size=(16, 16), slices=True):
    rng = np.random.default_rng(0)
    n = patients * each
    axes = np.meshgrid(*[np.linspace(-1, 1, edge) for edge in size], indexing="ij")
    body = (sum(axis**2 for axis in axes) < 0.6).astype(float)
    values = rng.uniform(0.3, 1, (n, 2, *[1] * len(size))) * body * (1 + 0.3 * axes[0] + 0.2 * axes[-1])
    cases = pd.DataFrame(
        {
            "case": [f"c{i}" for i in range(n)],
            "patient": [f"p{i // each}" for i in range(n)],
            "site": "",
            "role": ["member" if i // each < patients // 2 else "holdout" for i in range(n)],
            "class": "",
            "slice": [str(10 + i % each) if slices else "" for i in range(n)],
        },
        dtype=str,
    )
    spacing = (1.0,) * len(size)
    header = Header(name="s", origin="real", channels=("a", "b"), mask_labels=("background", "x"), spacing_mm=spacing)
    masks = np.repeat((body[None] * (axes[0] > 0)).astype(np.uint8), n, axis=0)
    return ImageSet(header=header, cases=cases, images=np.asarray(values / values.max(), np.float32), masks=masks)


def owners(images):
    return np.array([int(name[1:]) for name in images.cases["patient"]])


@pytest.mark.parametrize("size", [(16, 16), (12, 12, 12)])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_of_different_members_and_still_like_them(kind, size):
    real = image_set(size=size)
    inserted = make_positive_control(real, owners(real), kind, seed=1, count=3)
    assert sorted(owners(real)[inserted.sources]) == [0, 1, 2]
    assert len(inserted.hidden) == (0 if kind in CHANGES else 3)
    assert inserted.images.masks.shape == (3, *size)
    source = np.asarray(real.images[inserted.sources])
    made = np.asarray(inserted.images.images)
    if kind == "flipped":
        axis = -1 if len(size) == 2 else 2
        made = np.flip(made, axis)
    alike = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(source, made, strict=True)]
    assert min(alike) > (0.5 if kind == "shrunk" else 0.8)
    if kind not in ("exact", "flipped", NEIGHBOUR, SAME_PATIENT):
        assert not np.array_equal(source, made)


def test_patients_are_asked_in_turn_when_more_plants_are_wanted_than_there_are():
    real = image_set()
    inserted = make_positive_control(real, owners(real), "exact", seed=1, count=7)
    assert np.bincount(owners(real)[inserted.sources]).tolist() in ([3, 2, 2], [2, 3, 2], [2, 2, 3])


def test_kinds_that_a_set_does_not_allow_are_left_out():
    assert make_positive_control(image_set(slices=False), owners(image_set()), NEIGHBOUR, seed=0) is None
    alone = image_set(each=1)
    assert make_positive_control(alone, owners(alone), SAME_PATIENT, seed=0) is None


def test_every_image_is_changed_for_a_control():
    real = image_set()
    changed = change_all(real, CHANGES["noised"], seed=0)
    assert changed.cases.equals(real.cases)
    spread = (np.asarray(changed.images) - real.images)[:, :, 8, 8].std()
    assert 0.02 < spread < 0.06


@pytest.mark.parametrize(
    ("power", "n", "share"),
    [(1.0, 500, 1 / 500), (0.8, 500, 1 / 500), (0.5, 500, 3 / 500), (0.0, 9, None), (0.1, 9, None)],
)
def test_the_smallest_share_by_hand(power, n, share):
    assert smallest_share(power, n) == share  # 1 - 0.5 ** 3 >= 0.8 > 1 - 0.5 ** 2


def test_the_ladder_by_hand():
    power = Power(found=5, inserted=10, by_space={})
    assert ladder(power, 200, (0.005, 0.01, 0.02)) == {"0.005": 0.5, "0.01": 0.75, "0.02": 0.9375}
