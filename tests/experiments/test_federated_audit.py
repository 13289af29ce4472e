"""The audit of a federation: canaries at every hospital, a watch at each of them, its policies and ledgers."""

import os
import signal
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from fedsynth.errors import ConfigError
from fedsynth.experiments.canary_audit import AuditSettings, cost_of
from fedsynth.experiments.federated_audit import (
    charged_sites,
    hold_federated_audit,
    is_federated,
    members_of,
    refuse_federation,
)
from fedsynth.federation import client_app
from fedsynth.privacy.ledger import Ledger
from fedsynth.runs import create_run, open_run
from tests.federation.tiny import SETTINGS, private, start

ASKED = AuditSettings(canaries=40)


def copies(folder: Path) -> list[Path]:
    """Images that lie anywhere below the folder, but for the set itself."""
    return [path for path in folder.rglob("*.npy") if path.parent != folder / "set"]


def test_a_plain_federation_is_caught_at_every_site_and_leaves_no_copies(tmp_path: Path) -> None:
    audited = start(tmp_path, SETTINGS)
    assert is_federated(audited)
    asked = replace(ASKED, canaries=80, claim=0.1)
    place = create_run(SETTINGS, generator="mlp", folder=tmp_path / "audit")
    settings = replace(SETTINGS, rounds=6, local_steps=6)
    found = hold_federated_audit(audited, settings, asked, place)
    client_app.forget_everything()
    assert set(found.bounds) == {"all sites", "site-0", "site-1"}
    assert found.above > 0.8
    assert found.verdict == "fail"
    assert copies(tmp_path) == []
    assert set(found.canaries.sites) == {"site-0", "site-1"}


@pytest.mark.slow
def test_private_hospitals_are_charged_each_in_its_own_ledger(tmp_path: Path) -> None:
    settings = private(tmp_path, insecure=False)
    audited = start(tmp_path, settings)
    sites = members_of(audited)
    charged = charged_sites(sites, settings)
    assert [one.site for one in charged] == ["site-0", "site-1"]
    cost = cost_of(charged, tmp_path / "store", 1e-3)
    assert cost is not None
    assert cost[0] == 0
    place = create_run(settings, generator="mlp", folder=tmp_path / "audit")
    found = hold_federated_audit(audited, settings, ASKED, place)
    client_app.forget_everything()
    assert found.claim == pytest.approx(cost[1], rel=0.01)
    assert found.verdict == "no contradiction found"
    for site in ("site-0", "site-1"):
        assert sum(one.steps for one in Ledger(site, tmp_path / "store").charges()) == settings.total_steps
    again = cost_of(charged, tmp_path / "store", 1e-3)
    assert again is not None
    assert again[0] == pytest.approx(cost[1], rel=0.01)


def test_a_policy_binds_the_audit_too(tmp_path: Path) -> None:
    audited = start(tmp_path, SETTINGS)
    for site in ("site-0", "site-1"):
        audited.site(site).mkdir(parents=True, exist_ok=True)
        (audited.site(site) / "policy.toml").write_text("allow-plain = false\n")
    place = create_run(SETTINGS, generator="mlp", folder=tmp_path / "audit")
    with pytest.raises(Exception, match="polic"):
        hold_federated_audit(audited, SETTINGS, ASKED, place)
    assert copies(tmp_path) == []


def killed(folder: Path) -> int:
    """The exit status of a process of its own, a copy of this one, that is killed at the first steps of an audit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks beside threads: none is needed
        child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        signal.alarm(120)  # rather than hang
        place = create_run(SETTINGS, generator="mlp", folder=folder / "audit")
        audited, asked = open_run(folder / "run"), AuditSettings(canaries=20)
        hold_federated_audit(
            audited, SETTINGS, asked, place, on_step=lambda report, total: os.kill(os.getpid(), signal.SIGKILL)
        )
    finally:
        os._exit(1)


def test_a_killed_audit_leaves_no_image_behind(tmp_path: Path) -> None:
    start(tmp_path, SETTINGS)
    assert killed(tmp_path) == -signal.SIGKILL
    assert (tmp_path / "audit" / "canaries.csv").is_file()
    assert copies(tmp_path) == []


def test_hospitals_that_train_alone_are_no_federation() -> None:
    with pytest.raises(ConfigError, match="each for itself"):
        refuse_federation(replace(SETTINGS, federation="none"))
