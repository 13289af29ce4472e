"""The grid in this process keeps Flower's promises: copies, committed state, errors without text, deadlines."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedsynth.federation import client_app
from fedsynth.federation.engines.flower_names import QUIET, TaskIdentity, identity, number
from fedsynth.federation.engines.local import FIRST_NODE, LocalGrid
from tests.federation.tiny import SETTINGS, go, rows, start


def words(**values: object) -> RecordDict:
    return RecordDict({"words": ConfigRecord(dict(values))})  # type: ignore[arg-type]


def asked(app: ClientApp, *, sites: int = 2, workers: int = 2, rounds: int = 1, timeout: float | None = None):
    """All replies of all rounds, by node."""
    with identity() as run:
        grid = LocalGrid(app, sites=sites, run_config={"a": 1}, run=run, workers=workers)
        found = []
        for _ in range(rounds):
            content = words(seen=0)  # one content for all, as strategies send it
            messages = [grid.create_message(content, "query", node, "") for node in grid.get_node_ids()]
            replies = grid.send_and_receive(messages, timeout=timeout)
            found.append({reply.metadata.src_node_id: reply for reply in replies})
        return found


def test_every_site_has_a_copy_of_the_message_and_a_state_of_its_own() -> None:
    app = ClientApp()

    @app.query()
    def count(message: Message, context: Context) -> Message:
        record = message.content["words"]
        record["seen"] += 1  # type: ignore[operator]
        state = context.state.get("words", ConfigRecord({"calls": 0}))
        context.state["words"] = ConfigRecord({"calls": state["calls"] + 1})  # type: ignore[operator]
        return Message(words(seen=record["seen"], calls=context.state["words"]["calls"]), reply_to=message)

    for number_of_round, replies in enumerate(asked(app, sites=4, rounds=2), 1):
        assert sorted(replies) == [FIRST_NODE + i for i in range(4)]
        for reply in replies.values():
            assert dict(reply.content["words"]) == {"seen": 1, "calls": number_of_round}


def test_an_exception_becomes_an_error_without_its_text_and_changes_no_state() -> None:
    app = ClientApp()

    @app.query()
    def fail(message: Message, context: Context) -> Message:
        calls = int(context.state["words"]["calls"]) if "words" in context.state else 0
        context.state["words"] = ConfigRecord({"calls": calls + 1})
        if context.node_config["partition-id"] == 0:
            raise ValueError("patient Jane Doe in /srv/dicom")
        return Message(words(calls=calls), reply_to=message)

    first, second = asked(app, rounds=2)
    for replies in (first, second):
        assert replies[FIRST_NODE].error.reason == "failed"
    assert second[FIRST_NODE + 1].content["words"]["calls"] == 1


def test_a_stalled_site_is_left_behind_and_busy_until_it_ends() -> None:
    app, free, entered = ClientApp(), threading.Event(), []

    @app.query()
    def stall(message: Message, context: Context) -> Message:
        site = context.node_config["partition-id"]
        entered.append(site)
        if site == 0:
            free.wait(20)
        return Message(words(site=site), reply_to=message)

    with identity() as run:
        grid = LocalGrid(app, sites=3, run_config={}, run=run, workers=1)

        def ask(timeout: float) -> dict[int, Message]:
            messages = [grid.create_message(words(), "query", node, "") for node in grid.get_node_ids()]
            return {m.metadata.src_node_id - FIRST_NODE: m for m in grid.send_and_receive(messages, timeout=timeout)}

        assert set(ask(0.3)) == set()  # the only worker stalled, the others never began
        later = ask(5.0)
        assert later[0].error.reason == "still busy with an earlier round"
        assert {site for site in (1, 2) if later[site].has_content()} == {1, 2}  # it takes no worker away
        free.set()
        time.sleep(0.2)
        assert ask(5.0)[0].content["words"]["site"] == 0
    assert entered == [0, 1, 2, 0, 1, 2]


def test_a_deadline_leaves_out_who_is_late_and_the_round_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A site whose images take for ever; it is late, then busy, while the other goes on alone."""
    settings = replace(SETTINGS, min_sites=1, deadline=0.7)
    run = start(tmp_path, settings)
    train = client_app.SiteWork.train

    def slow(self, order, received, *, on_step=None):  # type: ignore[no-untyped-def]
        if self.site.name == "site-1":
            time.sleep(3)
        return train(self, order, received, on_step=on_step)

    monkeypatch.setattr(client_app.SiteWork, "train", slow)
    go(run, settings, workers=2)
    assert [row["reason"] for row in rows(run) if row["site"] == "site-0"] == ["", "", ""]
    reasons = [row["reason"] for row in rows(run) if row["site"] == "site-1"]
    assert reasons == ["did not answer in time", *["still busy with an earlier round"] * 2]


def test_flowers_private_names_are_where_they_were() -> None:
    """A canary: when this fails, Flower has moved something and `flower_names` must follow."""
    with pytest.raises(RuntimeError, match="run_id is not set"):
        Message(words(), 1, "query")
    with identity(7) as run:
        assert run.run_id == 7
        message = number(Message(words(), 1, "query"), "m1")
        assert message.metadata.message_id == "m1"
        assert Message(words(), reply_to=message).metadata.reply_to_message_id == "m1"
        assert message.metadata.run_id == 7
    assert TaskIdentity._run_id is None
    assert QUIET["FLWR_TELEMETRY_ENABLED"] == "0"


def test_flower_is_quiet() -> None:
    import os

    assert all(os.environ[name] == value for name, value in QUIET.items())
