"""A hospital's name belongs to its key: the server's list of nodes says who may answer under it."""

from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import Message

from fedsynth import config
from fedsynth.errors import FedSynthError
from fedsynth.federation import client_app, server_app
from fedsynth.federation.engines.flower_names import identity
from fedsynth.federation.engines.local import FIRST_NODE, run_locally
from fedsynth.federation.exchange import Order
from fedsynth.federation.messages import hello_content, order_contents, read_order
from fedsynth.federation.settings import FederationSettings
from fedsynth.runs import Run
from fedsynth.training.settings import cpu_threads
from tests.federation.tiny import SETTINGS, assert_same, rows, start

FIRST, SECOND, STRANGER = (str(FIRST_NODE + i) for i in (0, 1, 7))


def trained(tmp_path: Path, known: dict[str, str], settings: FederationSettings = SETTINGS) -> Run:
    """A run whose server keeps a list, as between real hospitals: name to node."""
    run, nodes = start(tmp_path, settings, "listed"), tmp_path / "nodes.toml"
    config.save_toml(nodes, known)
    table = settings.to_run_config(run.folder, nodes=nodes)
    with cpu_threads(1):
        run_locally(server_app.app, client_app.app, sites=2, run_config=table, workers=1)
    return run


def test_those_who_are_who_they_say_train_as_ever(tmp_path: Path, whole: Run) -> None:
    assert_same(trained(tmp_path, {"site-0": FIRST, "site-1": SECOND}), whole)


def test_nobody_answers_under_anothers_name(tmp_path: Path) -> None:
    with pytest.raises(FedSynthError, match=r"0 of 2 .*site-0: its key is another hospital's") as found:
        trained(tmp_path, {"site-1": FIRST, "site-0": SECOND})
    assert "site-1: its key is another hospital's" in str(found.value)


def test_a_node_that_is_not_in_the_list_is_never_greeted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_app, "JOINING_SECONDS", 0.0)
    run = trained(tmp_path, {"site-0": FIRST, "site-1": STRANGER}, replace(SETTINGS, min_sites=1))
    assert {row["site"] for row in rows(run)} == {"site-0"}
    assert not (run.site("site-1") / "egress.jsonl").exists()


def test_who_takes_anothers_name_is_left_out_and_the_others_train(tmp_path: Path) -> None:
    run = trained(tmp_path, {"site-0": FIRST, "north": SECOND}, replace(SETTINGS, min_sites=1))
    told = {(row["site"], row["reason"]) for row in rows(run)}
    assert told == {("site-0", ""), ("north", "its key is another hospital's")}


def test_the_number_of_a_message_to_another_cannot_be_reckoned() -> None:
    order = Order(round=1, first_step=0, steps=2, experiment="x")
    contents = [*order_contents({"north": order, "south": order}, {}).values(), hello_content("x"), hello_content("x")]
    assert len({content.config_records["words"]["nonce"] for content in contents}) == 4
    with identity():
        numbers = {Message(content, 7, "train").object_id for content in contents[:2]}
        assert len(numbers) == 2
        assert read_order(Message(contents[0], 7, "train"))[0] == order
