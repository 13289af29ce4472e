"""A server that asks for what it should not: what a real hospital's site answers, pays and keeps to itself."""

from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict

from fedsynth.data import ImageSet
from fedsynth.errors import RefusedError
from fedsynth.federation import client_app
from fedsynth.federation.client import SiteWork
from fedsynth.federation.engines.flower_names import identity, number
from fedsynth.federation.error_codes import NeutralError, PolicyRefusedError
from fedsynth.federation.exchange import Order
from fedsynth.federation.order_digest import digest_of
from fedsynth.federation.policy import Policy
from fedsynth.federation.settings import FederationSettings
from fedsynth.federation.site_context import SiteContext
from fedsynth.privacy.ledger import Ledger
from tests.federation.tiny import SETTINGS, hospitals, private

PRIVATE_ONLY = Policy(max_epsilon=9.0, delta=1e-3)


def work_of(folder: Path, settings: FederationSettings, policy: Policy = PRIVATE_ONLY) -> SiteWork:
    """A hospital of nine patients, with its own storage, policy and store."""
    hospitals(folder)
    place = SiteContext(
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
    other = {name: value + 1 for name, value in first.arrays.items()}
    assert work.train(order(3), other).metrics["steps"] == 0  # six steps were planned, two of them are lost
    assert charged(tmp_path) == 6


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


@pytest.mark.parametrize(
    "asked",
    [order(1, first=10**9), order(2, first=-3), order(-1, first=0), order(1, steps=-1), order(1, steps=10**12)],
)
def test_orders_beyond_the_run_are_refused_and_cost_nothing(tmp_path: Path, asked: Order) -> None:
    """Beyond its last step the rate would be negative, and a site would count to the end of time."""
    work = work_of(tmp_path, SETTINGS, Policy(allow_plain=True))
    with pytest.raises(NeutralError, match="settings do not fit"):
        work.train(asked, work._arrays())


def test_a_sampler_leaves_once_and_the_site_trains_no_more(tmp_path: Path) -> None:
    settings = replace(SETTINGS, federation="one-shot", rounds=3)
    policy = Policy(allow_plain=True, allow_one_shot=True)
    work, last = work_of(tmp_path, settings, policy), order(4, first=6, steps=0)
    work.train(order(1), {})
    sent = work.train(last, {}).arrays
    assert sent
    assert work.train(order(1), {}).arrays == {}  # a finished round is answered again, and nothing is trained
    for asked in (order(2), order(3)):
        with pytest.raises(RefusedError, match="goes on training after it was sent"):
            work.train(asked, {})
    again = work_of(tmp_path, settings, policy)  # the site was started again, and the reply was lost
    with pytest.raises(RefusedError, match="goes on training after it was sent"):
        again.train(order(2), {})
    repeated = again.train(last, {}).arrays
    assert all((repeated[name] == value).all() for name, value in sent.items())


def test_another_sampler_than_the_one_that_was_sent_does_not_leave(tmp_path: Path) -> None:
    """Its newest state is gone: what is left is that of an earlier round."""
    settings = replace(SETTINGS, federation="one-shot", rounds=3)
    policy = Policy(allow_plain=True, allow_one_shot=True)
    work, last = work_of(tmp_path, settings, policy), order(4, first=6, steps=0)
    for round in (1, 2, 3):  # noqa: A001
        work.train(order(round), {})
    work.train(last, {})
    (tmp_path / "disk" / "state-000003.safetensors").unlink()
    with pytest.raises(RefusedError, match="was sent after 6 steps and is now that of 4"):
        work_of(tmp_path, settings, policy).train(last, {})


def test_the_size_that_is_declared_for_a_site_must_be_enough_for_its_policy(tmp_path: Path) -> None:
    settings = private(tmp_path, insecure=False)
    small = replace(settings, weighting="declared:here=3")
    with pytest.raises(PolicyRefusedError, match="3 declared patients are fewer than min-patients = 5"):
        work_of(tmp_path, small, replace(PRIVATE_ONLY, min_patients=5))


def test_what_was_learnt_without_privacy_never_goes_on_as_private(tmp_path: Path) -> None:
    """The server greets with private settings, trains plainly while the policy allows it, and comes back."""
    settings = private(tmp_path, insecure=False)
    work_of(tmp_path, settings)
    plain = work_of(tmp_path, replace(settings, privacy=None, batch=4), Policy(allow_plain=True))
    sent = plain._arrays()
    plain.train(order(1), sent)
    private_again = work_of(tmp_path, settings)
    with pytest.raises(RefusedError, match="another promise"):
        private_again.train(order(2), sent)
    assert private_again._finished(order(1), digest_of(order(1), sent)) is None  # nor is what it sent then sent again


def test_whether_a_hospital_joins_a_private_run_does_not_depend_on_its_true_number(tmp_path: Path) -> None:
    """Nine patients or ten: a refusal that follows the true number would tell the two apart with certainty."""
    settings, policy = private(tmp_path, insecure=False), Policy(max_epsilon=9.0, delta=1e-3, min_patients=10)
    assert settings.privacy is not None
    large = replace(settings, privacy=replace(settings.privacy, patients=12))
    work_of(tmp_path, large, policy)
    with pytest.raises(PolicyRefusedError, match="declared patients are fewer"):
        work_of(tmp_path, settings, policy)
    with pytest.raises(PolicyRefusedError, match="fewer patients than"):
        work_of(tmp_path, SETTINGS, Policy(allow_plain=True, min_patients=10))
