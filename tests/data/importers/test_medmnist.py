"""MedMNIST files: every size and kind of theirs, streamed from the archive, and what is wrong with others."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from fedsynth.data.importers import ReadOptions
from fedsynth.data.importers.medmnist import KEPT, Stream, plan
from fedsynth.data.importers.source import Raw
from fedsynth.data.preprocessing import upright
from fedsynth.errors import ConfigError, FedSynthError

EACH = ReadOptions(one_image_per_patient=True)
COUNTS = {"train": 5, "val": 2, "test": 3}


def arrays(*shape: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    made: dict[str, np.ndarray] = {}
    for part, n in COUNTS.items():
        made[f"{part}_images"] = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
        made[f"{part}_labels"] = (np.arange(n, dtype=np.uint8) % 2)[:, None]
    return made


def save(path: Path, content: dict[str, np.ndarray]) -> Path:
    np.savez_compressed(path, **content)
    return path


def test_grey_pictures_with_known_class_names(tmp_path: Path) -> None:
    content = arrays(28, 28)
    made = plan(save(tmp_path / "pneumoniamnist.npz", content), EACH)
    assert made.channels == ("gray",)
    assert made.classes == ("normal", "pneumonia")
    assert made.intensity == "window:0,255"
    assert made.notes["former-split"] == COUNTS
    assert "radiographs" in made.notes["patients-warning"]
    assert [source.patient for source in made.sources][4:6] == ["train-000004", "val-000000"]
    assert made.sources[1].label == "pneumonia"
    raws = [raw for source in made.sources for raw in source.decode()]
    assert [raw.case for raw in raws][4:6] == ["train-000004", "val-000000"]
    assert np.array_equal(np.concatenate([raw.image for raw in raws[:5]]), content["train_images"])
    assert np.array_equal(np.concatenate([raw.image for raw in raws[7:]]), content["test_images"])


def test_colours_and_other_sizes(tmp_path: Path) -> None:
    content = arrays(64, 64, 3)
    made = plan(save(tmp_path / "DermaMNIST_64.npz", content), EACH)
    assert made.channels == ("red", "green", "blue")
    assert made.classes[5] == "nevus"
    raw = next(iter(made.sources[2].decode()))
    assert np.array_equal(raw.image, np.moveaxis(content["train_images"][2], -1, 0))
    green = plan(tmp_path / "DermaMNIST_64.npz", ReadOptions(channels=("green",), one_image_per_patient=True))
    assert np.array_equal(next(iter(green.sources[2].decode())).image, raw.image[1:2])


def test_volumes_show_their_planes_as_stored(tmp_path: Path) -> None:
    content = arrays(5, 6, 7)
    made = plan(save(tmp_path / "nodulemnist3d.npz", content), ReadOptions(dimensions=3, one_image_per_patient=True))
    raw = next(iter(made.sources[0].decode()))
    assert raw.image.shape == (1, 7, 6, 5)
    assert np.array_equal(upright(raw.image, "axial", 2)[0], content["train_images"][0][2])


def test_unknown_files_have_numbered_classes(tmp_path: Path) -> None:
    made = plan(save(tmp_path / "mine.npz", arrays(8, 8)), EACH)
    assert made.classes == ("class-0", "class-1")
    assert "patients-warning" not in made.notes
    content = arrays(8, 8)
    content["train_labels"] = np.array([0, 7, 7, 0, 1])
    made = plan(save(tmp_path / "breastmnist.npz", content), EACH)
    assert made.classes == ("class-0", "class-1", "class-7")


def test_the_statement_on_patients_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"names no patients.*--one-image-per-patient"):
        plan(save(tmp_path / "a.npz", arrays(8, 8)), ReadOptions())


@pytest.mark.parametrize("save_with", [np.savez, np.savez_compressed])
def test_a_stream_reads_any_item_in_any_order(tmp_path: Path, save_with: object) -> None:
    content = np.random.default_rng(0).integers(0, 256, (3 * KEPT, 2, 3), dtype=np.uint8)
    save_with(tmp_path / "a.npz", x=content)
    stream = Stream(tmp_path / "a.npz", "x")
    order = [0, 3, 1, 2, 2, 700, 5, 3 * KEPT - 1, 0, 1]
    assert all(np.array_equal(stream.read(index), content[index]) for index in order)
    again = pickle.loads(pickle.dumps(stream))
    assert np.array_equal(again.read(4), content[4])
    assert len(stream) == 3 * KEPT


def decoded(path: Path, options: ReadOptions) -> list[Raw]:
    return [raw for source in plan(path, options).sources for raw in source.decode()]


def complaint(path: Path, options: ReadOptions = EACH) -> str:
    with pytest.raises(FedSynthError) as caught:
        decoded(path, options)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message or isinstance(caught.value, ConfigError)
    return message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train_labels": np.zeros((5, 14), np.uint8)}, ["several labels per image", "(5, 14)"]),
        ({"train_labels": np.zeros((4, 1), np.uint8)}, ["train_labels must hold 5 numbers", "(4, 1)"]),
        ({"train_labels": np.zeros((5, 1), np.float32)}, ["class numbers", "float32"]),
        ({"train_labels": -np.ones((5, 1), np.int64)}, ["class numbers"]),
        ({"val_images": np.zeros((2, 9, 8), np.uint8)}, ["val_images must be", "(2, 9, 8)"]),
        ({"train_images": np.zeros((5, 8, 8), np.float32)}, ["train_images must be uint8", "float32"]),
        ({"train_images": np.zeros((5, 8), np.uint8)}, ["train_images must be", "(5, 8)"]),
        ({"train_labels": np.array([[None]] * 5)}, ["cannot be decoded", "allow_pickle"]),
        ({"train_images": np.array([[None]] * 5)}, ["train_images"]),
        ({"val_labels": None}, ["val_labels is missing"]),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path: Path, change: dict[str, object], words: list[str]) -> None:
    content = {key: value for key, value in (arrays(8, 8) | change).items() if value is not None}
    message = complaint(save(tmp_path / "a.npz", content))
    for word in words:
        assert word in message, message


def test_files_that_are_none_are_named(tmp_path: Path) -> None:
    assert "no MedMNIST arrays" in complaint(save(tmp_path / "other.npz", {"x": np.zeros(3)}))
    whole = save(tmp_path / "a.npz", arrays(64, 64)).read_bytes()
    (tmp_path / "junk.npz").write_bytes(b"junk" * 99)
    (tmp_path / "empty.npz").touch()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "flipped.npz").write_bytes(whole[:9000] + bytes(500) + whole[9500:])
    np.save(tmp_path / "single.npy", np.zeros(3))
    (tmp_path / "single.npy").rename(tmp_path / "single.npz")
    for name in ("junk", "empty", "cut", "single"):
        assert "is no .npz archive" in complaint(tmp_path / f"{name}.npz")
    assert "cannot be decoded" in complaint(tmp_path / "flipped.npz")
    assert "is a folder" in complaint(tmp_path)
    assert "no such file" in complaint(tmp_path / "nowhere.npz")
    empty = {key: value[:0] for key, value in arrays(8, 8).items()}
    assert "no images" in complaint(save(tmp_path / "none.npz", empty))


def test_options_that_cannot_be_honoured_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", arrays(8, 8))
    assert "two dimensions" in complaint(path, ReadOptions(dimensions=3, one_image_per_patient=True))
    assert "no masks" in complaint(path, ReadOptions(mask_labels=("background", "x"), one_image_per_patient=True))
    assert "pattern" in complaint(path, ReadOptions(patient_pattern="x"))
    assert "did you mean 'gray'" in complaint(path, ReadOptions(channels=("grey",), one_image_per_patient=True))
