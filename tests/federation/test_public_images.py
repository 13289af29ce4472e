"""A release that compares patients with a public image set: the same set everywhere, and never by a server's path."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedsynth import train
from fedsynth.data import ImageSet
from fedsynth.data.site_config import SiteEntry, SitesFile
from fedsynth.errors import ConfigError, RefusedError
from fedsynth.federation.client import SiteWork
from fedsynth.federation.error_codes import ErrorCode, OtherPoolError, to_code
from fedsynth.federation.exchange import Arrays, Facts, Order
from fedsynth.federation.handshake import handshake
from fedsynth.federation.messages import Hello, Reply
from fedsynth.federation.outputs import finish
from fedsynth.federation.policy import OPEN
from fedsynth.federation.settings import FederationSettings
from fedsynth.federation.simulation import open_hospitals, rehearse
from fedsynth.federation.site_context import SiteContext, load_site_file, open_site_context
from fedsynth.models.generators.catalog import build
from fedsynth.privacy.ledger import Ledger
from fedsynth.runs import Run
from fedsynth.training.centralised import run_training
from fedsynth.training.checkpoint import load_generator
from fedsynth.training.patient_batches import PatientBatches
from fedsynth.training.session import prepare
from fedsynth.training.site_storage import SiteStorage
from tests.federation.releases import release_settings
from tests.federation.tiny import go, rows, start
from tests.models.pictures import fans, public_fans


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return public_fans(tmp_path_factory.mktemp("public") / "fans")


@pytest.fixture(scope="module")
def patients() -> ImageSet:
    return fans(24, seed=2, name="patient", radius=(3.5, 5.0))


def settings_for(tmp_path: Path, public: Path | str, **changes: object) -> FederationSettings:
    settings = release_settings(tmp_path, **({"sites": 2} | changes))
    return replace(settings, generator="fitted-pool", options={**settings.options, "public": str(public)})


def deployed(tmp_path: Path, images: ImageSet, public: Path | None) -> SiteContext:
    """A real site of its own disk, whose file names that public set."""
    return SiteContext(
        name="north",
        folder=tmp_path / "north",
        policy=OPEN,
        images=lambda: images,
        store=tmp_path / "own",
        public=public,
    )


def order_of(public: str) -> Order:
    return Order(round=1, first_step=0, steps=0, experiment="run-1", public=public)


def test_two_hospitals_release_a_sum_and_what_is_drawn_says_whose_images_it_shows(
    tmp_path: Path, public: Path, patients: ImageSet
) -> None:
    settings = settings_for(tmp_path, public)
    run = start(tmp_path, settings, images=patients)
    go(run, settings)
    assert [(row["site"], row["charged"]) for row in rows(run)] == [("site-0", "1"), ("site-1", "1")]
    finish(settings, run)
    card = load_generator(run.checkpoints)[1]
    assert "epsilon 8" in card.privacy
    for arm in ("synthetic", "placebo", "public"):
        images = ImageSet.load(run.folder / arm)
        told = images.header.provenance
        assert "altered images of the public set 'public-fans'" in told["consists-of"]
        assert told["public-set"]["provenance"]["licence"] == "none needed"
        assert images.masks is not None
        assert images.masks.any()
    assert "no patient" in ImageSet.load(run.folder / "public").header.provenance["privacy"]


@pytest.mark.slow
def test_hospitals_apart_draw_from_one_public_set(tmp_path: Path, public: Path, patients: ImageSet) -> None:
    settings = settings_for(tmp_path, public, federation="one-shot")
    run = start(tmp_path, settings, images=patients)
    go(run, settings)
    finish(settings, run)
    for arm in ("synthetic", "placebo", "public"):
        assert "public-fans" in ImageSet.load(run.folder / arm).header.provenance["consists-of"]


class Stub:
    """Two sites whose handshakes are known; neither must be asked for more."""

    def __init__(self, facts: Mapping[str, Facts]) -> None:
        self.facts = facts

    def handshake(self) -> list[Hello]:
        return [Hello(site=site, facts=facts) for site, facts in self.facts.items()]

    def ask(self, orders: Mapping[str, Order], arrays: Arrays) -> list[Reply]:
        raise AssertionError("nobody may be asked for a sum")


def test_a_site_with_another_pool_is_refused_by_name_before_any_charge(
    tmp_path: Path, public: Path, patients: ImageSet
) -> None:
    other = public_fans(tmp_path / "other", seed=5, name="other-fans")
    settings = settings_for(tmp_path, public, min_sites=1)
    works = {
        name: SiteWork(replace(deployed(tmp_path / name, patients, own), name=name), settings, experiment="run-1")
        for name, own in (("north", public), ("south", other))
    }
    agreement = handshake(settings, Stub({"north": works["north"].facts}))  # type: ignore[arg-type]
    assert agreement.family.public == works["north"].facts.public
    with pytest.raises(ConfigError, match="'south' and the server differ in the public pool") as raised:
        handshake(settings, Stub({name: work.facts for name, work in works.items()}))
    assert "other-fans" in str(raised.value)
    assert "public-fans" in str(raised.value)
    assert not list(tmp_path.rglob("ledger.jsonl"))


@pytest.mark.parametrize("generator", ["fitted-pool", "fitted-simulator"])
def test_a_site_gives_no_sum_to_a_server_with_another_pool(generator: str, tmp_path: Path, public: Path) -> None:
    """The server is not trusted to compare: what it compares patients with stands in every order."""
    from tests.federation.releases import unmarked_patients

    patients = fans(12, seed=2, name="patient") if generator == "fitted-pool" else unmarked_patients(tmp_path)
    settings = settings_for(tmp_path, public, sites=1)
    if generator == "fitted-simulator":
        settings = release_settings(tmp_path, sites=1)
    work = SiteWork(deployed(tmp_path, patients, public), settings, experiment="run-1")
    shown = {name: value.numpy() for name, value in work.fitting.shown(work.family).items()}
    for wrong in ("", "phantoms (0123456789abcdef)"):
        with pytest.raises(OtherPoolError, match="public pool") as raised:
            work.train(order_of(wrong), shown)
        assert to_code(raised.value) is ErrorCode.POOL
    assert not list(tmp_path.rglob("ledger.jsonl"))
    work.train(order_of(work.family.public), shown)
    assert len(Ledger("north", tmp_path / "own").charges()) == 1


def test_a_real_site_opens_its_own_public_set_and_no_path_of_the_servers(
    tmp_path: Path, public: Path, patients: ImageSet
) -> None:
    settings = settings_for(tmp_path, "/somewhere/at/the/server", sites=1)
    work = SiteWork(deployed(tmp_path, patients, public), settings, experiment="run-1")
    assert work.facts.public.startswith("public-fans (")
    with pytest.raises(OtherPoolError, match=r"site\.toml names none"):
        SiteWork(deployed(tmp_path, patients, None), settings_for(tmp_path, public, sites=1), experiment="run-2")


def test_the_sites_file_names_the_public_set(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text("")
    text = 'name = "north"\nimages = "images"\nfolder = "state"\npolicy = "policy.toml"\npublic = "fans"\n'
    (tmp_path / "site.toml").write_text(text)
    assert load_site_file(tmp_path / "site.toml").public == tmp_path / "fans"
    site = open_site_context({"site-file": str(tmp_path / "site.toml")}, tmp_path, "run-1")
    assert site.public == tmp_path / "fans"


def test_patients_of_the_public_set_and_pools_that_do_not_fit_cost_nothing(
    tmp_path: Path, public: Path, patients: ImageSet
) -> None:
    settings = settings_for(tmp_path, public, sites=1).training()
    storage = SiteStorage(folder=tmp_path / "site", run="run")
    given = {"epsilon": 8.0, "patients": 12, "store": tmp_path / "store"}
    with pytest.raises(ConfigError, match="are in the public set"):
        train(public, generator="fitted-pool", options=settings.options, privacy=given, run=tmp_path / "trained")
    assert not (tmp_path / "trained").exists()
    bare = {**settings.options, "public": str(public_fans(tmp_path / "bare", masks=False))}
    with pytest.raises(ConfigError, match="differ in mask-labels"):
        prepare(patients, replace(settings, options=bare), storage=storage).fit()
    assert not (tmp_path / "store").exists()
    (tmp_path / "run").mkdir()
    with pytest.raises(ConfigError, match="are in the public set"):
        run_training(ImageSet.load(public), settings, Run(folder=tmp_path / "run"))
    assert not list(tmp_path.rglob("ledger.jsonl"))


@pytest.mark.parametrize("private", [True, False])
def test_no_answer_of_a_real_site_tells_who_is_in_the_public_set(
    private: bool, tmp_path: Path, public: Path, patients: ImageSet
) -> None:
    """Whoever hands out the public set could put one image into it and look for a refusal: no noise would hide it."""
    settings = settings_for(tmp_path, public, sites=1)
    settings = settings if private else replace(settings, privacy=None)
    shared = np.concatenate([patients.images[:-1], ImageSet.load(public).images[:1]])
    answers = []
    for name, images in (("without", patients), ("with", replace(patients, images=shared))):
        site = deployed(tmp_path / name, images, public)
        work = SiteWork(site, settings, experiment="run-1")
        shown = {key: value.numpy() for key, value in work.fitting.shown(work.family).items()}
        outcome = work.train(order_of(work.family.public), shown)
        answers.append((work.facts, set(outcome.arrays), outcome.metrics, outcome.note))
        log = site.folder / "site.log"
        said = log.read_text() if log.exists() else ""
        assert ("1 of the images are in the public set 'public-fans'" in said) == (name == "with")
    assert answers[0] == answers[1]


def test_the_users_own_process_refuses_a_simulation_with_such_patients(
    tmp_path: Path, public: Path, patients: ImageSet
) -> None:
    shared = np.concatenate([patients.images[:-1], ImageSet.load(public).images[:1]])
    for name, images in (("north", patients), ("south", replace(patients, images=shared))):
        named = {column: name + images.cases[column] for column in ("case", "patient")}
        images.with_cases(images.cases.assign(site=name, **named)).save(tmp_path / name)
    file = SitesFile(site=tuple(SiteEntry(name=name, images=tmp_path / name) for name in ("north", "south")))
    settings = settings_for(tmp_path, public)
    with (
        open_hospitals(file, tmp_path) as hospitals,
        pytest.raises(ConfigError, match=r"site 'south': .*1 of the images are in the public set"),
    ):
        rehearse(settings, hospitals)


def test_a_kept_sum_is_not_sent_beside_another_pool(tmp_path: Path, public: Path, patients: ImageSet) -> None:
    settings = settings_for(tmp_path, public, sites=1).training()
    storage = SiteStorage(folder=tmp_path / "site", run="run")
    prepare(patients, settings, storage=storage).fit()
    other = {**settings.options, "public": str(public_fans(tmp_path / "other", seed=5))}
    with pytest.raises(RefusedError, match="belongs to the public pool public-fans"):
        prepare(patients, replace(settings, options=other), storage=storage).fit()


def test_a_set_of_phantoms_as_pool_makes_no_phantoms_of_patients(tmp_path: Path, patients: ImageSet) -> None:
    marked = fans(20, seed=1, name="made")
    header = replace(marked.header, provenance={"phantom": {"seed": 1}})
    replace(marked, header=header).save(tmp_path / "made")
    family = build("fitted-pool", PatientBatches(patients).shape, public=str(tmp_path / "made"), pool=20)
    assert "phantom" not in family.consists_of()
