"""The guide `docs/your-own-data.md` does what it says: its commands are run in their order."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedsynth.data import ImageSet

GUIDE = Path(__file__).parents[1] / "docs/your-own-data.md"


def commands() -> list[tuple[str, str]]:
    """Each command of the guide with the output that stands below it."""
    blocks = re.findall(r"```console\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    found = []
    for part in re.split(r"^\$ ", "".join(blocks), flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        if "<<'EOF'" in command:
            command, output = part.rstrip("\n"), ""
        found.append((command, output.strip()))
    return found


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    python = sys.executable
    shell = f'fedsynth() {{ "{python}" -m fedsynth "$@"; }}\npython() {{ "{python}" "$@"; }}\n{command}'
    where = {**os.environ, "PYTHONPATH": str(GUIDE.parents[1]), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        ["bash", "-c", shell], cwd=folder, env=where, capture_output=True, text=True, encoding="utf-8", check=False
    )


@pytest.mark.slow
def test_the_commands_of_the_guide_work(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (30, 28, 28), dtype=np.uint8)
    labels = (np.arange(30) % 2).astype(np.uint8)[:, None]
    parts = {f"{part}_{kind}": array for part in ("train", "val", "test") for kind, array in
             (("images", pictures), ("labels", labels))}  # fmt: skip
    np.savez_compressed(tmp_path / "pneumoniamnist.npz", **parts)
    for command, output in commands():
        done = run(command, tmp_path)
        assert done.returncode == (2 if "# exit 2" in command else 0), done.stderr
        assert output in done.stderr
    assert not (tmp_path / "never").exists()
    told = ImageSet.load(tmp_path / "slices")
    read = ImageSet.load(tmp_path / "photos")
    assert read.header.mask_labels == ("background", "edema", "core", "enhancing")
    assert len(read) == len(told)
    assert len(read.patients) == 6
    flair = np.asarray(told.images[:])[:, told.header.channels.index("flair")]
    assert sorted(flair.sum((1, 2)).tolist()) == sorted(read.images[:, 0].sum((1, 2)).tolist())
    volume, again = ImageSet.load(tmp_path / "cohort"), ImageSet.load(tmp_path / "brains-3d")
    assert np.array_equal(volume.masks[:], again.masks[:])
    assert len(ImageSet.load(tmp_path / "chests")) == 90
    assert set(ImageSet.load(tmp_path / "brains").patients["role"]) >= {"member", "holdout"}
