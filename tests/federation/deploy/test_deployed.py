"""The whole of it on loopback: a server and three hospitals as processes of their own, killed without warning.

TLS, node authentication and the proxy are on. Every process carries a mark in its environment, by which each is found
and ended by its own number, whatever became of its parents and of the test.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedsynth import config
from fedsynth.data import ImageSet
from fedsynth.data.site_config import SiteEntry, SitesFile
from fedsynth.federation.deploy.certificates import make_node_key
from fedsynth.federation.deploy.cost_estimate import count_cost
from fedsynth.federation.deploy.flower_programs import Flower, program
from fedsynth.federation.deploy.nginx_files import nginx_files
from fedsynth.federation.deploy.run_supervisor import load_settings, write_bundle
from fedsynth.federation.deploy.server_files import load_server
from fedsynth.federation.exchange import Facts
from fedsynth.federation.flower_start import free_port
from fedsynth.federation.simulation import begin, open_hospitals, run_rounds
from fedsynth.models.mixture import SiteMixture
from fedsynth.privacy.ledger import read_ledger
from fedsynth.training.checkpoint import load_generator
from tests.federation.deploy.deployment import (
    MARK,
    PATIENCE,
    SITES,
    Deployment,
    keep_running,
    open_deployment,
    wait_until,
)
from tests.federation.web_proxy import WebProxy

pytestmark = [pytest.mark.deployed, pytest.mark.skipif(sys.platform != "linux", reason="looks processes up in /proc")]

PLAIN = """
generator = "dcgan"
sites = 3
rounds = 2
local-steps = 3
min-sites = 3
batch = 8
count = 6
[options]
base = 8
"""
ONE_SHOT = """
generator = "two-stage"
federation = "one-shot"
sites = 3
rounds = 2
local-steps = 2
min-sites = 3
batch = 4
count = 6
[options]
base = 4
latent = 4
maps = "phantom-maps"
tissue = 0
"""


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    with open_deployment(tmp_path, "localhost", SITES) as made:
        yield made


def _south(deployment: Deployment) -> list[str]:
    """Whether the hospital that is killed answered, round by round."""
    return [row["answered"] for row in deployment.rows() if row["site"] == "south"]


def _counted(deployment: Deployment) -> int:
    """What `fedsynth deploy cost` would have said before."""
    images = ImageSet.load(deployment.out.parent / "north")
    settings = load_settings(load_server(deployment.out / "server"))
    return count_cost(settings, Facts.of(images)).bytes_down


def test_a_killed_hospital_and_a_killed_server_come_back_and_the_run_ends(deployment: Deployment) -> None:
    server = deployment.start("server", "--run")
    wait_until(lambda: "open at" in deployment.said("server"), "open")
    hospitals, pause = {name: deployment.start(name) for name in SITES}, dict[str, float]()

    def keeping(condition: Callable[[], bool]) -> Callable[[], bool]:
        def kept() -> bool:
            keep_running(deployment, hospitals, pause)
            return condition()

        return kept

    wait_until(keeping(lambda: len(deployment.rows()) >= 3), "at the end of round 1")
    deployment.kill(hospitals["south"])
    pause["south"] = time.monotonic() + 65  # as long as its unit waits
    wait_until(keeping(lambda: _south(deployment)[-1:] == ["false"]), "without the killed hospital")
    wait_until(keeping(lambda: _south(deployment)[-1:] == ["true"]), "with the hospital that came back")
    deployment.kill(server)
    assert (deployment.run / "checkpoints").exists()
    server = deployment.start("server", "--run")
    wait_until(keeping(lambda: server.poll() is not None), "at the end of the run")

    assert server.returncode == 0, deployment.said("server")[-3000:]
    rows = deployment.rows()
    assert sorted({row["round"] for row in rows}) == list("1234567")
    assert {row["site"]: row["reason"] for row in rows if row["answered"] == "false"} == {"south": "cannot be reached"}
    assert {row["bytes_down"] for row in rows if row["answered"] == "true"} == {str(_counted(deployment))}
    last = {row["site"]: row["answered"] for row in rows if row["round"] == "7"}
    assert last == dict.fromkeys(SITES, "true")
    assert (deployment.run / "checkpoints" / "generator.safetensors").is_file()
    assert len(ImageSet.load(deployment.run / "synthetic")) == 6
    for name in SITES:
        (ledger,) = (deployment.out / name / "ledger").rglob("ledger.jsonl")
        assert read_ledger(ledger)
        (egress,) = (deployment.out / name / "state").glob("run-*/egress.jsonl")
        left = [json.loads(line) for line in egress.read_text().splitlines()]
        assert len([one for one in left if one["message"] == "train"]) >= 4
    for log in (deployment.out / "server" / "state").glob("*.log"):
        assert "telemetry.flower.ai" not in log.read_text(errors="replace")
    wait_until(lambda: not deployment.of_the_server(), "rid of every process of the server", 60)
    for name in SITES:  # Flower's starter of apps can outlive a node whose server is gone: units end the whole group
        hospitals[name].terminate()
        assert hospitals[name].wait(60) is not None


def test_a_refusal_ends_the_start_at_both_ends_and_an_approval_lets_it_run(deployment: Deployment) -> None:
    """Behind nginx where it is on the path. Before, the server handed the run in three times, for 95 s."""
    out, server = deployment.out, deployment.out / "server"
    (server / "federation.toml").write_text(PLAIN.replace("rounds = 2", "rounds = 1"))
    for name in SITES:
        (out / name / "policy.toml").write_text("allow-plain = true\napproved = 'approved.toml'\n")
    with ExitStack() as stack:
        if (nginx := shutil.which("nginx")) is not None:
            inner = free_port()
            with (server / "server.toml").open("a") as file:
                file.write(f'proxy = "own"\ninner-port = {inner}\n')
            stack.enter_context(_nginx(nginx, server, deployment.port, inner))
        started = deployment.start("server", "--run")
        wait_until(lambda: "begins, in" in deployment.said("server"), "open")
        hospitals, pause = {name: deployment.start(name) for name in SITES}, dict[str, float]()
        wait_until(lambda: keep_running(deployment, hospitals, pause) or started.poll() is not None, "turned down")
        said = deployment.said("server")
        assert started.returncode == 3, said[-3000:]
        assert said.count("begins, in") == 1
        plan = next(out.glob("*/state/plans-waiting/*.toml"))  # of the first that was asked: one is enough to end it
        first = plan.parents[2].name
        assert f"{first} will not take part: refused by its policy: approved" in said
        wait_until(
            lambda: f"{first} refuses hello: the site's policy refuses: nobody" in deployment.said(first), "said", 60
        )
        for name in SITES:
            command = [str(Path(sys.executable).parent / "fedsynth"), "site", "approve", str(out / name / "site.toml")]
            command += ["--plan", str(server / "federation.toml")]
            subprocess.run(command, input=f"{plan.stem}\n", text=True, check=True, stdout=subprocess.DEVNULL)
        started = deployment.start("server", "--run")
        wait_until(
            lambda: keep_running(deployment, hospitals, pause) or started.poll() is not None, "at the end of the run"
        )
    assert started.returncode == 0, deployment.said("server")[-3000:]
    assert {row["site"]: row["answered"] for row in deployment.rows()} == dict.fromkeys(SITES, "true")


@contextmanager
def _nginx(program: str, server: Path, port: int, inner: int) -> Iterator[None]:
    """As the server's folder has it, its paths put where they are here."""
    text = nginx_files(host="localhost", port=port, inner_port=inner, at=str(server))["nginx.conf"]
    (server / "nginx.conf").write_text(text.replace("/var/log/nginx/fedsynth.log", f"{server}/access.log"))
    user = "user root;" if os.getuid() == 0 else ""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {server}/{kind};" for kind in kinds)
    (server / "main.conf").write_text(
        f"{user} daemon off; pid {server}/nginx.pid; error_log {server}/error.log; events {{}}\n"
        f"http {{ {temporary} include {server}/nginx.conf; }}\n"
    )
    door = subprocess.Popen([program, "-e", str(server / "error.log"), "-c", str(server / "main.conf")])
    try:
        yield
    finally:
        door.terminate()
        door.wait(10)


def test_hospitals_get_the_bits_of_the_local_engine(deployment: Deployment, tmp_path: Path) -> None:
    """A plain run of one seed: three machines' processes, and one process on this one."""
    (deployment.out / "server" / "federation.toml").write_text(PLAIN)
    for name in SITES:
        (deployment.out / name / "policy.toml").write_text("allow-plain = true\n")
    server = deployment.start("server", "--run")
    wait_until(lambda: "open at" in deployment.said("server"), "open")
    hospitals, pause = {name: deployment.start(name) for name in SITES}, dict[str, float]()

    def ended() -> bool:
        keep_running(deployment, hospitals, pause)
        return server.poll() is not None

    wait_until(ended, "at the end of the run")
    assert server.returncode == 0, deployment.said("server")[-3000:]

    local = local_engine(deployment, tmp_path)
    for name in ("generator.safetensors", "round-0002.safetensors"):
        assert_same_bits(load_file(deployment.run / "checkpoints" / name), local / name)


def local_engine(deployment: Deployment, tmp_path: Path) -> Path:
    """The checkpoints of the same run in one process."""
    settings = load_settings(load_server(deployment.out / "server"))
    file = SitesFile(name="same", site=tuple(SiteEntry(name=name, images=tmp_path / name) for name in SITES))
    with open_hospitals(file, tmp_path) as opened:
        local = begin(settings, opened, tmp_path / "local")
    run_rounds(settings, local)
    return local.checkpoints


def assert_same_bits(there: dict[str, Any], path: Path) -> None:
    here = load_file(path)
    assert here.keys() == there.keys()
    assert all(np.array_equal(value, there[key]) for key, value in here.items())


def test_hospitals_train_alone_and_send_their_samplers_once(deployment: Deployment, tmp_path: Path) -> None:
    """One of three forbids it and ends the start; once it allows it, the server keeps the mixture of all three."""
    (deployment.out / "server" / "federation.toml").write_text(ONE_SHOT)
    for name in SITES:
        allowed = "" if name == "west" else "allow-one-shot = true\n"
        (deployment.out / name / "policy.toml").write_text("allow-plain = true\n" + allowed)
    server = deployment.start("server", "--run")
    wait_until(lambda: "open at" in deployment.said("server"), "open")
    hospitals, pause = {name: deployment.start(name) for name in SITES}, dict[str, float]()
    wait_until(lambda: keep_running(deployment, hospitals, pause) or server.poll() is not None, "turned down")
    said = deployment.said("server").splitlines()
    assert server.returncode == 3, said[-30:]
    refusals = [line.split(" ", 2)[2] for line in said if "will not take part" in line]  # after day and time
    assert refusals == ["west will not take part: refused by its policy: allow-one-shot"]
    assert sum("begins, in" in line for line in said) == 1  # final: nobody is asked again

    (deployment.out / "west" / "policy.toml").write_text("allow-plain = true\nallow-one-shot = true\n")
    server = deployment.start("server", "--run")
    wait_until(lambda: keep_running(deployment, hospitals, pause) or server.poll() is not None, "at the end of the run")
    assert server.returncode == 0, deployment.said("server")[-3000:]
    family, card = load_generator(deployment.run / "checkpoints")
    assert isinstance(family, SiteMixture)
    assert card.mixture == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    released = load_file(deployment.run / "checkpoints" / "generator.safetensors")
    trained = [one.partition("-")[2] for one in released if one.startswith("0-renderer-") and one.endswith(".weight")]
    assert trained
    for name in trained:  # each its own
        assert not np.array_equal(released[f"0-{name}"], released[f"1-{name}"]), name
    maps = [name.partition("-")[2] for name in released if name.startswith("0-maps-")]
    assert maps
    for name in maps:  # fitted by the sums of all
        assert np.array_equal(released[f"0-{name}"], released[f"2-{name}"]), name
    assert_same_bits(released, local_engine(deployment, tmp_path) / "generator.safetensors")
    assert len(ImageSet.load(deployment.run / "synthetic")) == 6
    for name in SITES:
        (egress,) = (deployment.out / name / "state").glob("run-*/egress.jsonl")
        left = [one for one in map(json.loads, egress.read_text().splitlines()) if one["message"] == "train"]
        assert [one["bytes"] for one in left[:2]] == [0, 0]  # while it trains
        weights = [
            [array for array in one["content"] if array.startswith("renderer-") and "." in array] for one in left
        ]
        assert weights[-1]
        assert not any(weights[:-1])


def test_a_node_behind_a_web_proxy_takes_part(tmp_path: Path) -> None:
    """The server's name is known to the proxy alone: what reaches it has gone that way."""
    proxy, host = WebProxy(password="north:secret"), "fed.example.test"
    with open_deployment(tmp_path, host, ("north",)) as deployment:
        (deployment.out / "server" / "federation.toml").write_text(
            PLAIN.replace("sites = 3", "sites = 1").replace("rounds = 2", "rounds = 1")  # min-sites too
        )
        (deployment.out / "north" / "policy.toml").write_text("allow-plain = true\nallow-one-shot = true\n")
        server = deployment.start("server", "--run")
        wait_until(lambda: "open at" in deployment.said("server"), "open")
        directly = deployment.start("north", HTTPS_PROXY="")
        assert directly.wait(PATIENCE) == 2
        assert "is not reached" in deployment.said("north")
        way = {"HTTPS_PROXY": f"http://north:secret@{proxy.address}", "NO_PROXY": ""}
        deployment.start("north", **way)
        wait_until(lambda: server.poll() is not None, "at the end of the run")
        assert server.returncode == 0, deployment.said("server")[-3000:]
        assert [row["answered"] for row in deployment.rows()] == ["true"]
        traffic = int(deployment.rows()[0]["bytes_up"]) + int(deployment.rows()[0]["bytes_down"])
        assert set(proxy.asked) == {f"{host}:{deployment.port}"}
        assert proxy.passed > traffic
        assert "secret" not in deployment.said("north")
    proxy.close()


def test_outsiders_are_refused(deployment: Deployment, tmp_path: Path) -> None:
    """With the authority's certificate, which is no secret, and a key of their own."""
    deployment.start("server")
    wait_until(lambda: "open at" in deployment.said("server"), "open")
    authority = deployment.out / "north" / "authority.pem"
    key = make_node_key("outsider")
    (tmp_path / "outsider.key").write_bytes(key.private)
    (tmp_path / "outsider.pub").write_bytes(key.public)
    place = load_server(deployment.out / "server")
    app = write_bundle(place, load_settings(place))
    outsider = Flower(home=tmp_path / "home")
    reached = {"address": f"localhost:{deployment.port}", "root-certificates": str(authority)}
    config.save_toml(outsider.home / "config.toml", {"superlink": {"default": "it", "it": reached}})
    tried = (("supernode", "register", str(tmp_path / "outsider.pub")), ("run", str(app)), ("supernode", "list"))
    for arguments in tried:
        command = [program("flwr"), *arguments]
        done = subprocess.run(command, env=outsider.environment(), capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode != 0, arguments
        assert "this server takes" in done.stderr, arguments  # what the proxy says with its 403
    refused = [line for line in deployment.said("server").splitlines() if " refused POST '/v1/control/" in line]
    assert len(refused) == 3
    command = [program("flower-supernode"), "--superlink", f"localhost:{deployment.port}", "--port", str(free_port())]
    command += ["--root-certificates", str(authority)]
    environment = {**outsider.environment(), MARK: deployment.mark}
    said = tmp_path / "outsider.log"
    with said.open("wb") as log:  # a pipe would stay open with what the node had started
        own = ["--auth-supernode-private-key", str(tmp_path / "outsider.key")]
        done = subprocess.run([*command, *own], env=environment, stdout=log, stderr=log, timeout=PATIENCE)
        assert done.returncode != 0
        assert "Failed to activate SuperNode" in said.read_text()
        keyless = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        wait_until(
            lambda: "refused POST '/v1/fleet/register-node'" in deployment.said("server"), "refused to register itself"
        )
        deployment.kill(keyless)
    nodes = Flower(home=place.state / "flower").ask("supernode", "list")["nodes"]
    assert len(nodes) == 3  # the three of the folder and nobody else
    assert {node["status"] for node in nodes} == {"registered"}

    (place.keys / "noise.pub").write_text("ssh-nonsense")
    (place.keys / "east.pub").write_bytes(make_node_key("east").public)
    (place.keys / "south.pub").unlink()
    for line in ("noise is not let in", "east is let in", "south is shut out"):
        wait_until(lambda line=line: line in deployment.said("server"), line)
    known = config.parse_toml(place.state / "nodes.toml")
    assert set(known) == {"north", "west", "east"}
    nodes = Flower(home=place.state / "flower").ask("supernode", "list")["nodes"]
    assert {node["node-id"] for node in nodes if node["status"] != "unregistered"} == set(known.values())
