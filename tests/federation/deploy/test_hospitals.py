"""The list of nodes that Flower knows, kept equal to the public keys in the server's folder."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fedsynth import config
from fedsynth.errors import FedSynthError
from fedsynth.federation.deploy import run_supervisor
from fedsynth.federation.deploy.certificates import make_node_key
from fedsynth.federation.deploy.folders import Plan, init
from fedsynth.federation.deploy.server_files import load_server
from fedsynth.federation.deploy.superlink import Hospitals
from tests.federation.tiny import SETTINGS


class Registry:
    """Flower's list of nodes as Flower 1.41 keeps it: a node that was unregistered stays in it, and so does its key.

    `cut` is called when a command was carried out and before its answer is given.
    """

    def __init__(self) -> None:
        self.nodes: dict[str, bytes] = {}
        self.gone: set[str] = set()
        self.cut: Callable[[], None] = lambda: None

    @property
    def keys(self) -> set[bytes]:
        """Of all who are let in."""
        return {key for node, key in self.nodes.items() if node not in self.gone}

    def ask(self, *words: str) -> dict[str, Any]:
        match words[1:]:
            case ("list",):
                states = {node: "unregistered" if node in self.gone else "registered" for node in self.nodes}
                return {"nodes": [{"node-id": node, "status": state} for node, state in states.items()]}
            case ("register", path):
                key = Path(path).read_bytes()
                if key in self.nodes.values():
                    raise FedSynthError("`flwr supernode register` failed: Public key already in use")
                node = str(len(self.nodes) + 1)
                self.nodes[node] = key
                self.cut()
                return {"node-id": node}
            case ("unregister", node):
                if node in self.gone or node not in self.nodes:
                    raise FedSynthError("`flwr supernode unregister` failed: Node ID not found for account.")
                self.gone.add(node)
                self.cut()
                return {}
        raise AssertionError(words)


class Killed(BaseException):
    pass


def kill() -> None:
    raise Killed


def lose() -> None:
    raise FedSynthError("`flwr supernode` did not end within 120 s")


class Server:
    """A server's folder, Flower's list, and what is said."""

    def __init__(self, folder: Path, *names: str) -> None:
        init(folder / "out", names, Plan(host="localhost"))
        self.place = load_server(folder / "out" / "server")
        self.place.state.mkdir()
        self.registry, self.said = Registry(), list[str]()
        self.restart()

    def restart(self) -> None:
        flower: Any = self.registry
        self.hospitals = Hospitals(place=self.place, flower=flower, report=self.said.append)

    def reconcile(self) -> list[str]:
        """What is said meanwhile."""
        self.said.clear()
        self.hospitals._reconcile()
        assert set(config.parse_toml(self.hospitals.record).values()) <= self.registry.nodes.keys()
        return list(self.said)

    def key(self, name: str) -> Path:
        return self.place.keys / f"{name}.pub"


def test_a_key_that_was_replaced_shuts_out_the_old_one(tmp_path: Path) -> None:
    init(tmp_path / "out", ("north", "south"), Plan(host="localhost"))
    place = load_server(tmp_path / "out" / "server")
    place.state.mkdir()
    registry, said = Registry(), list[str]()
    hospitals = Hospitals(place=place, flower=registry, report=said.append)  # type: ignore[arg-type]
    hospitals._reconcile()
    before = dict(config.parse_toml(hospitals.record))
    stolen, new = (place.keys / "north.pub").read_bytes(), make_node_key("north").public
    (place.keys / "north.pub").write_bytes(new)
    for again in (hospitals, Hospitals(place=place, flower=registry, report=said.append)):  # type: ignore[arg-type]
        again._reconcile()  # the second as after a restart
        assert stolen not in registry.keys
        assert new in registry.keys
    after = config.parse_toml(hospitals.record)
    assert after["south"] == before["south"]
    assert after["north"] != before["north"]
    assert [line for line in said if "shut out" in line] == ["north is shut out: its key was replaced"]
    (place.keys / "north.pub").unlink()
    hospitals._reconcile()
    assert registry.keys == {(place.keys / "south.pub").read_bytes()}


def test_a_server_that_knew_its_nodes_before_fingerprints_keeps_them(tmp_path: Path) -> None:
    init(tmp_path / "out", ("north",), Plan(host="localhost"))
    place = load_server(tmp_path / "out" / "server")
    place.state.mkdir()
    registry = Registry()
    registry.ask("supernode", "register", str(place.keys / "north.pub"))
    config.save_toml(place.state / "nodes.toml", {"north": "1"})
    said: list[str] = []
    Hospitals(place=place, flower=registry, report=said.append)._reconcile()  # type: ignore[arg-type]
    assert list(registry.nodes) == ["1"]
    assert not said


def test_a_lost_answer_to_shutting_out_keeps_nobody_in_and_stops_nothing(tmp_path: Path) -> None:
    server = Server(tmp_path, "north", "south", "west")
    server.reconcile()
    kept = server.key("west").read_bytes()
    server.key("north").unlink()
    server.key("south").unlink()
    server.registry.cut = lose
    with pytest.raises(FedSynthError, match="did not end"):
        server.reconcile()
    assert server.registry.keys == {kept}  # both, although the first was not answered
    server.registry.cut = lambda: None
    for said in ([f"{name} is shut out: it is registered no more" for name in ("north", "south")], []):
        assert server.reconcile() == said
        assert list(config.parse_toml(server.hospitals.record)) == ["west"]
        server.restart()


@pytest.mark.parametrize("cut", [kill, lose])
def test_a_registration_that_was_broken_off_is_found_again(tmp_path: Path, cut: Callable[[], None]) -> None:
    server = Server(tmp_path, "north", "south", "west")
    server.registry.cut = lambda: cut() if len(server.registry.nodes) == 2 else None
    if cut is kill:
        with pytest.raises(Killed):
            server.reconcile()
    else:
        server.reconcile()
    assert config.parse_toml(server.hospitals.record)["north"] == "1"
    server.registry.cut = lambda: None
    server.restart()
    assert "south is let in, with the key south.pub" in server.reconcile()
    told = {name: server.registry.nodes[str(node)] for name, node in config.parse_toml(server.hospitals.record).items()}
    assert told == {name: server.key(name).read_bytes() for name in ("north", "south", "west")}
    assert not server.reconcile()


def test_a_key_that_is_half_written_shuts_nobody_out(tmp_path: Path) -> None:
    server = Server(tmp_path, "north", "south")
    server.reconcile()
    whole = server.key("north").read_bytes()
    for content in (b"", whole[: len(whole) // 2], whole):
        server.key("north").write_bytes(content)
        assert not server.reconcile()
        assert whole in server.registry.keys


def test_a_key_that_was_shut_out_stays_out_and_a_new_one_comes_in(tmp_path: Path) -> None:
    server = Server(tmp_path, "north", "south")
    server.reconcile()
    revoked = server.key("north").read_bytes()
    server.key("north").unlink()
    server.reconcile()
    for name in ("north", "other"):
        server.key(name).write_bytes(revoked)
        for _ in range(2):
            (said,) = server.reconcile()
            assert said.startswith(f"{name} is not let in")
            assert "Flower knows this key already" in said
            assert "make the hospital a new one" in said
            server.restart()
        server.key(name).unlink()
    server.key("north").write_bytes(make_node_key("north").public)
    assert server.reconcile() == ["north is let in, with the key north.pub"]
    assert revoked not in server.registry.keys


def test_the_node_of_a_lost_record_is_given_to_nobody(tmp_path: Path) -> None:
    """The one node that is left over may be another hospital's: a name is never guessed."""
    server = Server(tmp_path, "north", "south")
    server.reconcile()
    server.hospitals.record.unlink()
    server.hospitals.prints_record.unlink()
    server.key("south").unlink()
    server.restart()
    (said,) = server.reconcile()
    assert said.startswith("north is not let in")
    assert "if nodes.toml was lost, remove" in said


def test_the_end_of_a_run_is_seen_whatever_becomes_of_the_list_of_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_supervisor, "_ENDING", 0.0)
    monkeypatch.setattr(run_supervisor, "BETWEEN", 0.0)
    server = Server(tmp_path, "north")

    class Link:
        """Flower at work: it says how the run stands, and of the nodes nothing at all."""

        flower = SimpleNamespace(ask=lambda *words: {"runs": [{"status": "finished:completed"}]})

        def check_alive(self) -> None:
            pass

    server.hospitals.flower = SimpleNamespace(ask=lambda *words: lose())  # type: ignore[assignment]
    carrier = run_supervisor.Carrier(
        place=server.place,
        link=Link(),  # type: ignore[arg-type]
        hospitals=server.hospitals,
        report=server.said.append,
        settings=SETTINGS,
    )
    assert carrier._watch("1") == ("finished:completed", "")
    assert "Flower did not answer" in server.said[0]
