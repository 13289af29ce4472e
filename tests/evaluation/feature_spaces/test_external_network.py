"""Networks from outside: only with a statement, and only if they saw members and holdout alike."""

import hashlib
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from fedsynth.data import ImageSet
from fedsynth.data.format import Header
from fedsynth.errors import ConfigError, FedSynthError, RefusedError
from fedsynth.evaluation.feature_spaces import spaces_named
from fedsynth.evaluation.feature_spaces.encoder import Encoder, save_network
from fedsynth.evaluation.feature_spaces.external_network import load_outside

ROLES = ("member", "member", "holdout", "holdout", "reference")


@pytest.fixture
def real() -> ImageSet:
    images = np.random.default_rng(0).integers(0, 255, (5, 2, 16, 16), dtype=np.uint8)
    images[4] = 9
    names = [f"p{number}" for number in range(5)]
    cases = pd.DataFrame({"case": names, "patient": names, "site": "", "role": ROLES, "class": "", "slice": ""})
    header = Header(name="real", origin="real", channels=("a", "b"), spacing_mm=(1.0, 1.0))
    return ImageSet(header=header, cases=cases, images=images)


def script(path: Path, network: nn.Module) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(network), str(path))
    return path


def state(path: Path, **lines: object) -> Path:
    stated = {"trained-on": "pictures of boats", "saw": "neither", "sha256": hash_of(path)} | lines
    text = "".join(f"{key} = {value!r}\n" for key, value in stated.items())
    path.with_name(path.name + ".toml").write_text(text)
    return path


def hash_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return script(tmp_path / "boats.pt", nn.Sequential(nn.Conv2d(2, 3, 3, 2), nn.Flatten()))


def test_a_stated_network_is_a_space_that_sees_mirrored_copies(weights: Path, real: ImageSet):
    (space,) = spaces_named((str(state(weights)),), real)
    space.fit(real, seed=0)
    assert space.name == "boats"
    features = space.features(real)
    assert features.shape == (5, 147)
    mirrored = ImageSet(header=real.header, cases=real.cases, images=np.asarray(real.images)[..., ::-1])
    plain, turned = space.views(mirrored)
    np.testing.assert_allclose(turned[:4], features[:4], atol=1e-5)
    assert np.linalg.norm(plain[0] - features[0]) > 0.1


def test_grey_three_channel_networks_of_another_size_take_every_set(tmp_path: Path, real: ImageSet):
    path = script(tmp_path / "big.pt", nn.Sequential(nn.Conv2d(3, 2, 5, 5), nn.Flatten(), nn.Linear(2 * 36, 4)))
    space = load_outside(state(path, channels=3, size=30), real)
    space.fit(real, seed=0)
    assert space.features(real).shape == (5, 4)


def test_without_a_statement_it_is_refused_and_told_what_to_write(weights: Path, real: ImageSet):
    with pytest.raises(RefusedError, match=f"boats.pt.toml.*{hash_of(weights)}"):
        load_outside(weights, real)


def test_a_statement_of_other_weights_is_refused(weights: Path, real: ImageSet):
    with pytest.raises(RefusedError, match="other weights"):
        load_outside(state(weights, sha256="0" * 64), real)


@pytest.mark.parametrize("saw", ["members", "holdout", "unknown"])
def test_networks_that_saw_roles_unequally_are_refused(weights: Path, real: ImageSet, saw: str):
    with pytest.raises(RefusedError, match="unequally"):
        load_outside(state(weights, saw=saw), real)


def test_the_patients_it_saw_are_counted_by_role(weights: Path, real: ImageSet):
    load_outside(state(weights, saw="both", patients=["p0", "p2"]), real)
    with pytest.raises(RefusedError, match="50% of the member patients, 0% of the holdout"):
        load_outside(state(weights, saw="both", patients=["p0", "somebody"]), real)
    with pytest.raises(ConfigError, match="neither"):
        load_outside(state(weights, saw="neither", patients=["p1"]), real)
    with pytest.raises(ConfigError, match="trained-on"):
        load_outside(state(weights, **{"trained-on": " "}), real)


def test_files_that_are_no_networks_are_named(tmp_path: Path, real: ImageSet, weights: Path):
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"nothing")
    with pytest.raises(ConfigError, match=r"broken.pt: is not a TorchScript"):
        load_outside(state(broken), real)
    with pytest.raises(ConfigError, match="no such file"):
        load_outside(tmp_path / "absent.pt", real)
    odd = script(tmp_path / "odd.pt", nn.Conv2d(7, 1, 3))
    space = load_outside(state(odd), real)
    with pytest.raises(ConfigError, match="cannot take images"):
        space.fit(real, seed=0)


class Bad(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=[2, 3]) / 0


def test_a_network_that_gives_no_numbers_is_named(tmp_path: Path, real: ImageSet):
    with pytest.raises(FedSynthError, match="no finite row"):
        load_outside(state(script(tmp_path / "bad.pt", Bad())), real).fit(real, seed=0)


def test_an_encoder_trained_elsewhere_is_taken_up_as_it_is(tmp_path: Path, real: ImageSet):
    trained = Encoder(steps=2)
    trained.fit(real, seed=5)
    path = tmp_path / "elsewhere.safetensors"
    assert trained.network is not None
    save_network(path, trained.network, channels=2, cells=(16, 16))
    space = load_outside(state(path), real)
    space.fit(real, seed=0)
    assert space.name == "elsewhere"
    np.testing.assert_allclose(space.features(real)[:4], trained.features(real)[:4], atol=1e-6)
    save_network(path, trained.network, channels=3, cells=(16, 16))
    with pytest.raises(ConfigError, match="other images"):
        load_outside(state(path), real).fit(real, seed=0)
