"""Writing image by image: whole or absent, whatever happens in the middle."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fedsynth.data import Header, ImageSet
from fedsynth.data.writer import ImageSetWriter
from fedsynth.errors import ImageSetError, SourceError

HEADER = Header(name="written", origin="real", channels=("t1",), spacing_mm=(1.0, 1.0))
ROW = {"patient": "p", "site": "", "role": "", "class": "", "slice": ""}


def write(folder: Path, count: int, fail_at: int = -1) -> None:
    with ImageSetWriter(folder, (1, 4, 4), np.uint8, masks=False) as out:
        for i in range(count):
            if i == fail_at:
                raise SourceError("is not an image", file="patient-7.png")
            out.append({**ROW, "case": f"c{i}"}, np.full((1, 4, 4), i % 256, np.uint8), None)
        out.finish(HEADER)


@pytest.mark.parametrize("count", [1, 9, 10, 1000])
def test_the_length_is_right_whatever_the_number_of_digits(tmp_path: Path, count: int) -> None:
    write(tmp_path / "set", count)
    read = ImageSet.load(tmp_path / "set")
    assert read.images.shape == (count, 1, 4, 4)
    assert read.images[count - 1].max() == (count - 1) % 256


def test_an_error_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"patient-7\.png: is not an image"):
        write(tmp_path / "set", 5, fail_at=3)
    assert list(tmp_path.iterdir()) == []


def test_leaving_without_finish_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(ImageSetError, match="was not finished"),
        ImageSetWriter(tmp_path / "set", (1, 4, 4), np.uint8, masks=False),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_image_of_another_size_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ImageSetError, match=r"an image must be \(1, 4, 4\) uint8"),
        ImageSetWriter(tmp_path / "set", (1, 4, 4), np.uint8, masks=False) as out,
    ):
        out.append_arrays(np.zeros((1, 4, 5), np.uint8), None)


KILLED = """
import sys, time, numpy as np
from pathlib import Path
from tests.data.test_writer import HEADER, ROW, ImageSetWriter
with ImageSetWriter(Path(sys.argv[1]), (1, 4, 4), np.uint8, masks=False) as out:
    out.append({**ROW, "case": "c"}, np.zeros((1, 4, 4), np.uint8), None)
    print("writing", flush=True)
    time.sleep(60)
"""

FULL = """
import resource, signal, sys
from pathlib import Path
from tests.data.test_writer import write
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
write(Path(sys.argv[1]), 20_000)
"""


def start(code: str, folder: Path) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], cwd=root, stdout=pipe, stderr=pipe, text=True, encoding="utf-8"
    )


def test_a_killed_import_leaves_nothing_that_loads(tmp_path: Path) -> None:
    process = start(KILLED, tmp_path / "set")
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "set").exists()
    for leftover in tmp_path.iterdir():
        with pytest.raises(ImageSetError):
            ImageSet.load(leftover)


def test_a_full_disk_is_one_sentence_and_no_half_set(tmp_path: Path) -> None:
    process = start(FULL, tmp_path / "set")
    _, error = process.communicate()
    assert process.returncode != 0
    assert "cannot be written: file too large; nothing was kept" in error.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
