"""Every rule of the mechanism, each a test that fails when the rule is broken."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from fedsynth.errors import RefusedError
from fedsynth.privacy.accounting import Budget
from fedsynth.privacy.ledger import Ledger, read_ledger
from fedsynth.privacy.mechanism import GaussianMechanism, sample_slices
from fedsynth.privacy.per_patient_gradients import PatientGradients
from fedsynth.privacy.plan import PrivateSettings, make_plan
from fedsynth.privacy.secure_rng import InsecureRandomness, SecretRandomness

SETTINGS = PrivateSettings(epsilon=8.0, delta=1e-5, patients=40, batch=10, clip=0.5, slices_per_patient=2)
PLAN = make_plan(SETTINGS, {"discriminator": 20, "generator": 10})


class Watched(InsecureRandomness):
    """Remembers what was asked of it; `taken` fixes whom the draws choose."""

    def __init__(self, taken=None):
        super().__init__(1)
        self.taken, self.scales, self.rng = taken, [], []

    def gaussian(self, shape, scale):
        self.scales.append((shape, scale))
        return super().gaussian(shape, scale)

    def chosen(self, n, rate):
        drawn = super().chosen(n, rate) if self.taken is None else torch.tensor(self.taken, dtype=torch.int64)
        self.rng.append((n, rate, drawn.tolist()))
        return drawn


def network(seed=0, width=5):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(width, 3), nn.Tanh(), nn.Linear(3, 1), nn.Flatten(0))


def gradients(net, settings=SETTINGS):
    def loss(batch, noise, progress):
        return net(batch["image"])

    probe = {"image": torch.randn(4, 5)}, {}
    return PatientGradients(net, loss, clip=settings.clip, slices_per_patient=settings.slices_per_patient, probe=probe)


def images(n=9):
    torch.manual_seed(7)
    values = 3 * torch.randn(n, 2, 5)
    return lambda indices: ({"image": values[indices]}, {})


def opened(n=9, randomness=None, **options):
    phases = {"discriminator": gradients(network(0)), "generator": gradients(network(1))}
    patients = [f"p{i}" for i in range(n)]
    options = {"run": "r", "randomness": randomness or SecretRandomness()} | options
    return GaussianMechanism(PLAN, phases, patients=patients, **options)


def charged(n=9, steps=5, **options):
    mechanism = opened(n, **options)
    mechanism.charge({"discriminator": steps, "generator": steps}, round=0)
    return mechanism


def flat(sums):
    return torch.cat([value.flatten() for value in sums.values()]).double()


def test_removing_a_patient_moves_the_result_by_at_most_clip_over_batch_and_the_noise_is_the_same():
    def released(taken):
        return flat(charged(randomness=Watched(taken)).step("discriminator", images()))

    everybody = released(range(9))
    moves = [float((everybody - released([i for i in range(9) if i != out])).norm()) for out in range(9)]
    assert max(moves) <= SETTINGS.clip / SETTINGS.batch * (1 + 1e-4)
    assert max(moves) > 0.9 * SETTINGS.clip / SETTINGS.batch


def test_noise_rate_and_batch_are_the_same_to_the_last_bit_for_one_patient_more():
    """Opacus derives the batch from the data: one step then tells n from n + 1 by 18 standard deviations."""
    seen = []
    for n in (9, 10):
        randomness = Watched(taken=[])
        released = charged(n, randomness=randomness).step("discriminator", images(n))
        seen.append((randomness.scales, [rate for _, rate, _ in randomness.rng], flat(released).tolist()))
    assert seen[0] == seen[1]
    assert {scale for _, scale in seen[0][0]} == {PLAN.noise * SETTINGS.clip}
    assert seen[0][1] == [SETTINGS.rate]


def test_the_released_noise_has_the_planned_deviation():
    mechanism = charged(steps=10, randomness=Taken([]))
    found = [flat(mechanism.step("discriminator", images())) for _ in range(10)]
    values = torch.cat(found) * SETTINGS.batch / (PLAN.noise * SETTINGS.clip)
    assert abs(float(values.std()) - 1) < 6 / math.sqrt(2 * len(values))


def test_every_step_and_every_tensor_has_noise_of_its_own():
    """Noise that is used twice is subtracted: by two steps of one network, or by two layers of one shape."""
    net = nn.Sequential(nn.Linear(40, 40), nn.Linear(40, 40), nn.Linear(40, 1), nn.Flatten(0))

    def loss(batch, noise, progress):
        return net(batch["image"])

    phases = {
        "discriminator": PatientGradients(
            net, loss, clip=0.5, slices_per_patient=2, probe=({"image": torch.randn(4, 40)}, {})
        )
    }
    mechanism = GaussianMechanism(PLAN, phases, patients=["a"], randomness=Taken([]), run="r")
    mechanism.charge({"discriminator": 4}, round=0)
    steps = [mechanism.step("discriminator", images()) for _ in range(4)]
    square = torch.stack([step[name].flatten() for step in steps for name in ("0.weight", "1.weight")])
    assert (torch.corrcoef(square) - torch.eye(8)).abs().max() < 6 / math.sqrt(1600)
    rows = torch.stack([step[name].flatten() for step in steps for name in ("0.bias", "1.bias", "2.weight")])
    assert (torch.corrcoef(rows) - torch.eye(12)).abs().max() < 6 / math.sqrt(40)


class Taken(SecretRandomness):
    def __init__(self, taken):
        super().__init__()
        self.taken = taken

    def chosen(self, n, rate):
        return torch.tensor(self.taken, dtype=torch.int64)


def test_an_empty_draw_makes_a_noisy_step_and_is_charged(tmp_path):
    ledger = Ledger("north", tmp_path)
    mechanism = charged(randomness=Taken([]), ledger=ledger, steps=1)
    assert sum(charge.steps for charge in ledger.charges()) == 2
    released = mechanism.step("discriminator", lambda indices: pytest.fail("there is nobody to fetch"))
    assert set(released) == {name for name, _ in network().named_parameters()}
    assert flat(released).abs().min() > 0
    with pytest.raises(RuntimeError, match="not charged"):
        mechanism.step("discriminator", images())


def test_an_infinite_pixel_harms_nothing():
    def fetch(indices):
        batch = {"image": images()(indices)[0]["image"].clone()}
        batch["image"][indices == 3] = math.inf
        return batch, {}

    released = charged(randomness=Watched(range(9))).step("discriminator", fetch)
    without = charged(randomness=Watched([i for i in range(9) if i != 3])).step("discriminator", images())
    torch.testing.assert_close(released, without)


def test_two_private_turns_of_a_step_draw_and_charge_apart(tmp_path):
    ledger, randomness, shown = Ledger("north", tmp_path), Watched(), []

    def fetch(indices):
        shown.append(indices.tolist())
        return images()(indices)

    mechanism = charged(randomness=randomness, ledger=ledger, steps=4)
    for _ in range(4):
        mechanism.step("discriminator", fetch)
        mechanism.step("generator", fetch)
    assert len(randomness.rng) == 8
    assert shown == [drawn for _, _, drawn in randomness.rng if drawn]
    assert any(discriminator != generator for discriminator, generator in zip(shown[::2], shown[1::2], strict=False))
    assert [charge.steps for charge in ledger.charges()] == [4, 4]


def test_nothing_secret_is_seeded_by_the_experiment():
    def released():
        torch.manual_seed(5)
        return flat(charged().step("discriminator", images()))

    assert not torch.equal(released(), released())


def test_the_ledger_is_on_disk_before_the_step_runs(tmp_path):
    ledger = Ledger("north", tmp_path)
    mechanism = opened(ledger=ledger, randomness=Taken([1]))

    def fetch(indices):
        assert [charge.steps for charge in Ledger("north", tmp_path).charges()] == [1]
        return images()(indices)

    with pytest.raises(RuntimeError, match="not charged"):
        mechanism.step("discriminator", fetch)
    mechanism.charge({"discriminator": 1}, round=0)
    mechanism.step("discriminator", fetch)


def test_the_draw_is_by_patient_at_the_declared_rate_whoever_is_there():
    randomness = Watched()
    mechanism = charged(9, randomness=randomness, steps=10)
    for _ in range(10):
        mechanism.step("discriminator", images())
    assert {(n, rate) for n, rate, _ in randomness.rng} == {(9, 0.25)}


def test_a_lost_block_shortens_the_rest_so_that_the_total_stays_within_the_claim(tmp_path):
    ledger = Ledger("north", tmp_path)
    opened(ledger=ledger).charge({"discriminator": 5, "generator": 5}, round=0)  # killed before a step was taken
    mechanism = opened(ledger=ledger)
    assert mechanism.remaining == PLAN.steps - 10
    mechanism.charge({"discriminator": 10, "generator": 10}, round=1)
    with pytest.raises(RefusedError, match="1 private steps are asked for and 0 are left"):
        mechanism.charge({"discriminator": 1}, round=2)
    assert ledger.account().spent.epsilon <= PLAN.claim.epsilon <= SETTINGS.epsilon
    assert ledger.steps_charged("r") == PLAN.steps


def test_another_run_on_the_same_patients_adds_and_its_own_steps_are_whole(tmp_path):
    ledger = Ledger("north", tmp_path)
    charged(ledger=ledger)
    other = opened(ledger=ledger, run="other")
    assert other.remaining == PLAN.steps
    other.charge({"discriminator": 5}, round=0)
    assert ledger.account().steps == 15


def test_a_cap_refuses_a_run_before_it_starts(tmp_path):
    ledger = Ledger("north", tmp_path)
    cap = Budget(epsilon=9.0, delta=1e-5)
    charged(ledger=ledger, cap=cap, steps=10)
    with pytest.raises(RefusedError, match="site north allows epsilon 9"):
        opened(ledger=ledger, run="other", cap=cap)
    assert opened(ledger=ledger, cap=cap).remaining == 10  # the first run may go on: it was counted from the start
    assert len(ledger.charges()) == 2


@pytest.mark.parametrize("better", [{"noise": 1.1}, {"batch": 9}, {"delta": 1e-6}])
def test_a_run_does_not_go_on_under_a_better_claim_than_its_first_steps_kept(tmp_path, better):
    ledger = Ledger("north", tmp_path)
    charged(ledger=ledger)
    noise = PLAN.noise * better.pop("noise", 1.0)
    plan = replace(PLAN, noise=noise, settings=replace(SETTINGS, **better))
    options = {"patients": ["p0"], "run": "r", "ledger": ledger}
    with pytest.raises(RefusedError, match=r"charged under other settings \(noise"):
        GaussianMechanism(plan, {"discriminator": gradients(network())}, randomness=SecretRandomness(), **options)
    with pytest.raises(RefusedError, match="charged under other settings"):
        GaussianMechanism(PLAN, {"discriminator": gradients(network())}, randomness=InsecureRandomness(1), **options)
    worse = replace(PLAN, noise=PLAN.noise / 2)
    again = GaussianMechanism(worse, {"discriminator": gradients(network())}, randomness=SecretRandomness(), **options)
    assert again.remaining == 20


def test_networks_do_not_go_on_that_took_more_steps_than_the_ledger_knows(tmp_path):
    ledger = Ledger("north", tmp_path)
    charged(ledger=ledger)
    mechanism = opened(ledger=ledger)
    mechanism.charge({"discriminator": 20, "generator": 0}, round=1)
    mechanism.check_resumed(30)
    with pytest.raises(RefusedError, match="has taken 31 private steps and the ledger knows 30 of them"):
        mechanism.check_resumed(31)
    phantoms = opened()
    phantoms.check_resumed(20)
    assert phantoms.remaining == PLAN.steps - 20  # counted on from
    mechanism.copy_charges(tmp_path / "copy")
    assert read_ledger(tmp_path / "copy") == ledger.charges("r")
    opened().copy_charges(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    assert opened(ledger=ledger).remaining == 0


def test_where_more_steps_were_taken_than_the_plan_holds_none_are_left(tmp_path):
    """Less than none would refuse even a block without a private step."""
    ledger = Ledger("north", tmp_path)
    charged(ledger=ledger, steps=10)
    options = {"patients": ["p0"], "randomness": SecretRandomness(), "run": "r", "ledger": ledger}
    shorter = GaussianMechanism(replace(PLAN, steps=15), {"discriminator": gradients(network())}, **options)
    phantoms = opened()
    phantoms.check_resumed(PLAN.steps + 5)
    for mechanism in (shorter, phantoms):
        assert mechanism.remaining == 0
        mechanism.charge({}, round=1)
        with pytest.raises(RefusedError, match="1 private steps are asked for and 0 are left"):
            mechanism.charge({"discriminator": 1}, round=1)


def test_an_auditor_at_the_mechanism_sees_a_copy_of_what_leaves_and_nothing_else():
    mechanism, seen = charged(), []
    mechanism.on_release = lambda *shown: seen.append(shown)
    released = mechanism.step("discriminator", images())
    ((phase, shown, progress),) = seen
    assert (phase, progress) == ("discriminator", 1.0)
    torch.testing.assert_close(shown, released, rtol=0, atol=0)
    assert not any(shown[name] is value for name, value in released.items())


def test_unspent_steps_of_a_block_are_lost_when_the_next_is_charged():
    mechanism = charged(steps=3)
    mechanism.charge({"generator": 1}, round=1)
    with pytest.raises(RuntimeError, match="not charged"):
        mechanism.step("discriminator", images())


def test_an_insecure_run_is_not_private_says_so_in_the_ledger_and_pays_a_repeated_round_once(tmp_path):
    ledger = Ledger("north", tmp_path)

    def first_round():
        return charged(randomness=InsecureRandomness(4, "north 0"), ledger=ledger)

    first, again = first_round(), first_round()
    assert not first.private
    assert opened().private
    torch.testing.assert_close(
        first.step("discriminator", images()), again.step("discriminator", images()), rtol=0, atol=0
    )
    assert again.remaining == PLAN.steps - 10
    assert ledger.account().not_private == ("r",)
    assert ledger.steps_charged("r") == 10


def test_a_private_run_that_repeats_a_round_pays_again(tmp_path):
    ledger = Ledger("north", tmp_path)
    charged(ledger=ledger)
    assert charged(ledger=ledger).remaining == PLAN.steps - 20


@pytest.mark.parametrize("change", [{"clip": 0.6}, {"slices_per_patient": 1}])
def test_gradients_clipped_otherwise_than_planned_are_refused(change):
    wrong = gradients(network(), PrivateSettings(**vars(SETTINGS) | change))
    with pytest.raises(ValueError, match="otherwise than the plan"):
        GaussianMechanism(PLAN, {"discriminator": wrong}, patients=["a"], randomness=SecretRandomness(), run="r")


def test_a_patient_listed_twice_would_be_two_units_and_is_refused():
    with pytest.raises(ValueError, match="stands once"):
        GaussianMechanism(
            PLAN, {"discriminator": gradients(network())}, patients=["a", "a"], randomness=SecretRandomness(), run="r"
        )


def test_who_has_no_name_has_no_protection():
    with pytest.raises(RefusedError, match="the patient of every image"):
        GaussianMechanism(
            PLAN, {"discriminator": gradients(network())}, patients=["a", ""], randomness=SecretRandomness(), run="r"
        )


@pytest.mark.parametrize("wrong", [{"denoiser": 1}, {"discriminator": -1}, {"discriminator": 2, "generator": -1}])
def test_unknown_turns_and_negative_steps_are_not_charged(wrong):
    with pytest.raises(ValueError, match="private phases are"):
        opened().charge(wrong, round=0)


def test_views_are_drawn_without_repeats_where_a_patient_has_enough_and_evenly():
    source = SecretRandomness()
    slices_per_patient = sample_slices(source, [5, 2, 1] * 400, 3)
    assert slices_per_patient.shape == (1200, 3)
    assert all(len(set(row.tolist())) == 3 for row in slices_per_patient[::3])
    assert all(set(row.tolist()) == {0, 1} for row in slices_per_patient[1::3])
    assert slices_per_patient[2::3].max() == 0
    counts = slices_per_patient[::3].flatten().bincount(minlength=5)
    assert (counts - 240).abs().max() < 6 * math.sqrt(400 * 0.6 * 0.4)
    nobody = sample_slices(source, [], 3)
    assert (nobody.shape, nobody.dtype) == ((0, 3), torch.int64)


def test_an_insecure_round_asked_for_twice_is_paid_once_even_when_nothing_is_left():
    mechanism = opened(randomness=InsecureRandomness(3))
    mechanism.charge({"discriminator": 20, "generator": 10}, round=1)
    assert mechanism.remaining == 0
    assert mechanism.left_for(1) == 30
    assert mechanism.left_for(2) == 0
    mechanism.charge({"discriminator": 20, "generator": 10}, round=1)
    secret = opened()
    secret.charge({"discriminator": 20, "generator": 10}, round=1)
    assert secret.left_for(1) == 0
    with pytest.raises(RefusedError):
        secret.charge({"discriminator": 20, "generator": 10}, round=1)


def test_networks_are_looked_at_again_in_every_block():
    """A server may send any weights: what they open is found before a patient is drawn for them."""
    net = network()
    gate = net[2]

    def loss(batch, noise, progress):
        score = net(batch["image"])
        return score + torch.relu(gate.bias.sum() - 50) * score.mean()

    probe = {"image": torch.randn(4, 5)}, {}
    phases = {
        "discriminator": PatientGradients(
            net, loss, clip=SETTINGS.clip, slices_per_patient=SETTINGS.slices_per_patient, probe=probe
        )
    }
    mechanism = GaussianMechanism(PLAN, phases, patients=["p0", "p1"], randomness=SecretRandomness(), run="r")
    mechanism.charge({"discriminator": 2}, round=0)
    assert all(value.dtype == torch.float32 for value in mechanism.step("discriminator", images()).values())
    with torch.no_grad():
        gate.bias.fill_(60.0)
    mechanism.charge({"discriminator": 2}, round=1)
    with pytest.raises(RefusedError, match="mixes samples"):
        mechanism.step("discriminator", images())
