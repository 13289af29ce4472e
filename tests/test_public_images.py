"""`--public` names the family and its option."""

from pathlib import Path

import pytest

from fedsynth.api.public_images import with_public
from fedsynth.errors import ConfigError


def test_a_set_names_the_pool_and_phantoms_the_simulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    whole = str(tmp_path / "fans")
    assert with_public({"seed": 3}, None) == {"seed": 3}
    assert with_public({}, "phantoms") == {"generator": "fitted-simulator"}
    assert with_public({}, "fans") == {"generator": "fitted-pool", "options": {"public": whole}}
    assert with_public({"options": {"flip": True}}, Path("fans"))["options"] == {"flip": True, "public": whole}
    spelled = {"generator": "fitted-pool", "options": {"public": "fans"}}
    assert with_public(spelled, None)["options"] == {"public": whole}
    assert spelled["options"] == {"public": "fans"}


@pytest.mark.parametrize(("public", "generator"), [("phantoms", "fitted-pool"), ("fans", "fitted-simulator")])
def test_another_family_is_refused(public: str, generator: str) -> None:
    with pytest.raises(ConfigError, match="leave --generator away"):
        with_public({"generator": generator}, public)
