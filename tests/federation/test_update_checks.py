"""Updates and sums that no honest site sends are refused by name; those of unequal sites are not."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedsynth.data import ImageSet
from fedsynth.data.site_config import Select, SiteEntry, SitesFile
from fedsynth.federation.error_codes import ErrorCode
from fedsynth.federation.exchange import Outcome
from fedsynth.federation.messages import Reply
from fedsynth.federation.settings import FederationSettings
from fedsynth.federation.simulation import begin, open_hospitals
from fedsynth.federation.strategies import STRATEGIES
from fedsynth.federation.update_checks import FACTOR, UpdateChecks, refused_samplers, refused_sums
from fedsynth.models.base import ImageShape, Model
from fedsynth.privacy.patient_statistics import RELEASE
from fedsynth.privacy.plan import PrivatePlan, PrivateSettings, make_plan
from fedsynth.training.session import fresh_family
from fedsynth.training.settings import Privacy
from tests.federation.test_unruly_sites import FOUR, reasons, run_with, sending
from tests.federation.tiny import SETTINGS, go, private, rows, simulated, weights
from tests.training.tiny import tiny_set

TOO_LARGE = "sent far too large an update"
SHAPE = ImageShape(channels=1, size=(8, 8), n_classes=2, n_labels=0)


def family() -> Model:
    return fresh_family(SETTINGS.training(), SHAPE)


def arrays(model: Model) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in model.nets.state_dict().items()}


def moved(old: dict[str, np.ndarray], norm: float) -> dict[str, np.ndarray]:
    """The same weights with an update of that length."""
    size = sum(value.size for value in old.values())
    return {name: np.asarray(value + norm / math.sqrt(size), value.dtype) for name, value in old.items()}


def refused(*norms: float, before: tuple[float, ...] = (), settings: FederationSettings = SETTINGS) -> list[bool]:
    model = family()
    old = arrays(model)
    replies = {f"{i}": Reply(site=f"{i}", outcome=Outcome(arrays=moved(old, norm))) for i, norm in enumerate(norms)}
    found = UpdateChecks(settings, model, before).refused(replies, old)
    return [found[name].reason is ErrorCode.TOO_LARGE for name in replies]


@pytest.mark.parametrize("value", [1e6, 1e30])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_poisoning_site_in_four_is_left_out(tmp_path: Path, strategy: str, value: float) -> None:
    settings = replace(FOUR, strategy=strategy)
    run = run_with(tmp_path, settings, sending(lambda array: np.full_like(array, value)))
    assert reasons(run) == [TOO_LARGE, TOO_LARGE]
    assert {row["reason"] for row in rows(run) if row["site"] != "site-0"} == {""}
    assert max(np.abs(array).max() for array in weights(run).values()) < 10


def test_the_others_train_as_if_the_poisoning_site_were_not_there(tmp_path: Path) -> None:
    def absent(message, context):  # type: ignore[no-untyped-def]
        raise RuntimeError

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    poisoned = run_with(tmp_path / "a", FOUR, sending(lambda array: np.full_like(array, 1e30)))
    without = run_with(tmp_path / "b", FOUR, absent)
    here, there = weights(poisoned), weights(without)
    for name, value in there.items():
        assert np.array_equal(here[name], value), name


def test_two_sites_and_one_of_them_sends_garbage(tmp_path: Path) -> None:
    settings = replace(FOUR, sites=2, min_sites=1)
    run = run_with(tmp_path, settings, sending(lambda array: np.full_like(array, 1e6)))
    assert reasons(run) == [TOO_LARGE, TOO_LARGE]
    assert reasons(run, "site-1") == ["", ""]


def unequal_hospitals(folder: Path) -> SitesFile:
    """1, 3, 9 and 18 patients; the images of the second are inverted and twenty times as faint."""
    images = tiny_set(patients=31)
    people = [f"p{i}" for i in range(31)]
    held = {"site-0": people[:1], "site-1": people[1:4], "site-2": people[4:13], "site-3": people[13:]}
    pixels = np.asarray(images.images[np.arange(len(images))]).astype(np.float32)
    pixels /= 255 if images.images.dtype == np.uint8 else 1
    faint = images.cases["patient"].isin(held["site-1"]).to_numpy()
    pixels[faint] = (1 - pixels[faint]) / 20
    ImageSet(header=images.header, cases=images.cases, images=pixels, masks=images.masks).save(folder / "set")
    entries = tuple(SiteEntry(name=name, select=Select(patient=tuple(who))) for name, who in held.items())
    return SitesFile(name="unequal", images=folder / "set", site=entries)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_honest_unequal_sites_are_not_refused(tmp_path: Path, strategy: str) -> None:
    settings = replace(FOUR, strategy=strategy, rounds=3, local_steps=8)
    with open_hospitals(unequal_hospitals(tmp_path), tmp_path) as opened:
        run = begin(settings, opened, tmp_path / "run")
    go(run, settings)
    assert {row["reason"] for row in rows(run)} == {""}


def test_a_private_run_refuses_nobody_who_is_honest(tmp_path: Path) -> None:
    run = simulated(tmp_path, private(tmp_path, insecure=False))
    assert {row["reason"] for row in rows(run)} == {""}


def test_the_median_of_three_decides_and_sites_without_a_step_do_not_count() -> None:
    assert refused(0.01, 0.01, 0.02, 0.4) == [False, False, False, True]
    assert refused(0.01, 0.01, 0.01 * FACTOR * 0.9) == [False, False, False]
    assert refused(0.0, 0.0, 0.0, 0.5) == [False] * 4
    assert refused(0.01, 0.01, 0.4, before=(0.1, 0.1)) == [False] * 3  # as long as rounds before


def test_a_pair_is_compared_with_the_rounds_before_and_with_the_weights() -> None:
    length = math.sqrt(sum(float((value**2).sum()) for value in arrays(family()).values()))
    assert refused(1e-6, 0.9 * length) == [False, False]
    assert refused(1e-6, 1.1 * length) == [False, True]
    assert refused(0.01, 0.9 * length, before=(0.01,)) == [False, True]


def test_one_site_alone_moves_no_further_than_its_optimiser_can() -> None:
    assert refused(0.1) == [False]
    assert refused(1e6) == [True]
    assert refused(
        1e6,
        settings=replace(
            SETTINGS, batch=None, privacy=Privacy(epsilon=8.0, patients=6, delta=1e-3, expected_batch_size=3)
        ),
    ) == [True]


def test_what_was_usual_is_remembered_for_a_few_rounds() -> None:
    model = family()
    old, checks = arrays(model), UpdateChecks(SETTINGS, model, ())
    for norm in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0):
        checks.remember([Reply(site="a", outcome=Outcome(arrays=moved(old, norm)))], old)
    assert checks.norms == pytest.approx((2.0, 3.0, 4.0, 5.0, 6.0), rel=1e-3)


def release_plan() -> PrivatePlan:
    settings = PrivateSettings(epsilon=8.0, delta=1e-3, patients=12, batch=12)
    return replace(make_plan(settings, {RELEASE: 1}), release=True)


def sums(total: float, patients: float, variance: float, length: int = 50) -> Reply:
    vector = np.zeros(length)
    vector[0] = total
    found = {"total": vector, "patients": np.array(patients), "variance": np.array(variance)}
    return Reply(site="a", outcome=Outcome(arrays={f"simulator.{name}": value for name, value in found.items()}))


def test_a_sum_over_patients_is_no_longer_than_patients_and_noise_allow() -> None:
    plan = release_plan()
    variance = 1.25 * plan.noise**2
    honest = 12 + 3 * math.sqrt(variance * 50)
    for reply, reason in (
        (sums(honest, 12 + 3 * plan.noise, variance), None),
        (sums(5 * 12, 5 * 12, variance), None),  # the declared number is a round one
        (sums(1e6, 12, variance), ErrorCode.TOO_LARGE),
        (sums(honest, 1e6, variance), ErrorCode.TOO_LARGE),
        (sums(honest, 12, 1e-9), ErrorCode.TOO_LARGE),  # it would weigh as if it had no noise
    ):
        assert refused_sums({"a": reply}, {"a": plan})["a"].reason is reason
    assert refused_sums({"a": sums(20, 20, 0.0)}, {})["a"].reason is None
    assert refused_sums({"a": sums(21, 20, 0.0)}, {})["a"].reason is ErrorCode.TOO_LARGE


def test_other_sums_and_samplers_have_a_bound_too() -> None:
    large = Reply(site="a", outcome=Outcome(arrays={"maps.sums": np.array([1e200])}))
    fine = Reply(site="b", outcome=Outcome(arrays={"maps.sums": np.array([1e9])}))
    found = refused_sums({"a": large, "b": fine}, {})
    assert (found["a"].reason, found["b"].reason) == (ErrorCode.TOO_LARGE, None)
    model = family()
    first = arrays(model)
    replies = {
        name: Reply(site=name, outcome=Outcome(arrays={key: value * times for key, value in first.items()}))
        for name, times in (("a", 5.0), ("b", 1e4))
    }
    found = refused_samplers(replies, first, first.keys())
    assert (found["a"].reason, found["b"].reason) == (None, ErrorCode.TOO_LARGE)
