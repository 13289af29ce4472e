"""What `deploy init` writes, for whom, and with which rights."""

import stat
import subprocess
import tomllib
from configparser import ConfigParser
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedsynth.cli import app
from fedsynth.config import as_table, key_of, read_table
from fedsynth.errors import ConfigError, RefusedError
from fedsynth.federation.deploy import certificate_checks
from fedsynth.federation.deploy.folders import Plan, add_hospital, init, renew
from fedsynth.federation.deploy.run_supervisor import load_settings
from fedsynth.federation.deploy.server_files import INNER_PORT, ServerFile, load_server
from fedsynth.federation.deploy.start_server import check_server
from fedsynth.federation.policy import Policy, load_policy
from fedsynth.federation.site_context import load_site_file

HOSPITAL = {
    "README.md",
    "authority.pem",
    "node.key",
    "node.pub",
    "policy.toml",
    "site.toml",
    "start.sh",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("deploy") / "out"
    arguments = ["deploy", "init", "--sites", "3", "--server", "fed.example.org", "--port", "9443", str(out)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return out


def test_everybody_has_a_folder_with_what_they_need(made: Path) -> None:
    assert {path.name for path in made.iterdir()} == {"authority", "server", "hospital-1", "hospital-2", "hospital-3"}
    for number in (1, 2, 3):
        name = f"hospital-{number}"
        assert {path.name for path in (made / name).iterdir()} == HOSPITAL | {f"fedsynth-{name}.service"}
        public = (made / name / "node.pub").read_bytes()
        assert (made / "server/hospitals" / f"{name}.pub").read_bytes() == public
        private = certificate_checks.read_node_key(made / name / "node.key")
        assert private.public_key() == certificate_checks.read_public_key(made / name / "node.pub")
    keys = {(made / f"hospital-{number}/node.key").read_bytes() for number in (1, 2, 3)}
    assert len(keys) == 3


def test_private_keys_are_their_owners_alone_and_nobody_elses_lie_in_a_folder(made: Path) -> None:
    private = [path for path in made.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()]
    names = {str(path.relative_to(made)) for path in private}
    assert names == {
        "authority/authority.key",
        "server/certificates/server.key",
        "server/certificates/loopback.key",
        *(f"hospital-{number}/node.key" for number in (1, 2, 3)),
    }
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in private)


def test_the_servers_certificates_hold_and_its_file_says_what_was_asked(made: Path) -> None:
    place = load_server(made / "server")
    assert (place.file.host, place.file.port) == ("fed.example.org", 9443)
    assert datetime.fromisoformat(check_server(place)).date() > (datetime.now(UTC) + timedelta(days=700)).date()
    settings = load_settings(place)
    assert (settings.sites, settings.quorum, settings.rounds) == (3, 2, 20)


def test_a_hospitals_files_are_read_as_they_stand(made: Path) -> None:
    site = load_site_file(made / "hospital-2/site.toml")
    assert (site.name, site.address) == ("hospital-2", ("fed.example.org", 9443))
    assert site.key == made / "hospital-2/node.key"
    assert site.authority == made / "hospital-2/authority.pem"
    assert site.store == made / "hospital-2/ledger"
    policy = load_policy(site.policy)
    assert (policy.allow_plain, policy.max_epsilon, policy.networks) == (False, 10.0, None)


def test_the_commented_lines_of_the_policy_are_its_defaults(made: Path) -> None:
    text = (made / "hospital-1/policy.toml").read_text()
    commented = [line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ") and " = " in line]
    shown = tomllib.loads("\n".join(commented))
    default = load_policy(made / "hospital-1/policy.toml")
    numbers = (shown["allow-plain"], shown["min-patients"], shown["answer-every"], shown["secure-sum"])
    assert numbers == (default.allow_plain, default.min_patients, default.answer_every, default.secure_sum)
    assert shown["health-page"] == default.health_page
    assert set(shown) | {"max-epsilon", "delta"} == {key_of(entry.name) for entry in fields(Policy)}


def test_scripts_are_thin_and_units_wait_for_the_old_heartbeat(made: Path, tmp_path: Path) -> None:
    program = tmp_path / "fedsynth"
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    for folder, command in (("server", "serve"), ("hospital-1", "join")):
        script = made / folder / "start.sh"
        done = subprocess.run(
            ["/bin/sh", str(script), "--run"],
            env={"FEDSYNTH": str(program)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == f"deploy {command} {made / folder} --run\n"
        unit = ConfigParser(strict=False, interpolation=None)
        unit.optionxform = str  # type: ignore[assignment, method-assign]
        unit.read_string(next((made / folder).glob("*.service")).read_text())
        service = unit["Service"]
        assert int(service["RestartSec"]) >= 60
        assert service["ReadWritePaths"] == f"/srv/fedsynth/{folder}"
    assert [len((made / name / "README.md").read_text().splitlines()) for name in ("server", "hospital-1")] == [6, 6]


def test_nothing_is_written_over(made: Path) -> None:
    before = {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}
    done = CliRunner().invoke(app, ["deploy", "init", "--sites", "2", "--server", "h.org", str(made)])
    assert (done.exit_code, "exists already" in done.output) == (2, True)
    assert {path: path.read_bytes() for path in made.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--server", "h.org"], "give either --sites N or --name"),
        (["--sites", "2", "--name", "a", "--server", "h.org"], "give either --sites N or --name"),
        (["--sites", "0", "--server", "h.org"], "must be at least 1"),
        (["--sites", "2", "--server", "https://h.org"], "is not a server's name"),
        (["--sites", "2", "--server", "h.org", "--port", "70000"], "a port lies between"),
        (["--sites", "2", "--server", "h.org", "--days", "0"], "a day at least"),
        (["--sites", "2", "--server", "h.org", "--at", "here"], "absolute path"),
        (["--name", "a", "--name", "a", "--server", "h.org"], "each its own"),
        (["--name", "../a", "--server", "h.org"], "is not a name"),
        (["--name", "server", "--server", "h.org"], "is not a name"),
    ],
)
def test_what_is_wrong_is_one_line_and_leaves_nothing(tmp_path: Path, arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(app, ["deploy", "init", *arguments, str(tmp_path / "out")])
    assert (done.exit_code, len(done.output.splitlines())) == (2, 1)
    assert words in done.output
    assert not list(tmp_path.iterdir())


def test_one_more_hospital_gets_a_folder_and_the_server_its_key(tmp_path: Path) -> None:
    out = tmp_path / "out"
    init(out, ("north",), Plan(host="h.org"))
    folder = add_hospital(out, "south")
    assert load_site_file(folder / "site.toml").server == load_site_file(out / "north/site.toml").server
    assert (out / "server/hospitals/south.pub").read_bytes() == (folder / "node.pub").read_bytes()
    assert stat.S_IMODE((folder / "node.key").stat().st_mode) == 0o600
    with pytest.raises(RefusedError, match="there is a hospital of this name"):
        add_hospital(out, "south")


def test_renewed_certificates_are_taken_by_hospitals_as_they_are(tmp_path: Path) -> None:
    out = tmp_path / "out"
    init(out, ("north",), Plan(host="h.org", days=1))
    place = load_server(out / "server")
    soon = datetime.now(UTC) + timedelta(days=2)
    with pytest.raises(ConfigError, match="expired"):
        certificate_checks.check_certificate(place.outer[0], out / "north/authority.pem", host="h.org", now=soon)
    renew(out)
    certificate_checks.check_certificate(place.outer[0], out / "north/authority.pem", host="h.org", now=soon)
    check_server(place)
    (out / "authority/authority.key").unlink()
    with pytest.raises(ConfigError, match="the authority is not here"):
        renew(out)


def test_adding_and_renewing_say_what_to_copy_where(tmp_path: Path) -> None:
    out = tmp_path / "out"
    init(out, ("north",), Plan(host="h.org"))
    before = (out / "server/certificates/server.pem").read_bytes()
    added = CliRunner().invoke(app, ["deploy", "add", str(out), "south"])
    assert (added.exit_code, "server/hospitals/south.pub" in added.output) == (0, True)
    renewed = CliRunner().invoke(app, ["deploy", "renew", str(out), "--days", "30"])
    assert (renewed.exit_code, str(out / "server/certificates") in renewed.output) == (0, True)
    assert (out / "server/certificates/server.pem").read_bytes() != before
    nowhere = CliRunner().invoke(app, ["deploy", "add", str(tmp_path), "west"])
    assert (nowhere.exit_code, len(nowhere.output.splitlines())) == (2, 1)


def test_the_door_for_nginx_is_written_for_this_server(made: Path) -> None:
    server = made / "server"
    text = (server / "nginx.conf").read_text()
    for line in (
        "listen 9443 ssl;",
        "server_name fed.example.org;",
        "ssl_certificate /srv/fedsynth/server/certificates/server.pem;",
        f"server 127.0.0.1:{INNER_PORT};",
        "ssl_protocols TLSv1.2 TLSv1.3;",
        "limit_conn fedsynth_connections",
        "limit_req zone=fedsynth_requests",
        "# ssl_verify_client on;",
        "access_log /var/log/nginx/fedsynth.log fedsynth;",
    ):
        assert line in text
    compose = (server / "compose.yaml").read_text()
    assert '"9443:9443"' in compose
    assert 'network_mode: "service:server"' in compose
    assert (server / ".dockerignore").read_text().splitlines()[1:] == ["*", "!*.whl"]


def test_the_limits_of_the_embedded_proxy_can_be_set(made: Path) -> None:
    text = (made / "server/server.toml").read_text()
    commented = text[text.index("# proxy = ") :].replace("# ", "")
    shown = tomllib.loads("\n".join(line for line in commented.splitlines() if "=" in line or line == "[limits]"))
    defaults = as_table(load_server(made / "server").file)
    assert shown["limits"] == defaults["limits"]
    assert (shown["proxy"], shown["inner-port"]) == ("own", defaults["inner-port"])
    with pytest.raises(ConfigError, match="'body' must be a positive number"):
        read_table(ServerFile, {"host": "x", "limits": {"body": 0}})
    with pytest.raises(ConfigError, match=r"unknown key 'limits.bodi'; did you mean 'body'"):
        read_table(ServerFile, {"host": "x", "limits": {"bodi": 1}})
