"""A hospital made in a temporary folder, in order first and then broken in one place at a time."""

import json
import os
import re
import shutil
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from fedsynth.cli import app
from fedsynth.config import save_toml
from fedsynth.errors import ConfigError
from fedsynth.federation.deploy.certificates import make_authority, make_node_key, make_server_certificate
from fedsynth.federation.site_check import seconds_apart
from fedsynth.federation.site_file import SiteFile, load_site_file
from fedsynth.images import Header, ImageSet
from fedsynth.privacy.ledger import Charge, Ledger


class Hospital:
    """A folder with everything that a site has; `write` sets keys of its file."""

    def __init__(self, folder):
        self.folder = folder
        self.keys = {
            "name": "north",
            "images": "set",
            "folder": "work",
            "store": "store",
            "policy": "policy.toml",
            "authority": "ca.pem",
            "key": "north.key",
        }
        image_set(folder / "set", "real", ["member"] * 7 + ["holdout"] * 4)
        (folder / "work").mkdir()
        (folder / "policy.toml").write_text("max-epsilon = 8\nmin-patients = 5\n")
        self.authority = make_authority("test")
        (folder / "ca.pem").write_bytes(self.authority.certificate)
        self.key(folder / "north.key", 0o600)

    def key(self, path, rights):
        path.write_bytes(make_node_key("north").private)
        path.chmod(rights)

    def write(self, **changed):
        self.keys |= changed
        save_toml(self.folder / "site.toml", {key: value for key, value in self.keys.items() if value is not None})
        return self.folder / "site.toml"

    def charge(self, steps, patients=("p0", "p1")):
        ledger = Ledger("north", self.folder / "store")
        group = ledger.group(patients)
        charge = Charge(rate=0.5, noise=1.0, steps=steps, delta=1e-5, run="one", round=0, patients=group.digest)
        ledger.charge(charge, group)


def image_set(folder, origin, roles):
    shutil.rmtree(folder, ignore_errors=True)
    rows = [
        {"case": f"c{i}", "patient": f"p{i}", "site": "A", "role": role, "class": "", "slice": ""}
        for i, role in enumerate(roles)
    ]
    header = Header(name="s", origin=origin, channels=("t1",), spacing_mm=(1.0, 1.0))
    images = np.zeros((len(roles), 1, 4, 4), np.uint8)
    ImageSet(header=header, cases=pd.DataFrame(rows, dtype=str), images=images).save(folder)


@pytest.fixture
def hospital(tmp_path):
    before = os.umask(0o022)
    yield Hospital(tmp_path)
    os.umask(before)


def check(path, *options):
    return CliRunner().invoke(app, ["site", "check", str(path), *options])


def findings(path):
    result = check(path, "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == (0 if found["ready"] else 2)
    return {one["what"]: (one["state"], one["text"]) for one in found["findings"]}


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


def test_what_a_group_can_change_is_noted(hospital):
    path = hospital.write()
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


def test_a_site_without_a_server_has_no_certificates_to_show(hospital):
    found = findings(hospital.write(authority=None, key=None))
    assert found["certificates"][0] == found["server"][0] == "note"


def broken(what, change):
    return pytest.param(what, change, id=f"{what}: {change.__name__}")


def missing_policy(hospital):
    hospital.keys["policy"] = "nowhere.toml"
    return "nowhere.toml: there is no such file"


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


class _Health(BaseHTTPRequestHandler):
    late = timedelta(0)

    def do_GET(self):
        self.send_response_only(200)
        self.send_header("date", format_datetime(datetime.now(UTC) - self.late, usegmt=True))
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def serve(hospital):
    """A server on loopback under a certificate for `names`, whose clock is `late`."""
    servers = []

    def start(names=("127.0.0.1",), late=timedelta(0), days=30, now=None):
        pair = make_server_certificate(hospital.authority, names, days=days, now=now)
        (hospital.folder / "server.pem").write_bytes(pair.certificate)
        (hospital.folder / "server.key").write_bytes(pair.key)
        server = HTTPServer(("127.0.0.1", 0), type("Health", (_Health,), {"late": late}))
        server.handle_error = lambda *arguments: None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(hospital.folder / "server.pem", hospital.folder / "server.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return hospital.write(server=f"127.0.0.1:{server.server_port}")

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_server_under_the_authority_is_in_order(serve):
    found = findings(serve())
    assert found["server"][0] == found["clock"][0] == "ok"
    assert "as the server's" in found["clock"][1]


def test_a_server_of_another_host_or_authority_or_time_is_refused(serve, hospital):
    state, text = findings(serve(names=("elsewhere.org",)))["server"]
    assert state == "problem"
    assert "not valid for '127.0.0.1'" in text
    state, text = findings(serve(days=5, now=datetime.now(UTC) - timedelta(days=10)))["server"]
    assert state == "problem"
    assert "expired" in text
    path = serve()
    (hospital.folder / "ca.pem").write_bytes(make_authority("other").certificate)
    assert findings(path)["server"][0] == "problem"


@pytest.mark.parametrize(
    ("late", "words"),
    [(timedelta(minutes=1), "ahead of the server's"), (timedelta(minutes=-10), "behind the server's")],
)
def test_a_clock_that_the_server_would_not_accept_is_told(serve, late, words):
    state, text = findings(serve(late=late))["clock"]
    assert state == "problem"
    assert words in text


def test_a_server_that_does_not_answer_is_noted_and_no_problem(hospital):
    found = findings(hospital.write(server="127.0.0.1:9"))
    assert found["server"][0] == "note"
    assert "not reached" in found["server"][1]


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


def test_waiting_for_an_answer_is_no_difference_of_clocks():
    """On a busy machine the answer, or this program, may take half a minute."""
    asked = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
    answered = asked + timedelta(seconds=40)
    apart = partial(seconds_apart, asked=asked, answered=answered)
    assert [apart(asked + timedelta(seconds=late)) for late in (0, 20, 40)] == [0, 0, 0]
    assert apart(asked - timedelta(seconds=9)) == 9
    assert apart(answered + timedelta(seconds=400)) == -400
