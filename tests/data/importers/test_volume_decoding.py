"""Volumes of every kind come out the same: RAS axes, true spacing, and a sentence for each kind of damage."""

import gzip
import locale
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from fedsynth.data.importers.volume import Volume, require_same_grid
from fedsynth.data.importers.volume_decoding import open_volume
from fedsynth.errors import SourceError

LUNG = np.random.default_rng(0).integers(-1000, 400, (4, 5, 3)).astype(np.int16)
"""No axis and no direction of it can be taken for another: all three lengths differ and the values are random."""
SPACING = (0.5, 2.0, 3.0)
RAS = np.array([[0.5, 0, 0, -10], [0, 2.0, 0, 20], [0, 0, 3.0, 30], [0, 0, 0, 1]])


def save_nifti(path: Path, array: np.ndarray = LUNG, affine: np.ndarray = RAS) -> Path:
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


def as_sitk(array: np.ndarray = LUNG, affine: np.ndarray = RAS) -> SimpleITK.Image:
    lps = np.diag([-1, -1, 1, 1]) @ affine
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array.T))
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def save_sitk(path: Path, array: np.ndarray = LUNG, affine: np.ndarray = RAS, compressed: bool = False) -> Path:
    written = path.with_suffix(path.suffix.lower())
    SimpleITK.WriteImage(as_sitk(array, affine), str(written), useCompression=compressed)
    return written.rename(path)


def save_series(
    folder: Path, array: np.ndarray = LUNG, affine: np.ndarray = RAS, uid: str = "1.2.3", prefix: str = "", **tags: str
) -> Path:
    """One DICOM file per slice along the last axis, with the numbers stored as Hounsfield units + 1024."""
    folder.mkdir(parents=True, exist_ok=True)
    lps = np.diag([-1, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    cosines = (lps[:3, :3] / spacing).T
    before = locale.setlocale(locale.LC_ALL)
    writer = SimpleITK.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k in range(array.shape[2]):
        image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array[:, :, k].T))
        image.SetSpacing(spacing[:2].tolist())
        origin = lps[:3, 3] + k * lps[:3, 2]
        values = (
            {
                "0008|0060": "CT",
                "0008|103e": "Thorax",
                "0008|0018": f"{uid}.{k}",
                "0020|000d": "1.2",
                "0020|000e": uid,
                "0020|0013": str(array.shape[2] - k),  # instance numbers run against the positions
                "0020|0032": "\\".join(map(repr, origin.tolist())),
                "0020|0037": "\\".join(map(repr, cosines[:2].ravel().tolist())),
                "0028|1052": "-1024",
                "0028|1053": "1",
            }
            | tags
        )
        for tag, value in values.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{prefix}{k}.dcm"))
        writer.Execute(image)
    locale.setlocale(locale.LC_ALL, before)  # writing DICOM (not reading it) leaves the process in plain ASCII
    return folder


def flipped(codes: str) -> tuple[np.ndarray, np.ndarray]:
    """The same voxels at the same place, stored with the axes `codes`."""
    turn = ornt_transform(io_orientation(RAS), axcodes2ornt(codes))
    stored = nibabel.orientations.apply_orientation(LUNG, turn)
    return np.ascontiguousarray(stored), RAS @ inv_ornt_aff(turn, LUNG.shape)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".NII.GZ", ".mhd", ".mha", ".nrrd", ".MHA"])
@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "PSR", "ILA"])
def test_every_kind_and_orientation_gives_the_same_volume(tmp_path: Path, ending: str, codes: str) -> None:
    array, affine = flipped(codes)
    save = save_nifti if "nii" in ending.lower() else save_sitk
    volume = open_volume(save(tmp_path / f"lung{ending}", array, affine))
    assert np.array_equal(volume.array, LUNG)
    assert volume.spacing_mm == pytest.approx(SPACING)
    assert np.allclose(volume.affine, RAS)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LPI", "RIA", "SPL"])
def test_a_dicom_series_is_sorted_by_place_and_rescaled(tmp_path: Path, codes: str) -> None:
    array, affine = flipped(codes)
    if np.linalg.det(affine[:3, :3]) < 0:  # a series has no handedness of its own: its normal follows from the rows
        array, affine = array[:, :, ::-1], affine @ inv_ornt_aff([[0, 1], [1, 1], [2, -1]], array.shape)
    volume = open_volume(save_series(tmp_path / "series", array, affine))
    assert np.array_equal(volume.array, LUNG)
    assert volume.spacing_mm == pytest.approx(SPACING)
    assert np.allclose(volume.affine, RAS)


def test_other_files_may_lie_in_a_series(tmp_path: Path) -> None:
    folder = save_series(tmp_path / "series")
    (folder / "LICENSE").write_text("text")
    (folder / "069.xml").write_text("<a/>")
    assert np.array_equal(open_volume(folder).array, LUNG)


def test_a_left_right_marker_in_lps_ends_up_on_the_right(tmp_path: Path) -> None:
    array = np.zeros((4, 5, 3), np.int16)
    array[0, 0, 2] = 7  # in LPS the first voxel is the most right and anterior
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array.T), str(tmp_path / "a.mha"))
    assert open_volume(tmp_path / "a.mha").array[3, 4, 2] == 7


def test_an_oblique_volume_is_turned_to_the_nearest_axes_and_not_resampled(tmp_path: Path) -> None:
    angle = np.deg2rad(20)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-0.5, -2.0, 3.0])
    for path in (save_nifti(tmp_path / "a.nii", LUNG, affine), save_sitk(tmp_path / "a.nrrd", LUNG, affine)):
        volume = open_volume(path)
        assert np.array_equal(volume.array, LUNG[::-1, ::-1])
        assert volume.spacing_mm == pytest.approx(SPACING)


def test_nifti_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(LUNG, RAS)
    image.header.set_slope_inter(2.0, -1024.0)
    nibabel.save(image, tmp_path / "a.nii")
    stored = nibabel.load(tmp_path / "a.nii")
    wanted = np.asarray(stored.dataobj.get_unscaled(), float) * stored.dataobj.slope + stored.dataobj.inter
    assert np.allclose(open_volume(tmp_path / "a.nii").array, wanted)


def test_nifti_units_of_length_become_millimetres(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(LUNG, RAS)
    image.header.set_xyzt_units("micron")
    nibabel.save(image, tmp_path / "a.nii")
    assert open_volume(tmp_path / "a.nii").spacing_mm == pytest.approx((0.0005, 0.002, 0.003))


def test_a_trailing_axis_of_one_is_no_fourth_dimension(tmp_path: Path) -> None:
    assert open_volume(save_nifti(tmp_path / "a.nii", LUNG[..., None])).array.shape == LUNG.shape


def test_a_single_dicom_file_is_a_volume_of_one_slice(tmp_path: Path) -> None:
    folder = save_series(tmp_path / "s", LUNG[:, :, :1], **{"0018|0050": "5"})
    volume = open_volume(folder / "0.dcm")
    assert volume.array.shape == (4, 5, 1)
    assert volume.spacing_mm == pytest.approx((0.5, 2.0, 5.0))


def test_dicom_files_need_no_ending_and_no_plain_letters_in_their_path(tmp_path: Path) -> None:
    folder = save_series(tmp_path / "M\u00fcller J\u00f6rg" / "CT 1")
    for file in folder.iterdir():
        file.rename(folder / f"IM-{file.stem}")
    volume = open_volume(folder)
    assert np.array_equal(volume.array, LUNG)
    assert volume.array.dtype == np.int16
    assert np.array_equal(open_volume(folder / "IM-0").array[..., 0], LUNG[..., 0])


def test_inverted_grey_values_are_refused(tmp_path: Path) -> None:
    folder = save_series(tmp_path / "s")
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes().replace(b"MONOCHROME2", b"MONOCHROME1"))
    refused(folder, "MONOCHROME1", "grow with brightness")


def refused(path: Path, *words: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_volume(path)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_damaged_files_are_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    large = np.random.default_rng(0).integers(0, 9999, (32, 32, 32)).astype(np.int16)
    whole = save_nifti(tmp_path / "whole.nii.gz", large).read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.nii").write_bytes(gzip.decompress(whole)[:-10])
    (tmp_path / "checksum.nii.gz").write_bytes(whole[:-8] + bytes(4) + whole[-4:])
    (tmp_path / "flipped.nii.gz").write_bytes(whole[:5000] + bytes(200) + whole[5200:])
    for name in ("junk.nii", "junk.nii.gz", "junk.mhd", "junk.mha", "junk.nrrd", "junk.dcm"):
        (tmp_path / name).write_bytes(b"<html>404 not found</html>" * 40)
    for name in ("empty.nii", "empty.nii.gz", "empty.mha", "empty.nrrd", "empty.dcm"):
        (tmp_path / name).touch()
    (tmp_path / "cut.mha").write_bytes(save_sitk(tmp_path / "a.mha").read_bytes()[:-7])
    (tmp_path / "cut.nrrd").write_bytes(save_sitk(tmp_path / "a.nrrd").read_bytes()[:-7])
    slices = save_series(tmp_path / "s")
    (tmp_path / "cut.dcm").write_bytes((slices / "0.dcm").read_bytes()[:-7])
    names = [
        path for path in tmp_path.iterdir() if path.name.startswith(("cut", "junk", "empty", "flipped", "checksum"))
    ]
    assert len(names) == 18
    for path in names:
        refused(path, str(path))
    assert capfd.readouterr().err == ""


def test_the_data_file_of_a_header_is_missed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    save_sitk(tmp_path / "scan.mhd")
    (tmp_path / "scan.raw").write_bytes((tmp_path / "scan.raw").read_bytes()[:-2])
    refused(tmp_path / "scan.mhd", "scan.raw", "cut off", "120", "118")
    save_sitk(tmp_path / "packed.mhd", compressed=True)
    assert np.array_equal(open_volume(tmp_path / "packed.mhd").array, LUNG)
    (tmp_path / "packed.zraw").write_bytes((tmp_path / "packed.zraw").read_bytes()[:-2])
    refused(tmp_path / "packed.mhd", "packed.zraw", "cut off")
    (tmp_path / "scan.raw").unlink()
    refused(tmp_path / "scan.mhd", "scan.mhd", "'scan.raw' is missing")
    assert capfd.readouterr().err == ""


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    refused(tmp_path / "a.nii", "a.nii", "there is no such file")
    refused(tmp_path / "b/c/a.nii", f"the path exists up to {tmp_path}")
    (tmp_path / "link.nii").symlink_to(tmp_path / "nowhere.nii")
    refused(tmp_path / "link.nii", "link")
    (tmp_path / "a.txt").touch()
    refused(tmp_path / "a.txt", "not a known kind", ".nrrd")
    (tmp_path / "patient/series").mkdir(parents=True)
    refused(tmp_path / "patient", "no DICOM series", "patient/series")


def test_values_that_are_no_numbers_are_counted(tmp_path: Path) -> None:
    array = LUNG.astype(np.float32)
    array[1, 2, 0] = np.nan
    array[3, 4, 2] = np.inf
    refused(save_nifti(tmp_path / "a.nii", array), "2 of 60 values are not finite", "(1, 2, 0)", "nan")
    refused(save_nifti(tmp_path / "b.nii", np.full((2, 3, 4), 1e300)), "24 of 24", "inf")


@pytest.mark.parametrize("shape", [(4, 5, 3, 2), (4, 5), (4, 5, 1, 2)])
def test_other_than_three_axes_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    refused(save_nifti(tmp_path / "a.nii", np.zeros(shape, np.int16)), f"{len(shape)} axes", str(shape))
    image = SimpleITK.GetImageFromArray(np.zeros(shape[::-1], np.int16), isVector=False)
    SimpleITK.WriteImage(image, str(tmp_path / "a.nrrd"))
    refused(tmp_path / "a.nrrd", f"{len(shape)} axes")


def test_colours_are_no_volume(tmp_path: Path) -> None:
    image = SimpleITK.GetImageFromArray(np.zeros((3, 5, 4, 3), np.uint8), isVector=True)
    SimpleITK.WriteImage(image, str(tmp_path / "a.mha"))
    refused(tmp_path / "a.mha", "several numbers per voxel", "3")
    colours = np.zeros((4, 5, 3), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    refused(save_nifti(tmp_path / "a.nii", colours), "several numbers per voxel")


def test_an_orientation_that_cannot_be_is_refused(tmp_path: Path) -> None:
    flat = RAS.copy()
    flat[:3, 2] = 0
    image = nibabel.Nifti1Image(LUNG, RAS)
    image.header.set_sform(flat, code=1)
    image.header["qform_code"] = 0
    nibabel.save(nibabel.Nifti1Image(LUNG, None, image.header), tmp_path / "a.nii")
    refused(tmp_path / "a.nii", "orientation")


def test_two_series_in_a_folder_are_named(tmp_path: Path) -> None:
    save_series(tmp_path / "s", uid="1.2.3")
    save_series(tmp_path / "s", uid="1.2.4", prefix="other", **{"0008|103e": "Scout"})
    refused(tmp_path / "s", "2 series", "1.2.3 (CT, Thorax, 3 files)", "1.2.4 (CT, Scout, 3 files)", "own folder")


def test_a_missing_slice_is_noticed(tmp_path: Path) -> None:
    folder = save_series(tmp_path / "s", np.zeros((4, 4, 6), np.int16))
    (folder / "2.dcm").unlink()
    refused(folder, "3 mm apart", "1.dcm and 3.dcm", "6 mm")


def test_a_damaged_slice_at_the_end_of_a_series_is_named(tmp_path: Path) -> None:
    folder = save_series(tmp_path / "s")
    (folder / "2.dcm").write_bytes(b"")
    refused(folder, "2.dcm", "no readable DICOM")


def test_two_phases_in_one_series_are_not_one_volume(tmp_path: Path) -> None:
    save_series(tmp_path / "s")
    save_series(tmp_path / "s", prefix="late")
    refused(tmp_path / "s", "same place", "phases")


def test_a_scout_within_a_series_is_named(tmp_path: Path) -> None:
    save_series(tmp_path / "s")
    scout, affine = flipped("PSR")
    save_series(tmp_path / "s", scout[:, :, :1], affine, prefix="scout")
    with pytest.raises(SourceError, match=r"\.dcm: the slice (is turned against|has another size than)"):
        open_volume(tmp_path / "s")


def grid(**change: object) -> Volume:
    values: dict[str, object] = {"array": LUNG, "affine": RAS, "file": Path("ct.nii")}
    return Volume(**(values | change))


def moved(mm: float) -> np.ndarray:
    affine = RAS.copy()
    affine[0, 3] += mm
    return affine


def test_grids_agree_to_a_tenth_of_a_voxel() -> None:
    require_same_grid(grid(), grid(affine=moved(0.04), file=Path("mask.nii")))
    with pytest.raises(SourceError, match=r"mask\.nii: lies on another grid than ct\.nii: a corner is 0\.2 voxels"):
        require_same_grid(grid(), grid(affine=moved(0.1), file=Path("mask.nii")))


def test_another_spacing_or_shape_is_named() -> None:
    wide = RAS @ np.diag([2, 1, 1, 1])
    with pytest.raises(SourceError, match=re.escape("(0.5, 2.0, 3.0) mm (found (1.0, 2.0, 3.0))")):
        require_same_grid(grid(), grid(affine=wide))
    with pytest.raises(SourceError, match=re.escape("another shape than ct.nii, (4, 5, 3) (found (4, 5, 2))")):
        require_same_grid(grid(), grid(array=LUNG[..., :2]))
