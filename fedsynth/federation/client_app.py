"""The site's Flower app: reads a message, run config and node config, works, and writes down what leaves.

Nothing that goes wrong at a site reaches the server as more than a neutral code; its text stays in the site's log.
"""

import sys
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
from fedsynth.federation.approval import check_approved
from fedsynth.federation.client import SiteWork
from fedsynth.federation.clock import wait_for_slot
from fedsynth.federation.egress_log import EgressLog
from fedsynth.federation.error_codes import ErrorCode, NeutralError, PolicyRefusedError, keep_to_itself
from fedsynth.federation.exchange import Order, Outcome, Sent
from fedsynth.federation.fault_injection import Fault, Faults
from fedsynth.federation.messages import (
    facts_content,
    outcome_content,
    read_handshake,
    read_order,
    record_bytes,
    refusal_content,
)
from fedsynth.federation.secure_site import STAGES
from fedsynth.federation.settings import FederationSettings, from_run_config
from fedsynth.federation.site_caps import DailyUsage, check_kept
from fedsynth.federation.site_context import SiteContext, open_site_context, spare_site_context
from fedsynth.federation.site_observers import entered, opened, watcher

KEPT_BYTES = 2 * 2**30  # of networks that stay in memory; sites beyond are read from their disks again
COPIES = 4  # of every weight: itself, two moments of its optimiser, a moving average

app = ClientApp()
_works: "OrderedDict[tuple[Any, ...], SiteWork]" = OrderedDict()
_lock, _phase = Lock(), Lock()


@app.query("hello")
def hello(message: Message, context: Context) -> Message:
    """Who the site is and what its images are like, or that its policy refuses."""
    try:
        experiment = read_handshake(message)
    except Exception as error:
        return Message(_refuse(context, None, error, "hello"), reply_to=message)

    def handshake(site: SiteContext, settings: FederationSettings) -> RecordDict:
        work = _work(site, settings, context, experiment, round=0)
        content = facts_content(site.name, work.facts)
        EgressLog(site.folder, synced=not site.simulated).record("hello", ["facts"], [()], 0, 0)
        return content

    return Message(_answer(context, experiment, 0, handshake), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """One round."""
    try:
        order, arrays = read_order(message)
    except Exception as error:
        return Message(_refuse(context, None, error, "train"), reply_to=message)

    def work_a_round(site: SiteContext, settings: FederationSettings) -> RecordDict:
        usage = DailyUsage(site.own_folder)
        usage.check_minutes(site.policy)
        usage.check_bytes(site.policy, _bytes(arrays))  # before patients are charged for what could not leave
        fault = _fault(settings, site, order)
        if fault == "dropout":
            raise NeutralError(ErrorCode.UNREACHABLE)
        work = _work(site, settings, context, order.experiment, round=order.round)
        outcome = work.train(order, arrays, on_step=watcher())
        if fault == "straggler":  # the work is done and charged; its answer comes too late
            raise NeutralError(ErrorCode.LATE)
        return _leave(site, order, outcome if fault != "nan" else _spoilt(outcome))

    return Message(_answer(context, order.experiment, order.round, work_a_round), reply_to=message)


def forget_everything() -> None:
    """Drop what is kept in memory, as a killed process would."""
    with _lock:
        _works.clear()


def _answer(
    context: Context, experiment: str, number: int, do: Callable[[SiteContext, FederationSettings], RecordDict]
) -> RecordDict:
    site: SiteContext | None = None
    try:
        settings, run = _told(tuple(sorted(context.run_config.items())))
        site = entered(open_site_context(context.node_config, run, experiment))
    except Exception as error:
        return _refuse(context, site, error, f"round {number}" if number else "hello", number)
    timed = settings.privacy is not None and not site.simulated
    with _phase if timed else nullcontext():  # "busy" would tell when the work on another message is done
        began = time.monotonic()
        try:
            content = do(site, settings)
        except Exception as error:
            content = _refuse(context, site, error, f"round {number}" if number else "hello", number)
        if timed:  # refusals too: what fails may depend on patients
            wait_for_slot(site.folder, began, site.policy.answer_every)
        if number and not site.simulated:  # in private runs whole slots: a public number, as the caps on it must be
            try:
                DailyUsage(site.own_folder).add(seconds=time.monotonic() - began, bytes=record_bytes(content))
            except FedSynthError as error:
                content = _refuse(context, site, error, f"round {number}", number)
    return content


def _refuse(context: Context, site: SiteContext | None, error: Exception, doing: str, number: int = 0) -> RecordDict:
    """A neutral code in the place of an answer; the text goes into the site's log, where it knows of one.

    The code leaves too, and is written down. It leaves even where the disk takes no line: nothing else can tell so.
    """
    name, spare = _spare(context)
    folder = _first_that_opens([spare] if site is None else [_log_folder(site, error), spare])
    if isinstance(error, NeutralError):
        code = error.code
    else:
        code = ErrorCode.FAILED if folder is None else keep_to_itself(error, folder, doing=doing)
    if code.is_decision and site is not None and not site.simulated:  # in the node's journal, besides the log
        print(f"{site.name} refuses {doing}: {error}", file=sys.stderr, flush=True)  # noqa: T201
    if folder is not None:
        with suppress(FedSynthError):
            EgressLog(folder).record("refusal", [code.value], [()], 0, number)
    return refusal_content(name if site is None else site.name, code)


def _log_folder(site: SiteContext, error: Exception) -> Path:
    """The run's own; a run that the policy refuses from the first is not kept, and gets none."""
    refused = isinstance(error, PolicyRefusedError) and site.home is not None and not site.folder.exists()
    return site.own_folder if refused else site.folder


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
    return spare_site_context(context.node_config, run)


@lru_cache(maxsize=8)
def _told(run_config: tuple[tuple[str, Any], ...]) -> tuple[FederationSettings, Path]:
    """What a run config says, read once."""
    return from_run_config(dict(run_config))


def _work(
    site: SiteContext,
    settings: FederationSettings,
    context: Context,
    experiment: str,
    *,
    round: int,  # noqa: A002
) -> SiteWork:
    """The site's networks, from memory where they are still there; a run that this hospital did not let in has none."""
    check_approved(site.policy, settings, site.name, site.own_folder)
    check_kept(site.policy, site.own_folder, site.folder)
    key = (str(site.folder), site.policy, experiment, *sorted(_items(context.run_config)))
    with _lock:
        found = _works.get(key)
        if found is not None and found.can_train(round or 10**9):
            _works.move_to_end(key)
            return found
    made = SiteWork(site, settings, experiment=experiment)
    if site.simulated:
        opened(site.name, made.prepared)
    with _lock:
        _works[key] = made
        while len(_works) > 1 and sum(map(_size, _works.values())) > KEPT_BYTES:
            _works.popitem(last=False)
    return made


def _size(work: SiteWork) -> int:
    return COPIES * sum(parameter.nbytes for parameter in work.family.parameters())


def _items(table: Mapping[str, Any]) -> list[str]:
    return [f"{key}={value!r}" for key, value in table.items()]


def _fault(settings: FederationSettings, site: SiteContext, order: Order) -> Fault:
    """What was asked to go wrong; only simulated hospitals do as they are told."""
    if not site.simulated:
        return ""
    number = zlib.crc32(site.name.encode())
    asked = order.round + 1_000_000 * order.attempt + 1_000_000_000 * ("", *STAGES).index(order.stage)
    return Faults.parse(settings.inject).of(settings.seed, number, asked)


def _bytes(arrays: Sent) -> int:
    return sum(value.nbytes for value in arrays.values())


def _spoilt(outcome: Outcome) -> Outcome:
    broken = {name: np.full_like(value, np.nan) for name, value in outcome.arrays.items() if value.dtype.kind == "f"}
    return replace(outcome, arrays={**outcome.arrays, **broken})


def _leave(site: SiteContext, order: Order, outcome: Outcome) -> RecordDict:
    """Write down what leaves, on disk before it does."""
    content = outcome_content(site.name, outcome)
    names = [*outcome.arrays, *outcome.metrics]
    shapes = [*(value.shape for value in outcome.arrays.values()), *(() for _ in outcome.metrics)]
    if outcome.note is not None:
        names, shapes = [*names, outcome.note.value], [*shapes, ()]
    size = _bytes(outcome.arrays)
    DailyUsage(site.own_folder).check_bytes(site.policy, size)
    EgressLog(site.folder, synced=not site.simulated).record("train", names, shapes, size, order.round)
    return content
