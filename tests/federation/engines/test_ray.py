"""What is handed to Flower, and, slowly, that Ray gives the bits of the local engine and leaves no process behind."""

import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from fedsynth import atomic_files
from fedsynth.data.site_config import PhantomTable, SitesFile, load_sites
from fedsynth.errors import ConfigError, FedSynthError, RefusedError
from fedsynth.federation import flower_start
from fedsynth.federation.engines import process_trees, ray
from fedsynth.federation.settings import FederationSettings, from_run_config
from fedsynth.federation.simulation import begin, open_hospitals, run_rounds

TINY = FederationSettings(
    generator="dcgan",
    sites=2,
    rounds=2,
    local_steps=2,
    count=8,
    batch=4,
)


def test_the_app_holds_names_and_the_run_config_and_no_code(tmp_path):
    table = TINY.to_run_config(tmp_path / "run")
    flower_start.write_app(tmp_path / "app", table)
    assert [path.name for path in (tmp_path / "app").rglob("*")] == ["pyproject.toml"]
    app = tomllib.loads((tmp_path / "app" / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    assert app["components"] == {
        "serverapp": "fedsynth.federation.server_app:app",
        "clientapp": "fedsynth.federation.client_app:app",
    }
    assert from_run_config(app["config"]) == (TINY, tmp_path / "run")


def test_a_missing_ray_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=re.escape('pip install "fedsynth[ray]"')):
        ray.run_on_ray(TINY.to_run_config(tmp_path), tmp_path / "run", sites=2, workers=1)
    assert not (tmp_path / "run").exists()


def test_nothing_phones_home_installs_or_is_shared_with_another_user(tmp_path):
    env = ray._environment(tmp_path / "home", tmp_path / "s")
    assert env["FLWR_TELEMETRY_ENABLED"] == env["RAY_USAGE_STATS_ENABLED"] == "0"
    assert env["FLWR_DISABLE_UPDATE_CHECK"] == env["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert env["FLWR_HOME"] == str(tmp_path / "home")
    assert env["RAY_TMPDIR"] == str(tmp_path / "s")


def test_two_processes_in_one_run_are_refused(tmp_path):
    (tmp_path / ray.HOME).mkdir()
    with ray._alone(tmp_path / ray.HOME), pytest.raises(RefusedError, match="another process works in this run"):
        ray.run_on_ray(TINY.to_run_config(tmp_path), tmp_path, sites=2, workers=1)


def tiny_run(folder, settings):
    file = SitesFile(name="two", phantom=PhantomTable(patients=8, slices=2, size=32), sites=2)
    with open_hospitals(file, folder.parent) as hospitals:
        return begin(settings, hospitals, folder)


def bits(run):
    """Every array of every checkpoint; what stands beside the arrays has no fixed order in the file."""
    return {
        (path.name, name): value.tobytes()
        for path in run.checkpoints.glob("*.safetensors")
        for name, value in load_file(path).items()
    }


def left_behind(run):
    return process_trees.marked(f"FLWR_HOME={(run.folder / ray.HOME).resolve()}")


@pytest.mark.slow
def test_ray_gives_the_bits_of_the_local_engine(tmp_path):
    local, on_ray = tiny_run(tmp_path / "local", TINY), tiny_run(tmp_path / "ray", TINY)
    run_rounds(TINY, local, workers=2)
    run_rounds(TINY, on_ray, engine="ray", workers=2)
    assert {file for file, _ in bits(local)} >= {"round-0001.safetensors", "round-0002.safetensors"}
    assert bits(on_ray) == bits(local)
    assert not left_behind(on_ray)


@pytest.mark.slow
def test_what_the_servers_app_refuses_is_told_and_no_process_stays(tmp_path):
    run = tiny_run(tmp_path / "run", TINY)
    for entry in load_sites(run.folder / "sites.toml").site:
        atomic_files.write_text(run.site(entry.name) / "policy.toml", "allow-plain = false\n")
    with pytest.raises(FedSynthError) as told:
        run_rounds(TINY, run, engine="ray", workers=2)
    assert "refused by its policy: allow-plain" in str(told.value)
    assert not left_behind(run)


@pytest.mark.slow
def test_ctrl_c_ends_everything(tmp_path):
    run = tiny_run(tmp_path / "run", replace(TINY, rounds=1000))
    text = f"""
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells take it from what they run in the background
from pathlib import Path
from fedsynth.federation.simulation import run_rounds
from fedsynth.federation.settings import FederationSettings
from fedsynth import config
from fedsynth.runs import Run
run = Run(folder=Path({str(run.folder)!r}))
run_rounds(config.load_toml(FederationSettings, run.config), run, engine="ray", workers=2)
"""
    with subprocess.Popen([sys.executable, "-c", text], start_new_session=True, stderr=subprocess.DEVNULL) as started:
        until = time.monotonic() + 200
        while time.monotonic() < until and not run.rounds.exists():
            assert started.poll() is None
            time.sleep(0.2)
        assert left_behind(run)
        os.killpg(started.pid, signal.SIGINT)
        started.wait(200)
    assert not left_behind(run)
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(run.folder).encode() in read(path)]


def read(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""
