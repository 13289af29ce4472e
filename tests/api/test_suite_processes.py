"""Steps in processes of their own: what is told of those that fail, and what they begin with."""

import multiprocessing
import os
import signal
import sys
import time

import psutil
import pytest

from fedsynth.api.suite_processes import Processes
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


def look(told):
    told.send([name for name in HEAVY if name in sys.modules])


def test_every_step_begins_with_everything_imported():
    context = Processes().context
    heard, told = context.Pipe(duplex=False)
    process = context.Process(target=look, args=(told,))
    process.start()
    assert heard.recv() == list(HEAVY)
    process.join()
