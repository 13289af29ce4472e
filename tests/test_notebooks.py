"""The notebooks of the documentation run from their first cell to their last, and hold the outputs of such a run."""

import json
import os
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LARGEST = 400_000  # bytes
SECONDS = 1800


def code(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_kept_small_whole_and_of_no_machine(path):
    text = path.read_text(encoding="utf-8")
    cells = code(json.loads(text))
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data", "execute_result"}  # no error
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert len(text) < LARGEST
    assert not any(told in text for told in (str(FOLDER.parents[1]), "/home/", "/root/", "/tmp/"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs(path, tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat", reason="the extra `docs` is not installed")
    client = pytest.importorskip("nbclient", reason="the extra `docs` is not installed")
    pytest.importorskip("ipykernel", reason="the extra `docs` is not installed")
    searched = [str(FOLDER.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(searched))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    kept = nbformat.read(path, as_version=4)
    run = nbformat.from_dict(json.loads(json.dumps(kept)))
    client.NotebookClient(run, timeout=SECONDS, resources={"metadata": {"path": str(tmp_path)}}).execute()
    for was, now in zip(code(kept), code(run), strict=True):
        kinds = [[output["output_type"] for output in cell["outputs"]] for cell in (was, now)]
        assert set(kinds[0]) <= set(kinds[1]), now["source"]  # what the page shows is still shown


def test_there_are_two():
    assert [path.stem for path in NOTEBOOKS] == ["benchmark-a-folder", "simulate-and-compare"]
