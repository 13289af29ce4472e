"""Private training as an expert would attack it: who is read, what is counted, what is charged, what is seeded."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fedsynth.data import ImageSet
from fedsynth.errors import ConfigError, FedSynthError, RefusedError
from fedsynth.models.base import SeededSource
from fedsynth.models.generators.catalog import PRIVATE_STARTED
from fedsynth.privacy.ledger import Ledger
from fedsynth.privacy.plan import PrivateSettings
from fedsynth.privacy.report import statement
from fedsynth.runs import Run, create_run
from fedsynth.training import dp_gradients as private
from fedsynth.training.centralised import run_training
from fedsynth.training.dp_gradients import PrivateGradients, PrivateParts, steps_by_phase
from fedsynth.training.session import Prepared, prepare
from fedsynth.training.settings import Privacy, TrainSettings
from tests.training.tiny import TinyGan, tiny_set

PRIVACY = Privacy(epsilon=4.0, patients=8, delta=1e-4, expected_batch_size=4, fakes=4)
SETTINGS = TrainSettings(
    generator="dcgan", images=Path("tiny"), steps=6, sheets=0, options={"latent": 4, "base": 4}, privacy=PRIVACY
)


def start(tmp_path: Path, settings: TrainSettings = SETTINGS, name: str = "run") -> Run:
    return create_run(settings, generator="dcgan", folder=tmp_path / name)


def kept_in(tmp_path: Path, **changes: object) -> TrainSettings:
    return replace(SETTINGS, privacy=replace(PRIVACY, store=tmp_path / "store", **changes))  # type: ignore[arg-type]


def prepared(images: ImageSet | None = None, **changes: object) -> Prepared:
    settings = replace(SETTINGS, privacy=replace(PRIVACY, **changes))  # type: ignore[arg-type]
    return prepare(tiny_set() if images is None else images, settings)


def test_the_plan_does_not_know_how_many_patients_there_are() -> None:
    few, many = prepared(tiny_set(patients=3)), prepared(tiny_set(patients=9))
    assert few.plan == many.plan
    assert few.card().privacy == many.card().privacy


def test_the_card_counts_nothing_from_patients() -> None:
    images = tiny_set()
    one_class = images.with_cases(images.cases.assign(**{"class": "a"}))
    assert prepared(images).card() == prepared(one_class).card()
    assert prepared(images).card().class_shares == (0.5, 0.5)


def test_every_charged_step_is_on_disk_before_it_is_taken(tmp_path: Path) -> None:
    settings = kept_in(tmp_path)
    seen = []
    ledger = Ledger("centralised", tmp_path / "store")
    run_training(
        tiny_set(),
        settings,
        start(tmp_path, settings),
        on_step=lambda report, total: seen.append(sum(charge.steps for charge in ledger.charges())),
    )
    assert len(seen) == 6
    assert all(charged >= step + 1 for step, charged in enumerate(seen))
    assert seen[-1] == 6


def test_a_lost_block_stays_charged_and_shortens_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedsynth.training.centralised.BLOCK", 2)
    settings = kept_in(tmp_path)
    run = start(tmp_path, settings)

    class Killed(Exception):
        pass

    def kill(report: object, total: int) -> None:
        if report.step == 2:  # type: ignore[attr-defined]
            raise Killed

    with pytest.raises(Killed):
        run_training(tiny_set(), settings, run, on_step=kill)
    card = run_training(tiny_set(), settings, run, resume=True)
    charges = Ledger("centralised", tmp_path / "store").charges()
    assert sum(charge.steps for charge in charges) == 6
    assert card.steps == 4


def test_two_runs_on_the_same_patients_add_up(tmp_path: Path) -> None:
    settings = kept_in(tmp_path)
    ledger = Ledger("centralised", tmp_path / "store")
    run_training(tiny_set(), settings, start(tmp_path, settings, "one"))
    once = ledger.account().spent.epsilon
    run_training(tiny_set(), settings, start(tmp_path, settings, "two"))
    assert once <= 4.0
    assert ledger.account().spent.epsilon > 1.2 * once


def test_the_experiments_seed_seeds_nothing_secret(tmp_path: Path) -> None:
    results = []
    for name in ("one", "two"):
        settings = kept_in(tmp_path)
        run = start(tmp_path, settings, name)
        run_training(tiny_set(), settings, run)
        results.append(load_file(run.checkpoints / "generator.safetensors"))
    assert any(not torch.equal(value, results[1][name]) for name, value in results[0].items())


def test_an_insecure_seed_repeats_and_is_stamped(tmp_path: Path) -> None:
    results = []
    for name in ("one", "two"):
        settings = kept_in(tmp_path, insecure_seed=7)
        run = start(tmp_path, settings, name)
        card = run_training(tiny_set(), settings, run)
        assert card.privacy.startswith("NOT PRIVATE")
        results.append(load_file(run.checkpoints / "generator.safetensors"))
    assert all(torch.equal(value, results[1][name]) for name, value in results[0].items())


def test_phantoms_need_no_store(tmp_path: Path) -> None:
    images = tiny_set()
    phantom = replace(images, header=replace(images.header, provenance={"phantom": {}}))
    settings = kept_in(tmp_path)
    card = run_training(phantom, settings, start(tmp_path, settings))
    assert card.lineage.public
    assert not (tmp_path / "store").exists()


def test_the_generators_gradient_reads_no_patient() -> None:
    """With one insecure seed the generator's first update is the same whatever the images show."""
    images = tiny_set()
    other = replace(images, images=255 - np.asarray(images.images))
    gradients = []
    for shown in (images, other):
        ready = prepared(shown, insecure_seed=1)
        phase = ready.trainer.family.phases[1]
        assert not phase.reads_patients
        _, gradient = ready.trainer.gradients(phase, 0, 0.0, SeededSource(0))
        gradients.append(gradient)
    for first, second in zip(*gradients, strict=True):
        assert torch.equal(first, second)


def test_the_number_of_fakes_is_public_whatever_was_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    ready = prepared(insecure_seed=1)
    gradients = ready.trainer.gradients
    assert isinstance(gradients, PrivateGradients)
    made, drawn, sizes = gradients.parts.made["discriminator"], [], []
    mean, chosen = made.clipped_mean, ready.mechanism.randomness.chosen  # type: ignore[union-attr]
    monkeypatch.setattr(made, "clipped_mean", lambda c, n, p: sizes.append(len(c["label"])) or mean(c, n, p))
    monkeypatch.setattr(ready.mechanism.randomness, "chosen", lambda n, r: drawn.append(chosen(n, r)) or drawn[-1])  # type: ignore[union-attr]
    ready.pay(0, 6)
    for step in range(6):
        gradients(ready.trainer.family.phases[0], step, 0.0, SeededSource(0))
    assert sizes == [PRIVACY.fakes] * 6
    assert len({len(patients) for patients in drawn}) > 1


def test_the_classes_of_the_fakes_are_a_public_prior_whatever_the_patients_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A prior counted from members tells in every step how many of them have a class."""
    images = tiny_set()
    one_class = images.with_cases(images.cases.assign(**{"class": "a"}))
    seen: list[torch.Tensor] = []
    expected_batch_size = private.draw_labels
    monkeypatch.setattr(private, "draw_labels", lambda *given: seen.append(expected_batch_size(*given)) or seen[-1])
    for shown in (images, one_class):
        ready = prepared(shown, insecure_seed=1, fakes=64)
        ready.pay(0, 1)
        for phase in ready.trainer.family.phases:
            ready.trainer.gradients(phase, 0, 0.0, SeededSource(0))
    mixed, alone = torch.cat(seen[:2]), torch.cat(seen[2:])
    assert torch.equal(mixed, alone)
    assert mixed.mean(0).tolist() == pytest.approx([0.5, 0.5], abs=0.25)


def test_turns_are_counted_where_they_are_taken() -> None:
    family = TinyGan(prepared().dataset.shape)
    assert steps_by_phase(family, 5) == {"discriminator": 5}
    family.phases = (replace(family.phases[0], interval=2),)
    assert steps_by_phase(family, 5) == {"discriminator": 3}
    assert steps_by_phase(family, 2, first=1) == {"discriminator": 1}


def test_a_public_warm_start_is_named_and_a_secret_one_refused(tmp_path: Path) -> None:
    plain = replace(SETTINGS, privacy=None, steps=2)
    images = tiny_set()
    phantom = replace(images, header=replace(images.header, provenance={"phantom": {}}))
    run_training(phantom, plain, start(tmp_path, plain, "public"))
    run_training(images, plain, start(tmp_path, plain, "secret"))
    warm = replace(kept_in(tmp_path), start=tmp_path / "public")
    with pytest.raises(FedSynthError, match="the network differs at discriminator"):
        prepare(images, warm)
    small = replace(plain, private_networks=True)
    run_training(phantom, small, start(tmp_path, small, "phantoms"))
    warm = replace(warm, start=tmp_path / "phantoms")
    begun = prepare(images, replace(warm, steps=None))
    assert "phantoms: dcgan, 2 steps on tiny, none: trained without" in begun.card().lineage.history()[0]
    assert (begun.trainer.total_steps, begun.trainer.recipe) == (PRIVATE_STARTED.steps, PRIVATE_STARTED)
    with pytest.raises(RefusedError, match="cannot start from one that was trained without privacy"):
        prepare(images, replace(warm, start=tmp_path / "secret"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epsilon": 0.0}, "epsilon"),
        ({"epsilon": float("inf")}, "epsilon"),
        ({"delta": 0.0}, "delta"),
        ({"delta": 0.5}, "delta"),
        ({"patients": 0}, "declared number of patients"),
        ({"expected_batch_size": 9}, "the batch must lie within the declared patients"),
        ({"slices_per_patient": 0}, "at least one slice"),
        ({"clip": 0.0}, "the clip norm"),
        ({"fakes": 0}, "at least one fake image"),
    ],
)
def test_declared_numbers_out_of_range(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(SETTINGS, privacy=replace(PRIVACY, **changes))  # type: ignore[arg-type]


def test_what_cannot_be_private_is_refused() -> None:
    with pytest.raises(ConfigError, match="read patients as sources"):
        replace(SETTINGS, generator="spade", pairing="label-to-image")
    with pytest.raises(ConfigError, match="--batch is for plain runs; give --expected-batch-size"):
        replace(SETTINGS, batch=8)
    with pytest.raises(ConfigError, match="full precision"):
        prepare(tiny_set(), replace(SETTINGS, precision="bfloat16"))


def test_the_ledger_names_no_patient(tmp_path: Path) -> None:
    settings = kept_in(tmp_path)
    run_training(tiny_set(), settings, start(tmp_path, settings))
    for file in (tmp_path / "store").rglob("*"):
        if file.is_file():
            assert not any(f'"p{i}"' in file.read_text(errors="replace") for i in range(6))
    line = json.loads((tmp_path / "store/centralised/ledger.jsonl").read_text().splitlines()[0])
    assert set(line) == {"unit", "adjacency", "rate", "noise", "steps", "delta", "run", "round", "patients"}


def test_a_run_holds_a_copy_of_its_charges(tmp_path: Path) -> None:
    settings = kept_in(tmp_path)
    run_training(tiny_set(), settings, start(tmp_path, settings, "other"))
    run = start(tmp_path, settings)
    run_training(tiny_set(), settings, run)
    found = statement(run.folder, store=tmp_path / "store")
    own, cumulative = found["per_site"]["centralised"]["runs"], found["largest"]
    assert [cost["steps"] for cost in own.values()] == [6]
    assert cumulative > next(iter(own.values()))["epsilon"]


def test_a_claim_is_never_rounded_down() -> None:
    ready = prepared(epsilon=1.2349, patients=9)
    assert ready.plan is not None
    words = ready.card().privacy.replace(")", " ").replace(";", " ").split()
    assert float(words[1]) >= ready.plan.claim.epsilon
    assert float(words[words.index("(replace-one") + 1]) >= ready.plan.claim.replace_one


def test_images_without_a_patient_cannot_be_protected() -> None:
    images = tiny_set()
    nobody = images.with_cases(images.cases.assign(patient=""), origin="synthetic", split=None)
    with pytest.raises(FedSynthError, match="the patient of every image"):
        prepared(nobody)


def test_the_record_of_a_private_run_tells_no_time(tmp_path: Path) -> None:
    """A step takes longer the more patients were drawn."""
    settings = kept_in(tmp_path)
    run = start(tmp_path, settings)
    run_training(tiny_set(), settings, run)
    with run.rounds.open() as file:
        assert {row["seconds"] for row in csv.DictReader(file)} == {""}


def test_a_run_directory_is_no_store(tmp_path: Path) -> None:
    """Both take a lock of one name, and the run would wait for itself; its receivers would get the salt."""
    settings = replace(SETTINGS, privacy=replace(PRIVACY, store=tmp_path / "run"))
    with pytest.raises(RefusedError, match="the store of ledgers is a run directory"):
        run_training(tiny_set(), settings, start(tmp_path, settings))


def test_two_private_turns_of_one_network_are_refused() -> None:
    """They would be counted, clipped and charged as one."""
    family = TinyGan(prepared().dataset.shape)
    family.phases = (family.phases[0], replace(family.phases[0], interval=2))
    with pytest.raises(ConfigError, match="two private phases"):
        PrivateParts(family, PrivateSettings(epsilon=4.0, delta=1e-4, patients=8, batch=4), augmentation=None)


def test_a_training_free_family_learns_no_class_shares_from_patients() -> None:
    settings = replace(SETTINGS, generator="label-gmm", pairing="label-to-image", options={}, privacy=None)
    images = tiny_set()
    one_class = images.with_cases(images.cases.assign(**{"class": "a"}))
    assert prepare(one_class, settings).card().class_shares == (0.5, 0.5)
