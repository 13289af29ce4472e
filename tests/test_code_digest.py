"""Digests of the source: those of what was imported, whatever the files hold by now."""

import subprocess
import sys

import pytest

from fedsynth.code_digest import ROOT, code_changed, code_digest

COPY = """
import fedsynth.code_digest as code
from pathlib import Path
of = [(), ("models",), ("models/kept_arrays.py",), ("data",)]
before = [code.code_digest(parts) for parts in of]
assert not code.code_changed()
file = code.ROOT / "models" / "kept_arrays.py"
file.write_text(file.read_text() + "# edited\\n")
assert code.code_changed()
assert [code.code_digest(parts) for parts in of] == before
print(*before)
"""


def started(folder):
    done = subprocess.run(
        [sys.executable, "-c", COPY], cwd=folder, env={"PYTHONPATH": str(folder)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_process_keeps_the_digests_of_the_code_that_it_imported(tmp_path):
    for path in ROOT.rglob("*.py"):
        place = tmp_path / "fedsynth" / path.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
    first, second = started(tmp_path), started(tmp_path)
    assert [one == other for one, other in zip(first, second, strict=True)] == [False, False, False, True]


def test_parts_have_digests_of_their_own():
    parts: list[tuple[str, ...]] = [(), ("models",), ("models/recipe.py",), ("data",)]
    assert len({code_digest(one) for one in parts}) == 4
    assert not code_changed()
    with pytest.raises(FileNotFoundError, match=r"no file or folder models/none\.py"):
        code_digest(("models/none.py",))
