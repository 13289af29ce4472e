"""Work of one kind as Ray tasks: on this machine, or on the cluster that $RAY_ADDRESS names.

It knows nothing of what is done. A task that is lost costs nobody else his result, and all tasks end with the caller.
"""

import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from fedsynth.federation.engines import process_trees
from fedsynth.federation.engines.ray import require_ray

ADDRESS = "RAY_ADDRESS"
MARK = "FEDSYNTH_TASKS"  # of this call alone: it tells its processes from all others
BEAT_SECONDS = 0.5

Work = TypeVar("Work")
Done = TypeVar("Done")


def run_tasks(
    function: Callable[[Work], Done],
    items: Sequence[Work],
    *,
    at_once: int = 1,
    beat: Callable[[], None] = lambda: None,
) -> list[Done | str]:
    """`function` of every item, one processor each and `at_once` at a time, in order; a text where a task was lost.

    `beat` is called while they work. What `function` raises is raised here, when the others have ended.
    """
    require_ray()
    import ray

    with _cluster(at_once):
        task = ray.remote(num_cpus=1, max_retries=0)(function)
        handles = [task.remote(item) for item in items]
        pending = handles
        while pending:
            time.sleep(BEAT_SECONDS)  # here rather than in Ray, which would make another exit of a polite stop
            _, pending = ray.wait(pending, num_returns=len(pending), timeout=0)
            beat()
        return [_result(handle) for handle in handles]


def _result(handle: Any) -> Any:
    import ray

    try:
        return ray.get(handle)
    except ray.exceptions.RayTaskError:
        raise
    except ray.exceptions.RayError as error:
        return str(error).strip().splitlines()[0]


def _init(**given: Any) -> None:
    """Start or join; a polite stop stays what it was before, where Ray would abort on it."""
    import ray

    stop = signal.getsignal(signal.SIGTERM)
    ray.init(log_to_driver=False, configure_logging=False, **given)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)


@contextmanager
def _cluster(at_once: int) -> Iterator[None]:
    """Somebody's cluster, or one of our own on loopback that ends with the block, or with this process."""
    import ray

    if os.environ.get(ADDRESS):
        _init(address=os.environ[ADDRESS])
        try:
            yield
        finally:
            ray.shutdown()
        return
    with tempfile.TemporaryDirectory(prefix="fs-", ignore_cleanup_errors=True) as scratch:
        own = {
            MARK: f"{os.getpid()}-{Path(scratch).name}",
            "OMP_NUM_THREADS": "1",
            "RAY_USAGE_STATS_ENABLED": "0",  # nothing phones home
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what Ray will do anyway; without it, it warns
        }
        before = {name: os.environ.get(name) for name in own}
        mark = f"{MARK}={own[MARK]}"
        os.environ.update(own)
        with process_trees.leashed(mark):
            try:
                _init(
                    num_cpus=at_once,
                    include_dashboard=False,
                    _node_ip_address="127.0.0.1",
                    _temp_dir=scratch,  # its sockets' paths must stay short
                )
                yield
            finally:
                ray.shutdown()
                process_trees.end_marked(mark)
                _restore(before)


def _restore(before: dict[str, str | None]) -> None:
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
