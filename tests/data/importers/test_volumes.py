"""The manifest reader: every kind of volume, masks on the same grid, and a row number in every complaint."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from fedsynth.data.importers import ReadOptions
from fedsynth.data.importers.source import Raw
from fedsynth.data.importers.volumes import plan
from fedsynth.errors import ConfigError, FedSynthError, SourceError

RAS = np.diag([0.5, 2.0, 3.0, 1.0])
SHAPE = (4, 5, 3)


def voxels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 400, SHAPE).astype(np.int16)


def nifti(path: Path, array: np.ndarray, affine: np.ndarray = RAS) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path.name


def cohort(folder: Path) -> Path:
    """Two patients, two channels, masks of 0 and 1; the second patient twice."""
    lines = ["patient,site,class,t1,flair,mask"]
    for k, (patient, site, label) in enumerate([("A", "north", "low"), ("B", "south", "high"), ("B", "south", "")]):
        names = [nifti(folder / f"{kind}{k}.nii.gz", voxels(3 * k + i)) for i, kind in enumerate(("t1", "flair"))]
        names.append(nifti(folder / f"mask{k}.nii.gz", (voxels(k) > 0).astype(np.uint8)))
        lines.append(",".join([patient, site, label, *names]))
    return written(folder, *lines)


def written(folder: Path, *lines: str) -> Path:
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(lines) + "\n")
    return manifest


def decoded(manifest: Path, **options: object) -> list[Raw]:
    return [raw for source in plan(manifest, ReadOptions(**options)).sources for raw in source.decode()]


def test_patients_sites_classes_and_channels_come_from_the_manifest(tmp_path: Path) -> None:
    made = plan(cohort(tmp_path), ReadOptions())
    assert made.channels == ("t1", "flair")
    assert made.classes == ("high", "low")
    assert made.mask_labels == ("background", "lesion")
    told = [(source.patient, source.site, source.label, source.role) for source in made.sources]
    assert told == [("A", "north", "low", ""), ("B", "south", "high", ""), ("B", "south", "", "")]


def test_voxels_masks_and_spacing_arrive_as_stored(tmp_path: Path) -> None:
    raws = decoded(cohort(tmp_path))
    assert [raw.case for raw in raws] == ["A", "B-1", "B-2"]
    for k, raw in enumerate(raws):
        assert np.array_equal(raw.image, np.stack([voxels(3 * k), voxels(3 * k + 1)]))
        assert np.array_equal(raw.mask, voxels(k) > 0)
        assert raw.spacing_mm == pytest.approx((0.5, 2.0, 3.0))


def test_channels_are_chosen_and_ordered(tmp_path: Path) -> None:
    manifest = cohort(tmp_path)
    assert np.array_equal(decoded(manifest, channels=("flair",))[0].image[0], voxels(1))
    assert plan(manifest, ReadOptions(channels=("flair", "t1"))).channels == ("flair", "t1")
    with pytest.raises(ConfigError, match="did you mean 'flair'"):
        plan(manifest, ReadOptions(channels=("flare",)))


def test_columns_that_are_no_images_are_left_out_when_channels_are_named(tmp_path: Path) -> None:
    nifti(tmp_path / "a.nii", voxels(0))
    made = plan(written(tmp_path, "patient,age,ct", "A,61,a.nii"), ReadOptions(channels=("ct",)))
    assert made.notes == {"orientation": "RAS", "columns-ignored": ["age"]}
    assert made.mask_labels == ()
    assert next(iter(made.sources[0].decode())).mask is None


def test_a_column_without_any_file_is_not_taken_for_a_channel(tmp_path: Path) -> None:
    nifti(tmp_path / "a.nii", voxels(0))
    nifti(tmp_path / "b.nii", voxels(1))
    manifest = written(tmp_path, "patient,ct,age", "A,a.nii,61", "B,b.nii,61")
    with pytest.raises(SourceError, match=r"no cell of the column 'age' is a file \(found '61'\);.*--channels ct"):
        plan(manifest, ReadOptions())


def test_mhd_with_a_mask_in_another_kind_and_orientation(tmp_path: Path) -> None:
    """A LUNA16 scan (.mhd, axes left, posterior, superior) with a mask drawn in another tool (.nrrd, RAS)."""
    scan = SimpleITK.GetImageFromArray(np.ascontiguousarray(voxels(0)[::-1, ::-1].T))
    scan.SetSpacing((0.5, 2.0, 3.0))
    SimpleITK.WriteImage(scan, str(tmp_path / "scan.mhd"))
    mask = SimpleITK.GetImageFromArray(np.ascontiguousarray((voxels(0) > 200).astype(np.uint8).T))
    mask.SetSpacing((0.5, 2.0, 3.0))
    mask.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    mask.SetOrigin((0.5 * 3, 2.0 * 4, 0))
    SimpleITK.WriteImage(mask, str(tmp_path / "nodule.nrrd"))
    raw = decoded(written(tmp_path, "patient,ct,mask", "L1,scan.mhd,nodule.nrrd"))[0]
    assert np.array_equal(raw.image[0], voxels(0))
    assert np.array_equal(raw.mask, voxels(0) > 200)


def test_roles_cases_and_one_site_for_all(tmp_path: Path) -> None:
    for k in range(2):
        nifti(tmp_path / f"{k}.nii", voxels(k))
    manifest = written(tmp_path, "case,patient,role,ct", "x,A,member,0.nii", "y,B,holdout,1.nii")
    made = plan(manifest, ReadOptions(site="west"))
    assert [(source.role, source.site) for source in made.sources] == [("member", "west"), ("holdout", "west")]
    assert [raw.case for raw in decoded(manifest)] == ["x", "y"]


def test_windows_paths_absolute_paths_and_a_byte_order_mark(tmp_path: Path) -> None:
    nifti(tmp_path / "scans/a.nii", voxels(0))
    nifti(tmp_path / "b.nii", voxels(1))
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(
        f"\ufeffpatient,ct\r\nA,scans\\a.nii\r\n\r\nB,{tmp_path / 'b.nii'}\r\n,\r\n", "utf-8", newline=""
    )
    assert [int(raw.image.sum()) for raw in decoded(manifest)] == [int(voxels(0).sum()), int(voxels(1).sum())]


def test_declared_mask_labels(tmp_path: Path) -> None:
    nifti(tmp_path / "a.nii", voxels(0))
    nifti(tmp_path / "m.nii", np.where(voxels(0) > 0, 3, 0).astype(np.uint8))
    manifest = written(tmp_path, "patient,ct,mask", "A,a.nii,m.nii")
    made = plan(manifest, ReadOptions(mask_labels=("background=0", "trachea=3")))
    assert made.mask_labels == ("background", "trachea")
    assert np.array_equal(next(iter(made.sources[0].decode())).mask, voxels(0) > 0)
    with pytest.raises(SourceError, match=r"manifest\.csv: row 2: .*m\.nii: the mask holds .*\(found 3\)"):
        decoded(manifest)


def test_rows_without_a_mask_need_a_statement(tmp_path: Path) -> None:
    for k in range(2):
        nifti(tmp_path / f"{k}.nii", voxels(k))
    nifti(tmp_path / "m.nii", np.ones(SHAPE, np.uint8))
    manifest = written(tmp_path, "patient,ct,mask", "A,0.nii,m.nii", "B,1.nii,")
    with pytest.raises(SourceError, match=r"row 3: the cell 'mask' is empty; .*--unmasked-is-background"):
        plan(manifest, ReadOptions())
    assert [int(raw.mask.sum()) for raw in decoded(manifest, unmasked_is_background=True)] == [60, 0]


def complaint(manifest: Path, **options: object) -> str:
    with pytest.raises(FedSynthError) as caught:
        decoded(manifest, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["patient_id,ct", "A,0.nii"], ["row 1", "'patient' is missing", "did you mean 'patient_id'?"]),
        (["subject,ct", "A,0.nii"], ["row 1", "'patient' is missing", "known: ct, subject"]),
        (["patient;ct", "A;0.nii"], ["semicolons", "save it with commas"]),
        (["patient\tct", "A\t0.nii"], ["tabs"]),
        (["patient,ct", "A,0.nii", "B,1.nii,extra"], ["row 3", "3 cells", "2 columns"]),
        (["patient,ct", "A"], ["row 2", "1 cells"]),
        (["patient,ct", "A,0.nii", ",1.nii"], ["row 3", "the patient is missing"]),
        (["patient,ct", "A,"], ["row 2", "'ct' is empty", "--channels"]),
        (["patient,ct,ct", "A,0.nii,1.nii"], ["same name", "'ct'"]),
        (["patient,ct,", "A,0.nii,"], ["column 3 has no name"]),
        (["patient,Site,ct", "A,north,0.nii"], ["'Site'", "write 'site'"]),
        (["patient,masks,ct", "A,1.nii,0.nii"], ["'masks'", "write 'mask'"]),
        (["patient,site", "A,north"], ["no column holds images"]),
        (["patient,site,ct", "A,north,0.nii", "A,south,1.nii"], ["row 3", "'A'", "'north' in row 2", "'south'"]),
        (["patient,role,ct", "A,member,0.nii", "A,holdout,1.nii"], ["row 3", "'member' in row 2", "'holdout'"]),
        (["patient,role,ct", "A,train,0.nii"], ["row 2", "unknown role", "'train'"]),
        (["patient,role,ct", "A,members,0.nii"], ["did you mean 'member'?"]),
        (["patient,role,ct", "A,member,0.nii", "B,,1.nii"], ["row 3", "give every row a role, or none"]),
        (["patient,ct", "A,0.nii", "B,0.nii"], ["row 3", "stands already in row 2"]),
        (["patient,t1,t2", "A,0.nii,./0.nii"], ["row 2", "'t2'", "column 't1'"]),
        (["case,patient,ct", "x,A,0.nii", "x,B,1.nii"], ["row 3", "'x'", "already in row 2"]),
        (["patient,ct", "A,0.nii", "A,1.nii", "A-1,2.nii"], ["two cases have the same name", "'A-1'"]),
        (["patient,ct", 'A,"0.nii'], ["quotation mark"]),
        (["patient,ct"], ["lists no images"]),
        ([""], ["is empty"]),
        (["patient,ct,mask", "A,0.nii,small.nii"], ["row 2", "small.nii", "another shape than 0.nii", "(4, 5, 2)"]),
        (["patient,ct,mask", "A,0.nii,shifted.nii"], ["row 2", "shifted.nii", "another grid than 0.nii"]),
        (["patient,t1,t2", "A,0.nii,small.nii"], ["row 2", "small.nii", "another shape than 0.nii"]),
        (["patient,ct", "A,nan.nii"], ["row 2", "nan.nii", "1 of 60 values are not finite", "(1, 2, 0)"]),
        (["patient,ct", "A,4d.nii"], ["row 2", "4d.nii", "4 axes"]),
        (["patient,ct", "A,junk.nii"], ["row 2", "junk.nii", "cannot be decoded", "--skip-corrupt"]),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, lines: list[str], words: list[str]) -> None:
    for k in range(3):
        nifti(tmp_path / f"{k}.nii", voxels(k))
    nifti(tmp_path / "small.nii", np.zeros((4, 5, 2), np.uint8))
    shifted = RAS.copy()
    shifted[0, 3] = 5
    nifti(tmp_path / "shifted.nii", np.zeros(SHAPE, np.uint8), shifted)
    broken = voxels(0).astype(np.float32)
    broken[1, 2, 0] = np.nan
    nifti(tmp_path / "nan.nii", broken)
    nifti(tmp_path / "4d.nii", np.zeros((4, 5, 3, 2), np.int16))
    (tmp_path / "junk.nii").write_bytes(b"junk" * 300)
    message = complaint(written(tmp_path, *lines))
    for word in ("manifest.csv", *words):
        assert word in message, message


def test_missing_files_are_known_before_the_first_is_opened(tmp_path: Path) -> None:
    nifti(tmp_path / "0.nii", voxels(0))
    manifest = written(tmp_path, "patient,ct", "A,0.nii", "B,scans/nothere.nii")
    first, second = plan(manifest, ReadOptions()).sources
    assert first.problems == ()
    assert list(second.decode()) == []
    message = str(second.problems[0])
    assert message.startswith(f"{manifest}: row 3: {tmp_path / 'scans/nothere.nii'}: there is no such file")


def test_other_encodings_and_folders_are_no_manifest(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.csv"
    for encoding in ("utf-16", "latin-1"):
        manifest.write_bytes("patient,ct\nM\u00fcller,a.nii\n".encode(encoding))
        assert "UTF-8" in complaint(manifest)
    assert "give the manifest itself: manifest.csv" in complaint(tmp_path)
    assert "no such manifest" in complaint(tmp_path / "other.csv")


def test_options_that_volumes_cannot_honour_are_refused(tmp_path: Path) -> None:
    manifest = cohort(tmp_path)
    assert "column 'site'" in complaint(manifest, site="west")
    assert "--patient-pattern" in complaint(manifest, patient_pattern="x")
    nifti(tmp_path / "a.nii", voxels(0))
    assert "no column 'mask'" in complaint(written(tmp_path, "patient,ct", "A,a.nii"), mask_labels=("background", "x"))


def test_the_plan_opens_nothing(tmp_path: Path) -> None:
    """A damaged volume is found in its turn, so that an import can go on without it."""
    manifest = cohort(tmp_path)
    (tmp_path / "t10.nii.gz").write_bytes(b"junk")
    first, second, _ = plan(manifest, ReadOptions()).sources
    with pytest.raises(SourceError, match=r"row 2: .*t10\.nii\.gz"):
        list(first.decode())
    assert len(list(second.decode())) == 1
