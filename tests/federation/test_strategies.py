"""Every strategy by hand, and against Flower's own where that one is right."""

import math

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM, FedMedian, FedTrimmedAvg
from flwr.supercore.task_identity import TaskIdentity

from fedsynth.errors import ConfigError
from fedsynth.federation.strategies import STRATEGIES, make_strategy, proximal_mu, proximal_pull


def arrays(*values, dtype=np.float32):
    return {"g.w": np.array(values, dtype)}


def step(strategy, old, sites, weights=None, options=None):
    averaging = make_strategy(strategy, options)
    averaging.start(old)
    return averaging.step(old, list(zip(weights or [1.0] * len(sites), sites, strict=True)))["g.w"]


def test_fedavg_is_the_weighted_mean():
    sites = [arrays(1, 8), arrays(4, -1)]
    np.testing.assert_array_equal(step("fedavg", arrays(9, 9), sites, [1, 2]), [3, 2])
    np.testing.assert_array_equal(step("fedprox", arrays(9, 9), sites, [2, 4]), [3, 2])


def test_fedavgm_keeps_going_in_the_direction_it_went():
    averaging = make_strategy("fedavgm", {"momentum": 0.5, "rate": 1.0})
    old = arrays(0)
    averaging.start(old)
    old = averaging.step(old, [(1, arrays(2)), (1, arrays(4))])  # velocity 3
    assert old["g.w"] == [3]
    old = averaging.step(old, [(1, arrays(4))])  # the sites moved by 1: velocity 0.5 * 3 + 1
    assert old["g.w"] == [5.5]


def test_fedavgm_follows_a_steady_change_at_its_own_speed():
    averaging = make_strategy("fedavgm")
    old = arrays(0)
    averaging.start(old)
    for _ in range(200):
        before = old["g.w"][0]
        old = averaging.step(old, [(1, arrays(before + 1))])
    assert old["g.w"][0] - before == pytest.approx(1, rel=1e-4)


def test_fedadam_is_the_papers_algorithm_2():
    averaging = make_strategy("fedadam", {"rate": 0.5, "beta1": 0.5, "beta2": 0.75, "tau": 2.0})
    old = arrays(1)
    averaging.start(old)
    old = averaging.step(old, [(1, arrays(9)), (1, arrays(1))])  # change 4: mean 2, square 0.75 * 4 + 0.25 * 16 = 7
    assert old["g.w"][0] == pytest.approx(1 + 0.5 * 2 / (math.sqrt(7) + 2))
    first = old["g.w"][0]
    old = averaging.step(old, [(1, old | {"g.w": old["g.w"] + 2})])  # mean 2, square 5.25 + 1
    assert old["g.w"][0] == pytest.approx(first + 0.5 * 2 / (2.5 + 2))


def test_fedmedian_takes_the_middle_of_each_entry():
    sites = [arrays(1, 50), arrays(2, 40), arrays(300, 0)]
    np.testing.assert_array_equal(step("fedmedian", arrays(0, 0), sites, [1, 1, 99]), [2, 40])
    np.testing.assert_array_equal(step("fedmedian", arrays(0, 0), sites[:2]), [1.5, 45])


@pytest.mark.parametrize(
    ("sites", "share", "mean"),
    [
        ([1], 0.2, 1),
        ([1, 3], 0.2, 2),
        ([1, 3, 9], 0.2, 3),
        ([1, 3, 9, 99], 0.2, 6),
        ([1, 2, 3, 4, 99], 0.2, 3),
        ([1, 2, 3, 4, 5, 99], 0.2, 3.5),
        ([1, 2, 3, 4, 99], 0.0, 21.8),
        ([1, 2, 3, 8, 99], 0.4, 3),
        (list(range(10)), 0.1, 4.5),
    ],
)
def test_trimmed_mean_leaves_out_the_ends(sites, share, mean):
    got = step("trimmed-mean", arrays(0), [arrays(value) for value in sites], options={"share": share})
    assert got[0] == pytest.approx(mean)


@pytest.mark.parametrize("strategy", ["fedmedian", "trimmed-mean"])
@pytest.mark.parametrize("n_sites", [3, 4, 5, 16])
def test_robust_strategies_stay_among_the_honest_sites(strategy, n_sites):
    rng = np.random.default_rng(0)
    honest = rng.normal(size=(n_sites - 1, 50)).astype(np.float32)
    garbage = (rng.choice([-1, 1], 50) * 1e30).astype(np.float32)
    old = arrays(*np.zeros(50))
    got = step(strategy, old, [arrays(*garbage), *(arrays(*values) for values in honest)])
    assert np.all((got >= honest.min(0)) & (got <= honest.max(0)))
    assert np.abs(step("fedavg", old, [arrays(*garbage), *(arrays(*values) for values in honest)])).min() > 1e28


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_counters_come_from_the_first_site_and_types_stay(strategy):
    old = {
        "g.w": np.zeros((2, 3), np.float32),
        "g.scalar": np.array(1, np.float32),
        "g.half": np.zeros(2, np.float16),
        "g.count": np.array(7, np.int64),
        "g.on": np.array([True]),
    }
    sites = [{name: value + k if value.dtype != bool else value for name, value in old.items()} for k in (5, 8)]
    averaging = make_strategy(strategy)
    averaging.start(old)
    new = averaging.step(old, [(1.0, site) for site in sites])
    assert list(new) == list(old)
    assert {name: (value.dtype, value.shape) for name, value in new.items()} == {
        name: (value.dtype, value.shape) for name, value in old.items()
    }
    assert new["g.count"] == 12
    assert new["g.on"] == [True]
    new["g.count"] += 1
    assert sites[0]["g.count"] == 12  # what a site sent is not shared with the result


@pytest.mark.parametrize("strategy", ["fedavgm", "fedadam"])
def test_buffers_are_averaged_without_momentum(strategy):
    old = {"g.w": np.ones(1, np.float32), "g.running_var": np.ones(1, np.float32)}
    averaging = make_strategy(strategy, buffers=["g.running_var"])
    averaging.start(old)
    sent = {name: np.full(1, 0.25, np.float32) for name in old}
    new = averaging.step(old, [(1, sent)])
    assert new["g.running_var"] == [0.25]
    assert new["g.w"] != [0.25]
    assert not [name for name in averaging.state() if "running_var" in name]


@pytest.mark.parametrize("strategy", ["fedavg", "fedmedian", "trimmed-mean"])
@pytest.mark.parametrize("n_sites", [1, 3, 7])
def test_sites_that_agree_are_not_rounded(strategy, n_sites):
    values = np.random.default_rng(1).normal(size=1000).astype(np.float32)
    got = step(strategy, arrays(*np.zeros(1000)), [arrays(*values)] * n_sites)
    np.testing.assert_array_equal(got, values)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_resumed_server_gives_the_same_bits(strategy):
    rng = np.random.default_rng(2)
    rounds = [[arrays(*rng.normal(size=20)) for _ in range(3)] for _ in range(4)]
    old = arrays(*rng.normal(size=20))

    def run(first, weights, averaging):
        for sites in rounds[first:]:
            weights = averaging.step(weights, [(k + 1.0, site) for k, site in enumerate(sites)])
        return weights["g.w"]

    whole = make_strategy(strategy)
    whole.start(old)
    broken = make_strategy(strategy)
    broken.start(old)
    middle = old
    for sites in rounds[:2]:
        middle = broken.step(middle, [(k + 1.0, site) for k, site in enumerate(sites)])
    resumed = make_strategy(strategy)
    resumed.start(middle)
    resumed.load({name: value.copy() for name, value in broken.state().items()})
    assert run(0, old, whole).tobytes() == run(2, middle, resumed).tobytes()


def test_the_proximal_pull_is_the_gradient_of_its_term():
    weights, received = torch.randn(5, dtype=torch.float64, requires_grad=True), torch.randn(5, dtype=torch.float64)
    term = 0.3 / 2 * (weights - received).square().sum()
    (gradient,) = torch.autograd.grad(term, weights)
    torch.testing.assert_close(proximal_pull(weights.detach(), received, 0.3), gradient)
    assert (proximal_mu({}), proximal_mu({"mu": 0.5})) == (0.01, 0.5)


@pytest.mark.parametrize(
    ("strategy", "options", "words"),
    [
        ("fedagv", {}, "did you mean 'fedavg'"),
        ("fedavg", {"momentum": 0.9}, "fedavg has no such option"),
        ("fedmedian", {"share": 0.1}, "no such option"),
        ("fedadam", {"tua": 1.0}, "did you mean 'tau'"),
        ("fedprox", {"strength": 1.0}, "known: mu"),
        ("fedprox", {"mu": -1.0}, "'mu' must be at least 0"),
        ("fedavgm", {"momentum": 1.0}, "'momentum' must be at least 0 and below 1"),
        ("fedadam", {"rate": math.inf}, "'rate' must be a positive number"),
        ("trimmed-mean", {"share": 0.5}, "'share' must be at least 0 and below 0.5"),
    ],
)
def test_wrong_strategies_and_options_are_told(strategy, options, words):
    with pytest.raises(ConfigError, match=words):
        make_strategy(strategy, options)


@pytest.mark.parametrize("weights", [[], [0.0], [1, -1], [math.nan], [math.inf]])
def test_weights_that_mean_nothing_are_not_used(weights):
    averaging = make_strategy("fedavg")
    with pytest.raises(ValueError):
        averaging.step(arrays(0), [(weight, arrays(1)) for weight in weights])


# Flower's own strategies


@pytest.fixture
def flower_round(monkeypatch):
    """One round of a Flower strategy on real messages."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)

    def aggregate(strategy, number, old, sites, weights):
        if isinstance(strategy, FedAdam):
            strategy.current_arrays = old
        elif isinstance(strategy, FedAvgM) and strategy.current_arrays is None:
            strategy.current_arrays = ArrayRecord({name: Array(value) for name, value in old.items()})
        replies = [_reply(site, weight) for site, weight in zip(sites, weights, strict=True)]
        averaged, _ = strategy.aggregate_train(number, replies)
        return {name: value.numpy() for name, value in averaged.items()}

    return aggregate


def _reply(site, weight):
    content = RecordDict(
        {
            "arrays": ArrayRecord({name: Array(value) for name, value in site.items()}),
            "metrics": MetricRecord({"num-examples": weight}),
        }
    )
    return Message(content=content, dst_node_id=1, message_type="train")


def random_rounds(n_rounds, n_sites):
    rng = np.random.default_rng(3)
    return [[arrays(*rng.normal(size=30)) for _ in range(n_sites)] for _ in range(n_rounds)]


@pytest.mark.parametrize(
    ("ours", "options", "theirs", "n_sites"),
    [
        ("fedavg", {}, FedAvg(), 4),
        ("fedavgm", {"momentum": 0.7, "rate": 0.4}, FedAvgM(server_momentum=0.7, server_learning_rate=0.4), 4),
        ("fedmedian", {}, FedMedian(), 4),
        ("fedmedian", {}, FedMedian(), 5),
        ("trimmed-mean", {"share": 0.2}, FedTrimmedAvg(beta=0.2), 5),  # Flower rounds the number cut off down
    ],
)
def test_strategies_agree_with_flowers(flower_round, ours, options, theirs, n_sites):
    old = mine = arrays(*np.linspace(-1, 1, 30))
    averaging = make_strategy(ours, options)
    averaging.start(old)
    weights = [3.0, 1.0, 2.0, 5.0, 4.0][:n_sites]
    for number, sites in enumerate(random_rounds(3, n_sites), 1):
        old = flower_round(theirs, number, old, sites, weights)
        mine = averaging.step(mine, list(zip(weights, sites, strict=True)))
        np.testing.assert_allclose(mine["g.w"], old["g.w"], rtol=2e-6, atol=1e-6)


def test_fedadam_differs_from_flowers_by_its_bias_correction_and_start_alone(flower_round):
    """Flower's corrects the rate as Adam does, one round ahead, and starts the square at 0; the paper does neither."""
    rate, beta1, beta2, tau = 0.1, 0.9, 0.99, 1e-3
    theirs = FedAdam(eta=rate, beta_1=beta1, beta_2=beta2, tau=tau)
    (sites,) = random_rounds(1, 4)
    old = arrays(*np.zeros(30))
    flower = flower_round(theirs, 1, old, sites, [1.0] * 4)["g.w"]
    ours = step("fedadam", old, sites, options={"rate": rate, "beta1": beta1, "beta2": beta2, "tau": tau})
    change = np.mean([site["g.w"] for site in sites], axis=0, dtype=np.float64)
    correction = math.sqrt(1 - beta2**2) / (1 - beta1**2)
    square = np.sqrt((1 - beta2) * change**2)
    np.testing.assert_allclose(flower, correction * rate * (1 - beta1) * change / (square + tau), rtol=1e-5)
    square = np.sqrt(beta2 * tau**2 + (1 - beta2) * change**2)
    np.testing.assert_allclose(ours, rate * (1 - beta1) * change / (square + tau), rtol=1e-5)


def test_flowers_trimmed_mean_of_four_sites_trims_nobody(flower_round):
    sites = [arrays(1), arrays(2), arrays(3), arrays(1e9)]
    flower = flower_round(FedTrimmedAvg(beta=0.2), 1, arrays(0), sites, [1.0] * 4)
    assert flower["g.w"][0] > 1e8
    assert step("trimmed-mean", arrays(0), sites)[0] == 2.5
