"""A hospital made in a temporary folder, everything in order, and what `site check` says of it."""

import json
import shutil

import numpy as np
import pandas as pd
from typer.testing import CliRunner

from fedsynth.cli import app
from fedsynth.config import save_toml
from fedsynth.data import Header, ImageSet
from fedsynth.federation.deploy.certificates import make_authority, make_node_key
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


def check(path, *options):
    return CliRunner().invoke(app, ["site", "check", str(path), *options])


def findings(path):
    result = check(path, "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == (0 if found["ready"] else 2)
    return {one["what"]: (one["state"], one["text"]) for one in found["findings"]}
