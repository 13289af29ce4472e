"""Duplicates across patients: planted ones are found, ordinary neighbours are not, neighbours against brute force."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from fedsynth.data import Header, ImageSet
from fedsynth.data.duplicates import (
    NEIGHBOURS,
    Duplicates,
    _neighbours,
    coarse_thumbnails,
    find_duplicates,
    fine_likeness,
)
from fedsynth.data.parallel import silent

Pixels = NDArray[Any]


def heads(n_patients: int, slices: int, seed: int, size: tuple[int, ...] = (48, 48)) -> Pixels:
    """Two-channel heads with a patient's own smooth inside; slices change slowly. (patients * slices, 2, *size)."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in size], indexing="ij"))
    made = []
    for _ in range(n_patients):
        width = rng.normal(0.75, 0.04, len(size)).reshape(-1, *[1] * len(size))
        inside = gaussian_filter(rng.standard_normal((2, *size)), (0, *[2.5] * len(size)))
        change = gaussian_filter(rng.standard_normal((2, *size)), (0, *[2.5] * len(size)))
        for k in range(slices):
            head = 1 / (1 + np.exp((np.sqrt(((grid / (width * (1 - 0.03 * k))) ** 2).sum(0)) - 1) * 20))
            texture = inside * np.cos(0.4 * k) + change * np.sin(0.4 * k)
            image = head * (0.5 + 0.15 * texture / texture.std())
            made.append(image + rng.normal(0, 0.01, image.shape))
    return (np.clip(made, 0, 1) * 255).round().astype(np.uint8)


def as_set(images: Pixels, patients: list[str], origin: str = "real") -> ImageSet:
    rows = [[f"c{i}", patient, "", "", "", ""] for i, patient in enumerate(patients)]
    return ImageSet(
        header=Header(
            name="s",
            origin=origin,  # type: ignore[arg-type]
            channels=("t1", "t2"),
            spacing_mm=(1.0,) * (images.ndim - 2),
        ),
        cases=pd.DataFrame(rows, columns=["case", "patient", "site", "role", "class", "slice"], dtype=str),
        images=images,
    )


def names(n_patients: int, slices: int, prefix: str = "p") -> list[str]:
    return [f"{prefix}{i}" for i in range(n_patients) for _ in range(slices)]


def near_rows(found: Duplicates) -> set[tuple[int, int]]:
    assert found.near is not None
    return {pair.rows for pair in found.near}


def noisy(share: float) -> Callable[[Pixels], Pixels]:
    rng = np.random.default_rng(9)
    return lambda image: np.clip(image + rng.normal(0, 255 * share, image.shape), 0, 255).round().astype(np.uint8)


def jpeg(image: Pixels) -> Pixels:
    channels = []
    for channel in image:
        buffer = io.BytesIO()
        Image.fromarray(channel).save(buffer, "JPEG", quality=60)
        channels.append(np.asarray(Image.open(buffer)))
    return np.stack(channels)


@pytest.mark.parametrize("seed", range(4))
def test_ordinary_neighbours_are_not_reported(seed: int) -> None:
    found = find_duplicates(as_set(heads(80, 4, seed), names(80, 4)))
    assert (found.exact, found.near, found.constant) == ([], [], [])
    assert found.detail_needed is not None
    assert 0.8 <= found.detail_needed < 1


@pytest.mark.parametrize(
    "change",
    [
        noisy(0.02),
        noisy(0.05),
        lambda image: (image * 0.7).astype(np.uint8),
        lambda image: np.clip(image * 1.2, 0, 255).astype(np.uint8),
        lambda image: np.clip(image.astype(int) + 12, 0, 255).astype(np.uint8),
        lambda image: np.roll(image, 1, axis=1),
        lambda image: np.roll(image, (1, -1), axis=(1, 2)),
        lambda image: gaussian_filter(image, (0, 0.6, 0.6)),
        jpeg,
    ],
    ids=["noise", "more noise", "darker", "brighter", "offset", "shift", "diagonal shift", "blur", "jpeg"],
)
def test_planted_near_copies_are_found(change: Callable[[Pixels], Pixels]) -> None:
    images = heads(60, 3, 0)
    sources = [0, 17, 44, 100, 161, 179]
    copies = np.stack([change(images[i]) for i in sources])
    found = find_duplicates(as_set(np.concatenate([images, copies]), names(60, 3) + names(6, 1, "copy")))
    planted = {(source, 180 + k) for k, source in enumerate(sources)}
    assert planted <= near_rows(found)
    patient_of = [i // 3 for i in range(180)] + [i // 3 for i in sources]
    assert all(patient_of[first] == patient_of[second] for first, second in near_rows(found))
    assert found.exact == []


def test_exact_copies_are_groups_and_not_near() -> None:
    images = heads(20, 2, 1)
    together = np.concatenate([images, images[[3, 8, 3]]])
    found = find_duplicates(as_set(together, [*names(20, 2), "x", "y", "z"]))
    assert found.exact == [[3, 40, 42], [8, 41]]
    assert not {(3, 40), (3, 42), (40, 42), (8, 41)} & near_rows(found)


def test_copies_within_a_patient_are_expected() -> None:
    images = heads(20, 2, 1)
    found = find_duplicates(as_set(np.concatenate([images, images[:1]]), [*names(20, 2), "p0"]))
    assert (found.exact, found.near) == ([], [])


def test_a_cohort_that_stands_twice_under_other_names() -> None:
    images = heads(30, 2, 2)
    again = np.stack([noisy(0.02)(image) for image in images])
    found = find_duplicates(as_set(np.concatenate([images, again]), names(30, 2) + names(30, 2, "q")))
    assert {(i, 60 + i) for i in range(60)} <= near_rows(found)


def test_what_is_too_much_to_confirm_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedsynth.data.duplicates.MOST_CANDIDATES", 10)
    images = heads(30, 2, 2)
    again = np.stack([noisy(0.02)(image) for image in images])
    found = find_duplicates(as_set(np.concatenate([images, again]), names(30, 2) + names(30, 2, "q")))
    assert len(near_rows(found)) == 10
    assert found.unchecked >= 50


def test_one_image_in_several_patients() -> None:
    images = heads(30, 2, 3)
    copies = np.stack([noisy(0.02)(images[0]) for _ in range(NEIGHBOURS - 1)])
    together = as_set(np.concatenate([images, copies]), names(30, 2) + names(NEIGHBOURS - 1, 1, "copy"))
    assert {(0, 60 + k) for k in range(NEIGHBOURS - 1)} <= near_rows(find_duplicates(together))


def test_constant_images_do_not_drown_the_rest() -> None:
    images = heads(20, 2, 4)
    empty = np.zeros((9, *images.shape[1:]), np.uint8)
    empty[4:, 1] = 30
    together = np.concatenate([empty, images, noisy(0.02)(images[5])[None]])
    found = find_duplicates(as_set(together, [*names(9, 1, "e"), *names(20, 2), "copy"]))
    assert found.constant == list(range(9))
    assert found.exact == []
    assert (14, 49) in near_rows(found)


def test_synthetic_images_without_patients_count_one_by_one() -> None:
    images = heads(60, 1, 5)
    together = np.concatenate([images, images[:1], noisy(0.02)(images[7])[None]])
    found = find_duplicates(as_set(together, [""] * 62, origin="synthetic"))
    assert found.exact == [[0, 60]]
    assert near_rows(found) == {(7, 61)}


def test_floating_point_and_volumes() -> None:
    images = heads(25, 1, 6, size=(20, 22, 24))
    together = np.concatenate([images, np.roll(images[3:4], 1, axis=4), images[9:10]])
    together = (together / 255).astype(np.float32)
    found = find_duplicates(as_set(together, [*names(25, 1), "shifted", "copy"]))
    assert found.exact == [[9, 26]]
    assert near_rows(found) == {(3, 25)}


@pytest.mark.parametrize("n_patients", [0, 1, 2])
def test_too_few_patients_say_so(n_patients: int) -> None:
    images = np.concatenate([heads(3, 2, 7)[: n_patients * 2], np.zeros((1, 2, 48, 48), np.uint8)])
    found = find_duplicates(as_set(images, [*names(n_patients, 2), "empty"]))
    assert (found.exact, found.near, found.detail_needed) == ([], None, None)
    assert "fewer than three patients" in found.why


def test_neighbours_against_brute_force() -> None:
    rng = np.random.default_rng(0)
    owner = np.sort(rng.integers(0, 13, 60))
    owner = np.unique(owner, return_inverse=True)[1]
    thumbnails = rng.standard_normal((60, 5)).astype(np.float32)
    thumbnails /= np.linalg.norm(thumbnails, axis=1, keepdims=True)
    apart = np.linalg.norm(thumbnails[:, None] - thumbnails[None], axis=2)
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    seen = list(_neighbours(thumbnails, starts, silent))
    assert [row for row, _, _ in seen] == list(range(60))
    for row, rows, distances in seen:
        per_patient = {p: apart[row][owner == p].min() for p in set(owner) - {owner[row]}}
        wanted = sorted(per_patient, key=per_patient.__getitem__)[:NEIGHBOURS]
        assert owner[rows].tolist() == wanted
        assert distances == pytest.approx(apart[row][rows], abs=1e-3)


def test_coarse_looks_ignore_shift_brightness_and_offset() -> None:
    images = heads(4, 1, 8).astype(np.float32) / 255
    moved = np.roll(images, (5, -7), axis=(2, 3)) * 0.5 + 0.1
    assert coarse_thumbnails(moved) == pytest.approx(coarse_thumbnails(images), abs=1e-5)
    assert np.linalg.norm(coarse_thumbnails(images), axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    assert not coarse_thumbnails(np.full((2, 2, 48, 48), 7, np.uint8)).any()


def test_fine_likeness_is_one_for_copies_only() -> None:
    images = heads(3, 1, 9)
    assert fine_likeness(images[0], images[0]) == pytest.approx(1, abs=1e-5)
    assert fine_likeness(images[0], np.roll(images[0], (3, -2), axis=(1, 2))) == pytest.approx(1, abs=1e-5)
    assert abs(fine_likeness(images[0], images[1])) < 0.6
    assert fine_likeness(images[0], np.zeros_like(images[0])) == 0
