"""Real programs that start others, refuse to stop, or lose their parents."""

import os
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import psutil
import pytest

from fedsynth.federation.engines import process_trees

PYTHON = Path(sys.executable).name
SLEEP = "import time; time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); {SLEEP}"


@pytest.fixture
def launch(tmp_path):
    """Start Python with a text and wait for the word that it prints."""

    def start(text, word, **env):
        log = tmp_path / "log"
        process = process_trees.start([PYTHON, "-c", text], env=os.environ | env, log=log)
        until = time.monotonic() + 20
        while word not in log.read_text():
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.01)
        return process, log

    return start


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def child_of(log):
    return int(log.read_text().split("child ")[1].split()[0])


PARENT = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {STUBBORN!r}], stdout=subprocess.PIPE, start_new_session=True)
child.stdout.readline()
print("child", child.pid, "ready", flush=True)
"""


def test_a_program_and_all_that_it_started_end_even_when_they_would_not(launch):
    process, log = launch(PARENT + SLEEP, "ready")
    child = child_of(log)
    assert child in {one.pid for one in process_trees.descendants(process.pid)}
    process_trees.end(process, seconds=0.3)
    assert process.poll() is not None
    assert not alive(child)


def test_a_child_whose_parent_died_is_found_by_its_mark(launch):
    process, log = launch(PARENT, "ready", FEDSYNTH_TEST="orphan-1")
    process.wait()
    child = child_of(log)
    assert alive(child)
    assert child in {one.pid for one in process_trees.marked("FEDSYNTH_TEST=orphan-1")}
    process_trees.end(process, mark="FEDSYNTH_TEST=orphan-1", seconds=0.3)
    assert not alive(child)


def test_nobody_else_is_touched(launch):
    with subprocess.Popen([sys.executable, "-c", SLEEP]) as other:
        process, _ = launch(f"print('up', flush=True); {SLEEP}", "up", FEDSYNTH_TEST="two")
        begun = time.monotonic()
        process_trees.end(process, mark="FEDSYNTH_TEST=two")
        assert time.monotonic() - begun < 5  # it stopped when it was asked
        assert process.returncode == -15
        assert alive(other.pid)
        other.kill()


def test_a_killed_starter_takes_its_programs_along(tmp_path):
    text = f"""
import os
from pathlib import Path
from fedsynth.federation.engines import process_trees
with process_trees.leashed("FEDSYNTH_TEST=leash"):
    env = os.environ | {{"FEDSYNTH_TEST": "leash"}}
    started = process_trees.start([{PYTHON!r}, "-c", {SLEEP!r}], env=env, log=Path({str(tmp_path / "log")!r}))
    print(started.pid, flush=True)
    os.kill(os.getpid(), 9)
"""
    said = subprocess.run([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True, check=False)
    assert said.returncode == -9
    until = time.monotonic() + 10
    while alive(int(said.stdout)) and time.monotonic() < until:
        time.sleep(0.02)
    assert not alive(int(said.stdout))


def test_a_leash_ends_with_its_block(launch):
    with process_trees.leashed("FEDSYNTH_TEST=block"):
        process, _ = launch(f"print('up', flush=True); {SLEEP}", "up", FEDSYNTH_TEST="block")
        buried = Thread(target=process.wait)  # or the leash would wait for a dead child that nobody asked after
        buried.start()
    buried.join(5)
    assert process.returncode == -15


def test_the_marked_are_ended_and_a_second_time_there_is_nobody(launch):
    process, _ = launch(STUBBORN, "up", FEDSYNTH_TEST="stubborn")
    process_trees.end_marked("FEDSYNTH_TEST=stubborn", seconds=0.3)
    assert process.wait(5) == -9
    process_trees.end_marked("FEDSYNTH_TEST=stubborn")


def test_a_child_that_its_parent_never_reads_is_not_waited_for(launch):
    """Its entry stays in the table of processes until its parent reads it: here when the test ends."""
    process, _ = launch(f"print('up', flush=True); {SLEEP}", "up", FEDSYNTH_TEST="unread")
    begun = time.monotonic()
    ending = (
        "import sys; from fedsynth.federation.engines import process_trees as p; p.end_marked('FEDSYNTH_TEST=unread')"
    )
    subprocess.run([sys.executable, "-c", ending], check=True)
    assert time.monotonic() - begun < process_trees.SECONDS
    process.wait()
