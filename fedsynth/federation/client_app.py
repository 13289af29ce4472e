"""The site's Flower app: reads a message, run config and node config, works, and writes down what leaves.

Nothing that goes wrong at a site reaches the server as more than a neutral code; its text stays in the site's log.
"""

import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedsynth.errors import FedSynthError
from fedsynth.federation.clock import wait_for_slot
from fedsynth.federation.egress import EgressLog
from fedsynth.federation.exchange import Order, Outcome
from fedsynth.federation.faults import Fault, Faults
from fedsynth.federation.messages import (
    facts_content,
    outcome_content,
    read_greeting,
    read_order,
    refusal_content,
)
from fedsynth.federation.place import SitePlace, open_place, spare_place
from fedsynth.federation.refusals import Code, NeutralError, keep_to_itself
from fedsynth.federation.settings import FederationSettings, from_run_config
from fedsynth.federation.watching import entered, opened, watcher
from fedsynth.federation.work import SiteWork

KEPT_BYTES = 2 * 2**30  # of networks that stay in memory; sites beyond are read from their disks again
COPIES = 4  # of every weight: itself, two moments of its optimiser, a moving average

app = ClientApp()
_works: "OrderedDict[tuple[Any, ...], SiteWork]" = OrderedDict()
_lock, _turn = Lock(), Lock()


@app.query("hello")
def hello(message: Message, context: Context) -> Message:
    """Who the site is and what its images are like, or that its policy refuses."""
    try:
        experiment = read_greeting(message)
    except Exception as error:
        return Message(_refuse(context, None, error, "hello"), reply_to=message)

    def greet(place: SitePlace, settings: FederationSettings) -> RecordDict:
        work = _work(place, settings, context, experiment, round=0)
        content = facts_content(place.name, work.facts)
        EgressLog(place.folder).record("hello", ["facts"], [()], 0, 0)
        return content

    return Message(_answer(context, experiment, 0, greet), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """One round."""
    try:
        order, arrays = read_order(message)
    except Exception as error:
        return Message(_refuse(context, None, error, "train"), reply_to=message)

    def work_a_round(place: SitePlace, settings: FederationSettings) -> RecordDict:
        fault = _fault(settings, place, order)
        if fault == "dropout":
            raise NeutralError(Code.UNREACHABLE)
        work = _work(place, settings, context, order.experiment, round=order.round)
        outcome = work.train(order, arrays, on_step=watcher())
        if fault == "straggler":  # the work is done and charged; its answer comes too late
            raise NeutralError(Code.LATE)
        return _leave(place, order, outcome if fault != "nan" else _spoilt(outcome))

    return Message(_answer(context, order.experiment, order.round, work_a_round), reply_to=message)


def forget_everything() -> None:
    """Drop what is kept in memory, as a killed process would."""
    with _lock:
        _works.clear()


def _answer(
    context: Context, experiment: str, number: int, do: Callable[[SitePlace, FederationSettings], RecordDict]
) -> RecordDict:
    place: SitePlace | None = None
    try:
        settings, run = _told(tuple(sorted(context.run_config.items())))
        place = entered(open_place(context.node_config, run, experiment))
    except Exception as error:
        return _refuse(context, place, error, f"round {number}" if number else "hello", number)
    timed = settings.privacy is not None and not place.simulated
    with _turn if timed else nullcontext():  # "busy" would tell when the work on another message is done
        began = time.monotonic()
        try:
            content = do(place, settings)
        except Exception as error:
            content = _refuse(context, place, error, f"round {number}" if number else "hello", number)
        if timed:  # refusals too: what fails may depend on patients
            wait_for_slot(place.folder, began, place.policy.answer_every)
    return content


def _refuse(context: Context, place: SitePlace | None, error: Exception, doing: str, number: int = 0) -> RecordDict:
    """A neutral code in the place of an answer; the text goes into the site's log, where it knows of one.

    The code leaves too, and is written down. It leaves even where the disk takes no line: nothing else can tell so.
    """
    name, spare = _spare(context)
    folder = _first_that_opens([spare] if place is None else [place.folder, spare])
    if isinstance(error, NeutralError):
        code = error.code
    else:
        code = Code.FAILED if folder is None else keep_to_itself(error, folder, doing=doing)
    if folder is not None:
        with suppress(FedSynthError):
            EgressLog(folder).record("refusal", [code.value], [()], 0, number)
    return refusal_content(name if place is None else place.name, code)


def _first_that_opens(folders: Sequence[Path | None]) -> Path | None:
    """The first folder that is there or can be made."""
    for folder in folders:
        with suppress(OSError):
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
                return folder
    return None


def _spare(context: Context) -> tuple[str, Path | None]:
    """Name and folder where the site's own place could not be opened."""
    try:
        run = _told(tuple(sorted(context.run_config.items())))[1]
    except Exception:
        run = None
    return spare_place(context.node_config, run)


@lru_cache(maxsize=8)
def _told(run_config: tuple[tuple[str, Any], ...]) -> tuple[FederationSettings, Path]:
    """What a run config says, read once."""
    return from_run_config(dict(run_config))


def _work(
    place: SitePlace,
    settings: FederationSettings,
    context: Context,
    experiment: str,
    *,
    round: int,  # noqa: A002
) -> SiteWork:
    """The site's networks, from memory where they are still there."""
    key = (str(place.folder), place.policy, experiment, *sorted(_items(context.run_config)))
    with _lock:
        found = _works.get(key)
        if found is not None and found.can_train(round or 10**9):
            _works.move_to_end(key)
            return found
    made = SiteWork(place, settings, experiment=experiment)
    if place.simulated:
        opened(place.name, made.prepared)
    with _lock:
        _works[key] = made
        while len(_works) > 1 and sum(map(_size, _works.values())) > KEPT_BYTES:
            _works.popitem(last=False)
    return made


def _size(work: SiteWork) -> int:
    return COPIES * sum(parameter.nbytes for parameter in work.family.parameters())


def _items(table: Mapping[str, Any]) -> list[str]:
    return [f"{key}={value!r}" for key, value in table.items()]


def _fault(settings: FederationSettings, place: SitePlace, order: Order) -> Fault:
    """What was asked to go wrong; only simulated hospitals do as they are told."""
    if not place.simulated:
        return ""
    number = zlib.crc32(place.name.encode())
    return Faults.parse(settings.inject).of(settings.seed, number, order.round + 1_000_000 * order.attempt)


def _spoilt(outcome: Outcome) -> Outcome:
    broken = {name: np.full_like(value, np.nan) for name, value in outcome.arrays.items() if value.dtype.kind == "f"}
    return replace(outcome, arrays=outcome.arrays | broken)


def _leave(place: SitePlace, order: Order, outcome: Outcome) -> RecordDict:
    """Write down what leaves, on disk before it does."""
    content = outcome_content(place.name, outcome)
    names = [*outcome.arrays, *outcome.metrics]
    shapes = [*(value.shape for value in outcome.arrays.values()), *(() for _ in outcome.metrics)]
    size = sum(value.nbytes for value in outcome.arrays.values())
    EgressLog(place.folder).record("train", names, shapes, size, order.round)
    return content
