"""Work as Ray tasks: in order, a lost one told and the others whole, and nobody left behind by a polite stop."""

import os
import subprocess
import sys

import pytest

from fedsynth.federation.engines.process_trees import marked
from fedsynth.federation.engines.ray_tasks import MARK

PROGRAM = """
import os, signal, time
from fedsynth.federation.engines.ray_tasks import run_tasks

def work(item):
    if item < 0:
        os._exit(1)
    time.sleep(item)
    return item, os.environ["FEDSYNTH_TASKS"]

def stopped(number, frame):
    raise SystemExit(128 + number)

signal.signal(signal.SIGTERM, stopped)
beats = []
found = run_tasks(work, [0.5, -1, 0.1], at_once=2, beat=lambda: beats.append(time.monotonic()))
assert [one[0] for one in found[::2]] == [0.5, 0.1], found
assert isinstance(found[1], str), found
assert beats
assert "FEDSYNTH_TASKS" not in os.environ
print(found[0][1], flush=True)


def stop():
    print(os.environ["FEDSYNTH_TASKS"], flush=True)
    os.kill(os.getpid(), signal.SIGTERM)

run_tasks(work, [100], beat=stop)
"""


@pytest.mark.slow
def test_tasks_in_order_a_lost_one_and_a_stop():
    pytest.importorskip("ray")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=240, env=dict(os.environ)
    )
    assert done.returncode == 143, done.stderr
    names = set(done.stdout.split())
    assert names
    for name in names:
        assert marked(f"{MARK}={name}") == set()
