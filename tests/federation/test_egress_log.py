from datetime import datetime

import pytest

from fedsynth.errors import FedSynthError
from fedsynth.federation.egress_log import EGRESS, EgressLog, read_egress


def test_every_message_is_a_line_with_names_shapes_and_bytes(tmp_path):
    log = EgressLog(tmp_path / "north")
    log.record("hello", ["channels"], [()], 40, 0)
    log.record("train", ["generator.w", "steps"], [(3, 4), ()], 56, 1)
    first, second = read_egress(tmp_path / "north" / EGRESS)
    assert (first["message"], second["message"]) == ("hello", "train")
    assert (second["round"], second["bytes"]) == (1, 56)
    assert second["content"] == {"generator.w": [3, 4], "steps": []}
    assert datetime.fromisoformat(second["when"]).tzinfo is not None


def test_a_line_that_a_crash_cut_short_is_dropped(tmp_path):
    log = EgressLog(tmp_path)
    log.record("train", ["w"], [(1,)], 4, 1)
    whole = log.path.read_bytes()
    with log.path.open("ab") as file:
        file.write(whole[:-9])
    assert len(read_egress(log.path)) == 1
    log.record("train", ["w"], [(1,)], 4, 2)
    assert [line["round"] for line in read_egress(log.path)] == [1, 2]


def test_nothing_left_where_there_is_no_log(tmp_path):
    assert read_egress(tmp_path / EGRESS) == []


def test_a_damaged_log_names_its_row(tmp_path):
    (tmp_path / EGRESS).write_text("{}\nnonsense\n{}\n")
    with pytest.raises(FedSynthError, match="row 2"):
        read_egress(tmp_path / EGRESS)


def test_a_folder_in_the_way_is_an_error(tmp_path):
    (tmp_path / EGRESS).mkdir()
    with pytest.raises(FedSynthError, match="cannot be written"):
        EgressLog(tmp_path).record("train", [], [], 0, 1)
