"""The table of a run, cut anywhere: what is read of it, and how it goes on."""

from pathlib import Path

import pytest

from fedsynth.errors import FedSynthError
from fedsynth.federation.error_codes import ErrorCode
from fedsynth.federation.exchange import Outcome
from fedsynth.federation.messages import Reply
from fedsynth.federation.round_log import LogMark, RoundLog, read_rounds, summary


def reply(site: str, number: int, *, late: bool = False) -> Reply:
    told = {} if late else {"steps": 5.0, "charged": 5.0 * number, "d_loss": 0.5, "g_loss": 0.25}
    return Reply(site=site, outcome=Outcome(metrics=told), reason=ErrorCode.LATE if late else None, bytes_up=100)


def opened(folder: Path, kept: LogMark) -> RoundLog:
    def spent(site: str, steps: float) -> float:
        return steps * 0.7301

    return RoundLog(folder / "rounds.csv", folder / "rounds.jsonl", kept=kept, timed=False, spent=spent)


@pytest.mark.parametrize("late", [False, True])
def test_a_table_that_was_cut_anywhere_in_its_last_row_goes_on_whole(tmp_path: Path, late: bool) -> None:
    """Before, a cut at the newline, or within empty cells, ran the next row into the last."""
    log, table = opened(tmp_path, LogMark()), tmp_path / "rounds.csv"
    for number in (1, 2):
        log.add(number, [reply("north", number), reply("south", number, late=late and number == 2)])
        mark = log.keep()
    whole, rows = table.read_bytes(), (tmp_path / "rounds.jsonl").read_bytes()
    for cut in range(whole[:-1].rfind(b"\n") + 1, len(whole)):
        table.write_bytes(whole[:cut])
        (tmp_path / "rounds.jsonl").write_bytes(rows)
        assert len(read_rounds(table)) == 3  # the row without its end is nobody's
        assert summary([table])["epsilon"] == {"north": 7.301, "south": 3.6505}
        log = opened(tmp_path, mark)
        assert log.restore()
        assert table.read_bytes() == whole
        log.add(3, [reply("north", 3), reply("south", 3)])
        assert [(row["round"], row["site"]) for row in read_rounds(table)] == [
            (number, site) for number in "123" for site in ("north", "south")
        ]


@pytest.mark.parametrize("garbage", [b"\0" * 20 + b"\n1\n", b"round,site\n1,north,more\n", b"round,site\nx,north\n"])
def test_what_is_no_table_is_an_error_with_a_sentence(tmp_path: Path, garbage: bytes) -> None:
    (tmp_path / "rounds.csv").write_bytes(garbage)
    with pytest.raises(FedSynthError, match="the round log is damaged"):
        opened(tmp_path, LogMark()).rounds_written()
