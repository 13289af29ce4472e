"""Kill -9 of the whole run at points nobody chose, then --resume: the end is the same, bit for bit."""

import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fedsynth.federation.settings import FederationSettings
from fedsynth.privacy.ledger import Ledger
from fedsynth.runs import Run
from tests.federation.tiny import SETTINGS, assert_same, private, rows, simulated, start

ROUNDS = 24
PROGRAM = """
import sys
from pathlib import Path
from fedsynth import config
from fedsynth.federation.settings import FederationSettings
from fedsynth.federation.simulation import run_rounds
from fedsynth.runs import Run
run = Run(folder=Path(sys.argv[1]))
settings = config.load_toml(FederationSettings, run.config)
print("ready", flush=True)
run_rounds(settings, run, workers=2)
print("done", flush=True)
"""


def killed_until_done(run: Run, *, kills: int, seed: int) -> int:
    """How often the run was killed; every process lives a little longer than the last one, by chance."""
    rng, killed = random.Random(seed), 0
    while not (run.checkpoints / "generator.safetensors").exists():
        command = [sys.executable, "-c", PROGRAM, str(run.folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            if killed == kills:
                assert process.wait(timeout=300) == 0
                continue
            wait_for_work(run, process, rng)
            process.kill()
        killed += 1
    return killed


def wait_for_work(run: Run, process: "subprocess.Popen[str]", rng: random.Random) -> None:
    """Until a few more rounds are kept than before, and then a moment that nobody knows."""

    def kept() -> int:
        return max((int(path.stem[6:]) for path in run.checkpoints.glob("round-*.safetensors")), default=0)

    wanted = kept() + rng.randint(0, 2)
    while kept() < wanted and process.poll() is None:
        time.sleep(0.001)
    time.sleep(rng.random() * 0.04)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "insecure", "generator-only", "fedadam"])
def test_killed_at_random_points_the_end_is_the_same(tmp_path: Path, kind: str) -> None:
    changes: dict[str, FederationSettings] = {
        "plain": SETTINGS,
        "insecure": private(tmp_path),
        "generator-only": replace(SETTINGS, share="generator"),
        "fedadam": replace(SETTINGS, strategy="fedadam"),
    }
    settings = replace(changes[kind], rounds=ROUNDS, local_steps=4)
    whole = simulated(tmp_path, settings, "whole")
    broken = start(tmp_path, settings, "broken")
    assert killed_until_done(broken, kills=5, seed=11) >= 2
    assert_same(whole, broken)
    assert [row["round"] for row in rows(broken)] == [str(n) for n in range(1, ROUNDS + 1) for _ in range(2)]


@pytest.mark.slow
def test_a_private_run_that_was_killed_never_pays_more_than_it_planned(tmp_path: Path) -> None:
    settings = replace(private(tmp_path, insecure=False), rounds=8, local_steps=4)
    run = start(tmp_path, settings)
    killed_until_done(run, kills=5, seed=3)
    for site in ("site-0", "site-1"):
        name = (run.site(site) / "ledger-name").read_text().strip()
        assert Ledger(site, tmp_path / "store").steps_charged(name) <= 32
        taken = sum(int(row["steps"]) for row in rows(run) if row["site"] == site)
        assert taken <= 32
