"""A private release of several hospitals under a secure sum, on the local engine: what the server sees, what it is
told, what is charged and said, and what happens when a hospital goes missing."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Context, Message
from safetensors.torch import load_file

from fedsynth.data import ImageSet
from fedsynth.errors import ConfigError, FedSynthError, RefusedError
from fedsynth.federation import client_app, server_app
from fedsynth.federation.checkpoints import newest_checkpoint
from fedsynth.federation.egress_log import read_egress
from fedsynth.federation.engines.local import run_locally
from fedsynth.federation.error_codes import ErrorCode, NeutralError
from fedsynth.federation.exchange import Order
from fedsynth.federation.messages import TRAIN, read_order, read_outcome
from fedsynth.federation.outputs import finish
from fedsynth.federation.secure_sum import Roster, Secrets, as_bytes, masked, unmasked
from fedsynth.federation.settings import FederationSettings
from fedsynth.federation.simulation import run_rounds
from fedsynth.privacy.ledger import Ledger
from fedsynth.privacy.mechanism import GaussianMechanism
from fedsynth.privacy.patient_statistics import GRID, LARGEST, RELEASE, PatientStatistics
from fedsynth.privacy.plan import PrivateSettings, make_plan
from fedsynth.privacy.report import statement
from fedsynth.privacy.secure_rng import InsecureRandomness
from fedsynth.runs import Run
from fedsynth.training.checkpoint import load_generator
from fedsynth.training.fitting import to_grid
from fedsynth.training.session import prepare, training_members
from fedsynth.training.settings import Privacy
from fedsynth.training.site_storage import SiteStorage
from tests.federation.releases import release_settings, unmarked_patients
from tests.federation.tiny import rows, start

SITES = ("site-0", "site-1", "site-2", "site-3")
AGAINST = "a server that colludes with at most 1 of the 4 sites"
Drop = Callable[[Order, int], bool]


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    return unmarked_patients(tmp_path_factory.mktemp("patients"))


def settings_for(tmp_path: Path, **changes: object) -> FederationSettings:
    return release_settings(tmp_path, **({"sites": 4, "secure_sum": True} | changes))


class Wire:
    """The sites' app with somebody who hears all that they send, and who may keep a site from answering."""

    def __init__(self, drop: Drop = lambda order, site: False) -> None:
        self.drop, self.sent = drop, {}  # type: ignore[var-annotated]

    def __call__(self, message: Message, context: Context) -> Message:
        if message.metadata.message_type != TRAIN:
            return client_app.app(message, context)
        order, received = read_order(message)
        site = int(context.node_config["partition-id"])
        if self.drop(order, site):
            raise NeutralError(ErrorCode.UNREACHABLE)
        reply = client_app.app(message, context)
        outcome, _ = read_outcome(reply)
        self.sent[order.stage, order.attempt, f"site-{site}"] = outcome
        if order.stage == "masked":
            self.roster = Roster(
                experiment=order.experiment,
                round=order.round,
                attempt=order.attempt,
                keys={name: as_bytes(key) for name, key in received.items()},
            )
        return reply

    def of(self, stage: str, name: str) -> dict[str, np.ndarray]:
        """What the sites of the last roster sent."""
        return {site: self.sent[stage, self.roster.attempt, site].arrays[name] for site in self.roster.sites}


def go(run: Run, settings: FederationSettings, wire: Wire) -> None:
    table = settings.to_run_config(run.folder.resolve())
    run_locally(server_app.app, wire, sites=settings.sites, run_config=table, workers=1)  # type: ignore[arg-type]


def kept(run: Run, sites: tuple[str, ...] = SITES) -> dict[str, dict[str, torch.Tensor]]:
    return {site: load_file(run.site(site) / "release.safetensors") for site in sites}


def test_the_server_sees_masked_vectors_and_fits_to_their_exact_sum(tmp_path: Path, patients: ImageSet) -> None:
    settings = settings_for(tmp_path)
    run, wire = start(tmp_path, settings, images=patients), Wire()
    go(run, settings, wire)
    own = {site: to_grid(sums).numpy() for site, sums in kept(run).items()}
    hidden = wire.of("masked", "simulator.masked")
    for site in SITES:
        assert np.abs(hidden[site].view(np.int64) - own[site]).min() > 2**40
        assert set(wire.sent["keys", 0, site].arrays) == {"secure-sum.key"}
        assert wire.sent["masked", 0, site].metrics == {"steps": 0.0, "charged": 1.0}
    spread = np.concatenate(list(hidden.values())).astype(float) / 2**64
    assert abs(spread.mean() - 0.5) < 6 / math.sqrt(12 * len(spread))
    seeds = {site: as_bytes(seed) for site, seed in wire.of("seeds", "secure-sum.seed").items()}
    total = unmasked(hidden, seeds, wire.roster)
    assert np.array_equal(total, sum(own.values()))

    (charge,) = Ledger("site-0", tmp_path / "store").charges()
    shares = [float(sums["simulator.variance"]) for sums in kept(run).values()]
    assert sum(shares) == pytest.approx((charge.noise * LARGEST) ** 2 * 4 / 3)
    family, card = load_generator(run.checkpoints)
    fitted = {name: value.clone() for name, value in family.nets["simulator"].state_dict().items()}
    sums = {name: sum(one[name] for one in kept(run).values()) for name in kept(run)["site-0"]}
    family.fit(0, sums)
    assert all(
        torch.allclose(value.double(), fitted[name].double())
        for name, value in family.nets["simulator"].state_dict().items()
    )
    assert f"the promise of run holds only against {AGAINST}" in card.privacy


def test_charge_record_and_documents_say_what_the_promise_rests_on(tmp_path: Path, patients: ImageSet) -> None:
    settings = settings_for(tmp_path)
    run = start(tmp_path, settings, images=patients)
    run_rounds(settings, run)
    for site in SITES:
        (charge,) = Ledger(site, tmp_path / "store").charges()
        assert (charge.rate, charge.steps, charge.assumption) == (1.0, 1, AGAINST)
        left = [line["content"] for line in read_egress(run.site(site) / "egress.jsonl") if line["message"] == "train"]
        assert [next(iter(content)) for content in left] == ["secure-sum.key", "simulator.masked", "secure-sum.seed"]
        memory = json.loads((run.site(site) / "secure-sum.json").read_text())
        assert (memory["key"], sorted(memory["keys"])) == ("", list(SITES))
    assert len({charge.joint for site in SITES for charge in Ledger(site, tmp_path / "store").charges()}) == 1
    assert [(row["round"], row["site"], row["charged"]) for row in rows(run)] == [("1", site, "1") for site in SITES]
    assert all(7.9 < float(row["epsilon"]) <= 8 for row in rows(run))
    told = statement(run.folder, store=tmp_path / "store")["per_site"]["site-0"]["runs"]
    assert [one["holds_against"] for one in told.values()] == [AGAINST]
    finish(settings, run)
    made = {name: ImageSet.load(run.folder / name).header.provenance for name in ("synthetic", "public")}
    assert AGAINST in made["synthetic"]["privacy"]
    assert "no patient" in made["public"]["privacy"]


def test_the_noise_of_all_sites_together_is_near_that_of_one_curator(tmp_path: Path) -> None:
    """Four sites of nobody: what is left in their sum is noise, 1.15 times the planned, where it was twice that."""
    settings, length = settings_for(tmp_path), 500
    declared = PrivateSettings(epsilon=8.0, delta=1e-5, patients=12, batch=12)
    plan = replace(make_plan(declared, {RELEASE: 1}), release=True, shares=settings.shares)
    secrets = {site: Secrets.fresh() for site in SITES}
    roster = Roster(experiment="r", round=1, attempt=0, keys={site: one.public for site, one in secrets.items()})
    sent = {}
    for number, site in enumerate(SITES):
        nothing = PatientStatistics(lambda batch: batch["image"], length=length - 1)
        mechanism = GaussianMechanism(
            plan, {RELEASE: nothing}, patients=[], randomness=InsecureRandomness(number), run="r"
        )
        mechanism.charge({RELEASE: 1}, round=1)
        noised = mechanism.step(RELEASE, lambda patients: ({}, {}))[RELEASE] * plan.settings.batch
        sent[site] = masked((noised / GRID).round().to(torch.int64).numpy(), secrets[site], site, roster)
    total = unmasked(sent, {site: one.seed for site, one in secrets.items()}, roster) * GRID
    within = 4 / math.sqrt(2 * length)  # four standard errors
    assert total.std() == pytest.approx(plan.noise * math.sqrt(4 / 3), rel=within)
    assert total.std() < (1 - within) * 2 * plan.noise


def test_a_hospital_that_goes_missing_is_left_out_and_the_noise_is_still_enough(
    tmp_path: Path, patients: ImageSet
) -> None:
    settings = settings_for(tmp_path, min_sites=3)
    run = start(tmp_path, settings, images=patients)
    wire = Wire(lambda order, site: site == 3 and order.stage == "masked")
    go(run, settings, wire)
    assert wire.roster.sites == SITES[:3]
    end, _ = newest_checkpoint(run.checkpoints)
    assert end is not None
    assert end.sites == SITES[:3]
    seeds = {site: as_bytes(seed) for site, seed in wire.of("seeds", "secure-sum.seed").items()}
    total = unmasked(wire.of("masked", "simulator.masked"), seeds, wire.roster)
    three = kept(run, SITES[:3])
    assert np.array_equal(total, sum(to_grid(sums).numpy() for sums in three.values()))
    planned = Ledger("site-0", tmp_path / "store").charges()[0].noise * LARGEST
    honest = sorted(float(sums["simulator.variance"]) for sums in three.values())[:2]
    assert sum(honest) == pytest.approx(planned**2)  # of three, one may collude
    assert {row["site"]: row["answered"] for row in rows(run)} == dict.fromkeys(SITES[:3], "true") | {"site-3": "false"}
    assert load_generator(run.checkpoints)[1].trained_on == "3 sites: site-0, site-1, site-2"


def test_a_hospital_that_goes_missing_at_the_end_is_waited_for(tmp_path: Path, patients: ImageSet) -> None:
    settings = settings_for(tmp_path, min_sites=3)
    run = start(tmp_path, settings, images=patients)
    gone = Wire(lambda order, site: site == 3 and (order.stage == "seeds" or order.attempt > 0))
    with pytest.raises(FedSynthError, match="is finished by no others"):
        go(run, settings, gone)
    assert newest_checkpoint(run.checkpoints) == (None, [])
    first = kept(run)
    client_app.forget_everything()
    wire = Wire()
    go(run, settings, wire)
    assert wire.roster.sites == SITES
    assert all(torch.equal(first[site][name], value) for site in SITES for name, value in kept(run)[site].items())
    assert all(len(Ledger(site, tmp_path / "store").charges()) == 1 for site in SITES)
    old, new = gone.sent["masked", 0, "site-0"].arrays, wire.sent["masked", 0, "site-0"].arrays
    assert not np.any(old["simulator.masked"] == new["simulator.masked"])
    go(run, settings, wire)  # a finished run has nothing left to do
    assert len(rows(run)) == 4


def test_a_share_of_noise_never_leaves_as_a_whole_one(tmp_path: Path, patients: ImageSet) -> None:
    """A server that tells a site another story after it has taken its sum: there is too little noise on it."""
    settings = settings_for(tmp_path)
    storage = SiteStorage(folder=tmp_path / "site", run="run", site="here")
    prepare(patients, settings.training(), storage=storage, shares=settings.shares).sums(0)
    with pytest.raises(RefusedError, match="charged under other settings"):
        prepare(patients, settings.training(), storage=storage)
    phantoms = training_members(patients)
    other = SiteStorage(folder=tmp_path / "other", run="run", site="there")
    prepare(phantoms, settings.training(), storage=other, shares=settings.shares).sums(0)
    whole = SiteStorage(folder=tmp_path / "whole", run="run", site="third")
    fresh = prepare(phantoms, settings.training(), storage=whole)
    whole.release.parent.mkdir(parents=True, exist_ok=True)
    whole.release.write_bytes(other.release.read_bytes())
    with pytest.raises(RefusedError, match="other noise than this run plans"):
        fresh.sums(0)


def test_a_hospital_whose_policy_does_not_allow_it_takes_no_part(tmp_path: Path, patients: ImageSet) -> None:
    settings = settings_for(tmp_path)
    run = start(tmp_path, settings, images=patients)
    run.site("site-2").mkdir(parents=True, exist_ok=True)
    (run.site("site-2") / "policy.toml").write_text("max-epsilon = 10\n")
    with pytest.raises(FedSynthError, match="site-2: refused by its policy: secure-sum"):
        run_rounds(settings, run)
    assert not (tmp_path / "store" / "site-2" / "ledger.jsonl").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"privacy": None}, "one noised sum per hospital"),
        ({"federation": "one-shot"}, "one noised sum per hospital"),
        ({"colluding": 4}, "must leave an honest site in every sum"),
        ({"colluding": 0}, "every site knows its own share"),
        ({"colluding": 2, "min_sites": 2}, "must leave an honest site in every sum"),
        ({"sites": 1}, "at least two sites"),
    ],
)
def test_settings_that_have_no_secure_sum(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings_for(tmp_path, **changes)


def test_a_secure_sum_is_for_releases_and_colluding_for_secure_sums() -> None:
    privacy = Privacy(epsilon=8.0, patients=12)
    with pytest.raises(ConfigError, match="--secure-sum is for one noised sum per hospital"):
        FederationSettings(generator="dcgan", privacy=privacy, secure_sum=True)
    with pytest.raises(ConfigError, match="--colluding is for a secure sum"):
        FederationSettings(generator="fitted-simulator", privacy=privacy, colluding=1)


@pytest.mark.parametrize(
    ("sites", "changes", "fewest", "colluding", "honest"),
    [
        (4, {}, 4, 1, 3),
        (2, {}, 2, 1, 1),
        (20, {}, 20, 5, 15),
        (4, {"min_sites": 3}, 3, 1, 2),
    ],
)
def test_all_sites_must_answer_and_a_quarter_may_collude_where_nothing_is_said(
    tmp_path: Path, sites: int, changes: dict[str, object], fewest: int, colluding: int, honest: int
) -> None:
    shares = settings_for(tmp_path, sites=sites, **changes).shares
    assert shares is not None
    assert (shares.sites, shares.fewest, shares.colluding, shares.honest) == (sites, fewest, colluding, honest)
