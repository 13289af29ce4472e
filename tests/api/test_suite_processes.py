"""Steps in processes of their own: what is told of those that fail, and what they begin with."""

import multiprocessing
import os
import signal
import sys
import time

import psutil
import pytest
import torch

from fedsynth.api.suite_processes import Processes, take_environment
from fedsynth.code_digest import ROOT
from fedsynth.data import ImageSet
from fedsynth.experiments.suite_steps import Step
from tests.training.tiny import tiny_set

HEAVY = ("torch", "flwr", "pandas", "scipy", "fedsynth.evaluation.memorization.benchmark")


def end_of(step, log, **how):
    with Processes() as processes:
        processes.begin(("cell", step.name), step, log, **how)
        ((key, ended),) = processes.ended()
        assert len(processes) == 0
    assert key == ("cell", step.name)
    return ended


def test_a_step_does_what_its_command_line_does_and_says_so_in_its_log(tmp_path):
    tiny_set().save(tmp_path / "set")
    step = Step(verb="split", arguments=(tmp_path / "set", tmp_path / "few"), settings={"keep-members": 2})
    ended = end_of(step, tmp_path / "log.txt")
    assert ended.failed == ""
    assert 0 < ended.cpu_seconds < 60
    assert (ImageSet.load(tmp_path / "few").patients["role"] == "member").sum() == 2
    assert f"$ fedsynth split {tmp_path / 'set'}" in (tmp_path / "log.txt").read_text()


def test_a_mistake_is_told_in_a_line_and_a_bug_leaves_its_traceback(tmp_path):
    step = Step(verb="split", arguments=(tmp_path / "none", tmp_path / "out"))
    assert "there is no such folder" in end_of(step, tmp_path / "log.txt").failed
    bug = Step(verb="split", arguments=step.arguments, settings={"nonsense": 1})
    assert end_of(bug, tmp_path / "log.txt").failed.startswith("TypeError: split() got an unexpected keyword")
    said = (tmp_path / "log.txt").read_text()
    assert f"fedsynth: {tmp_path / 'none'}" in said
    assert said.index("Traceback") > said.index("--nonsense"), "the log is added to"


def test_a_killed_step_is_told_and_the_others_go_on(tmp_path):
    tiny_set().save(tmp_path / "set")
    long = Step(verb="phantom", arguments=(tmp_path / "many",), settings={"patients": 5000, "workers": 1})
    short = Step(verb="split", arguments=(tmp_path / "set", tmp_path / "few"), settings={"keep-members": 2})
    with Processes() as processes:
        processes.begin(("long", "phantom"), long, tmp_path / "log.txt")
        (victim,) = multiprocessing.active_children()
        processes.begin(("short", "split"), short, tmp_path / "log.txt")
        assert dict(processes.ended())["short", "split"].failed == ""
        os.kill(victim.pid, signal.SIGKILL)
        ended = dict(processes.ended())
    assert ended["long", "phantom"].failed == "killed by signal 9"
    assert (tmp_path / "few").is_dir()


def test_what_breaks_off_the_block_ends_the_steps_and_their_helpers(tmp_path):
    long = Step(verb="phantom", arguments=(tmp_path / "many",), settings={"patients": 5000, "workers": 2})
    begun = []

    def break_off():
        with Processes() as processes:
            processes.begin(("long", "phantom"), long, tmp_path / "log.txt")
            (victim,) = multiprocessing.active_children()
            while not sum(path.stat().st_size for path in tmp_path.glob(".many.partial-*/*")):
                assert victim.is_alive()
                time.sleep(0.05)  # until its helpers have made some
            step = psutil.Process(victim.pid)
            begun.extend([step, *step.children(recursive=True)])
            assert len(begun) >= 3
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    assert psutil.wait_procs(begun, timeout=20)[1] == []
    assert not (tmp_path / "many").exists()


def told_by(function, *given):
    context = Processes().context
    heard, told = context.Pipe(duplex=False)
    process = context.Process(target=function, args=(told, *given))
    process.start()
    found = heard.recv()
    process.join()
    return found


def look(told):
    told.send([name for name in HEAVY if name in sys.modules])


def test_every_step_begins_with_everything_imported():
    assert told_by(look) == list(HEAVY)


def look_at_models(told):
    told.send([name for name in sys.modules if name.startswith("fedsynth.")])


def test_models_and_what_is_kept_on_disk_are_imported_before_the_first_step():
    names = [".".join(path.relative_to(ROOT.parent).with_suffix("").parts) for path in ROOT.glob("models/**/*.py")]
    assert "fedsynth.models.generators.fitted_pool" in names
    needed = {name.removesuffix(".__init__") for name in names}
    assert needed | {"fedsynth.code_digest", "fedsynth.evaluation.shared_cache"} <= set(told_by(look_at_models))


def test_each_step_has_the_environment_of_its_own_time(tmp_path, monkeypatch):
    tiny_set().save(tmp_path / "set")
    private = {"epsilon": 4.0, "patients": 6, "expected-batch-size": 6, "options": {"hidden": [8, 8]}}
    for name in ("one", "two"):
        monkeypatch.setenv("FEDSYNTH_STORE", str(tmp_path / f"store-{name}"))
        settings = {"generator": "mlp", "steps": 1, "sheets": 0, "run": str(tmp_path / name), **private}
        step = Step(verb="train", arguments=(tmp_path / "set",), settings=settings)
        assert end_of(step, tmp_path / "log.txt").failed == "", (tmp_path / "log.txt").read_text()
        assert list((tmp_path / f"store-{name}").rglob("*.jsonl")), "its charges"
    assert not list((tmp_path / "store-one").rglob("two*"))


def under_others_settings(told, environment):
    os.environ["FROM_BEFORE"] = "1"
    torch.set_num_threads(2)
    take_environment(environment)
    told.send((dict(os.environ), torch.get_num_threads()))


def test_what_started_the_process_of_all_steps_leaves_no_setting_behind():
    found, threads = told_by(under_others_settings, {"OMP_NUM_THREADS": "1", "GIVEN": "now"})
    assert found == {"OMP_NUM_THREADS": "1", "GIVEN": "now"}
    assert threads == 1
