"""The run directory: its names, what it records, and that two processes never share one."""

import getpass
import json
import os
import platform
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import fedsynth
from fedsynth.config import load_toml
from fedsynth.errors import ConfigError, FedSynthError, RefusedError
from fedsynth.runs import Run, create_run, describe_environment, newest_run, open_run

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Settings:
    rounds: int = 3
    generator: str = "dcgan"


def make(base: Path, generator: str = "dcgan", now: datetime = NOON) -> Run:
    return create_run(Settings(), generator=generator, seed=5, device="cpu", base=base, now=now)


def test_runs_are_named_by_date_generator_and_number(tmp_path: Path) -> None:
    names = [make(tmp_path, generator).folder.name for generator in ("dcgan", "dcgan", "vae", "dcgan")]
    assert names == ["2026-03-01-dcgan-1", "2026-03-01-dcgan-2", "2026-03-01-vae-1", "2026-03-01-dcgan-3"]
    assert make(tmp_path, now=NOON + timedelta(days=1)).folder.name == "2026-03-02-dcgan-1"


def test_numbers_are_never_used_twice(tmp_path: Path) -> None:
    (tmp_path / "2026-03-01-dcgan-9").mkdir(parents=True)
    (tmp_path / "2026-03-01-dcgan-x").mkdir()
    assert make(tmp_path).folder.name == "2026-03-01-dcgan-10"
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: make(tmp_path / "raced").folder, range(16)))
    assert sorted(int(folder.name.rsplit("-", 1)[1]) for folder in folders) == list(range(1, 17))


def test_settings_and_environment_are_written(tmp_path: Path) -> None:
    run = make(tmp_path)
    assert load_toml(Settings, run.config) == Settings()
    assert run.settings() == {"rounds": 3, "generator": "dcgan"}
    facts = json.loads(run.environment.read_text())
    assert facts["created"] == "2026-03-01T12:00:00+00:00"
    assert (facts["seed"], facts["device"], facts["fedsynth"]) == (5, "cpu", fedsynth.__version__)
    assert facts["python"] == platform.python_version()
    assert facts["packages"]["numpy"].count(".") == 2


def test_the_environment_names_neither_machine_nor_user() -> None:
    text = json.dumps(describe_environment())
    for secret in (platform.node(), str(Path.home()), str(Path.cwd())):
        assert secret not in text
    assert f'"{getpass.getuser()}"' not in text


def test_the_commit_is_that_of_the_checkout() -> None:
    root = Path(fedsynth.__file__).parent.parent
    if not (root / ".git").exists():
        pytest.skip("not a checkout")
    asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
    state = describe_environment()["git"]
    assert state["commit"] == asked.stdout.strip()
    assert isinstance(state["changed"], bool)


def test_every_part_has_its_place(tmp_path: Path) -> None:
    run = Run(folder=tmp_path)
    places = [run.rounds, run.checkpoints, run.samples, run.synthetic, run.report, run.benchmark("memorization")]
    expected = ["rounds.csv", "checkpoints", "samples", "synthetic", "report.html", "benchmarks/memorization.json"]
    assert [str(place.relative_to(tmp_path)) for place in places] == expected


def test_site_names_are_safe_and_distinct(tmp_path: Path) -> None:
    run = Run(folder=tmp_path)
    names = ["CS", "St. Mary", "a/b", "a%2Fb", "..", ".", ".hidden", "Zürich", "cs", "~", "%2E."]
    folders = [run.site(name) for name in names]
    assert len(set(folders)) == len(names)
    assert all(folder.parent == tmp_path / "sites" and folder.name not in (".", "..") for folder in folders)
    assert (run.site("CS").name, run.site("St. Mary").name) == ("CS", "St. Mary")
    with pytest.raises(ConfigError, match="must not be empty"):
        run.site("")


def test_a_given_folder_must_be_new_or_empty(tmp_path: Path) -> None:
    target = tmp_path / "deep/mine"
    assert create_run(Settings(), generator="vae", folder=target).folder == target
    with pytest.raises(RefusedError, match="mine: the run directory is not empty"):
        create_run(Settings(), generator="vae", folder=target)
    (tmp_path / "file").write_text("")
    with pytest.raises(FedSynthError, match="cannot be written"):
        create_run(Settings(), generator="vae", folder=tmp_path / "file")


def test_the_newest_is_the_one_created_last(tmp_path: Path) -> None:
    later = make(tmp_path, "alpha", NOON + timedelta(minutes=1))
    make(tmp_path, "beta", NOON)
    (tmp_path / "half-made").mkdir()
    assert newest_run(tmp_path) == later
    os.utime(later.config, (0, 0))
    assert newest_run(tmp_path) == later
    for _ in range(10):
        last = make(tmp_path, "alpha", NOON + timedelta(minutes=1))
    assert last.folder.name == "2026-03-01-alpha-11"
    assert newest_run(tmp_path) == last
    last.environment.write_text("[")
    assert newest_run(tmp_path).folder.name == "2026-03-01-alpha-10"


def test_no_run_yet(tmp_path: Path) -> None:
    for base in (tmp_path, tmp_path / "none"):
        with pytest.raises(ConfigError, match="there is no run yet; make one with"):
            newest_run(base)


def test_open_run(tmp_path: Path) -> None:
    run = make(tmp_path)
    assert open_run(run.folder) == run
    with pytest.raises(ConfigError, match=r"is not a run: it has no config\.toml"):
        open_run(tmp_path)
    with pytest.raises(ConfigError, match="there is no such run"):
        open_run(tmp_path / "none")


CENTRALISED = """
    import sys
    from pathlib import Path
    from fedsynth.runs import open_run
    with open_run(Path(sys.argv[1])).locked():
        print("locked", flush=True)
        sys.stdin.read()
"""


def test_two_processes_never_work_in_one_run(tmp_path: Path) -> None:
    run = make(tmp_path)
    command = [sys.executable, "-c", textwrap.dedent(CENTRALISED), str(run.folder)]
    environment = os.environ | {"PYTHONPATH": str(Path(fedsynth.__file__).parent.parent)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(RefusedError, match="another process works in this run"), run.locked():
            pass
        other.kill()
        other.wait()
    with run.locked():
        pass


def test_a_lock_is_freed_after_an_error(tmp_path: Path) -> None:
    run = make(tmp_path)
    with pytest.raises(ValueError), run.locked():
        raise ValueError
    with run.locked(), pytest.raises(RefusedError), run.locked():
        pass
