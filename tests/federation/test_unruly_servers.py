"""A server that asks for what it should not: what a real hospital's site answers, pays and keeps to itself."""

from pathlib import Path

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict

from fedsynth.federation import client_app
from fedsynth.federation.engines.flower_names import identity, number
from fedsynth.federation.exchange import Order
from fedsynth.federation.place import SitePlace
from fedsynth.federation.policy import Policy
from fedsynth.federation.settings import FederationSettings
from fedsynth.federation.work import SiteWork
from fedsynth.images import ImageSet
from fedsynth.privacy.ledger import Ledger
from tests.federation.tiny import hospitals, private

PRIVATE_ONLY = Policy(max_epsilon=9.0, delta=1e-3)


def work_of(folder: Path, settings: FederationSettings, policy: Policy = PRIVATE_ONLY) -> SiteWork:
    """A hospital of nine patients, with its own disk, policy and store."""
    hospitals(folder)
    place = SitePlace(
        name="here", folder=folder / "disk", policy=policy, images=lambda: ImageSet.load(folder / "set"),
        store=folder / "ledger",
    )  # fmt: skip
    place.folder.mkdir(exist_ok=True)
    return SiteWork(place, settings, experiment="x")


def order(number: int, *, first: int | None = None, steps: int = 2) -> Order:
    return Order(round=number, first_step=2 * (number - 1) if first is None else first, steps=steps, experiment="x")


def charged(folder: Path) -> int:
    return sum(charge.steps for charge in Ledger("here", folder / "ledger").charges())


def test_a_private_round_that_failed_keeps_its_charge_and_the_site_comes_back(tmp_path: Path) -> None:
    class Failed(Exception):
        pass

    def fail(site: str, done: int, of: int) -> None:
        raise Failed

    work = work_of(tmp_path, private(tmp_path, insecure=False))
    first = work.train(order(1), work._arrays())
    with pytest.raises(Failed):
        work.train(order(2), first.arrays, on_step=fail)
    assert charged(tmp_path) == 4
    assert work.train(order(3), first.arrays).metrics["charged"] == 6
    assert work.train(order(4), first.arrays).metrics["steps"] == 0  # six steps were planned, two of them are lost


def test_the_same_round_with_other_weights_is_paid_for_again(tmp_path: Path) -> None:
    work = work_of(tmp_path, private(tmp_path, insecure=False))
    sent = work._arrays()
    first = work.train(order(1), sent)
    assert work.train(order(1), sent).metrics == first.metrics
    assert charged(tmp_path) == 2
    again = {name: value + 1 for name, value in sent.items()}
    fresh = work_of(tmp_path, private(tmp_path, insecure=False))  # as its app does: the first round begins from nothing
    fresh.train(order(1), again)
    assert charged(tmp_path) == 4


def test_a_message_that_is_none_is_answered_by_a_code(tmp_path: Path) -> None:
    """An exception would reach the server with its text, on Ray with the site's paths."""
    told = {"node_config": {"site-file": str(tmp_path / "site.toml")}, "state": RecordDict(), "run_config": {}}
    context = Context(run_id=1, node_id=7, **told)
    contents = [RecordDict(), RecordDict({"words": ConfigRecord({"round": "../../x"}), "arrays": ArrayRecord()})]
    with identity():
        for kind in ("train", "query.hello"):
            for content in contents:
                answer = client_app.app(number(Message(content, 7, kind), "a"), context)
                assert dict(answer.content.config_records["words"]) == {"site": "", "refused": "failed"}
    assert (tmp_path / "site.log").read_text().count("failed") == 4
