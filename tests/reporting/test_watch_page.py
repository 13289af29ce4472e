"""The page that watches a run: what the files say at this moment, by hand, and who may ask for it."""

import json
import os
import threading
from http.client import HTTPConnection

import pytest
from PIL import Image
from typer.testing import CliRunner

from fedsynth.cli import app
from fedsynth.errors import FedSynthError
from fedsynth.reporting.watch_page import SECONDS, look_at_run, open_watch_page, watch_page
from fedsynth.runs import Run
from tests.reporting.test_comparison import make_run
from tests.reporting.test_html_page import read

BEGUN = 1_700_000_000.0
WROTE = BEGUN + 100


def going_on(folder, **settings):
    """Two of six rounds are done, 100 seconds after the beginning; the second was not answered by site b."""
    run = make_run(folder, **{"rounds": 6, **settings})
    (run.checkpoints / "generator.toml").unlink()
    facts = json.loads(run.environment.read_text())
    run.environment.write_text(json.dumps(facts | {"created": "2023-11-14T22:13:20+00:00"}))
    os.utime(run.rounds, (WROTE, WROTE))
    return run


def test_time_left_and_sites_are_those_of_the_files(tmp_path):
    run = going_on(tmp_path / "a")
    seen = look_at_run(run, now=WROTE + 10)
    assert (seen.done, seen.total, seen.unit, seen.finished) == (2, 6, "rounds", False)
    assert seen.seconds_left == pytest.approx(100 / 2 * 4 - 10)
    assert seen.left == "0:03:10"
    assert seen.sites == {"a": "2", "b": "failed"}
    assert seen.declared == ""
    assert look_at_run(run, now=WROTE + 1e6).left == "0:00:00"


def test_epsilon_spent_is_told_by_site(tmp_path):
    seen = look_at_run(going_on(tmp_path / "a", epsilon=8.0), now=WROTE)
    assert seen.declared == "8"
    assert seen.epsilon == {"a": "8", "b": "3.2"}, "b did not answer again, and has spent what it said first"
    page = watch_page(tmp_path / "a", now=WROTE)
    assert "Epsilon 8 declared" in page
    assert "no epsilon is spent" in watch_page(going_on(tmp_path / "b").folder, now=WROTE)


def test_sums_that_follow_the_rounds_are_no_rounds_and_a_finished_run_has_no_time_left(tmp_path):
    seen = look_at_run(going_on(tmp_path / "a", rounds=1), now=WROTE)
    assert (seen.done, seen.exchanges, seen.left) == (1, 1, "not known")
    done = watch_page(make_run(tmp_path / "b", rounds=2).folder, now=WROTE)
    assert "b: trained" in done
    assert "time left" not in done


def test_a_run_on_one_site_counts_steps_of_its_family(tmp_path):
    run = make_run(tmp_path / "a")
    (run.checkpoints / "generator.toml").unlink()
    run.config.write_text('images = "set"\ngenerator = "dcgan"\nseed = 0\n')
    seen = look_at_run(run, now=WROTE)
    assert (seen.unit, seen.done) == ("steps", 4)
    assert seen.total > 100


def test_the_newest_picture_is_shown_and_never_one_of_patients(tmp_path):
    run = going_on(tmp_path / "a")
    assert "None yet" in watch_page(run.folder, now=WROTE)
    run.samples.mkdir(exist_ok=True)
    for number, name in enumerate(("step-2.png", "step-1.png", "real-and-synthetic.png")):
        Image.new("L", (4, 4)).save(run.samples / name)
        os.utime(run.samples / name, (WROTE + number, WROTE + number))
    page = watch_page(run.folder, now=WROTE)
    assert page.count("data:image/png") == 1
    assert "step-1.png" in page
    assert all(link.startswith(("data:", "/")) for link in read(page).links)
    assert "<script" not in page


def test_a_suite_shows_every_cell_and_the_one_that_wrote_last(tmp_path):
    text = 'name = "s"\nabout = "x"\n[settings]\nfederation = "centralised"\n[[grid]]\ngenerator = ["dcgan", "vae"]\n'
    (tmp_path / "suite.toml").write_text(text)
    assert "Nothing has begun" in watch_page(tmp_path, now=WROTE)
    going_on(tmp_path / "cells" / "vae")
    (tmp_path / "cells" / "dcgan-failed.txt").write_text("train: out of memory\n")
    page = watch_page(tmp_path, now=WROTE)
    assert "vae: in training" in page
    assert "failed: train" in page


def ask(port, path="/", host="localhost"):
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path, headers={"Host": f"{host}:{port}"})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, answer.headers, text


def test_the_server_answers_this_machine_alone_and_follows_the_run(tmp_path):
    run = going_on(tmp_path / "a")
    with open_watch_page(run.folder, port=0) as server:
        assert server.server_address[0] == "127.0.0.1"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        port = server.server_port
        status, headers, text = ask(port)
        assert status == 200
        assert headers["Refresh"] == str(SECONDS)
        assert "2 of 6 rounds" in text
        assert ask(port, "/still")[1]["Refresh"] is None
        assert ask(port, host="evil.example")[0] == 421
        assert ask(port, "/etc/passwd")[0] == 404
        run.rounds.write_text(run.rounds.read_text() + "3,a,true,,1.0,1,1,4,,1\n")
        assert "3 of 6 rounds" in ask(port)[2]
        run.rounds.write_text("round,site\nx,y\n")
        assert ask(port)[0] == 503
        server.shutdown()
        thread.join(10)


def test_a_taken_port_and_a_folder_without_a_run_are_one_line(tmp_path):
    run = going_on(tmp_path / "a")
    with open_watch_page(run.folder, port=0) as server, pytest.raises(FedSynthError, match="another with --port"):
        open_watch_page(run.folder, port=server.server_port)
    done = CliRunner().invoke(app, ["watch", str(tmp_path / "nothing")])
    assert done.exit_code == 2
    assert "no such run" in done.stderr
    assert isinstance(run, Run)
