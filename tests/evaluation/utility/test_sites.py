"""Networks of single sites and of federations: scored on whose patients, and where there is no number."""

import numpy as np
import pytest

from fedsynth.errors import FedSynthError
from fedsynth.evaluation.utility import benchmark
from fedsynth.evaluation.utility.arm_cache import ArmCache
from fedsynth.evaluation.utility.arm_trainings import Plan
from fedsynth.evaluation.utility.benchmark import run_utility
from fedsynth.evaluation.utility.training_arms import Material, parse_arms
from tests.evaluation.utility.test_benchmark import Known, Oracle, holdout_with_lesion

pytestmark = pytest.mark.usefixtures("few_draws")


class OfSites(Oracle):
    """Knows by which site's members a network was trained; a federated one finds half, and a tuned one a tenth more."""

    def __init__(self, local, *, personal=None):
        super().__init__({})
        self.local, self.personal, self.references = local, personal, []

    def learn(self, sets, *, seed, augment, reference=None, start=None):
        (site, *more) = sorted(set(sets[0].cases["site"]))
        self.references.append((site, set(reference.cases["site"])))
        teaches = 0.9 if more else self.local.get(site, 0.3) if start is None else start.teaches + 0.1
        return Known(teaches=teaches, collapsed=False, seed=seed)

    def learn_federated(self, sites, *, seed, augment, reference=None):
        shares = self.personal or {None: 0.5}
        return {site: Known(teaches=share, collapsed=False, seed=seed) for site, share in shares.items()}


def of_sites(real, learner, *arms):
    plan = Plan(kind="segmentation", arms=[(arm, False) for arm in arms], seeds=1)
    return run_utility(real, None, plan, learner)


def test_a_site_of_few_holdout_patients_has_no_number_of_its_own(half):
    holdout = half.select(role="holdout")
    own = sorted(set(holdout.rows(holdout_with_lesion(half)).cases.query("site == 'hospital-1'")["patient"]))
    assert len(own) > 5
    for left, known in ((5, False), (1, False), (6, True)):
        few = half.rows(np.flatnonzero(~half.cases["patient"].isin(own[left:])))
        found = of_sites(few, OfSites({}), "real", "real-federated").per_site["hospital-1"]
        for name in ("dice/real", "dice/real-federated", "dice_ratio/real-federated"):
            assert found[name].n == left
            assert (found[name].value is not None, found[name].low is not None) == (known, known)
            assert ("fewer than 6 patients" in found[name].why) != known


@pytest.fixture
def any_number(monkeypatch):
    """Sites of few holdout patients have numbers too."""
    monkeypatch.setattr(benchmark, "FEWEST_PATIENTS", 1)


@pytest.mark.usefixtures("any_number")
def test_networks_of_one_site_are_scored_on_its_own_patients(real):
    local = {"hospital-1": 0.2, "hospital-2": 0.8}
    learner = OfSites(local)
    result = of_sites(real, learner, "real", "real-local", "real-federated", "real-federated-fine-tuned")
    dice = {
        site: {name.removeprefix("dice/"): score for name, score in of.items()} for site, of in result.per_site.items()
    }
    for site, share in local.items():
        assert dice[site]["real-local"].value == pytest.approx(2 * share / (1 + share), abs=0.05)
        assert dice[site]["real-federated"].value == pytest.approx(2 * 0.5 / 1.5, abs=0.05)
        assert dice[site]["real-federated-fine-tuned"].value == pytest.approx(2 * 0.6 / 1.6, abs=0.05)
        assert dice[site]["threshold"].low < dice[site]["threshold"].value < dice[site]["threshold"].high
    for arm in ("real-local", "real-federated"):
        counts = [dice[site][arm].n for site in local]
        values = [dice[site][arm].value for site in local]
        assert sum(counts) == result.scores[f"dice/{arm}"].n
        assert result.scores[f"dice/{arm}"].value == pytest.approx(np.average(values, weights=counts))
    assert {site: own for site, own in learner.references if own != set(local)} == {site: {site} for site in local}
    assert result.details["trainings"]["real-federated-fine-tuned"]["steps"] == [7, 7]


@pytest.mark.usefixtures("any_number")
def test_fedbn_networks_are_scored_and_tuned_each_at_its_site(real):
    personal = {"hospital-1": 0.3, "hospital-2": 0.7}
    result = of_sites(real, OfSites({}, personal=personal), "real-federated", "real-federated-fine-tuned")
    for site, share in personal.items():
        for arm, found in (("real-federated", share), ("real-federated-fine-tuned", share + 0.1)):
            assert result.per_site[site][f"dice/{arm}"].value == pytest.approx(2 * found / (1 + found), abs=0.05)


def test_a_strategy_changes_the_federated_arms_alone(real, tmp_path):
    kept = ArmCache(folder=tmp_path)
    learner = OfSites({"hospital-1": 0.2, "hospital-2": 0.8})
    arms = [("real-local", False), ("real-federated", False)]
    for strategy in ("fedavg", "fedprox"):
        plan = Plan(kind="segmentation", arms=arms, seeds=1, federated={"strategy": strategy})
        result = run_utility(real, None, plan, learner, kept=kept)
        assert result.settings["strategy"] == strategy
    assert len(list(tmp_path.glob("*.json"))) == 4  # real-local, mean-image, and real-federated twice


def test_a_hospital_without_members_has_no_network_of_its_own(real):
    cases = real.cases
    gone = (cases["role"] == "member") & (cases["site"] == "hospital-2")
    material = Material(members=real.rows(np.flatnonzero((cases["role"] == "member") & ~gone)), synthetic=None)
    both = Material(members=real.select(role="member"), synthetic=None)
    elsewhere = real.with_cases(cases.assign(site=cases["site"].replace("hospital-2", "hospital-3")))
    with pytest.raises(FedSynthError, match="two hospitals or more"):
        parse_arms(["real-federated"], augmentation="none", material=material, holdout=real)
    for arm, strategy in (
        ("real-local", "fedavg"),
        ("real-federated", "fedbn"),
        ("real-federated-fine-tuned", "fedavg"),
    ):
        with pytest.raises(FedSynthError, match="hospital-3"):
            parse_arms([arm], augmentation="none", material=both, holdout=elsewhere, strategy=strategy)
    assert parse_arms(["real-federated"], augmentation="none", material=both, holdout=elsewhere)
