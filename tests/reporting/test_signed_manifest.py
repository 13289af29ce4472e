"""What a receiver is told of a released folder: whole, by whom, withdrawn; an attacker with a disk changes that."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedsynth.errors import ConfigError, FedSynthError
from fedsynth.reporting.signed_manifest import (
    MANIFEST,
    SIGNATURE,
    WITHDRAWAL,
    open_key,
    public_key,
    sign_folder,
    verify_folder,
    withdraw,
)

TOLD = {"name": "made", "images": 2}


@pytest.fixture
def key(tmp_path: Path) -> Ed25519PrivateKey:
    return open_key(tmp_path / "hospital.pem")[0]


@pytest.fixture
def folder(tmp_path: Path, key: Ed25519PrivateKey) -> Path:
    place = tmp_path / "released"
    (place / "ill").mkdir(parents=True)
    (place / "ill/1.png").write_bytes(b"one")
    (place / "README.md").write_text("card")
    sign_folder(place, TOLD, key)
    return place


def test_a_key_is_made_once_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    first, made = open_key(tmp_path / "new.pem")
    again, made_again = open_key(tmp_path / "new.pem")
    assert (made, made_again) == (True, False)
    assert public_key(first) == public_key(again)
    assert (tmp_path / "new.pem").stat().st_mode & 0o77 == 0
    (tmp_path / "bad.pem").write_text("no key")
    with pytest.raises(ConfigError, match="no private key"):
        open_key(tmp_path / "bad.pem")


def test_an_untouched_folder_holds(folder: Path, key: Ed25519PrivateKey) -> None:
    found = verify_folder(folder, expected=public_key(key).upper())
    assert (found.holds, found.n_files, found.known, found.release) == (True, 2, True, TOLD)
    assert verify_folder(folder).known is None


def resigned(folder: Path) -> None:
    sign_folder(folder, TOLD, Ed25519PrivateKey.generate())


def relisted(folder: Path) -> None:
    """The hash of a changed file is written into the manifest, the old signature stays."""
    (folder / "ill/1.png").write_bytes(b"two")
    signature = (folder / SIGNATURE).read_bytes()
    sign_folder(folder, TOLD, None)
    told = json.loads((folder / MANIFEST).read_text())
    told["public-key"] = "ab" * 32
    (folder / MANIFEST).write_text(json.dumps(told))
    (folder / SIGNATURE).write_bytes(signature)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "ill/1.png").write_bytes(b"two"), "ill/1.png: has changed"),
        (lambda folder: (folder / "ill/1.png").unlink(), "ill/1.png: is missing"),
        (lambda folder: (folder / "ill/2.png").write_bytes(b"more"), "ill/2.png: is not in the manifest"),
        (lambda folder: (folder / SIGNATURE).unlink(), "is not the signature"),
        (lambda folder: (folder / SIGNATURE).write_text("bm8="), "is not the signature"),
        (relisted, "is not the signature"),
        (resigned, "not signed with the key that you expect"),
        (lambda folder: sign_folder(folder, TOLD, None), "not signed with the key that you expect"),
    ],
)
def test_every_change_is_told(
    folder: Path, key: Ed25519PrivateKey, change: Callable[[Path], object], said: str
) -> None:
    change(folder)
    found = verify_folder(folder, expected=public_key(key))
    assert not found.holds
    assert any(said in problem for problem in found.problems), found.problems


def test_a_manifest_that_points_outside_or_to_links_is_refused(folder: Path, tmp_path: Path) -> None:
    told = json.loads((folder / MANIFEST).read_text())
    told["files"]["../hospital.pem"] = "0" * 64
    (folder / MANIFEST).write_text(json.dumps(told))
    assert any("no file inside the folder" in problem for problem in verify_folder(folder).problems)
    (folder / "link").symlink_to(tmp_path / "hospital.pem")
    with pytest.raises(FedSynthError, match="is a link"):
        verify_folder(folder)


def test_only_the_signer_withdraws_and_only_this_release(folder: Path, key: Ed25519PrivateKey, tmp_path: Path) -> None:
    notice = withdraw(folder, "a patient objected", key)
    apart = tmp_path / "notice.json"
    apart.write_bytes(notice)
    assert verify_folder(folder).holds
    told = verify_folder(folder, notices=(apart,))
    assert not told.holds
    assert told.withdrawn.endswith("a patient objected")
    (folder / WITHDRAWAL).write_bytes(notice)
    assert not verify_folder(folder).holds
    with pytest.raises(ConfigError, match="did not sign"):
        withdraw(folder, "spite", Ed25519PrivateKey.generate())
    forged = json.loads(notice) | {"reason": "spite"}
    (folder / WITHDRAWAL).write_text(json.dumps(forged))
    with pytest.raises(FedSynthError, match="not signed by whoever released"):
        verify_folder(folder)
    (folder / WITHDRAWAL).unlink()
    sign_folder(folder, TOLD | {"images": 3}, key)  # another release: the old notice is not about it
    told = verify_folder(folder, notices=(apart,))
    assert (told.withdrawn, told.problems) == ("", ("notice.json: is a notice about another release",))
    with pytest.raises(FedSynthError, match="no such notice"):
        verify_folder(folder, notices=(tmp_path / "typo.json",))


@pytest.mark.parametrize("table", ["files", "release"])
def test_a_manifest_without_its_tables_is_one_sentence(folder: Path, table: str) -> None:
    told = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(told | {table: ["x"]}))
    with pytest.raises(FedSynthError, match="has no table"):
        verify_folder(folder)
