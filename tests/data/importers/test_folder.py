"""Folders of pictures: classes, patients, masks, and pictures of every mode."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedsynth.data.importers import ReadOptions
from fedsynth.data.importers.folder import plan
from fedsynth.data.importers.pictures import open_picture
from fedsynth.data.importers.source import Raw
from fedsynth.errors import ConfigError, FedSynthError, SourceError

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
RED = np.stack([GREY, GREY // 2, 0 * GREY], -1)
EACH = {"one_image_per_patient": True}


def save(path: Path, array: np.ndarray = GREY, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def decoded(folder: Path, **options: object) -> list[Raw]:
    return [raw for source in plan(folder, ReadOptions(**(options or EACH))).sources for raw in source.decode()]


def test_folders_are_classes_and_the_pattern_finds_the_patient(tmp_path: Path) -> None:
    for name in ("normal/p1_0.png", "normal/p1_1.PNG", "sick/p2_0.jpg", "sick/deep/er/p3_0.tif"):
        save(tmp_path / name)
    made = plan(tmp_path, ReadOptions(patient_pattern=r"/(p\d+)_"))
    told = [(source.patient, source.label, source.file.name) for source in made.sources]
    assert told == [
        ("p1", "normal", "p1_0.png"),
        ("p1", "normal", "p1_1.PNG"),
        ("p3", "sick", "p3_0.tif"),
        ("p2", "sick", "p2_0.jpg"),
    ]
    assert made.classes == ("normal", "sick")
    assert made.channels == ("gray",)
    assert made.intensity == "window:0,255"
    assert made.mask_labels == ()
    raw = next(iter(made.sources[0].decode()))
    assert (raw.case, raw.spacing_mm) == ("normal/p1_0", None)
    assert np.array_equal(raw.image, GREY[None])


@pytest.mark.parametrize(
    ("pattern", "patient", "site"),
    [
        (r"(?P<site>[a-z]+)-(?P<patient>\d+)", "07", "east"),
        (r"(?P<site>[a-z]+)-(\d+)", "07", "east"),
        (r"(\d+)", "07", "main"),
        (r"\d+", "07", "main"),
        (r"-(?:x)?(?P<patient>\d)", "0", "main"),
    ],
)
def test_groups_of_the_pattern(tmp_path: Path, pattern: str, patient: str, site: str) -> None:
    save(tmp_path / "east-07.png")
    options = ReadOptions(patient_pattern=pattern, site="" if "site" in pattern else "main")
    source = plan(tmp_path, options).sources[0]
    assert (source.patient, source.site, source.label) == (patient, site, "")


def test_without_a_word_on_patients_nothing_is_read(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    with pytest.raises(ConfigError, match=r"never be split.*--patient-pattern.*--one-image-per-patient"):
        plan(tmp_path, ReadOptions())
    made = plan(tmp_path, ReadOptions(one_image_per_patient=True))
    assert made.sources[0].patient == "a"
    assert made.notes["patients"] == "stated by the user: one image per patient"


def test_train_and_test_folders_are_no_classes(tmp_path: Path) -> None:
    for part in ("train", "test", "val"):
        save(tmp_path / "chest" / part / "NORMAL" / "1.jpeg")
        save(tmp_path / "chest" / part / "PNEUMONIA" / "2.jpeg")
    made = plan(tmp_path / "chest", ReadOptions(**EACH))
    assert made.classes == ("NORMAL", "PNEUMONIA")
    assert [raw.case for raw in decoded(tmp_path / "chest")][:2] == ["test/NORMAL/1", "test/PNEUMONIA/2"]
    assert "pooled" in made.notes["former-split"]


def test_litter_is_passed_over_and_other_files_are_counted(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/.2.png", "a/._1.png", "__MACOSX/a/1.png", ".git/x.png"):
        save(tmp_path / name)
    for name in ("a/Thumbs.db", ".DS_Store", "a/notes.txt", "readme"):
        (tmp_path / name).touch()
    made = plan(tmp_path, ReadOptions(**EACH))
    assert len(made.sources) == 1
    assert made.notes["files-ignored"] == {".txt": 1, "readme": 1}


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    save(tmp_path / "store/1.png")
    (tmp_path / "set").mkdir()
    (tmp_path / "set/ill").symlink_to(tmp_path / "store")
    (tmp_path / "store/loop").symlink_to(tmp_path / "store")
    made = plan(tmp_path / "set", ReadOptions(**EACH))
    assert [source.label for source in made.sources] == ["ill"]


def saved_as(mode: str, **options: object) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        Image.fromarray(RED).convert(mode).save(path, **options)
        return path

    return write


def test_grey_stays_grey_and_colour_becomes_three_channels(tmp_path: Path) -> None:
    assert open_picture(save(tmp_path / "l.png")).shape == (1, 3, 4)
    assert np.array_equal(open_picture(save(tmp_path / "rgb.tif", RED)), np.moveaxis(RED, -1, 0))
    assert np.array_equal(open_picture(saved_as("P")(tmp_path / "p.png")).shape, (3, 3, 4))
    assert np.array_equal(open_picture(saved_as("RGBA")(tmp_path / "rgba.png")), np.moveaxis(RED, -1, 0))
    assert open_picture(saved_as("LA")(tmp_path / "la.png")).shape == (1, 3, 4)
    assert open_picture(saved_as("CMYK")(tmp_path / "cmyk.tif")).shape == (3, 3, 4)
    ones = open_picture(save(tmp_path / "1.png", GREY > 100))
    assert np.array_equal(ones[0], (GREY > 100) * 255)


def test_a_grey_palette_is_grey(tmp_path: Path) -> None:
    picture = Image.new("P", (4, 3))
    picture.putpalette([value for level in range(256) for value in (level, level, level)])
    picture.putdata(GREY.ravel().tolist())
    picture.save(tmp_path / "a.png")
    assert np.array_equal(open_picture(tmp_path / "a.png"), GREY[None])


def test_what_is_transparent_is_black(tmp_path: Path) -> None:
    array = np.dstack([RED, np.full(GREY.shape, 255, np.uint8)])
    array[0, 3, 3] = 0
    image = open_picture(save(tmp_path / "a.png", array))
    assert image[:, 0, 3].tolist() == [0, 0, 0]
    assert np.array_equal(image[:, 1:], np.moveaxis(RED, -1, 0)[:, 1:])


def test_the_camera_s_rotation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6  # the top of the scene is the right side of the stored picture
    save(tmp_path / "a.png", GREY, exif=exif.tobytes())
    assert np.array_equal(open_picture(tmp_path / "a.png")[0], np.rot90(GREY, -1))


def test_a_stray_colour_among_grey_is_named_until_somebody_says_what_is_wanted(tmp_path: Path) -> None:
    for name in "acd":
        save(tmp_path / f"{name}.png")
    save(tmp_path / "b.png", RED)
    with pytest.raises(SourceError, match=r"b\.png: 1 of 4 pictures are in colours.*--channels gray"):
        plan(tmp_path, ReadOptions(**EACH))
    first, second, *_ = decoded(tmp_path, channels=("red", "green", "blue"), **EACH)
    assert np.array_equal(first.image, np.repeat(GREY[None], 3, 0))
    assert np.array_equal(second.image, np.moveaxis(RED, -1, 0))


def test_grey_saved_in_colours_is_one_channel(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    save(tmp_path / "b.png", np.repeat(GREY[..., None], 3, -1))
    save(tmp_path / "c.jpg", np.repeat(GREY[..., None], 3, -1))
    made = plan(tmp_path, ReadOptions(**EACH))
    assert made.channels == ("gray",)
    assert made.notes["grey-saved-in-colours"] == 2
    assert np.array_equal(decoded(tmp_path)[1].image[0], GREY)


def test_channels_can_be_chosen(tmp_path: Path) -> None:
    save(tmp_path / "b.png", RED)
    assert np.array_equal(decoded(tmp_path, channels=("green",), **EACH)[0].image[0], RED[..., 1])
    grey = decoded(tmp_path, channels=("gray",), **EACH)[0].image
    assert grey.dtype == np.uint8
    assert np.array_equal(grey[0], np.rint(RED @ [0.299, 0.587, 0.114]))
    with pytest.raises(ConfigError, match="did you mean 'green'"):
        plan(tmp_path, ReadOptions(channels=("grene",), **EACH))
    with pytest.raises(ConfigError, match="does not go with colours"):
        plan(tmp_path, ReadOptions(channels=("gray", "red"), **EACH))


def test_sixteen_bits_keep_their_numbers(tmp_path: Path) -> None:
    deep = GREY.astype(np.uint16) * 300
    for name in ("a.png", "b.tif"):
        save(tmp_path / name, deep)
    made = plan(tmp_path, ReadOptions(**EACH))
    assert made.intensity == "window:0,65535"
    assert all(np.array_equal(raw.image[0], deep) for raw in decoded(tmp_path))
    save(tmp_path / "c.png", GREY)
    assert np.array_equal(decoded(tmp_path)[2].image[0], GREY.astype(int) * 257)
    assert plan(tmp_path, ReadOptions(**EACH)).notes["bits-of-pictures"] == {"8": 1, "16": 2}


def test_twelve_bits_in_files_of_sixteen_are_not_black(tmp_path: Path) -> None:
    save(tmp_path / "a.png", GREY.astype(np.uint16) * 18)  # the brightest is 3,960
    save(tmp_path / "b.png", GREY.astype(np.uint16))  # dark beside it, and stays so
    save(tmp_path / "c.png", GREY)
    made = plan(tmp_path, ReadOptions(**EACH))
    assert made.intensity == "window:0,4095"
    bright, dark, eight = decoded(tmp_path)
    assert np.array_equal(bright.image[0], GREY * 18.0)
    assert np.array_equal(dark.image[0], GREY)
    assert np.array_equal(eight.image[0], np.rint(GREY / 255 * 4095))


def test_floating_point_pictures_are_scaled_each_by_itself(tmp_path: Path) -> None:
    save(tmp_path / "a.tif", GREY.astype(np.float32) / 7)
    assert plan(tmp_path, ReadOptions(**EACH)).intensity == "percentile:1,99"
    assert np.allclose(decoded(tmp_path)[0].image[0], GREY / 7)
    save(tmp_path / "b.tif", GREY)
    with pytest.raises(SourceError, match="32 bits"):
        plan(tmp_path, ReadOptions(**EACH))


def test_masks_beside_their_images(tmp_path: Path) -> None:
    lesion = (GREY > 100).astype(np.uint8)
    save(tmp_path / "a.jpg")
    save(tmp_path / "a_mask.png", lesion * 255)
    save(tmp_path / "b (1).png")
    save(tmp_path / "b (1)_mask.png", lesion)
    save(tmp_path / "b (1)_mask_1.png", (GREY == 0).astype(np.uint8))
    made = plan(tmp_path, ReadOptions(**EACH))
    assert made.mask_labels == ("background", "lesion")
    first, second = decoded(tmp_path)
    assert np.array_equal(first.mask, lesion)
    assert np.array_equal(second.mask, lesion | (GREY == 0))


def test_jpeg_masks_are_cut_at_half(tmp_path: Path) -> None:
    wide = np.kron((GREY > 100), np.ones((8, 8))).astype(np.uint8)
    save(tmp_path / "a.png", wide * 200)
    save(tmp_path / "a_mask.jpg", wide * 255, quality=40)
    assert np.array_equal(decoded(tmp_path)[0].mask, wide)


def test_palette_indices_are_labels(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    picture = Image.new("P", (4, 3))
    picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    picture.putdata([0, 1, 2] * 4)
    picture.save(tmp_path / "a_mask.png")
    raw = decoded(tmp_path, mask_labels=("background", "liver", "tumour"), **EACH)[0]
    assert raw.mask.ravel().tolist() == [0, 1, 2] * 4


def test_images_without_masks_need_a_statement(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(tmp_path / f"{name}.png")
    save(tmp_path / "a_mask.png", GREY * 0 + 1)
    with pytest.raises(SourceError, match=r"b\.png: has no mask, as 1 of 2.*--unmasked-is-background"):
        plan(tmp_path, ReadOptions(**EACH))
    assert [int(raw.mask.sum()) for raw in decoded(tmp_path, unmasked_is_background=True, **EACH)] == [12, 0]


def complaint(folder: Path, **options: object) -> str:
    with pytest.raises(FedSynthError) as caught:
        decoded(folder, **(options or EACH))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_damaged_pictures_are_named_in_their_turn(tmp_path: Path) -> None:
    good = save(tmp_path / "a.png", np.random.default_rng(0).integers(0, 255, (50, 50)).astype(np.uint8)).read_bytes()
    jpeg = save(tmp_path / "b.jpg", np.random.default_rng(0).integers(0, 255, (50, 50)).astype(np.uint8)).read_bytes()
    damaged = {
        "cut.png": good[:900],
        "cut2.jpg": jpeg[: len(jpeg) // 2],
        "empty.png": b"",
        "junk.tif": b"<html>" * 99,
        "gif.png": b"GIF89a" + bytes(99),
        "checksum.png": good[:200] + bytes(20) + good[220:],
    }
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
    sources = plan(tmp_path, ReadOptions(**EACH)).sources
    assert len(sources) == 8
    for source in sources:
        if source.file.name in damaged:
            with pytest.raises(SourceError, match=f"{source.file.name}: is no readable picture.*--skip-corrupt"):
                list(source.decode())
        else:
            assert len(list(source.decode())) == 1


def test_several_pages_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.tif", GREY, save_all=True, append_images=[Image.fromarray(GREY)])
    assert "a.tif: holds several pictures where one is expected (found 2)" in complaint(tmp_path)


def test_masks_that_do_not_fit_are_named(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    mask = tmp_path / "a_mask.png"
    save(mask, GREY[:2])
    message = complaint(tmp_path)
    assert "a_mask.png: the mask has another shape than a.png, (3, 4) (found (2, 4))" in message
    save(mask, (GREY > 50).astype(np.uint8) * 7)
    assert "a_mask.png: the mask holds a number that is no label" in complaint(tmp_path)
    save(mask, RED)
    assert "a_mask.png: is a mask in colours" in complaint(tmp_path)
    mask.rename(tmp_path / "b_mask.png")
    assert "b_mask.png: is a mask without an image" in complaint(tmp_path)


def test_what_is_wrong_with_the_folder_is_said(tmp_path: Path) -> None:
    assert "no such folder" in complaint(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    assert "is a file where a folder is expected" in complaint(tmp_path / "file")
    (tmp_path / "file").unlink()
    (tmp_path / "a").mkdir()
    assert "holds no pictures" in complaint(tmp_path)
    (tmp_path / "a/scan.dcm").touch()
    assert "1 .dcm; DICOM" in complaint(tmp_path)
    assert "--reader volumes" in complaint(tmp_path)
    save(tmp_path / "b/1.png")
    assert "a: the class folder holds no pictures" in complaint(tmp_path)
    save(tmp_path / "a/1.png")
    save(tmp_path / "loose.png")
    assert "loose.png: lies beside the class folders" in complaint(tmp_path)
    (tmp_path / "loose.png").unlink()
    save(tmp_path / "a/1.jpg")
    assert "two pictures have the same name" in complaint(tmp_path)


def test_what_is_wrong_with_the_patients_is_said(tmp_path: Path) -> None:
    save(tmp_path / "north/p1_a.png")
    save(tmp_path / "south/p1_b.png")
    message = complaint(tmp_path, patient_pattern=r"(?P<site>\w+)/(?P<patient>p\d)")
    assert "south/p1_b.png" in message
    assert "'p1' has two sites: 'north' in north/p1_a.png and 'south'" in message
    assert "does not match (found 'north/p1_a.png')" in complaint(tmp_path, patient_pattern=r"q(\d)")
    assert "no regular expression" in complaint(tmp_path, patient_pattern=r"p(\d")
    assert "empty" in complaint(tmp_path, patient_pattern=r"p1(\d)?")
    assert "contradict" in complaint(tmp_path, patient_pattern=r"p1", **EACH)
    assert "two dimensions" in complaint(tmp_path, dimensions=3, **EACH)
