"""The image-set format: what is written is what is read, and every broken promise is named."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedsynth.data import Header, ImageSet, Shares, Split, concatenate
from fedsynth.data.export import card
from fedsynth.errors import FedSynthError, ImageSetError, RefusedError


def small_set(n_patients: int = 4, slices: int = 2, **header: object) -> ImageSet:
    n = n_patients * slices
    rng = np.random.default_rng(0)
    rows = [
        {
            "case": f"p{i // slices}-{i % slices}",
            "patient": f"p{i // slices}",
            "site": "north" if i < n // 2 else "south",
            "role": ["member", "holdout"][(i // slices) % 2],
            "class": ["healthy", "tumour"][(i // slices) % 2],
            "slice": str(i % slices),
        }
        for i in range(n)
    ]
    values: dict[str, object] = {
        "name": "small",
        "origin": "real",
        "channels": ("t1", "flair"),
        "classes": ("healthy", "tumour"),
        "mask_labels": ("background", "tumour"),
        "spacing_mm": (2.0, 2.0),
    }
    return ImageSet(
        header=Header(**(values | header)),
        cases=pd.DataFrame(rows, dtype=str),
        images=rng.integers(0, 256, (n, 2, 6, 8), dtype=np.uint8),
        masks=rng.integers(0, 2, (n, 6, 8), dtype=np.uint8),
    )


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    made = small_set(split=Split(seed=3, shares=Shares()))
    made.save(tmp_path / "set")
    read = ImageSet.load(tmp_path / "set")
    assert read.header == made.header
    pd.testing.assert_frame_equal(read.cases, made.cases)
    assert np.array_equal(read.images, made.images)
    assert np.array_equal(read.masks, made.masks)
    assert isinstance(read.images, np.memmap)


def test_plain_numpy_reads_the_arrays(tmp_path: Path) -> None:
    made = small_set()
    made.save(tmp_path / "set")
    assert np.array_equal(np.load(tmp_path / "set/images.npy"), made.images)


def test_sets_put_together_still_say_whose_altered_images_they_show(tmp_path: Path) -> None:
    made = small_set(origin="synthetic", provenance={"generator": "dcgan"})
    source = {"name": "a", "sha256": "12", "origin": "real", "provenance": {"licence": "its own"}}
    shown = {"consists-of": "altered images of the public set 'a'", "public-set": source}

    def part(number: int, provenance: dict[str, object]) -> ImageSet:
        return made.with_cases(made.cases.assign(case=made.cases["case"] + f"-{number}"), provenance=provenance)

    alone = concatenate([part(1, shown), part(2, shown)]).header.provenance
    assert {key: alone[key] for key in shown} == shown
    mixed = concatenate([part(1, {}), part(2, shown)]).save(tmp_path / "mixed")
    assert mixed.header.provenance["consists-of"] == "in part altered images of the public set 'a'"
    assert mixed.header.provenance["public-set"] == source
    assert "These are in part altered images of the public set 'a'." in card(mixed)
    assert "not patients" not in card(mixed)
    other = {"consists-of": "altered images of the public set 'b'", "public-set": source | {"name": "b"}}
    both = concatenate([concatenate([part(1, shown), part(2, other)]), part(3, shown)]).save(tmp_path / "both")
    assert "the public set 'a'; altered images of the public set 'b'" in both.header.provenance["consists-of"]
    assert [one["name"] for one in both.header.provenance["public-set"]] == ["a", "b"]
    assert "consists-of" not in concatenate([part(1, {}), part(2, {})]).header.provenance


def test_select_and_concatenate_are_inverse(tmp_path: Path) -> None:
    made = small_set()
    parts = [made.select(site="north"), made.select(site="south")]
    whole = concatenate(parts)
    assert len(parts[0]) == 4
    assert np.array_equal(whole.images[:], made.images)
    assert np.array_equal(np.asarray(whole.masks), made.masks)
    assert np.array_equal(whole.images[[5, 1]], made.images[[5, 1]])
    assert np.array_equal(whole.images[6], made.images[6])
    assert whole.save(tmp_path / "whole").cases.equals(made.cases)


def test_joined_phantoms_stay_phantoms_and_one_patient_among_them_counts() -> None:
    real, phantom = small_set(), small_set(provenance={"phantom": {"seed": 1}})
    parts = [phantom.select(patient=name) for name in ("p0", "p1")]
    joined = concatenate([concatenate(parts), phantom.select(patient="p2")])
    assert joined.header.phantoms
    mixed = concatenate([phantom.select(patient="p0"), real.select(patient="p1")])
    assert not mixed.header.phantoms
    assert not real.header.phantoms


def test_roles_that_each_hospital_drew_for_itself_stay_recorded(tmp_path: Path) -> None:
    whole = small_set()
    north, south = (whole.select(site=site) for site in ("north", "south"))
    first, second = (Split(seed=seed, shares=Shares(), strata=("class",)) for seed in (1, 2))
    drawn = [north.with_cases(north.cases, split=first), south.with_cases(south.cases, split=second)]
    joined = concatenate(drawn).save(tmp_path / "joined")
    assert joined.header.split is None
    recorded = [(part["sites"], part["seed"], part["strata"]) for part in joined.header.provenance["splits"]]
    assert recorded == [(["north"], 1, ["class"]), (["south"], 2, ["class"])]
    same = concatenate([part.with_cases(part.cases, split=first) for part in drawn])
    assert same.header.split is None, "a draw within classes at each site is none within classes of both"
    assert len(same.header.provenance["splits"]) == 2
    within_sites = Split(seed=1, shares=Shares())
    assert concatenate([p.with_cases(p.cases, split=within_sites) for p in drawn]).header.split == within_sites
    others = {"site": "west", "patient": "w" + drawn[1].cases["patient"], "case": "w" + drawn[1].cases["case"]}
    elsewhere = drawn[1].with_cases(drawn[1].cases.assign(**others))
    assert len(concatenate([joined, elsewhere]).header.provenance["splits"]) == 3
    for unknown in (south, south.with_cases(south.cases.assign(site="north"), split=second)):
        assert "splits" not in concatenate([drawn[0], unknown]).header.provenance


def test_select_by_every_column() -> None:
    made = small_set()
    assert set(made.select(role="member", label="healthy").cases["patient"]) == {"p0", "p2"}
    assert len(made.select(patient=["p1", "p3"])) == 4
    with pytest.raises(ImageSetError, match=r"no image has the site 'nort'.*did you mean 'north'"):
        made.select(site="nort")


def test_patients_has_a_row_each() -> None:
    table = small_set().patients
    assert list(table.columns) == ["patient", "site", "role", "class", "images"]
    assert table.iloc[1].tolist() == ["p1", "north", "holdout", "tumour", 2]


@pytest.mark.parametrize(
    ("column", "row", "value", "message"),
    [
        ("case", 1, "p0-0", r"row 3: the case stands twice \(found 'p0-0'\)"),
        ("role", 2, "membr", r"row 4: unknown role \(found 'membr'\)"),
        ("class", 5, "glioma", r"row 7: unknown class \(found 'glioma'\)"),
        ("patient", 7, "", r"row 9: the patient is missing"),
        ("patient", 3, "p1 ", r"row 5: the patient begins or ends with a blank \(found 'p1 '\)"),
        ("slice", 0, "1.5", r"row 2: the slice is not a whole number"),
        ("site", 1, "south", r"row 3: the patient 'p0' has two values of 'site': 'north' and 'south'"),
        ("role", 1, "holdout", r"row 3: the patient 'p0' has two values of 'role'"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, column: str, row: int, value: str, message: str) -> None:
    small_set().save(tmp_path / "set")
    table = pd.read_csv(tmp_path / "set/cases.csv", dtype=str, keep_default_na=False)
    table.loc[row, column] = value
    table.to_csv(tmp_path / "set/cases.csv", index=False)
    with pytest.raises(ImageSetError, match=r"cases\.csv: " + message):
        ImageSet.load(tmp_path / "set")


@pytest.mark.parametrize("ending", ["p1,north", "", "p1-1,p1,north,holdout,tumour,1,"])
def test_a_row_that_is_not_whole_is_named(tmp_path: Path, ending: str) -> None:
    """A copy that was cut off must not pass for a table with empty cells."""
    small_set().save(tmp_path / "set")
    file = tmp_path / "set/cases.csv"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:4], ending, *lines[5:]]))
    with pytest.raises(ImageSetError, match=r"cases\.csv: row 5: the row has \d cells and the first line names 6"):
        ImageSet.load(tmp_path / "set")


def test_a_set_written_by_hand_is_read(tmp_path: Path) -> None:
    """Only what the format demands: whole-number spacing, columns in any order, Windows' line ends and mark."""
    (tmp_path / "imageset.toml").write_text(
        '\ufeffformat = 1\r\nname = "hand"\r\norigin = "real"\r\nchannels = ["a"]\r\nspacing-mm = [1, 2]\r\n',
        encoding="utf-8",
    )
    table = "slice,class,role,site,patient,case\r\n,,,,Ä 1,NA\r\n,,,,Ä 1,null\r\n\r\n"
    (tmp_path / "cases.csv").write_bytes(("\ufeff" + table).encode())
    np.save(tmp_path / "images.npy", np.asfortranarray(np.full((2, 1, 3, 5), 0.5, np.float32)))
    read = ImageSet.load(tmp_path)
    assert list(read.cases["case"]) == ["NA", "null"]
    assert read.header.spacing_mm == (1.0, 2.0)
    assert read.masks is None


def test_a_header_without_its_format_is_refused(tmp_path: Path) -> None:
    small_set().save(tmp_path / "set")
    file = tmp_path / "set/imageset.toml"
    file.write_text(file.read_text().replace("format = 1\n", ""))
    with pytest.raises(ImageSetError, match=r"imageset\.toml: the key 'format' is missing"):
        ImageSet.load(tmp_path / "set")


@pytest.mark.parametrize(("content", "message"), [(b"hello", "is not an array"), (b"", "is not an array")])
def test_a_file_that_is_no_array_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    small_set().save(tmp_path / "set")
    (tmp_path / "set/images.npy").write_bytes(content)
    with pytest.raises(ImageSetError, match=rf"images\.npy: {message}"):
        ImageSet.load(tmp_path / "set")


def test_images_without_voxels_are_refused(tmp_path: Path) -> None:
    small_set().save(tmp_path / "set")
    np.save(tmp_path / "set/images.npy", np.zeros((8, 2, 0, 8), np.uint8))
    with pytest.raises(ImageSetError, match="the images have no voxels"):
        ImageSet.load(tmp_path / "set")


def test_arrays_and_table_of_different_length(tmp_path: Path) -> None:
    small_set().save(tmp_path / "set")
    np.save(tmp_path / "set/images.npy", np.zeros((7, 2, 6, 8), np.uint8))
    with pytest.raises(ImageSetError, match=r"images\.npy: the array has 7 items and cases\.csv has 8 rows"):
        ImageSet.load(tmp_path / "set")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.1, 1.1])
def test_a_voxel_that_is_no_intensity_is_named(tmp_path: Path, bad: float) -> None:
    made = small_set()
    images = np.asarray(made.images, np.float32) / 255
    replace(made, images=images.copy()).save(tmp_path / "set")
    images[3, 1, 2, 2] = bad
    np.save(tmp_path / "set/images.npy", images)
    with pytest.raises(ImageSetError, match=r"in case 'p1-1', row 5 of cases.csv"):
        ImageSet.load(tmp_path / "set")


def test_a_label_without_a_name_is_named(tmp_path: Path) -> None:
    made = small_set()
    made.save(tmp_path / "set")
    masks = np.asarray(made.masks).copy()
    masks[2] = 9
    np.save(tmp_path / "set/masks.npy", masks)
    with pytest.raises(ImageSetError, match=r"masks\.npy: a label has no name .*'p1-0'.*found 9"):
        ImageSet.load(tmp_path / "set")


def test_truncated_array_is_an_error_not_a_traceback(tmp_path: Path) -> None:
    small_set().save(tmp_path / "set")
    file = tmp_path / "set/images.npy"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ImageSetError, match=r"images\.npy: is not a readable array"):
        ImageSet.load(tmp_path / "set")


def test_unknown_key_gets_the_nearest_spelling(tmp_path: Path) -> None:
    small_set().save(tmp_path / "set")
    file = tmp_path / "set/imageset.toml"
    file.write_text(file.read_text().replace("spacing-mm", "spacing_mm"))
    with pytest.raises(FedSynthError, match=r"imageset\.toml: unknown key 'spacing_mm'; did you mean 'spacing-mm'"):
        ImageSet.load(tmp_path / "set")


def test_a_split_within_an_unknown_column_is_refused(tmp_path: Path) -> None:
    small_set(split=Split(seed=3, shares=Shares())).save(tmp_path / "set")
    file = tmp_path / "set/imageset.toml"
    file.write_text(file.read_text().replace('"class",\n]', '"clas",\n]'))
    with pytest.raises(FedSynthError, match=r"\[split\] the strata .*\(found 'clas'\); did you mean 'class'"):
        ImageSet.load(tmp_path / "set")


def test_existing_output_is_kept_unless_told(tmp_path: Path) -> None:
    made = small_set()
    made.save(tmp_path / "set")
    with pytest.raises(RefusedError, match="exists already"):
        made.save(tmp_path / "set")
    made.select(site="north").save(tmp_path / "set", overwrite=True)
    assert len(ImageSet.load(tmp_path / "set")) == 4


def test_overwrite_never_replaces_what_is_no_image_set(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.tex").write_text("years of work")
    with pytest.raises(RefusedError, match="not replaced"):
        small_set().save(tmp_path / "home", overwrite=True)
    assert (tmp_path / "home/thesis.tex").exists()


def test_a_set_can_be_saved_over_itself(tmp_path: Path) -> None:
    small_set().save(tmp_path / "set")
    ImageSet.load(tmp_path / "set").select(role="member").save(tmp_path / "set", overwrite=True)
    assert set(ImageSet.load(tmp_path / "set").cases["role"]) == {"member"}


def test_a_failed_save_leaves_nothing(tmp_path: Path) -> None:
    made = small_set()
    masks = np.asarray(made.masks).copy()
    masks[:] = 9
    with pytest.raises(ImageSetError):
        replace(made, masks=masks).save(tmp_path / "set")
    assert list(tmp_path.iterdir()) == []


def test_sets_that_differ_are_not_concatenated() -> None:
    with pytest.raises(ImageSetError, match="differ in spacing-mm"):
        concatenate([small_set(), small_set(spacing_mm=(1.0, 1.0))])


def test_one_patient_in_two_sets_needs_other_names() -> None:
    with pytest.raises(ImageSetError, match="the case stands twice"):
        concatenate([small_set(), small_set()])
