"""Files and folders are whole or absent, whatever happens in between; nothing that stands is lost."""

import os
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedsynth.atomic_files import new_folder, refuse_existing, sweep, write_bytes, write_text
from fedsynth.errors import FedSynthError, RefusedError


@contextmanager
def disk_that_takes(n_bytes: int) -> Iterator[None]:
    """No file may grow beyond `n_bytes`: what a full disk looks like to a program, without root."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_into_folders_that_do_not_exist_yet(tmp_path: Path) -> None:
    write_text(tmp_path / "a/b/c.txt", "größe\n")
    assert (tmp_path / "a/b/c.txt").read_bytes() == "größe\n".encode()
    assert names(tmp_path / "a/b") == ["c.txt"]


def test_a_file_is_replaced(tmp_path: Path) -> None:
    write_bytes(tmp_path / "f", b"old")
    write_bytes(tmp_path / "f", b"new")
    assert (tmp_path / "f").read_bytes() == b"new"


def test_new_files_have_the_usual_rights(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    write_text(tmp_path / "ours", "")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "folder").mkdir()
    with new_folder(tmp_path / "made", marker="m"):
        pass
    assert (tmp_path / "made").stat().st_mode == (tmp_path / "folder").stat().st_mode


def test_a_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    write_text(tmp_path / "f", "old")
    with disk_that_takes(100), pytest.raises(FedSynthError, match=r"f: cannot be written: file too large; nothing"):
        write_text(tmp_path / "f", "x" * 1000)
    assert (tmp_path / "f").read_text() == "old"
    assert names(tmp_path) == ["f"]


def test_a_name_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FedSynthError, match="cannot be written"):
        write_text(tmp_path / "file/below", "")
    (tmp_path / "folder/inside").mkdir(parents=True)
    with pytest.raises(FedSynthError, match="folder: cannot be written: is a directory"):
        write_text(tmp_path / "folder", "")
    assert names(tmp_path) == ["file", "folder"]


def test_a_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    with new_folder(tmp_path / "out", marker="m") as working:
        (working / "m").write_text("1")
        (working / "deep").mkdir()
        (working / "deep/x").write_text("2")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out/deep/x").read_text() == "2"
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("error", [ValueError("bug"), KeyboardInterrupt(), FedSynthError("mend it")])
def test_a_folder_whose_making_failed_never_appears(tmp_path: Path, error: BaseException) -> None:
    def make() -> None:
        with new_folder(tmp_path / "out", marker="m") as working:
            (working / "m").write_text("1")
            raise error

    with pytest.raises(type(error)):
        make()
    assert names(tmp_path) == []


def test_a_full_disk_leaves_no_folder_and_keeps_the_old_one(tmp_path: Path) -> None:
    old_folder(tmp_path)
    with (
        disk_that_takes(100),
        pytest.raises(FedSynthError, match="out: cannot be written: file too large"),
        new_folder(tmp_path / "out", marker="m", overwrite=True) as working,
    ):
        (working / "big").write_bytes(b"x" * 1000)
    assert (tmp_path / "out/m").read_text() == "old"
    assert names(tmp_path) == ["out"]


def test_a_source_that_cannot_be_read_is_not_blamed_on_the_output(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), new_folder(tmp_path / "out", marker="m"):
        (tmp_path / "missing-source").read_bytes()
    assert names(tmp_path) == []


def old_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/m").write_text("old")


def test_an_old_folder_stands_until_the_new_one_is_whole(tmp_path: Path) -> None:
    old_folder(tmp_path)
    with pytest.raises(ValueError), new_folder(tmp_path / "out", marker="m", overwrite=True):
        raise ValueError
    assert (tmp_path / "out/m").read_text() == "old"
    with new_folder(tmp_path / "out", marker="m", overwrite=True) as working:
        (working / "m").write_text("new")
        assert (tmp_path / "out/m").read_text() == "old"
    assert (tmp_path / "out/m").read_text() == "new"
    assert names(tmp_path) == ["out"]


def test_what_is_in_the_way(tmp_path: Path) -> None:
    old_folder(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.tex").write_text("years of work")
    (tmp_path / "empty").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "link").symlink_to(tmp_path / "out")
    refuse_existing(tmp_path / "fresh", marker="m")
    refuse_existing(tmp_path / "out", marker="m", overwrite=True)
    refuse_existing(tmp_path / "empty", marker="m", overwrite=True)
    for name in ("out", "empty", "file", "dangling"):
        with pytest.raises(RefusedError, match=f"{name}: the output exists already; .*--overwrite"):
            refuse_existing(tmp_path / name, marker="m")
    for name in ("file", "dangling", "link"):
        with pytest.raises(RefusedError, match=f"{name}: the output exists and is not a folder"):
            refuse_existing(tmp_path / name, marker="m", overwrite=True)
    with pytest.raises(RefusedError, match="home: the folder has no m and is not replaced"):
        refuse_existing(tmp_path / "home", marker="m", overwrite=True)


def test_an_impossible_name_is_a_sentence(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 300)
    with pytest.raises(FedSynthError, match="cannot be written: file name too long"):
        refuse_existing(long, marker="m")
    with pytest.raises(FedSynthError, match="cannot be written: file name too long"):
        write_text(long, "")


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from fedsynth import atomic_files
    with atomic_files.new_folder(Path(sys.argv[1]), marker="m", overwrite=True) as working:
        (working / "m").write_text("new")
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("before", ["absent", "old"])
def test_a_killed_process_leaves_nothing_that_loads(tmp_path: Path, before: str) -> None:
    if before == "old":
        old_folder(tmp_path)
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path / "out")]
    done = subprocess.run(command, check=False, env=os.environ | {"PYTHONPATH": str(Path.cwd())})
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "out").exists() == (before == "old")
    if before == "old":
        assert (tmp_path / "out/m").read_text() == "old"
    assert all(name.startswith(".out.partial-") for name in names(tmp_path) if name != "out")


def test_what_a_kill_left_is_swept_when_it_is_old(tmp_path: Path) -> None:
    left, fresh, other = tmp_path / ".state-1.bin.ab12", tmp_path / ".state-2.bin.cd34", tmp_path / "state-1.bin"
    for path in (left, fresh, other):
        path.write_bytes(b"x")
    for path in (left, other):
        os.utime(path, (0, 0))
    sweep(tmp_path, "state-*.bin")
    assert sorted(tmp_path.iterdir()) == [fresh, other]
