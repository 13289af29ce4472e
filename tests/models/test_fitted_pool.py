"""A public image set that is fitted to one sum over patients: images of another kind than brains."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fedsynth.code_digest import code_digest
from fedsynth.data import ImageSet
from fedsynth.errors import ConfigError, FedSynthError
from fedsynth.models import image_statistics, public_pool
from fedsynth.models.base import SeededSource, Tensors
from fedsynth.models.generators.catalog import build
from fedsynth.models.generators.fitted_pool import FittedPool
from fedsynth.models.moment_matching import clipped
from fedsynth.training.fitting import sums_of
from fedsynth.training.patient_batches import PatientBatches
from tests.models.pictures import FAN, fans, other_scan, public_fans, scan

SMALL = {"pool": 200, "slices": 2, "children": 150}
SHIFTED = {"radius": (3.5, 5.0), "gamma": (1.3, 1.5), "level": (0.5, 0.6)}


def small(images: ImageSet, public: Path, **options: object) -> FittedPool:
    family = build("fitted-pool", PatientBatches(images).shape, public=str(public), **{**SMALL, **options})
    assert isinstance(family, FittedPool)
    return family


def drawn(family: FittedPool, n: int, arm: str = "public", label: int | None = None) -> Tensors:
    family.arm = arm  # type: ignore[assignment]
    condition = {} if label is None else {"label": torch.eye(family.shape.n_classes)[[label] * n]}
    return family.sample(condition, family.noise(n, SeededSource(3)))


def pixels(made: Tensors) -> np.ndarray:
    return (made["image"].numpy() + 1) / 2


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return public_fans(tmp_path_factory.mktemp("public") / "fans")


@pytest.fixture(
    scope="module",
    params=[(True, scan), (False, scan), pytest.param((True, other_scan), marks=pytest.mark.slow)],
    ids=["masks", "no masks", "another generator"],
)
def fitted(request: pytest.FixtureRequest, public: Path) -> tuple[FittedPool, ImageSet, np.ndarray]:
    """A family that is fitted to darker scans of larger nodules than the public ones, these scans, and their mean."""
    masks, generator = request.param
    patients = fans(40, seed=2, name="patient", masks=masks, generator=generator, **SHIFTED)
    family = small(patients, public, wide=0.0)
    sums = sums_of(family, PatientBatches(patients), 0)
    family.fit(0, sums)
    return family, patients, (sums["simulator.total"] / sums["simulator.patients"]).numpy()


def test_the_fit_brings_the_moments_nearer_than_the_public_set_and_the_placebo(
    fitted: tuple[FittedPool, ImageSet, np.ndarray],
) -> None:
    family, patients, target = fitted
    apart, brightness = {}, {}
    for arm in ("fitted", "placebo", "public"):
        made = drawn(family, 100, arm)
        apart[arm] = float(np.linalg.norm(clipped(family.statistics(made).numpy()).mean(0) - target))
        brightness[arm] = float(pixels(made).mean())
    assert apart["fitted"] < 0.8 * apart["public"], apart
    assert apart["fitted"] < 0.8 * apart["placebo"], apart
    wanted = float(np.asarray(patients.images).mean() / 255)
    assert abs(brightness["fitted"] - wanted) < 0.7 * abs(brightness["public"] - wanted), (brightness, wanted)


def test_statistics_of_lesions_are_left_out_of_sets_without_masks(public: Path) -> None:
    lengths = {masks: small(fans(4, seed=2, masks=masks), public).simulator.layout for masks in (True, False)}
    names = {masks: {one.name for one in image_statistics.chosen(layout)} for masks, layout in lengths.items()}
    assert names[True] - names[False] == {
        *("lesion size", "label shares", "label means", "lesion intensities", "lesion contrast", "lesion texture"),
        *("lesion edge", "lesion outline", "lesion position"),
    }
    assert {"mean image", "intensity histogram", "texture"} <= names[False] < names[True]


def test_masks_stay_on_what_they_name_and_sets_without_have_none(public: Path, tmp_path: Path) -> None:
    """Of even fans, every pixel of a nodule is darker than all tissue, whatever the map and the move."""
    plain = fans(20, seed=1, name="even")
    even = np.where(np.asarray(plain.masks) > 0, 80, 200 * FAN)[:, None].astype(np.uint8)
    replace(plain, images=even).save(tmp_path / "even")
    for flip in (False, True):
        made = drawn(small(plain, tmp_path / "even", flip=flip), 60)
        image, mask = pixels(made)[:, 0], made["mask"][:, 1].numpy() > 0
        assert mask.any((1, 2)).mean() > 0.9
        for shown, nodule in zip(image, mask, strict=True):
            tissue = (shown > 0) & ~nodule
            assert nodule.sum() == 0 or shown[nodule].max() < shown[tissue].min()
    bare = drawn(small(fans(4, seed=2, masks=False), public), 3)
    assert set(bare) == {"image"}


def test_images_follow_the_class(tmp_path: Path) -> None:
    public_fans(tmp_path / "graded", classes=True)
    family = small(fans(4, seed=2, classes=True), tmp_path / "graded")
    large, little = (drawn(family, 40, label=label)["mask"][:, 1].sum((1, 2)) for label in (0, 1))
    assert large.median() > 2 * little.median()
    assert little.max() < np.pi * 3.5**2
    of_all = small(fans(4, seed=2), tmp_path / "graded")  # without classes they are not asked for
    whole = drawn(of_all, 60)["mask"][:, 1].sum((1, 2))
    assert whole.min() < little.median() < large.median() < whole.max()


def test_an_image_depends_on_its_seed_alone_and_is_nobodys_original(public: Path) -> None:
    family = small(fans(4, seed=2), public)
    family.arm = "public"
    noise = family.noise(6, SeededSource(1))
    together = family.sample({}, noise)["image"]
    assert torch.equal(together[2:3], family.sample({}, {"draw": noise["draw"][2:3]})["image"])
    originals = {image.tobytes() for image in np.asarray(ImageSet.load(public).images)}
    assert not originals & {np.rint(one * 255).astype(np.uint8).tobytes() for one in pixels({"image": together})}


def test_a_set_says_that_it_consists_of_altered_images_of_the_public_one(public: Path) -> None:
    said = small(fans(4, seed=2), public).consists_of()
    assert "altered images of the public set 'public-fans'" in said["consists-of"]
    assert "consent" in said["consists-of"]
    assert said["public-set"]["provenance"] == {"source": "drawn by the tests", "licence": "none needed"}


def test_without_a_public_set_one_line_says_what_is_needed() -> None:
    with pytest.raises(ConfigError, match="needs public images") as raised:
        build("fitted-pool", PatientBatches(fans(2, seed=2)).shape)
    assert "--public SET" in str(raised.value)
    assert "\n" not in str(raised.value)


def _without(images: ImageSet, label: str) -> ImageSet:
    return images.rows(np.flatnonzero(images.cases["class"] != label))


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda set_: replace(set_, header=replace(set_.header, channels=("colour",))), "differ in channels"),
        (lambda set_: replace(set_, images=np.pad(set_.images, [(0, 0)] * 2 + [(0, 2)] * 2), masks=None), "size"),
        (lambda set_: replace(set_, header=replace(set_.header, mask_labels=("background", "cyst"))), "mask-labels"),
        (lambda set_: _without(set_, "small"), "no image of this class"),
        (lambda set_: replace(set_, header=replace(set_.header, provenance={})), "where its images come from"),
    ],
    ids=["channels", "size", "labels", "class", "provenance"],
)
def test_a_public_set_that_does_not_fit_is_refused_in_a_line(made, said: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    other = made(fans(12, seed=1, classes=True, masks=said != "size"))
    other.save(tmp_path / "public")
    with pytest.raises(ConfigError, match=said) as raised:
        small(fans(4, seed=2, classes=True, masks=said != "size"), tmp_path / "public")
    assert "\n" not in str(raised.value)


def test_volumes_are_refused(tmp_path: Path) -> None:
    flat = fans(3, seed=1, masks=False)
    header = replace(flat.header, spacing_mm=(1.0, 1.0, 1.0))
    ImageSet(header=header, cases=flat.cases, images=flat.images[..., None]).save(tmp_path / "volumes")
    with pytest.raises(ConfigError, match="volumes"):
        small(flat, tmp_path / "volumes")


def test_lesions_are_the_labels_that_are_named(public: Path) -> None:
    assert small(fans(2, seed=2), public, lesion="nodule").simulator.layout.lesion == (1,)
    with pytest.raises(ConfigError, match="no such label"):
        small(fans(2, seed=2), public, lesion="nodul")


def test_pools_of_other_content_or_settings_have_other_names(public: Path, tmp_path: Path) -> None:
    patients = fans(2, seed=2)
    names = [small(patients, public).public, small(patients, public, parts=8).public]
    names += [small(patients, public, flip=True).public, small(patients, public_fans(tmp_path / "b", seed=5)).public]
    assert len(set(names)) == 4
    assert all(name.startswith("public-fans (") for name in names)
    copied = ImageSet.load(public).save(tmp_path / "copy").folder
    assert copied is not None
    assert small(patients, copied).public == names[0]  # it may lie anywhere


def test_names_of_cases_that_tell_who_is_who_are_part_of_the_pool(tmp_path: Path) -> None:
    """Images without a patient are one patient each, in the order of their cases."""
    made = fans(4, seed=1)
    made = made.with_cases(made.cases.assign(patient=""), origin="synthetic")
    turned = made.with_cases(made.cases.assign(case=made.cases["case"].to_numpy()[::-1]))
    pools = [small(fans(2, seed=2), _saved(one, tmp_path / f"{i}")) for i, one in enumerate((made, turned))]
    shown = [pool.simulator._groups[0] for pool in pools]
    assert [rows.tolist() for rows in shown[0]] == [rows.tolist() for rows in reversed(shown[1])]
    assert pools[0].public != pools[1].public


def _saved(images: ImageSet, folder: Path) -> Path:
    images.save(folder)
    return folder


@pytest.mark.parametrize("library", ["numpy", "scipy"])
def test_other_libraries_and_another_fit_make_another_pool(
    library: str, public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patients = fans(2, seed=2)
    before = small(patients, public).public
    monkeypatch.setattr(f"{library}.__version__", "0.0")
    assert small(patients, public).public != before


def test_the_code_of_the_fit_is_part_of_the_pool(public: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patients = fans(2, seed=2)
    before = small(patients, public).public

    def edited(parts: tuple[str, ...]) -> str:
        return code_digest(parts) + ("edited" if "models/fitted_family.py" in parts else "")

    monkeypatch.setattr(public_pool, "code_digest", edited)
    assert small(patients, public).public != before


def test_a_generator_draws_from_no_other_set_than_it_was_fitted_with(
    fitted: tuple[FittedPool, ImageSet, np.ndarray], tmp_path: Path
) -> None:
    family, patients, _ = fitted
    other = small(patients, public_fans(tmp_path / "other", seed=5))
    other.nets.load_state_dict(family.nets.state_dict())
    for arm in ("fitted", "placebo", "public"):
        with pytest.raises(FedSynthError, match="other public images"):
            drawn(other, 1, arm)


def test_patients_who_are_in_the_public_set_are_refused(public: Path) -> None:
    patients = fans(6, seed=2, name="patient")
    family = small(patients, public)
    family.check_members(patients)
    shared = np.concatenate([patients.images[:-1], ImageSet.load(public).images[:1]])
    with pytest.raises(ConfigError, match="1 of the images are in the public set 'public-fans'"):
        family.check_members(replace(patients, images=shared))
    in_decimals = replace(patients, images=(shared / 255).astype(np.float32))
    with pytest.raises(ConfigError, match="1 of the images are in the public set 'public-fans'"):
        family.check_members(in_decimals)
    blank = replace(patients, images=np.zeros_like(patients.images))
    family.check_members(blank)
