"""Where a real site keeps a run whose name the server chose, and what it writes down when it cannot begin."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import Context, Message, RecordDict

from fedsynth.federation import client_app
from fedsynth.federation.egress_log import read_egress
from fedsynth.federation.engines.flower_names import identity, number
from fedsynth.federation.messages import hello_content
from fedsynth.federation.settings import FederationSettings
from fedsynth.federation.site_context import LONGEST, run_folder
from tests.federation.hospital import Hospital
from tests.federation.tiny import SETTINGS, go, rows, start


def greet(site: Path, experiment: str) -> str:
    """The server greets the hospital in the name of that run; why it will not take part."""
    told = FederationSettings().to_run_config(Path("run"))
    context = Context(run_id=1, node_id=7, node_config={"site-file": str(site)}, state=RecordDict(), run_config=told)
    with identity():
        answer = client_app.app(number(Message(hello_content(experiment), 7, "query.hello"), "a"), context)
    return str(answer.content.config_records["words"]["refused"])


@pytest.mark.parametrize("experiment", ["x" * 300, "ä" * 90, "flower", "..", "", "../../elsewhere"])
def test_every_refusal_is_in_the_list_of_what_left_whatever_the_run_is_called(tmp_path: Path, experiment: str) -> None:
    hospital = Hospital(tmp_path)
    (tmp_path / "work" / "flower").mkdir()
    (tmp_path / "policy.toml").write_text("allow-plain = true\n")
    shutil.rmtree(tmp_path / "set")
    assert greet(hospital.write(), experiment) == "its images cannot be used"
    (log,) = tmp_path.rglob("egress.jsonl")
    assert log.parent.parent == tmp_path / "work"
    assert [list(line["content"]) for line in read_egress(log)] == [["its images cannot be used"]]
    assert not list((tmp_path / "work" / "flower").iterdir())


def test_a_run_that_the_policy_refuses_gets_no_folder(tmp_path: Path) -> None:
    """Else a server could fill the disk with them, and the most runs that may be kept."""
    assert greet(Hospital(tmp_path).write(), "x") == "refused by its policy: allow-plain"
    (log,) = tmp_path.rglob("egress.jsonl")
    assert log.parent == tmp_path / "work"
    assert [list(line["content"]) for line in read_egress(log)] == [["refused by its policy: allow-plain"]]


def test_a_name_that_is_taken_by_a_file_is_written_down_beside_the_site_file(tmp_path: Path) -> None:
    hospital = Hospital(tmp_path)
    (tmp_path / "work" / run_folder("x")).write_text("")
    greet(hospital.write(), "x")
    assert [line["message"] for line in read_egress(tmp_path / "egress.jsonl")] == ["refusal"]


def test_no_two_runs_share_a_folder() -> None:
    names = ["a", "A", "a/b", "a%2Fb", "x" * 300, "x" * 301, "x" * LONGEST, "x" * (LONGEST - 4), ".", ".."]
    assert len({run_folder(name) for name in names}) == len(names)
    assert max(len(run_folder(name)) for name in names) <= LONGEST


def test_a_simulated_hospital_whose_policy_cannot_be_read_is_named_and_says_why_in_its_log(tmp_path: Path) -> None:
    settings = replace(SETTINGS, min_sites=1, rounds=1)
    run = start(tmp_path, settings)
    run.site("site-1").mkdir(parents=True)
    (run.site("site-1") / "policy.toml").write_text("alow-plain = true\n")
    go(run, settings)
    told = [(row["site"], row["answered"], row["reason"]) for row in rows(run)]
    assert told == [("site-0", "true", ""), ("site-1", "false", "settings do not fit the site")]
    assert "alow-plain" in (run.site("site-1") / "site.log").read_text()
