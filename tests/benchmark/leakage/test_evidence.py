"""Bad input is one sentence that says what to do; good input is taken apart by role."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fedsynth.benchmark.leakage.evidence import gather, open_evidence
from fedsynth.errors import ConfigError, ImageSetError
from fedsynth.images import Header, ImageSet, Shares, Split
from fedsynth.run import create_run
from fedsynth.training.roles import roles_mark

ROLES = ["member", "member", "holdout", "holdout", "reference"]


def image_set(roles=ROLES, *, origin="real", seed=0, channels=("t1",), size=8, classes=("a",), images=None, **header):
    rng = np.random.default_rng(seed)
    n = 2 * len(roles)
    cases = pd.DataFrame(
        {
            "case": [f"c{i}" for i in range(n)],
            "patient": [f"p{i // 2}" if origin == "real" else "" for i in range(n)],
            "site": "",
            "role": [roles[i // 2] if origin == "real" else "" for i in range(n)],
            "class": classes[0] if classes else "",
            "slice": "",
        },
        dtype=str,
    )
    pixels = rng.integers(0, 256, (n, len(channels), size, size), np.uint8) if images is None else images
    split = Split(seed=0, shares=Shares()) if origin == "real" else None
    made = Header(
        name="s", origin=origin, channels=channels, classes=classes, spacing_mm=(1.0, 1.0), split=split, **header
    )
    return ImageSet(header=made, cases=cases, images=pixels)


def synthetic(**changes):
    return image_set(["", "", ""], **{"origin": "synthetic", "seed": 1} | changes)


def test_members_and_holdout_are_tested_and_the_reference_is_kept_apart():
    found = gather(image_set(), synthetic())
    assert found.cohort.names == ("p0", "p1", "p2", "p3")
    assert found.cohort.member.tolist() == [True, True, False, False]
    assert found.patient_of.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert found.reference.patients["patient"].tolist() == ["p4"]
    assert found.equal == ()
    assert found.notes == ()


def test_images_of_the_same_bytes_are_found_also_between_number_kinds():
    real = image_set()
    pixels = np.random.default_rng(5).random((6, 1, 8, 8), np.float32)
    pixels[3] = real.images[5] / np.float32(255)
    assert gather(real, synthetic(images=pixels)).equal == ((3, 5),)


@pytest.mark.parametrize(("row", "of_members"), [(1, 1), (5, 0)])
def test_only_bytes_of_a_member_are_a_leak_whatever_else_is_wrong(row, of_members):
    real = image_set()
    pixels = np.array(synthetic().images)
    pixels[0] = real.images[row]
    found = gather(real, synthetic(images=pixels))
    assert found.equal == ((0, row),)
    assert found.equal_to_members == of_members


def test_masks_under_other_labels_are_not_passed_over():
    real, output = image_set(), synthetic()

    def masked(images, *labels):
        masks = np.zeros((len(images), 8, 8), np.uint8)
        return replace(images, header=replace(images.header, mask_labels=("background", *labels)), masks=masks)

    assert "could not be compared" in gather(masked(real, "tumour"), masked(output, "lesion")).unseen
    for one, other in ((real, output), (masked(real, "tumour"), output), (real, masked(output, "lesion"))):
        assert gather(one, other).unseen == ""
    assert gather(masked(real, "tumour"), masked(output, "tumour")).unseen == ""


@pytest.mark.parametrize(
    ("roles", "words"),
    [
        ([""] * 4, "no patient has a role"),
        (["member", "", "holdout"], "1 of 3 patients have no role"),
        (["member"] * 4, "no holdout patient"),
        (["holdout", "reference"], "no member patient"),
    ],
)
def test_missing_roles_are_refused(roles, words):
    with pytest.raises(ImageSetError, match=words):
        gather(image_set(roles), synthetic())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 10}, "differ in size"),
        ({"channels": ("t2",)}, "differ in channels"),
        ({"classes": ("b",)}, "a class that the real set does not know"),
        ({"images": np.zeros((6, 1, 8, 8), np.uint8)}, "all 6 synthetic images are of one colour"),
    ],
)
def test_sets_that_do_not_fit_together_are_refused(changes, words):
    with pytest.raises(ImageSetError, match=words):
        gather(image_set(), synthetic(**changes))


def test_a_synthetic_set_as_real_is_refused():
    with pytest.raises(ImageSetError, match="exchange"):
        gather(synthetic(), image_set())


def test_one_image_in_both_roles_is_refused_with_both_cases():
    real = image_set()
    real.images[6] = real.images[1]
    with pytest.raises(ImageSetError, match=r"'c1' \(member 'p0'\) and 'c6' \(holdout 'p3'\) are the same image"):
        gather(real, synthetic())


def test_one_image_twice_within_a_role_and_blank_images_everywhere_are_allowed():
    real = image_set()
    real.images[2] = real.images[1]
    real.images[[0, 7]] = 0
    made = synthetic()
    made.images[0] = 0
    found = gather(real, made)
    assert found.blank.tolist() == [True] + [False] * 5
    assert found.equal == ()
    assert len(found.notes) == 2


def test_roles_without_a_record_of_their_draw_are_not_permutable():
    real = image_set()
    unknown = real.with_cases(real.cases, split=None)
    assert gather(real, synthetic()).cohort.not_drawn == ""
    assert "how its roles were drawn" in gather(unknown, synthetic()).cohort.not_drawn


def test_a_run_names_its_sets(tmp_path, monkeypatch):
    real = image_set().save(tmp_path / "real")
    run = create_run({"images": str(real.folder), "generator": "x"}, generator="x", base=tmp_path / "runs")
    with pytest.raises(ConfigError, match="fedsynth synthesize"):
        open_evidence(run.folder)
    synthetic().save(run.synthetic)
    assert open_evidence(run.folder).run == run
    monkeypatch.chdir(tmp_path)
    assert open_evidence().run.folder.name == run.folder.name


def test_one_set_without_the_other_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="--synthetic"):
        open_evidence(real=tmp_path)


def test_a_voxel_that_is_no_number_is_refused_on_opening(tmp_path):
    pixels = np.random.default_rng(5).random((6, 1, 8, 8), np.float32)
    made = synthetic(images=pixels).save(tmp_path / "synthetic")
    pixels[2, 0, 3, 3] = np.nan
    np.save(made.folder / "images.npy", pixels)
    real = image_set().save(tmp_path / "real")
    with pytest.raises(ImageSetError, match="'c2'"):
        open_evidence(real=real.folder, synthetic=made.folder)


def test_strata_are_those_of_the_recorded_split():
    real = image_set()
    cases = real.cases.assign(site=["x", "x", "y", "y", "x", "x", "y", "y", "y", "y"])
    by_site = replace(real.header.split, strata=("site",))
    cohort = gather(real.with_cases(cases, split=by_site), synthetic()).cohort
    assert cohort.sites == ("x", "y")
    assert cohort.stratum.tolist() == cohort.site.tolist() == [0, 1, 0, 1]


def test_roles_drawn_anew_after_training_are_noticed(tmp_path):
    real = image_set().save(tmp_path / "real")
    run = create_run({"images": str(tmp_path / "real")}, generator="x", folder=tmp_path / "run")
    run.roles.write_text(roles_mark(real) + "\n")
    synthetic().save(run.synthetic)
    assert open_evidence(run.folder).run == run
    swapped = real.cases["role"].map({"member": "holdout", "holdout": "member"}).fillna(real.cases["role"])
    real.with_cases(real.cases.assign(role=swapped)).save(tmp_path / "real", overwrite=True)
    with pytest.raises(ImageSetError, match="trained with"):
        open_evidence(run.folder)
