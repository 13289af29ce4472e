"""Patches that look for themselves: what was turned, bent or cut in half is still nearest to where it came from."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import ndimage

from fedsynth.data import ImageSet
from fedsynth.data.format import Header
from fedsynth.evaluation.feature_spaces import registered
from fedsynth.evaluation.feature_spaces.registered import EDGE, REACH, Registered, fits
from fedsynth.evaluation.memorization.distance_tables import look_up, queries
from fedsynth.evaluation.memorization.registered_distances import SHARPNESS, registered_distances

N, SIZE = 80, 32


def image_set(images):
    cases = pd.DataFrame(
        {"case": [f"c{i}" for i in range(len(images))], "patient": [f"p{i}" for i in range(len(images))]}
    )
    for column in ("site", "role", "class", "slice"):
        cases[column] = ""
    header = Header(name="textures", origin="real", channels=("x",), spacing_mm=(1.0, 1.0))
    return ImageSet(header=header, cases=cases, images=np.rint(255 * np.clip(images, 0, 1)).astype(np.uint8))


@pytest.fixture(scope="module")
def textures():
    rng = np.random.default_rng(3)
    smooth = ndimage.gaussian_filter(rng.normal(size=(N, 1, SIZE, SIZE)), (0, 0, 1.2, 1.2))
    return 0.5 + 0.15 * smooth / smooth.std()


@pytest.fixture(scope="module")
def space(textures):
    made = Registered()
    made.fit(image_set(textures), seed=0)
    return made


def turned(image, rng):
    return ndimage.rotate(image, rng.choice([-10, 10]), axes=(1, 2), reshape=False, order=1, mode="nearest")


def bent(image, rng):
    fields = [ndimage.gaussian_filter(rng.normal(size=(SIZE, SIZE)), 4, mode="wrap") for _ in range(2)]
    where = np.indices((SIZE, SIZE)) + np.stack([field / field.std() for field in fields])
    return ndimage.map_coordinates(image[0], where, order=1, mode="nearest")[None]


def noisy(image, rng):
    return image + rng.normal(0, 0.12, image.shape)


@pytest.mark.parametrize("change", [turned, bent, noisy])
def test_an_altered_image_is_nearest_to_its_own(textures, space, change):
    rng = np.random.default_rng(5)
    made = image_set(np.stack([change(image, rng) for image in textures]))
    table = look_up(space, queries(space, made), space.features(image_set(textures)), np.arange(N), 4)
    assert (table.patients[:, 0] == np.arange(N)).mean() >= 0.9


def test_half_an_image_is_nearest_to_one_of_the_two(textures, space):
    made = np.where(np.arange(SIZE) < SIZE // 2, textures, np.roll(textures, 5, axis=0))
    owners = np.arange(N)
    table = look_up(space, queries(space, image_set(made)), space.features(image_set(textures)), owners, 2)
    first = table.patients[:, 0]
    assert ((first == owners) | (first == (owners - 5) % N)).mean() >= 0.9


def test_the_likeness_is_that_of_a_slow_oracle(textures, space):
    """Every patch of the query against the other image moved by every step; of six patients all are looked at."""
    rows = space.features(image_set(textures[:6]))
    owners = np.arange(6)
    table = registered_distances(space, [rows], rows, owners, 6, exclude=owners)
    still = space.still(rows)
    steps = range(-REACH, REACH + 1)
    grid = torch.nn.functional.pad(torch.from_numpy(rows).view(6, 1, SIZE, SIZE), (EDGE,) * 4)
    moved = [
        space.still(torch.roll(grid, (-down, -right), (2, 3))[:, :, EDGE:-EDGE, EDGE:-EDGE].reshape(6, -1).numpy())
        for down in steps
        for right in steps
    ]
    expected = np.zeros((6, 6))
    for patch in range(len(still)):
        for query in range(6):
            for other in range(6):
                expected[query, other] += max(float(still[patch, query] @ places[patch, other]) for places in moved)
    expected /= len(still)
    for query in range(6):
        others = [who for who in table.patients[query] if who >= 0]
        assert sorted(others) == [who for who in range(6) if who != query]
        found = -np.log(table.distances[query, :5]) / SHARPNESS
        assert found == pytest.approx(expected[query, others], abs=1e-4)


def test_blocks_of_images_make_the_same_patches(textures, space, monkeypatch):
    rows = space.features(image_set(textures))
    still, moving = space.still(rows), list(space.moving(rows))
    monkeypatch.setattr(registered, "AT_ONCE", 3 * rows[0].nbytes)
    torch.testing.assert_close(space.still(rows), still)
    for found, expected in zip(space.moving(rows), moving, strict=True):
        torch.testing.assert_close(found, expected)


def test_blank_images_are_like_nobody(textures, space):
    table = look_up(
        space,
        queries(space, image_set(np.zeros((1, 1, SIZE, SIZE)))),
        space.features(image_set(textures)),
        np.arange(N),
        3,
    )
    assert table.distances[0] == pytest.approx(np.ones(3))


def test_small_images_and_volumes_have_no_room(textures):
    assert fits(image_set(textures))
    assert not fits(image_set(textures[..., :14, :14]))
