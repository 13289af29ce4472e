"""What Flower would send to every hospital: looked at inside, with files lying about that must stay at home."""

import io
import shutil
import tomllib
import zipfile
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk
from flwr.common.config import get_fused_config_from_dir

import fedsynth
from fedsynth.errors import FedSynthError
from fedsynth.federation.deploy.folders import Plan, init
from fedsynth.federation.deploy.run_supervisor import is_trained, load_settings, write_bundle
from fedsynth.federation.deploy.server_files import ServerFolder, load_server
from fedsynth.federation.flower_start import APPS
from fedsynth.federation.settings import FederationSettings, default_run_config, from_run_config
from fedsynth.runs import Run

pytestmark = pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")  # in Flower's own code

ROOT = Path(fedsynth.__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LYING_ABOUT = (
    "ledger.json",
    "hospital/ledger.jsonl",
    "hospital/site.toml",
    "hospital/policy.toml",
    "cohort/imageset.toml",
    "notes.md",
    "notes.py",
    "fedsynth/ledger.json",
    "fedsynth/privacy/patients.toml",
    "sites/four.toml",
    "tests/test_it.py",
)


def _inside(bundle: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(bundle)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def test_the_projects_bundle_is_code_licence_and_readme(tmp_path: Path) -> None:
    if not (ROOT / ".gitignore").exists():
        pytest.skip("not a checkout")
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("__init__.py", "federation/client_app.py", "federation/server_app.py"):
        (tmp_path / "fedsynth" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "fedsynth" / name, tmp_path / "fedsynth" / name)
    for name in LYING_ABOUT:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    inside = _inside(build_fab_from_disk(tmp_path))
    code = {"fedsynth/__init__.py", "fedsynth/federation/client_app.py", "fedsynth/federation/server_app.py"}
    assert set(inside) == code | {"pyproject.toml", "README.md", "LICENSE", ".info/CONTENT"}


def test_the_projects_defaults_are_those_of_the_settings() -> None:
    app = PROJECT["tool"]["flwr"]["app"]
    assert app["config"] == default_run_config()
    assert app["components"] == APPS
    settings, _ = from_run_config(app["config"] | {"run": "somewhere"})
    assert settings == FederationSettings()


def test_flower_reads_the_version_that_python_does() -> None:
    assert PROJECT["project"]["version"] == fedsynth.__version__


@pytest.fixture
def place(tmp_path: Path) -> ServerFolder:
    init(tmp_path / "out", ("a", "b"), Plan(host="localhost"))
    return load_server(tmp_path / "out" / "server")


def test_hospitals_get_a_bundle_without_code_that_says_what_is_trained(place: ServerFolder) -> None:
    settings = load_settings(place)
    folder = write_bundle(place, settings)
    inside = _inside(build_fab_from_disk(folder))
    assert set(inside) == {"pyproject.toml", ".info/CONTENT"}
    told = tomllib.loads(inside["pyproject.toml"].decode())["tool"]["flwr"]["app"]
    assert told["components"] == APPS
    assert from_run_config(told["config"]) == (settings, place.run)
    assert told["config"]["nodes"] == str(place.nodes)
    assert from_run_config(get_fused_config_from_dir(folder, {})) == (settings, place.run)
    assert place.run.is_absolute()


def test_private_settings_travel_whole(place: ServerFolder) -> None:
    place.settings.write_text(
        'generator = "wgan"\nsites = 2\nrounds = 3\n[options]\nbase = 8\n[privacy]\nepsilon = 4.0\npatients = 12\n'
    )
    settings = load_settings(place)
    told = tomllib.loads((write_bundle(place, settings) / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    assert from_run_config(told["config"])[0] == settings
    assert settings.privacy is not None


@pytest.mark.parametrize(
    ("generator", "words"),
    [("dcgann", "did you mean 'dcgan'"), ("unet", "unknown"), ("label-gmm", "nothing to federate")],
)
def test_what_cannot_be_trained_is_refused_before_a_hospital_joins(
    place: ServerFolder, generator: str, words: str
) -> None:
    text = place.settings.read_text()
    place.settings.write_text(text.replace('"dcgan"', f'"{generator}"'))
    with pytest.raises(FedSynthError, match=words):
        load_settings(place)


def test_a_run_that_was_killed_while_it_released_is_not_yet_trained(place: ServerFolder) -> None:
    checkpoints = Run(folder=place.run).checkpoints
    checkpoints.mkdir(parents=True)
    for name, trained in (
        ("discriminator.safetensors", False),
        ("generator.safetensors", False),
        ("generator.toml", True),
    ):
        (checkpoints / name).write_text("")
        assert is_trained(place) is trained
