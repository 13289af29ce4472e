"""Promises about the project itself: what is imported when, what the wheel holds, what the layers are."""

import resource
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import fedsynth

ROOT = Path(__file__).parent.parent


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False
    )


def test_help_answers_in_under_half_a_second() -> None:
    """Processor time, so that other work on the machine does not count; nothing in it waits."""
    seconds = []
    for _ in range(4):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = run_python("-m", "fedsynth", "--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert done.returncode == 0
    assert min(seconds) < 0.5


def test_help_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'numpy', 'pandas', 'monai', 'flwr', 'scipy'}"
    code = f"import sys, fedsynth.cli; print(sorted({heavy} & set(sys.modules)))"
    assert run_python("-c", code).stdout.strip() == "[]"


@pytest.mark.parametrize("entry", [("-m", "fedsynth"), ("cli.py",)])
def test_every_entry_leads_to_the_same_program(entry: tuple[str, ...]) -> None:
    script = Path(sys.executable).with_name("fedsynth")
    wanted = subprocess.run(
        [script, "--help"], cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=True
    ).stdout
    assert run_python(*entry, "--help").stdout.split("\n")[2:] == wanted.split("\n")[2:]


def test_no_arguments_show_help_and_unknown_commands_are_one_line_of_error() -> None:
    done = run_python("-m", "fedsynth", "simulat")
    assert done.returncode == 2
    assert "No such command 'simulat'" in done.stderr


@pytest.mark.parametrize(
    ("package", "fence"),
    [
        ("opacus", ("privacy",)),
        ("flwr", ("federation",)),
        ("ray", ("federation",)),
        ("typer", ("cli",)),
        ("rich", ("cli", "reporting")),
    ],
)
def test_third_parties_stay_behind_their_fences(package: str, fence: tuple[str, ...]) -> None:
    for path in (ROOT / "fedsynth").rglob("*.py"):
        if path.relative_to(ROOT / "fedsynth").parts[0] in fence:
            continue
        lines = [line.strip() for line in path.read_text().splitlines()]
        offenders = [line for line in lines if line.startswith((f"import {package}", f"from {package}"))]
        assert not offenders, f"{path} imports {package}"


@pytest.mark.slow
def test_the_wheel_holds_fedsynth_only(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    assert {top for name in held if not (top := name.split("/")[0]).endswith(".dist-info")} == {"fedsynth"}
    needed = {
        str(path.relative_to(ROOT)) for path in (ROOT / "fedsynth").rglob("*") if path.suffix in (".html", ".css")
    }
    assert "fedsynth/reporting/templates/report.html" in needed
    assert needed <= held


def test_nothing_committed_is_local_data() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False
    ).stdout.split()
    forbidden = (".npy", ".nii", ".nii.gz", ".dcm", ".tif", ".mha", ".safetensors", "ledger.jsonl")
    assert [name for name in tracked if name.endswith(forbidden) or name.startswith("runs/")] == []


def test_one_version_everywhere() -> None:
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert stated == fedsynth.__version__
    assert f"\nversion: {stated}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
