"""Work over many items on several cores, in order, with a bounded number of results in memory."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

Progress = Callable[[int, int], None]
"""Called as `progress(done, total)` while long work goes on."""


def silent(done: int, total: int) -> None:
    """The progress callback of those who want none."""


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int | None = None, processes: bool = False
) -> Iterator[Result]:
    """`function` over `items`, results in the order of the items.

    Threads serve work that waits or releases the interpreter lock (decoding); `processes` serve pure computation.
    At most twice as many items as workers are in flight, so memory stays flat whatever the number of items.
    """
    workers = workers or os.cpu_count() or 1
    if workers == 1:
        yield from map(function, items)
        return
    executor, end = _processes(workers) if processes else _threads(workers)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(executor.submit(function, item))
            if len(waiting) >= 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
        end()


def _threads(workers: int) -> tuple[Executor, Callable[[], Any]]:
    executor = ThreadPoolExecutor(workers, thread_name_prefix="fedsynth")
    return executor, executor.shutdown


def _processes(workers: int) -> tuple[Executor, Callable[[], Any]]:
    from loky import get_reusable_executor

    executor = get_reusable_executor(max_workers=workers, timeout=60)
    return executor, lambda: None
