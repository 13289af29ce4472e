"""Spots without a label: as many, as bright and as wide as those that were fitted, and never where a lesion is."""

import pytest
import torch

from fedsynth.models.base import ImageShape, SeededSource
from fedsynth.models.spots import Spots

SIZE, CHANNELS = 32, 2
BRIGHT = torch.tensor([0.8, -0.5])


def shape(*size):
    return ImageShape(channels=CHANNELS, size=size, n_classes=0, n_labels=2)


def heads(n, *size):
    """Flat brains with a little grain in black air."""
    made = torch.full((n, CHANNELS, *size), -1.0)
    inside = tuple(slice(4, side - 4) for side in size)
    made[(slice(None), slice(None), *inside)] = 0.0
    return made


def with_spots(made, per_image, seed=0, *, signs=(1,)):
    """Blobs of a Gaussian profile, `BRIGHT` at their middle or, of negative sign, as dark as that."""
    source, real = SeededSource(seed), made + 0.02 * torch.randn(made.shape, generator=torch.Generator().manual_seed(1))
    grid = torch.meshgrid(*(torch.arange(side) for side in made.shape[2:]), indexing="ij")
    for image in real:
        for number in range(per_image):
            at = (8 + source.uniform((len(grid),)) * (made.shape[2] - 16)).round()
            square = sum((axis - place) ** 2 for axis, place in zip(grid, at, strict=True))
            blob = signs[number % len(signs)] * torch.exp(-square / (4 * (made.shape[2] / SIZE) ** 2))
            image += BRIGHT.reshape(-1, *[1] * len(grid)) * blob
    return torch.where(made > -0.9, real, made)


def fitted(real, made, named=None):
    named = torch.zeros_like(made[:, :1]) if named is None else named
    spots = Spots(shape(*made.shape[2:]))
    spots.fit_levels(spots.levels(real, made, named))
    spots.fit(spots.sums(real, made, named)[0])
    return spots


def drawn(spots, made, named, seed=5):
    source = SeededSource(seed)
    return spots.field(made, named, source.uniform((len(made), 1, *made.shape[2:])), source.normal(made.shape))


def test_spots_are_drawn_as_often_and_as_bright_as_those_that_were_seen():
    made = heads(200, SIZE, SIZE)
    spots = fitted(with_spots(made, 1), made)
    field = drawn(spots, made, torch.zeros_like(made[:, :1]))
    area = (SIZE - 8 - 4) ** 2  # where the middle of a spot may lie
    assert float(spots.rate[0]) * area == pytest.approx(1, rel=0.15)
    assert float(spots.rate[1]) == 0  # none was dark
    peak = field[:, 0].amax((1, 2))
    ill = peak > 0.3
    assert 0.35 < ill.float().mean() < 0.85  # 1 - exp(-1) = 0.63
    assert peak[ill].median() == pytest.approx(0.8, rel=0.25)
    place = field[:, 0].flatten(1).argmax(1)[ill]
    other = field[:, 1].flatten(1)[ill].gather(1, place[:, None])
    assert other.median() == pytest.approx(-0.5, rel=0.3)


def test_twice_as_many_where_twice_as_many_are_asked_for():
    made = heads(200, SIZE, SIZE)
    spots, named, source = fitted(with_spots(made, 1), made), torch.zeros_like(made[:, :1]), SeededSource(0)
    chance, normal = source.uniform(named.shape), source.normal(made.shape)
    shares = (0.0, 1.0, 2.0)
    fields = [spots.field(made, named, chance, normal, share=share).square().sum() for share in shares]
    assert fields[0] == 0
    assert fields[2] / fields[1] == pytest.approx(2, rel=0.3)


def test_a_spot_is_as_wide_as_those_that_were_seen():
    made = heads(200, SIZE, SIZE)
    profile = fitted(with_spots(made, 1), made).profile
    seen = torch.exp(-(torch.arange(4.0) ** 2) / 4)
    assert torch.allclose(profile[:4] / profile[0], seen, atol=0.15)


def test_no_spot_is_drawn_on_a_lesion_or_outside_the_brain():
    made = heads(60, SIZE, SIZE)
    spots = fitted(with_spots(made, 2), made)
    named = torch.zeros_like(made[:, :1])
    named[:, :, :, : SIZE // 2] = 1
    spots.rate[0] = 0.05
    spots.profile[1:] = 0  # the middle alone
    field = drawn(spots, made, named)
    assert field[..., SIZE // 2 + 2 :].abs().amax() > 0.1
    assert field[..., : SIZE // 2 + 2].abs().amax() < 1e-5
    assert field[made.expand_as(field) < -0.9].abs().amax() < 1e-5


def test_lesions_are_no_spots():
    made = heads(40, SIZE, SIZE)
    real, named = made.clone(), torch.zeros_like(made[:, :1])
    real[:, 0, 12:18, 12:18] = 0.9  # bright, and named
    named[:, 0, 12:18, 12:18] = 1
    assert fitted(real, made, named).rate.sum() == 0


def test_bright_and_dark_spots_are_kinds_of_their_own():
    made = heads(200, SIZE, SIZE)
    spots = fitted(with_spots(made, 2, signs=(1, -1)), made)
    assert (spots.rate > 0).all()
    assert spots.mean[0, 0] > 0.2
    assert spots.mean[1, 0] < -0.2
    field = drawn(spots, made, torch.zeros_like(made[:, :1]))[:, 0]
    peaks, pits = field.amax((1, 2)), field.amin((1, 2))
    assert peaks[peaks > 0.2].median() == pytest.approx(0.8, rel=0.25)
    assert pits[pits < -0.2].median() == pytest.approx(-0.8, rel=0.25)


def test_an_edge_that_the_reconstruction_misses_is_no_spot():
    """A ring, as around a ventricle, stands out as far as a spot and is long."""
    made = heads(60, SIZE, SIZE)
    real, named = with_spots(made, 0), torch.zeros_like(made[:, :1])
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    distance = ((y - 16) ** 2 + (x - 16) ** 2).sqrt()
    real[:, 0] += 0.3 * ((distance > 6) & (distance < 8)).float()
    spots = Spots(shape(SIZE, SIZE))
    spots.fit_levels(spots.levels(real, made, named))
    spots.deviation.fill_(0.01)  # as if the ring filled little of the brain
    assert float(spots.sums(real, made, named)[0]["spots"].sum()) < 6
    blobs = with_spots(made, 1)
    assert float(spots.sums(blobs, made, named)[0]["spots"].sum()) > 40


def test_what_lies_at_the_border_of_an_image_is_no_spot():
    """The brain may fill the image; a voxel without a neighbour on one side cannot be told from one of an edge."""
    spots = Spots(shape(32, 32))
    spots.deviation.fill_(0.01)
    blurred = torch.zeros(3, 1, 32, 32)
    for one, place in zip(blurred[:, 0], (0, 31, 16), strict=True):
        one[place, 16] = 1
    peaks = spots._peaks(blurred, torch.ones(3, 1, 32, 32))
    assert [peaks[row, 0].nonzero().tolist() for row in range(3)] == [[], [], [[16, 16]]]


def test_what_few_images_show_is_not_drawn():
    made = heads(200, SIZE, SIZE)
    real = with_spots(made, 0)
    real[:6] = with_spots(made[:6], 2)
    assert fitted(real, made).rate.sum() == 0


def test_no_spot_is_brighter_than_twice_its_deviation():
    spots, made = Spots(shape(SIZE, SIZE)), heads(40, SIZE, SIZE)
    spots.rate[0], spots.profile[0] = 0.02, 1.0
    spots.root[0] = torch.eye(CHANNELS) * 0.1
    spots.mean[0] = 0.3
    assert drawn(spots, made, torch.zeros_like(made[:, :1])).amax() <= 0.5 + 1e-4


def test_grain_alone_is_no_spot():
    made = heads(50, SIZE, SIZE)
    real = with_spots(made, 0)
    spots = Spots(shape(SIZE, SIZE))
    named = torch.zeros_like(made[:, :1])
    spots.fit_levels(spots.levels(real, made, named))
    inside = (real - made)[:, :, 8:-8, 8:-8]
    blurred = torch.stack([inside.roll((i, j), (2, 3)) for i in (-1, 0, 1) for j in (-1, 0, 1)]).mean(0)
    assert float(spots.deviation[0]) == pytest.approx(float(blurred[:, 0].std()), rel=0.3)
    assert float(spots.sums(real, made, named)[0]["spots"].sum()) <= 3  # of 40,000 values, 4 deviations off by chance
    spots.fit(spots.sums(real, made, named)[0])
    assert spots.rate.sum() == 0
    assert drawn(spots, made, named).abs().amax() == 0


def test_sums_of_two_sites_are_those_of_both_together():
    made = heads(30, SIZE, SIZE)
    real, named = with_spots(made, 1), torch.zeros_like(made[:, :1])
    spots = Spots(shape(SIZE, SIZE))
    parts = [spots.levels(real[rows], made[rows], named[rows]) for rows in (slice(0, 11), slice(11, None))]
    assert torch.equal(sum(parts), spots.levels(real, made, named))
    spots.fit_levels(sum(parts))
    first, second, whole = (
        spots.sums(real[rows], made[rows], named[rows])[0] for rows in (slice(0, 11), slice(11, None), slice(None))
    )
    assert float(whole["spots"].sum()) >= 25
    for name, value in whole.items():
        torch.testing.assert_close(first[name] + second[name], value, rtol=1e-4, atol=1e-4)


def test_the_rest_has_no_spots():
    made = heads(30, SIZE, SIZE)
    real, named = with_spots(made, 1), torch.zeros_like(made[:, :1])
    spots = Spots(shape(SIZE, SIZE))
    spots.fit_levels(spots.levels(real, made, named))
    _, rest = spots.sums(real, made, named)
    assert (real - made).abs().amax() > 0.6
    assert (rest - made)[:, 0].abs().amax((1, 2)).median() < 0.3


def test_volumes_have_spots_too():
    made = heads(24, 24, 24, 24)
    spots = fitted(with_spots(made, 1), made)
    assert float(spots.rate[0]) > 0
    spots.rate[0] = 0.01
    assert drawn(spots, made, torch.zeros_like(made[:, :1])).abs().amax() > 0.2
