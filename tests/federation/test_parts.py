"""Label-to-image generators through rounds: the same hospitals train the model of label maps, in the same run."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

from fedsynth.cli import app
from fedsynth.errors import FedSynthError
from fedsynth.federation import client_app
from fedsynth.federation.products import finish
from fedsynth.federation.server import Progress
from fedsynth.federation.settings import FederationSettings
from fedsynth.images import ImageSet
from fedsynth.run import Run
from fedsynth.training.masks import mask_settings
from fedsynth.training.preparing import prepare
from fedsynth.training.settings import cpu_threads
from fedsynth.training.streams import stream_seed
from tests.federation.tiny import go, rows, start
from tests.training.test_sources import brains

SETTINGS = FederationSettings(
    generator="pix2pix", pairing="label-to-image", sites=2, rounds=2, local_steps=1, batch=2, count=6,
    options={"base": 4},
)  # fmt: skip


def begun(tmp_path: Path, settings: FederationSettings = SETTINGS, name: str = "run") -> Run:
    return start(tmp_path, settings, name, images=brains())


def released(run: Run) -> dict[str, np.ndarray]:
    folders = {"": run.checkpoints, "masks/": run.checkpoints / "masks"}
    files = {prefix: load_file(folder / "generator.safetensors") for prefix, folder in folders.items()}
    return {f"{prefix}{name}": value for prefix, file in files.items() for name, value in file.items()}


def test_images_are_drawn_without_anybodys_label_maps(tmp_path: Path) -> None:
    run = begun(tmp_path)
    go(run, SETTINGS)
    made = finish(SETTINGS, run).images
    assert made is not None
    assert made.masks is not None
    assert len(made) == 6
    members = {mask.tobytes() for mask in np.asarray(brains().masks)}
    assert not members & {mask.tobytes() for mask in np.asarray(made.masks[np.arange(6)])}
    assert len(rows(run)) == len(rows(Run(folder=run.folder / "masks"))) == 4
    drawn = tmp_path / "drawn"
    done = CliRunner().invoke(app, ["synthesize", str(run.folder), "--count", "6", "--out", str(drawn)])
    assert done.exit_code == 0, done.output
    assert np.array_equal(ImageSet.load(drawn).images, made.images[np.arange(6)])


@pytest.mark.slow
def test_a_kill_in_either_part_changes_nothing(tmp_path: Path) -> None:
    run, broken = begun(tmp_path), begun(tmp_path, name="broken")
    go(run, SETTINGS)
    for part in ("masks", ""):
        killed(broken, part)
    go(broken, SETTINGS)
    here, there = released(run), released(broken)
    assert here.keys() == there.keys()
    assert all(np.array_equal(value, there[name]) for name, value in here.items())


def killed(run: Run, part: str) -> None:
    """The server dies after the first round of a part, and the sites forget what was in memory."""

    class Killed(Exception):
        pass

    def watch(progress: Progress) -> None:
        if progress.replies and (progress.part, progress.round) == (part, 1):
            raise Killed

    with pytest.raises(Killed):
        go(run, SETTINGS, watch=watch)
    client_app.forget_everything()


def test_one_site_alone_learns_label_maps_as_a_single_holder_does(tmp_path: Path) -> None:
    settings = replace(SETTINGS, sites=1, rounds=1, local_steps=2)
    run = begun(tmp_path, settings)
    go(run, settings)
    streams = stream_seed(0, "site", "site-0")
    with cpu_threads(1):
        alone = prepare(brains(), mask_settings(settings.training()), streams=streams, masks_only=True)
        list(alone.trainer.run(2))
    end = load_file(run.folder / "masks" / "checkpoints" / "round-0001.safetensors")
    for name, value in alone.trainer.family.nets.state_dict().items():
        assert np.array_equal(end[name], value.numpy()), name


@pytest.mark.slow
def test_each_on_its_own_draws_from_its_own_label_maps(tmp_path: Path) -> None:
    settings = replace(SETTINGS, federation="none", rounds=1)
    run = begun(tmp_path, settings)
    go(run, settings)
    made = finish(settings, run).images
    assert made is not None
    assert len(made) == 6
    for site in ("site-0", "site-1"):
        assert (run.site(site) / "masks" / "generator.safetensors").is_file()


def test_who_forbids_the_model_of_label_maps_says_so_before_the_first_step(tmp_path: Path) -> None:
    run = begun(tmp_path)
    run.site("site-0").mkdir(parents=True)
    (run.site("site-0") / "policy.toml").write_text('allow-plain = true\ngenerators = ["pix2pix"]')
    with pytest.raises(FedSynthError, match=r"1 of 2 sites take part.*refused by its policy: generators"):
        go(run, SETTINGS)
    assert not list(run.folder.rglob("state-*"))
