"""The white-box view: gradients put together by hand must betray who is in them, and the mechanism must show no
more.
"""

import numpy as np
import pytest
import torch

from fedsynth.evaluation.audit.canaries import Canaries, make_canaries
from fedsynth.experiments.white_box_audit import Rows, WhiteBoxObserver
from fedsynth.privacy.mechanism import GaussianMechanism
from fedsynth.training.dp_gradients import PrivateGradients
from fedsynth.training.patient_batches import PatientBatches
from tests.training.test_dp_gradients import prepared
from tests.training.tiny import tiny_set


def watch_of(n: int = 20) -> tuple[WhiteBoxObserver, Canaries]:
    canaries = make_canaries(tiny_set(), n, seed=0)
    return WhiteBoxObserver(canaries, PatientBatches(tiny_set()), seed=0), canaries


def rows_of(n: int, *, alike: float = 0.0, values: int = 4000) -> Rows:
    """Canaries' gradients of norm one that share `alike` of their length, and the others' mean."""
    rng = torch.Generator().manual_seed(0)
    own = torch.nn.functional.normalize(torch.randn(n, values, generator=rng), dim=1)
    common = torch.nn.functional.normalize(torch.randn(1, values, generator=rng), dim=1)
    made = (1 - alike) ** 0.5 * own + alike**0.5 * common
    spread = torch.tensor([0.05] * n + [1e6])
    return Rows(values=torch.cat([made, 30 * common]), spread=spread, owner=np.arange(n))


@pytest.mark.parametrize("alike", [0.0, 0.8])
def test_little_noise_betrays_every_canary(alike: float) -> None:
    watch, canaries = watch_of()
    rows, coins = rows_of(20, alike=alike), torch.from_numpy(canaries.included).float()
    noise = 1e-4 * torch.randn(4000, generator=torch.Generator().manual_seed(1))
    watch.see(rows, torch.cat([coins, torch.ones(1)]) @ rows.values + noise)
    assert watch.scores is not None
    assert watch.scores[canaries.included].min() > watch.scores[~canaries.included].max()


def test_much_noise_hides_them_and_the_odds_say_so() -> None:
    watch, canaries = watch_of()
    rows, coins = rows_of(20), torch.from_numpy(canaries.included).float()
    noise = 100 * torch.randn(4000, generator=torch.Generator().manual_seed(1))
    watch.see(rows, torch.cat([coins, torch.ones(1)]) @ rows.values + noise)
    assert watch.scores is not None
    assert np.abs(watch.scores).max() < 0.1


def test_odds_of_independent_steps_add_up() -> None:
    watch, canaries = watch_of()
    rows, coins = rows_of(20), torch.from_numpy(canaries.included).float()
    rng = torch.Generator().manual_seed(2)
    gaps = []
    for _ in range(30):
        noise = 0.7 * torch.randn(4000, generator=rng)
        watch.see(rows, torch.cat([coins, torch.ones(1)]) @ rows.values + noise)
        assert watch.scores is not None
        gaps.append(watch.scores[canaries.included].mean() - watch.scores[~canaries.included].mean())
    assert gaps[-1] > 10 * max(gaps[0], 0.1)


def test_a_gradient_that_is_no_number_is_not_looked_at() -> None:
    watch, _ = watch_of()
    rows = rows_of(20)
    rows.values[0, 0] = torch.nan
    watch.see(rows, torch.ones(4000))
    assert watch.scores is None
    assert watch.why


def test_an_auditor_at_the_mechanism_sees_what_leaves_and_changes_nothing() -> None:
    quiet, watched = prepared(insecure_seed=1), prepared(insecure_seed=1)
    assert isinstance(watched.mechanism, GaussianMechanism)
    seen = []

    def meddle(phase: str, sums: dict[str, torch.Tensor], progress: float) -> None:
        seen.append({name: value.clone() for name, value in sums.items()})
        for value in sums.values():
            value.zero_()

    watched.mechanism.on_release = meddle
    for one in (quiet, watched):
        one.pay(0, 2)
        list(one.trainer.run(2))
    assert len(seen) == 2
    assert all(value.abs().sum() > 0 for value in seen[0].values())
    for ours, theirs in zip(
        quiet.trainer.family.nets.parameters(), watched.trainer.family.nets.parameters(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_watching_a_private_training_leaves_it_bit_for_bit_as_it_was() -> None:
    images = tiny_set()
    canaries = make_canaries(images, 20, seed=0)
    watch = WhiteBoxObserver(canaries, PatientBatches(images), seed=0)
    quiet, watched = (prepared(canaries.joined(images), insecure_seed=1) for _ in range(2))
    watch.attach(watched)
    assert isinstance(watched.trainer.gradients, PrivateGradients)
    for one in (quiet, watched):
        one.pay(0, 3)
        list(one.trainer.run(3))
    assert watch.scores is not None
    for ours, theirs in zip(
        quiet.trainer.family.nets.parameters(), watched.trainer.family.nets.parameters(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
