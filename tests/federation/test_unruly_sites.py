"""Sites that send garbage or another shape, stall, or die: what the server keeps, and what it says of them."""

import time
from dataclasses import replace
from threading import Event

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from safetensors.numpy import load_file

from fedsynth.errors import FedSynthError
from fedsynth.federation import client_app, server_app
from fedsynth.federation.engines.flower_names import identity, number
from fedsynth.federation.engines.local import run_locally
from fedsynth.federation.error_codes import ErrorCode
from fedsynth.federation.exchange import Facts, Order, Outcome
from fedsynth.federation.messages import facts_content, outcome_content
from fedsynth.federation.round_log import summary
from fedsynth.federation.rounds import _mean_shares
from fedsynth.training.checkpoint import load_generator
from fedsynth.training.settings import cpu_threads
from tests.federation.tiny import SETTINGS, rows, start, weights

FACTS = Facts(channels=("t1",), size=(8, 8), classes=(), mask_labels=(), spacing_mm=(1.0, 1.0), phantoms=False)
FOUR = replace(SETTINGS, sites=4, min_sites=3, rounds=2)


def run_with(tmp_path, settings, site_0, workers=1, watch=lambda progress: None):
    """A run in which site 0 does as it likes with the orders that it gets: `site_0(message, context)`."""
    run = start(tmp_path, settings, patients=12)

    def app(message, context):
        own = context.node_config["partition-id"] == 0 and message.metadata.message_type == "train"
        return (site_0 if own else client_app.app)(message, context)

    with cpu_threads(1):
        table = settings.to_run_config(run.folder)
        run_locally(server_app.app, app, sites=settings.sites, run_config=table, workers=workers, watch=watch)
    return run


def sending(change):
    """A site that trains and then sends something else: `change` of each array."""

    def site(message, context):
        reply = client_app.app(message, context)
        arrays = {name: change(array.numpy()) for name, array in reply.content["arrays"].items()}
        spoilt = ArrayRecord({name: Array(value) for name, value in arrays.items()})
        return Message(RecordDict({**reply.content, "arrays": spoilt}), reply_to=message)

    return site


def shifted(value):
    """Wrong, and no further off than an honest site could be."""
    return value + np.asarray(0.005, value.dtype)


def reasons(run, site="site-0"):
    return [row["reason"] for row in rows(run) if row["site"] == site]


def within_the_honest(run):
    """Whether every weight after the first round lies between those of sites 1 to 3."""
    states = [load_file(run.site(f"site-{i}") / "state-000001.safetensors") for i in (1, 2, 3)]
    for name, value in load_file(run.checkpoints / "round-0001.safetensors").items():
        if "/" not in name:
            honest = np.stack([state[f"nets.{name}"] for state in states])
            if not np.all((value >= honest.min(0)) & (value <= honest.max(0))):
                return False
    return True


@pytest.mark.parametrize("strategy", ["fedmedian", "trimmed-mean"])
def test_robust_strategies_hold_against_one_site_that_sends_garbage(tmp_path, strategy):
    run = run_with(tmp_path, replace(FOUR, strategy=strategy, rounds=1), sending(shifted))
    assert reasons(run) == [""]  # nothing shows that it is garbage
    assert within_the_honest(run)


def test_the_mean_does_not(tmp_path):
    run = run_with(tmp_path, replace(FOUR, rounds=1), sending(shifted))
    assert reasons(run) == [""]
    assert not within_the_honest(run)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda value: value[None], "sent another shape"),
        (lambda value: value.astype(np.float64), "sent another shape"),
        (lambda value: np.where(value == value.max(), np.inf, value), "sent what is not a number"),
    ],
)
def test_what_cannot_be_averaged_is_left_out_and_the_round_goes_on(tmp_path, change, reason):
    run = run_with(tmp_path, FOUR, sending(change))
    assert reasons(run) == [reason, reason]
    assert reasons(run, "site-1") == ["", ""]
    assert all(np.isfinite(value).all() for value in weights(run).values())


def nonsense(message, context):
    return Message(RecordDict({"words": ConfigRecord({"site": "site-0"})}), reply_to=message)


def no_bytes(message, context):
    reply = client_app.app(message, context)
    spoilt = {
        name: Array(array.dtype, array.shape, array.stype, b"") for name, array in reply.content["arrays"].items()
    }
    return Message(RecordDict({**reply.content, "arrays": ArrayRecord(spoilt)}), reply_to=message)


def nothing(message, context):
    return Message(RecordDict(), reply_to=message)


def other_records(message, context):
    """Records of other kinds under the names that a reply has."""
    reply = client_app.app(message, context)
    spoilt = {"arrays": ConfigRecord({"a": 1}), "words": MetricRecord({"a": 1})}
    return Message(RecordDict({**reply.content, **spoilt}), reply_to=message)


def broken_header(message, context):
    """Arrays whose headers numpy's parser chokes on."""
    reply = client_app.app(message, context)
    text = b"{'descr': '<f4', 'shape': ("
    data = b"\x93NUMPY\x01\x00" + bytes([len(text), 0]) + text
    spoilt = {name: Array(one.dtype, one.shape, one.stype, data) for name, one in reply.content["arrays"].items()}
    return Message(RecordDict({**reply.content, "arrays": ArrayRecord(spoilt)}), reply_to=message)


@pytest.mark.parametrize("site", [nonsense, no_bytes, nothing, other_records, broken_header])
def test_a_reply_that_is_none_is_left_out(tmp_path, site):
    run = run_with(tmp_path, FOUR, site)
    assert reasons(run) == ["sent another shape"] * 2


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"steps": np.nan}, "sent what is not a number"),
        ({"steps": 1e18}, "sent what is not a number"),
        ({"patients": 0.0}, "sent what is not a number"),
        ({"patients": np.inf}, "sent what is not a number"),
        ({"share_0": -1e30}, "sent what is not a number"),
        ({"share_x": 1.0}, "sent another shape"),
        ({"charged": 1.0}, "sent another shape"),
    ],
)
def test_numbers_that_cannot_be_are_left_out_and_the_round_goes_on(tmp_path, told, reason):
    def site(message, context):
        reply = client_app.app(message, context)
        metrics = MetricRecord({**reply.content["metrics"], **told})
        return Message(RecordDict({**reply.content, "metrics": metrics}), reply_to=message)

    settings = replace(FOUR, rounds=1, strategy="fedmedian")
    run = run_with(tmp_path, settings, site)
    assert reasons(run) == [reason]
    assert reasons(run, "site-1") == [""]


@pytest.mark.parametrize(
    ("greeting", "name"),
    [({}, "unnamed-1"), ({"words": ConfigRecord({"site": "site-0", "channels": 5, "size": [1, 2]})}, "site-0")],
)
def test_a_greeting_that_is_none_stops_nobody_else(tmp_path, greeting, name):
    run = start(tmp_path, replace(FOUR, rounds=1), patients=12)

    def app(message, context):
        hello = message.metadata.message_type == "query.hello" and context.node_config["partition-id"] == 0
        return Message(RecordDict(greeting), reply_to=message) if hello else client_app.app(message, context)

    failed = []
    with cpu_threads(1):
        table = replace(FOUR, rounds=1).to_run_config(run.folder)
        watch = lambda progress: failed.append(dict(progress.failed))  # noqa: E731
        run_locally(server_app.app, app, sites=4, run_config=table, workers=1, watch=watch)
    reasons = {row["site"]: row["reason"] for row in rows(run)}
    assert reasons == {name: "failed", "site-1": "", "site-2": "", "site-3": ""}
    assert failed == [{name: "failed"}, {}]
    assert summary([run.rounds])["left_out"] == [{"site": name, "reason": "failed", "rounds": 1}]


def test_a_site_that_stalls_is_left_behind_busy_and_comes_back(tmp_path):
    go_on, done = Event(), Event()

    def site(message, context):
        if not done.is_set():
            go_on.wait(60)
        reply = client_app.app(message, context)
        done.set()
        return reply

    def watch(progress):
        if progress.round == 4 and not progress.replies:
            go_on.set()
            assert done.wait(60)
            time.sleep(0.3)  # until its thread has ended

    run = run_with(tmp_path, replace(FOUR, rounds=4, deadline=2.0), site, workers=4, watch=watch)
    busy = "still busy with an earlier round"
    assert reasons(run) == ["did not answer in time", busy, busy, ""]
    assert reasons(run, "site-1") == [""] * 4


def test_a_node_that_never_greets_holds_no_round_up_beyond_its_deadline():
    class Silent:
        pause = 0.01

        def get_node_ids(self):
            return [7]

        def push_messages(self, messages):
            return [str(i) for i, _ in enumerate(messages)]

        def pull_messages(self, numbers):
            return []

    with identity():
        sites = server_app.GridSites(Silent(), replace(SETTINGS, deadline=0.3), "x")
        begun = time.monotonic()
        order = Order(round=1, first_step=0, steps=2, experiment="x")
        assert [reply.reason for reply in sites.ask({"site-0": order}, {})] == [ErrorCode.UNREACHABLE]
    assert time.monotonic() - begun < 30  # it was greeted for five minutes, every round anew


class Nodes:
    """A grid of nodes that answer at once; those in `hanging` when the grid next pulls answers."""

    pause = 0.01

    def __init__(self, *nodes):
        self.nodes, self.hanging, self.pushed, self.sent = list(nodes), set(), [], {}

    def get_node_ids(self):
        return self.nodes

    def push_messages(self, messages):
        for message in messages:
            number(message, f"m{len(self.pushed)}")
            self.pushed.append((message.metadata.dst_node_id, message.metadata.message_type))
            self.sent[message.metadata.message_id] = message
        return list(self.sent)[-len(messages) :]

    def pull_messages(self, numbers):
        ready = [name for name in numbers if name in self.sent and self.node(name) not in self.hanging]
        return [self.answer(self.sent.pop(name)) for name in ready]

    def node(self, name):
        return self.sent[name].metadata.dst_node_id

    def answer(self, message):
        site = f"site-{message.metadata.dst_node_id}"
        hello = message.metadata.message_type == "query.hello"
        return Message(facts_content(site, FACTS) if hello else outcome_content(site, Outcome()), reply_to=message)


def test_a_new_node_that_hangs_holds_up_no_round_in_which_all_are_there(monkeypatch):
    monkeypatch.setattr(server_app, "JOINING_SECONDS", 0.0)
    with identity():
        grid = Nodes(1, 2)
        sites = server_app.GridSites(grid, replace(SETTINGS, sites=3, min_sites=2), "x")
        assert [hello.site for hello in sites.handshake()] == ["site-1", "site-2"]
        grid.nodes, grid.hanging = [1, 2, 3], {3}
        order = Order(round=1, first_step=0, steps=2, experiment="x")
        for _ in range(3):
            replies = sites.ask({"site-1": order, "site-2": order}, {})
            assert [reply.reason for reply in replies] == [None, None]
        assert 3 not in {node for node, _ in grid.pushed}


def test_a_node_that_hangs_is_waited_for_once_and_heard_when_it_answers(monkeypatch):
    monkeypatch.setattr(server_app, "JOINING_SECONDS", 0.0)
    with identity():
        grid = Nodes(1, 2)
        sites = server_app.GridSites(grid, replace(SETTINGS, sites=3, min_sites=2), "x")
        sites.handshake()
        grid.nodes, grid.hanging = [1, 3], {3}  # site-2 went, and who came may be anybody
        orders = dict.fromkeys(["site-1", "site-2"], Order(round=1, first_step=0, steps=2, experiment="x"))
        monkeypatch.setattr(server_app, "HELLO_SECONDS", 0.1)
        for _ in range(3):
            assert [reply.reason for reply in sites.ask(orders, {})] == [None, ErrorCode.UNREACHABLE]
            monkeypatch.setattr(server_app, "HELLO_SECONDS", 60.0)  # would be waited for, every round anew
        assert grid.pushed.count((3, "query.hello")) == 1
        monkeypatch.setattr(server_app, "HELLO_SECONDS", 0.0)
        sites.ask(orders, {})
        assert grid.pushed.count((3, "query.hello")) == 2  # it may have lost the first: greeted again, not waited for
        monkeypatch.setattr(server_app, "HELLO_SECONDS", 60.0)
        grid.hanging = set()
        orders = {"site-3": orders["site-1"]}
        assert [reply.reason for reply in sites.ask(orders, {})] == [None]
        assert grid.pushed.count((3, "query.hello")) == 2


def test_an_exception_reaches_the_server_as_a_code_alone(tmp_path):
    def site(message, context):
        raise MemoryError("/srv/hospital/patient-Meier")

    run = run_with(tmp_path, FOUR, site)
    assert reasons(run) == ["out of memory", "out of memory"]
    assert "Meier" not in run.rounds.read_text()


def test_a_site_that_leaves_for_good_stays_on_the_card(tmp_path):
    settings = replace(FOUR, sites=3, min_sites=2)
    run = start(tmp_path, settings, patients=12)
    gone = []

    class Killed(Exception):
        pass

    def watch(progress):
        if progress.replies:
            gone.append(2)
            raise Killed

    def app(message, context):
        if context.node_config["partition-id"] in gone:
            raise RuntimeError("the hospital left")
        return client_app.app(message, context)

    def go(watch):
        with cpu_threads(1):
            table = settings.to_run_config(run.folder)
            run_locally(server_app.app, app, sites=3, run_config=table, workers=1, watch=watch)

    with pytest.raises(Killed):
        go(watch)
    client_app.forget_everything()
    go(lambda progress: None)
    assert load_generator(run.checkpoints)[1].trained_on == "3 sites: site-0, site-1, site-2"
    assert reasons(run, "site-2") == [""]
    assert reasons(run, "unnamed-1") == ["failed"]  # its app never said who it is


def test_a_round_of_many_exchanges_that_failed_stands_once_in_the_table(tmp_path):
    settings = replace(FOUR, sites=2, min_sites=2, local_steps=4, federation="central-generator")
    run = start(tmp_path, settings, patients=12)
    exchanges = {}

    def app(message, context):
        if message.metadata.message_type == "train" and context.node_config["partition-id"] == 0:
            number = message.content["words"]["round"]
            exchanges[number] = exchanges.get(number, 0) + 1
            if number == 6 and exchanges[6] <= 3:
                raise RuntimeError
        return client_app.app(message, context)

    def go():
        with cpu_threads(1):
            run_locally(server_app.app, app, sites=2, run_config=settings.to_run_config(run.folder), workers=1)

    with pytest.raises(FedSynthError, match="in round 2 1 of 2 sites answered"):
        go()
    before = rows(run)
    assert [(row["round"], row["answered"]) for row in before] == [("1", "true")] * 2 + [("2", "false"), ("2", "true")]
    down = {row["site"]: int(row["bytes_down"]) for row in before if row["round"] == "2"}
    assert down["site-0"] == 2 * down["site-1"]  # exchange 5, and three attempts at 6 where the other had one
    client_app.forget_everything()
    go()
    assert [(row["round"], row["site"], row["answered"]) for row in rows(run)] == [
        (number, site, "true") for number in "12" for site in ("site-0", "site-1")
    ]


def test_class_shares_count_only_where_all_of_them_are_told():
    told = [[0.25, 0.75], [1.0], [0.0, 0.0], [1.0, 1.0]]
    replies = [(1.0, {f"share_{i}": value for i, value in enumerate(shares)}) for shares in told]
    assert _mean_shares(replies, ["share_0", "share_1"]) == (0.375, 0.625)
    assert _mean_shares(replies[1:3], ["share_0", "share_1"]) == ()
    assert _mean_shares([], []) == ()
