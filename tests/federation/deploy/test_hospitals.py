"""The list of nodes that Flower knows, kept equal to the public keys in the server's folder."""

from pathlib import Path
from typing import Any

from fedsynth import config
from fedsynth.federation.deploy.certificates import make_node_key
from fedsynth.federation.deploy.folders import Plan, init
from fedsynth.federation.deploy.places import load_server
from fedsynth.federation.deploy.superlink import Hospitals


class Registry:
    """Flower's list of nodes, in memory: it knows keys and gives every new one a number."""

    def __init__(self) -> None:
        self.nodes: dict[str, bytes] = {}
        self.given = 0

    def ask(self, *words: str) -> dict[str, Any]:
        match words[1:]:
            case ("list",):
                return {"nodes": [{"node-id": node, "status": "registered"} for node in self.nodes]}
            case ("register", key):
                self.given += 1
                self.nodes[str(self.given)] = Path(key).read_bytes()
                return {"node-id": self.given}
            case ("unregister", node):
                del self.nodes[node]
                return {}
        raise AssertionError(words)


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
        assert stolen not in registry.nodes.values()
        assert new in registry.nodes.values()
    after = config.parse_toml(hospitals.record)
    assert after["south"] == before["south"]
    assert after["north"] != before["north"]
    assert [line for line in said if "shut out" in line] == ["north is shut out: its key was replaced"]
    (place.keys / "north.pub").unlink()
    hospitals._reconcile()
    assert set(registry.nodes.values()) == {(place.keys / "south.pub").read_bytes()}


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
