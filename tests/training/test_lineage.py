"""A start is followed to its root: what earlier runs cost patients stands in every statement of a later one."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedsynth.cli import app
from fedsynth.data import ImageSet
from fedsynth.errors import RefusedError
from fedsynth.privacy.accounting import compose
from fedsynth.runs import Run, create_run
from fedsynth.training.centralised import run_training
from fedsynth.training.checkpoint import Card
from fedsynth.training.lineage import lineage_of
from fedsynth.training.session import prepare
from fedsynth.training.settings import Privacy, TrainSettings
from tests.training.tiny import tiny_set

SETTINGS = TrainSettings(
    generator="mlp",
    images=Path("tiny"),
    steps=2,
    sheets=0,
    private_networks=True,
    options={"latent": 4, "hidden": [8, 8], "discriminator_hidden": [8]},
)


def patients(prefix: str) -> ImageSet:
    images = tiny_set()
    named = images.with_cases(images.cases.assign(patient=prefix + images.cases["patient"]))
    return replace(named, header=replace(named.header, name=f"set-{prefix}"))


def phantoms() -> ImageSet:
    images = tiny_set()
    return replace(images, header=replace(images.header, name="made", provenance={"phantom": {}}))


def told(tmp_path: Path, epsilon: float | None, start: str | None = None, **changes: object) -> TrainSettings:
    private = None
    if epsilon is not None:
        private = Privacy(
            epsilon=epsilon, patients=8, delta=1e-4, expected_batch_size=8, fakes=4, store=tmp_path / "store"
        )
    settings = replace(SETTINGS, privacy=private, private_networks=private is None)
    return replace(settings, start=None if start is None else tmp_path / start, **changes)  # type: ignore[arg-type]


def trained(tmp_path: Path, name: str, images: ImageSet, settings: TrainSettings) -> Card:
    run = create_run(settings, generator=settings.generator, folder=tmp_path / name)
    return run_training(images, settings, run)


def test_a_run_on_other_patients_promises_no_more_than_the_run_it_goes_on_from(tmp_path: Path) -> None:
    """Who was in the first run is promised 10 by it, whatever the second one adds for others."""
    trained(tmp_path, "first", patients("a"), told(tmp_path, 10.0))
    card = trained(tmp_path, "second", patients("b"), told(tmp_path, 4.0, "first"))
    first, second = card.lineage.runs
    assert second.patients[0].disjoint_from == (first.patients[0].digest,)
    assert card.lineage.guarantee().epsilon == first.patients[0].epsilon > 9.9
    assert card.lineage.promised(second).epsilon == second.patients[0].epsilon < 4.001
    assert card.privacy.startswith("epsilon 10 ")
    assert "this run alone epsilon 4" in card.privacy


def test_a_run_on_the_same_patients_costs_them_both(tmp_path: Path) -> None:
    trained(tmp_path, "first", patients("a"), told(tmp_path, 10.0))
    lineage = trained(tmp_path, "second", patients("a"), told(tmp_path, 4.0, "first")).lineage
    mechanisms = [one for run in lineage.runs for group in run.patients for one in group.mechanisms]
    assert lineage.guarantee().epsilon == compose(mechanisms, 1e-4).epsilon > 10.1
    assert lineage.runs[1].patients[0].disjoint_from == ()


def test_patients_who_cannot_be_compared_are_taken_for_the_same(tmp_path: Path) -> None:
    """With another store nobody can tell whether anybody was in both."""
    trained(tmp_path, "first", patients("a"), told(tmp_path, 10.0))
    settings = told(tmp_path, 4.0, "first")
    assert settings.privacy is not None
    elsewhere = replace(settings, privacy=replace(settings.privacy, store=tmp_path / "other"))
    lineage = trained(tmp_path, "second", patients("b"), elsewhere).lineage
    assert (lineage.guarantee().epsilon or 0) > 10.1


@pytest.mark.parametrize("epsilon", [None, 4.0])
def test_own_patients_are_not_declared_public(tmp_path: Path, epsilon: float | None) -> None:
    trained(tmp_path, "first", patients("a"), told(tmp_path, epsilon))
    store = {} if epsilon else {"privacy": replace(told(tmp_path, 4.0).privacy, store=None)}  # type: ignore[type-var]
    declared = told(tmp_path, 4.0, "first", public_start=True, **store)
    with pytest.raises(RefusedError, match="who are not public"):
        prepare(patients("a"), declared)
    some = patients("a").select(patient=["ap0", "ap1"])
    with pytest.raises(RefusedError, match="who are not public"):
        prepare(some, declared)
    assert prepare(patients("b"), declared).lineage.declared


def test_what_a_user_declares_public_stands_in_the_claim_and_makes_nothing_public(tmp_path: Path) -> None:
    trained(tmp_path, "first", patients("a"), told(tmp_path, None))
    card = trained(tmp_path, "second", phantoms(), told(tmp_path, 4.0, "first", public_start=True))
    assert not card.lineage.public
    assert "first (set-a) as public on the word of --public-start of second" in card.privacy
    third = trained(tmp_path, "third", patients("b"), told(tmp_path, 4.0, "second"))
    assert "--public-start of second" in third.privacy
    with pytest.raises(RefusedError, match="'first' learnt from patients of this set"):
        prepare(patients("a"), told(tmp_path, 4.0, "second", privacy=None))


def test_phantoms_do_not_wash_a_plain_run_of_patients(tmp_path: Path) -> None:
    """The images of the run itself are nobody's, those behind its weights are not."""
    trained(tmp_path, "first", patients("a"), told(tmp_path, None))
    card = trained(tmp_path, "second", phantoms(), told(tmp_path, None, "first"))
    assert not card.lineage.public
    assert card.lineage.guarantee().epsilon is None
    with pytest.raises(RefusedError, match=r"without privacy \(first: mlp, 2 steps on set-a"):
        prepare(patients("b"), told(tmp_path, 4.0, "second"))


def test_a_run_that_goes_on_from_phantoms_alone_costs_its_own(tmp_path: Path) -> None:
    first = trained(tmp_path, "first", phantoms(), told(tmp_path, None))
    assert first.lineage.public
    card = trained(tmp_path, "second", patients("a"), told(tmp_path, 4.0, "first"))
    assert not card.lineage.public
    assert card.lineage.guarantee().epsilon == card.lineage.runs[-1].patients[0].epsilon
    assert card.privacy.startswith("epsilon 4 ")
    assert "whole lineage" not in card.privacy


def test_a_chain_is_followed_to_its_root(tmp_path: Path) -> None:
    trained(tmp_path, "first", patients("a"), told(tmp_path, 10.0))
    trained(tmp_path, "second", patients("b"), told(tmp_path, 4.0, "first"))
    lineage = trained(tmp_path, "third", patients("a"), told(tmp_path, 4.0, "second")).lineage
    assert [run.run for run in lineage.runs] == ["first", "second", "third"]
    first, second, third = lineage.runs
    both = compose([first.patients[0].mechanisms[0], third.patients[0].mechanisms[0]], 1e-4).epsilon
    assert lineage.guarantee().epsilon == lineage.promised(first).epsilon == lineage.promised(third).epsilon == both
    assert lineage.promised(second).epsilon == second.patients[0].epsilon
    assert lineage_of(Run(folder=tmp_path / "third")) == lineage


def test_a_card_without_a_lineage_is_no_start_for_a_private_run(tmp_path: Path) -> None:
    trained(tmp_path, "first", phantoms(), told(tmp_path, None))
    card = tmp_path / "first" / "checkpoints" / "generator.toml"
    card.write_text(card.read_text().split("[lineage]")[0].split("[[lineage")[0])
    with pytest.raises(RefusedError, match="does not say how it was trained"):
        prepare(patients("a"), told(tmp_path, 4.0, "first"))


def test_everything_that_people_see_counts_the_whole_lineage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        patients(name).save(tmp_path / name)
    quiet = [
        "-g",
        "mlp",
        "--steps",
        "2",
        "--sheets",
        "0",
        "--option",
        "hidden=8,8",
        "--patients",
        "8",
        "--expected-batch-size",
        "8",
    ]

    def call(*arguments: str) -> str:
        result = CliRunner().invoke(app, list(arguments))
        assert result.exit_code == 0, result.output
        return result.output

    call("train", "a", *quiet, "--epsilon", "10", "--run", "first")
    said = call("train", "b", *quiet, "--epsilon", "4", "--run", "second", "--from", "first")
    assert "privacy  epsilon 10 " in said
    assert "from     first: mlp, 2 steps on set-a, epsilon 10 at delta 1e-05" in said
    call("synthesize", "second", "--count", "4", "--out", "second/synthetic")
    made = ImageSet.load(tmp_path / "second/synthetic").header.provenance
    assert len(made["lineage"]) == 2
    call("export", "second/synthetic", "out")
    assert "first: mlp, 2 steps on set-a" in (tmp_path / "out/README.md").read_text()
    found = json.loads(call("privacy", "second", "--json"))
    assert found["largest"] == found["lineage"]["epsilon"] > 9.9
    assert [round(group["over_lineage"]) for group in found["lineage"]["groups"]] == [10, 4]
    assert "lineage: first: mlp" in call("privacy", "second").replace("\n", " ")
    table = call("compare", "second", "--format", "markdown")
    assert "| 10 (this run alone 4) |" in table
