"""A hospital that is in order first and then broken in one place at a time."""

import os
import re
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from fedsynth.data import ImageSet
from fedsynth.errors import ConfigError
from fedsynth.federation.deploy.certificates import make_authority
from fedsynth.federation.site_context import SiteFile, load_site_file
from tests.federation.hospital import Hospital, check, findings, image_set


@pytest.fixture
def hospital(tmp_path):
    before = os.umask(0o022)
    yield Hospital(tmp_path)
    os.umask(before)


def test_a_hospital_in_order_is_ready(hospital):
    hospital.charge(1)
    found = findings(hospital.write())
    assert {what: state for what, (state, _) in found.items()} == {
        "policy": "ok",
        "images": "ok",
        "ledger": "ok",
        "budget": "ok",
        "folder": "ok",
        "store": "ok",
        "rights": "ok",
        "certificates": "ok",
        "server": "note",
        "clock": "ok",
    }
    assert "4 x 4, 1 channel(s), roles member and holdout" in found["images"][1]
    assert "1 run(s) were charged" in found["ledger"][1]
    assert " of 8 is spent" in found["budget"][1]
    shown = check(hospital.folder / "site.toml")
    assert shown.exit_code == 0
    assert shown.stdout.splitlines()[-1] == "Ready to join."
    assert len(shown.stdout.splitlines()) == len(found) + 1


def test_a_public_set_is_looked_at_where_one_is_named(hospital):
    own = ImageSet.load(hospital.folder / "set")
    own.with_cases(own.cases, name="archive", provenance={"source": "an archive"}).save(hospital.folder / "public")
    assert "public" not in findings(hospital.write())
    state, text = findings(hospital.write(public="public"))["public"]
    assert state == "ok"
    assert text.startswith("archive, 4 x 4, sha256 ")


def test_what_a_group_can_change_and_images_of_everybody_are_noted(hospital):
    path = hospital.write()
    (hospital.folder / "set").chmod(0o777)
    assert findings(path)["rights"][0] == "note"
    (hospital.folder / "set").chmod(0o755)
    path.chmod(0o664)
    state, text = findings(path)["rights"]
    assert state == "note"
    assert "its group can change" in text


def test_nothing_is_left_behind(hospital):
    hospital.charge(1)
    path = hospital.write()
    before = sorted(hospital.folder.rglob("*"))
    check(path)
    assert sorted(hospital.folder.rglob("*")) == before


def test_no_lock_is_left_in_a_store_without_a_ledger(hospital):
    (hospital.folder / "store").mkdir(mode=0o700)
    path = hospital.write()
    before = sorted(hospital.folder.rglob("*"))
    assert findings(path)["budget"] == ("ok", "epsilon 0 of 8 is spent")
    assert sorted(hospital.folder.rglob("*")) == before


def test_a_folder_far_above_that_everybody_can_change_is_a_problem(hospital, tmp_path):  # under its umask
    (tmp_path / "srv" / "hospitals" / "north").mkdir(parents=True)
    path = Hospital(tmp_path / "srv" / "hospitals" / "north").write()
    for rights, state in ((0o777, "problem"), (0o1777, "ok"), (0o755, "ok")):
        (tmp_path / "srv").chmod(rights)
        found, text = findings(path)["rights"]
        assert found == state, text
    (tmp_path / "srv").chmod(0o777)
    assert f"{tmp_path / 'srv'}: everybody on this machine can change it" in findings(path)["rights"][1]


def test_a_site_without_a_server_has_no_certificates_to_show(hospital):
    found = findings(hospital.write(authority=None, key=None))
    assert found["certificates"][0] == found["server"][0] == "note"


def broken(what, change):
    return pytest.param(what, change, id=f"{what}: {change.__name__}")


def missing_policy(hospital):
    hospital.keys["policy"] = "nowhere.toml"
    return "nowhere.toml: there is no such file"


def public_set_without_source(hospital):
    image_set(hospital.folder / "public", "real", ["member"] * 3)
    hospital.keys["public"] = "public"
    return "does not say where its images come from"


def public_set_of_its_own_patients(hospital):
    own = ImageSet.load(hospital.folder / "set")
    shown = np.random.default_rng(0).integers(0, 256, own.images.shape, np.uint8)
    own = replace(own, images=shown).save(hospital.folder / "shown")
    own.with_cases(own.cases, provenance={"source": "this hospital"}).save(hospital.folder / "public")
    hospital.keys["images"] = "shown"
    hospital.keys["public"] = "public"
    return "11 of the images are in the public set"


def policy_with_a_typo(hospital):
    (hospital.folder / "policy.toml").write_text("max-epsilom = 1")
    return "did you mean 'max-epsilon'"


def policy_that_forbids_everything(hospital):
    (hospital.folder / "policy.toml").write_text("max-epsilon = 0")
    return "no run could ever pass.*max-epsilon = 0"


def no_images(hospital):
    hospital.keys["images"] = "nowhere"
    return "there is no such folder"


def synthetic_images(hospital):
    image_set(hospital.folder / "set", "synthetic", ["member"] * 7)
    return "these images are synthetic"


def no_members(hospital):
    image_set(hospital.folder / "set", "real", ["holdout"] * 7)
    return "no patient is a member.*fedsynth split"


def too_few_members(hospital):
    image_set(hospital.folder / "set", "real", ["member"] * 4 + ["holdout"] * 9)
    return r"fewer patients than min-patients = 5$"


def damaged_ledger(hospital):
    hospital.charge(1)
    path = hospital.folder / "store" / "north" / "ledger.jsonl"
    path.write_text("nonsense\n" + path.read_text())
    return "row 1: the ledger is damaged.*restore it from a backup"


def open_store(hospital):
    hospital.charge(1)
    (hospital.folder / "store").chmod(0o755)
    return "others on this machine can open it.*chmod 700"


def open_salt(hospital):
    hospital.charge(1)
    (hospital.folder / "store" / "salt").chmod(0o644)
    return "others on this machine can open it.*chmod 600"


def spent(hospital):
    hospital.charge(200)
    return "no private run fits any more"


def file_for_a_folder(hospital):
    (hospital.folder / "work").rmdir()
    (hospital.folder / "work").write_text("")
    return "cannot be written"


def expired(hospital):
    past = make_authority("old", now=datetime.now(UTC) - timedelta(days=365 * 11))
    (hospital.folder / "ca.pem").write_bytes(past.certificate)
    return "expired on"


def not_yet_valid(hospital):
    later = make_authority("new", now=datetime.now(UTC) + timedelta(days=2))
    (hospital.folder / "ca.pem").write_bytes(later.certificate)
    return "valid from.*clock"


def key_of_others(hospital):
    hospital.key(hospital.folder / "north.key", 0o644)
    return "others can read this private key.*chmod 600"


def no_key(hospital):
    hospital.keys["key"] = None
    return "names no key.*deploy init"


def no_certificate(hospital):
    (hospital.folder / "ca.pem").write_text("nonsense")
    return "is not a certificate"


def clock_behind(hospital):
    (hospital.folder / "work" / "log").write_text("")
    os.utime(hospital.folder / "work" / "log", (time.time() + 3600,) * 2)
    return "the clock is behind files"


def open_policy(hospital):
    (hospital.folder / "policy.toml").chmod(0o666)
    return r"policy\.toml: .*everybody on this machine can change it.*chmod o-w"


def open_folder(hospital):
    hospital.folder.chmod(0o777)
    return "everybody on this machine can change it"


def open_state(hospital):
    (hospital.folder / "work" / "log").write_text("")
    (hospital.folder / "work" / "log").chmod(0o602)
    return r"log: .*everybody on this machine can change it"


@pytest.mark.parametrize(
    ("what", "change"),
    [
        broken("rights", open_policy),
        broken("rights", open_folder),
        broken("rights", open_state),
        broken("policy", missing_policy),
        broken("policy", policy_with_a_typo),
        broken("policy", policy_that_forbids_everything),
        broken("images", no_images),
        broken("images", synthetic_images),
        broken("images", no_members),
        broken("images", too_few_members),
        broken("public", public_set_without_source),
        broken("public", public_set_of_its_own_patients),
        broken("ledger", damaged_ledger),
        broken("ledger", open_store),
        broken("ledger", open_salt),
        broken("budget", spent),
        broken("folder", file_for_a_folder),
        broken("certificates", expired),
        broken("certificates", not_yet_valid),
        broken("certificates", key_of_others),
        broken("certificates", no_key),
        broken("certificates", no_certificate),
        broken("clock", clock_behind),
    ],
)
def test_what_is_wrong_is_told_with_its_remedy(hospital, what, change):
    words = change(hospital)
    state, text = findings(hospital.write())[what]
    assert state == "problem"
    assert re.search(words, text), text
    assert check(hospital.folder / "site.toml").stdout.endswith("Not ready.\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = 'a'\nimages = 'b'", "the key 'folder' is missing"),
        ("name = ''\nimages = 'b'\nfolder = 'c'\npolicy = 'd'", "a site needs a name"),
        ("name = 'a'\nimages = 'b'\nfolder = 'c'\npolicy = 'd'\nserver = 'https://host'", "must be HOST or HOST:PORT"),
        ("name = 'a'\nimages = 'b'\nfolder = 'c'\npolicy = 'd'\nserver = 'host:99999'", "must be HOST or HOST:PORT"),
        ("name = 'a'\nimages = 'b'\nfolder = 'c'\npolcy = 'd'", "did you mean 'policy'"),
    ],
)
def test_a_wrong_site_file_is_one_line_and_exit_code_2(tmp_path, text, words):
    (tmp_path / "site.toml").write_text(text)
    for path in (tmp_path / "site.toml", tmp_path / "nowhere.toml"):
        result = check(path)
        assert result.exit_code == 2
        assert len(result.stderr.splitlines()) == 1
    assert re.search(words, check(tmp_path / "site.toml").stderr)


def test_paths_start_at_the_files_own_folder(tmp_path, monkeypatch):
    (tmp_path / "site.toml").write_text(
        "name = 'a'\nimages = 'set'\nfolder = '/work'\npolicy = 'p'\nserver = 'fed.example.org'\n"
    )
    monkeypatch.setenv("FEDSYNTH_STORE", str(tmp_path / "own"))
    read = load_site_file(tmp_path / "site.toml")
    assert read.images == (tmp_path / "set").resolve()
    assert (str(read.folder), read.policy, read.ledger_store) == ("/work", (tmp_path / "p").resolve(), tmp_path / "own")
    assert read.address == ("fed.example.org", 443)
    with pytest.raises(ConfigError):
        SiteFile(name=" ", images=tmp_path, folder=tmp_path, policy=tmp_path)
