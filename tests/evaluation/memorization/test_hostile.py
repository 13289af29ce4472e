"""The whole benchmark on phantoms, end to end, against output that is made to fool it one way or the other."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from fedsynth.data import ImageSet, Shares
from fedsynth.data.phantoms.cohort import make_phantoms
from fedsynth.data.phantoms.settings import PhantomSettings
from fedsynth.evaluation.anonymous_result import withhold
from fedsynth.evaluation.evidence import gather
from fedsynth.evaluation.feature_spaces import spaces_named
from fedsynth.evaluation.memorization.benchmark import run_memorization
from fedsynth.evaluation.memorization.result import as_result
from fedsynth.evaluation.score import load_result
from fedsynth.evaluation.settings import MemorizationSettings

SPACES = ("pixels", "components", "left", "right")
FEW = MemorizationSettings(control_repeats=2, tolerance=0.05)


def phantoms(folder, seed, **settings):
    given = {"patients": 40, "slices": 3, "size": 32, "sites": 2, "seed": seed} | settings
    return make_phantoms(folder, PhantomSettings(**given), workers=1)


def as_output(images, pixels=None, masks=None):
    """The same images passed off as synthetic, with some other pixels or masks."""
    cases = images.cases.assign(patient="", site="", role="")
    header = replace(images.header, origin="synthetic", split=None)
    changed = images.images if pixels is None else pixels
    return ImageSet(header=header, cases=cases, images=changed, masks=images.masks if masks is None else masks)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    return phantoms(tmp_path_factory.mktemp("real") / "set", 1)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """Phantom patients whom no real set holds: what an honest generator would draw."""
    return phantoms(tmp_path_factory.mktemp("fresh") / "set", 2)


def measured(real, synthetic, spaces=SPACES, **settings):
    evidence = gather(real, synthetic)
    return run_memorization(evidence, replace(FEW, **settings), spaces=spaces_named(spaces, evidence.real))


def members(real, site=None):
    wanted = real.cases["role"] == "member"
    return np.flatnonzero(wanted if site is None else wanted & (real.cases["site"] == site))


def with_copies(real, fresh, rows, change=lambda image: image):
    pixels = np.array(fresh.images)
    pixels[: len(rows)] = [change(np.asarray(real.images[row])) for row in rows]
    return as_output(fresh, pixels)


def test_patients_that_nobody_trained_on_pass(real, fresh):
    found = measured(real, as_output(fresh))
    assert found.verdict.verdict == "pass"
    assert len(found.copies.rows) == 0
    assert found.detectable == pytest.approx(1 / 120)
    assert all(found.powers[kind].share > 0.9 for kind in ("exact", "flipped"))


HONEST = {
    "blurred": lambda pixels, rng: ndimage.gaussian_filter(pixels.astype(float), (0, 0, 2, 2)),
    "noisy": lambda pixels, rng: pixels + rng.normal(0, 20, pixels.shape),
    "nothing but noise": lambda pixels, rng: rng.integers(0, 256, pixels.shape),
    "collapsed": lambda pixels, rng: pixels[:1] + rng.normal(0, 2, pixels.shape),
    "mostly of one colour": lambda pixels, rng: np.where(np.arange(len(pixels)).reshape(-1, 1, 1, 1) < 90, 80, pixels),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", HONEST)
def test_bad_output_is_no_leak(kind, real, fresh):
    pixels = HONEST[kind](np.array(fresh.images), np.random.default_rng(0))
    output = as_output(fresh, np.clip(pixels, 0, 255).astype(np.uint8))
    evidence = gather(real, output)
    found = measured(real, output)
    assert found.verdict.verdict in ("pass", "inconclusive")
    assert not found.dependence.rejects
    assert len(found.copies.rows) == 0
    assert evidence.blank.sum() == (90 if kind == "mostly of one colour" else 0)


LEAKS = {
    "exact": lambda image: image,
    "mirrored": lambda image: image[..., ::-1],
    "upside down": lambda image: image[:, ::-1],
    "another window": lambda image: (255 * np.clip(image / 255 - 0.02, 0, 0.85) / 0.85).astype(np.uint8),
    "shifted": lambda image: np.roll(image, 2, axis=-1),
    "inverted": lambda image: 255 - image,
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", LEAKS)
def test_one_copied_image_is_a_leak_and_names_the_patient(kind, real, fresh):
    row = members(real)[7]
    found = measured(real, with_copies(real, fresh, [row], LEAKS[kind]))
    assert found.verdict.verdict == "leak"
    named = [found.evidence.cohort.names[patient] for patient in found.copies.patients]
    assert named == [real.cases["patient"].iloc[row]]


def test_a_collage_of_two_members_is_found_in_its_halves(real, fresh):
    rows = members(real)[:6]
    left = np.array([real.images[row] for row in rows])
    right = np.array([real.images[row] for row in members(real)[-6:]])
    pixels = np.array(fresh.images)
    pixels[:6] = np.concatenate([left[..., :16], right[..., 16:]], axis=-1)
    found = measured(real, as_output(fresh, pixels))
    assert found.verdict.verdict == "leak"
    assert set(found.copies.spaces) <= {"left", "right"}


@pytest.mark.slow
def test_copies_of_one_site_only_are_laid_at_its_mechanism(real, fresh):
    first, second = sorted(set(real.cases["site"]))
    rows = members(real, second)[::3]
    found = as_result(measured(real, with_copies(real, fresh, rows)))
    assert found.verdict == "leak"
    assert found.per_site[first]["copied_images_share"].value == 0
    assert found.per_site[second]["copied_images_share"].value == pytest.approx(len(rows) / len(fresh))
    assert found.scores["copied_share"].value == pytest.approx(len(rows) / len(fresh))


@pytest.mark.slow
def test_few_holdout_patients_are_no_leak_and_hide_none(tmp_path, fresh):
    real = phantoms(tmp_path / "uneven", 3, shares=Shares(member=0.7, holdout=0.3, reference=0.0))
    assert measured(real, as_output(fresh)).verdict.verdict == "pass"
    assert measured(real, with_copies(real, fresh, members(real)[:1])).verdict.verdict == "leak"


@pytest.mark.slow
def test_copies_of_the_holdout_void_the_report(real, fresh):
    held = np.flatnonzero(real.cases["role"] == "holdout")[:4]
    found = measured(real, with_copies(real, fresh, held, lambda image: image[..., ::-1]))
    assert found.verdict.verdict == "invalid"
    assert "holdout" in found.verdict.sentences[0]


def test_a_holdout_of_another_scanner_voids_the_report(real, fresh):
    pixels = np.array(real.images)
    held = (real.cases["role"] == "holdout").to_numpy()
    pixels[held] = (255 * (pixels[held] / 255) ** 0.6).astype(np.uint8)
    found = measured(ImageSet(header=real.header, cases=real.cases, images=pixels, masks=real.masks), as_output(fresh))
    assert found.verdict.verdict == "invalid"
    assert "distinguished" in found.verdict.sentences[0]


@pytest.mark.slow
def test_copied_masks_under_new_pictures_are_found(real, fresh):
    sizes = np.array([np.asarray(mask).astype(bool).sum() for mask in real.masks])
    rows = members(real)[np.argsort(-sizes[members(real)])][:3]
    masks = np.array(fresh.masks)
    masks[:3] = [real.masks[row] for row in rows]
    found = measured(real, as_output(fresh, masks=masks), ("pixels", "masks"))
    assert found.verdict.verdict == "leak"
    assert set(found.copies.spaces) == {"masks"}


@pytest.mark.parametrize("n_patients", [2, 4, 9])
def test_too_few_patients_are_inconclusive_and_told_what_would_do(n_patients, real, fresh):
    named = real.patients[real.patients["role"] != "reference"]
    by_role = [group["patient"].tolist() for _, group in named.groupby("role")]
    few = [patient for pair in zip(*by_role, strict=False) for patient in pair][:n_patients]
    found = measured(real.select(patient=set(few)), as_output(fresh), ("pixels",))
    assert found.verdict.verdict in ("inconclusive", "invalid")
    assert "10 real patients would do" in " ".join(found.verdict.sentences)


@pytest.mark.slow
def test_volumes(tmp_path):
    real = phantoms(tmp_path / "real", 1, patients=24, size=16, dimensions=3, sites=1)
    fresh = phantoms(tmp_path / "fresh", 2, patients=24, size=16, dimensions=3, sites=1)
    honest = measured(real, as_output(fresh), ("pixels", "components"), tolerance=0.3)
    assert honest.verdict.verdict == "inconclusive", "of so few volumes the lower limit of the power promises nothing"
    assert not len(honest.copies.rows)
    assert not honest.dependence.rejects
    leaking = with_copies(real, fresh, members(real)[:1], lambda volume: volume[:, ::-1])
    assert measured(real, leaking, ("pixels", "components")).verdict.verdict == "leak"


@pytest.mark.slow
def test_one_seed_gives_one_result_and_what_leaves_the_site_names_nobody(real, fresh, tmp_path):
    output = with_copies(real, fresh, members(real)[:2])
    first, second = (as_result(measured(real, output)) for _ in range(2))
    assert first.details == second.details
    assert first.scores == second.scores
    first.save(tmp_path / "whole.json")
    assert load_result(tmp_path / "whole.json").verdict == "leak"
    withhold(first).save(tmp_path / "export.json")
    whole, export = ((tmp_path / name).read_text() for name in ("whole.json", "export.json"))
    names = set(real.cases["patient"])
    assert any(name in whole for name in names)
    assert not any(f'"{name}"' in export for name in names)
    assert str(real.folder) not in export


def test_masks_alone_never_pass_for_images(real, fresh):
    """The mask of a positive control is never altered: that it is found says nothing of images."""
    copies = with_copies(real, fresh, np.resize(members(real), len(fresh)), lambda image: np.clip(image * 0.98, 0, 255))
    found = measured(real, copies, spaces=("masks",), tolerance=0.2)
    assert found.verdict.verdict != "pass"
    assert found.bound == 1


def test_images_handed_in_again_show_no_more(real, fresh):
    """Five times the same sixty images are no three hundred."""
    once = as_output(fresh.rows(np.arange(60)))
    more = np.tile(np.arange(60), 5)
    cases = once.cases.iloc[more].reset_index(drop=True)
    cases["case"] = [f"s{i:03d}" for i in range(len(more))]
    five_times = replace(once, cases=cases, images=np.asarray(once.images)[more], masks=np.asarray(once.masks)[more])
    first, again = (measured(real, output, spaces=("pixels",), tolerance=0.02) for output in (once, five_times))
    assert again.evidence.distinct == 60
    assert again.bound == pytest.approx(first.bound)
    assert again.verdict.verdict == first.verdict.verdict == "inconclusive"
    assert "Only 60 of 300 synthetic images differ" in " ".join(again.evidence.notes)
