"""A changed bit anywhere in a state is seen before the state is used."""

from pathlib import Path

import pytest
import torch

from fedsynth.errors import DamagedError, FedSynthError
from fedsynth.training.checkpoint import load_state, load_tensors, read_notes, save_state, save_tensors
from tests.training.test_trainer import make_trainer, weights

TENSORS = {"a.weight": torch.arange(4.0), "a.steps": torch.tensor([3])}


def test_what_was_written_is_read_and_equal_files_are_equal_bytes(tmp_path: Path) -> None:
    notes = {"generator": "tiny", "text": 'with "quotes", "sha256":"' + "0" * 64 + '" and ü'}
    for name in ("one", "other"):
        save_tensors(tmp_path / name, TENSORS, notes)
    tensors, found = load_tensors(tmp_path / "one")
    assert found == notes
    assert all(torch.equal(tensors[name], value) for name, value in TENSORS.items())
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_every_flipped_bit_and_every_cut_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "state"
    save_tensors(file, TENSORS, {"generator": "tiny"})
    whole = file.read_bytes()
    for place in range(len(whole)):
        for bit in range(8):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            with pytest.raises(DamagedError, match="is damaged"):
                load_tensors(file)
        file.write_bytes(whole[:place])
        with pytest.raises(DamagedError, match="is damaged"):
            load_tensors(file)
        assert read_notes(file) == {}


def test_a_state_with_a_flipped_bit_changes_nothing(tmp_path: Path) -> None:
    trainer, file = make_trainer(), tmp_path / "state.safetensors"
    save_state(file, trainer, "tiny")
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(bytes(content))
    before = weights(trainer.family)
    with pytest.raises(DamagedError, match="its content is not what was written"):
        load_state(file, trainer, "tiny")
    assert torch.equal(weights(trainer.family), before)


def test_a_folder_in_the_place_of_a_state_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(FedSynthError, match="cannot be read") as error:
        load_tensors(tmp_path)
    assert not isinstance(error.value, DamagedError)
