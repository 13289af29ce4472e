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
    assert seen.guarantee.startswith("Trained without")
    assert look_at_run(run, now=WROTE + 1e6).left == "0:00:00"


def test_epsilon_spent_is_told_by_site(tmp_path):
    seen = look_at_run(going_on(tmp_path / "a", epsilon=8.0), now=WROTE)
    assert seen.guarantee == "Epsilon 8 at delta 1e-05 per patient declared"
    assert seen.epsilon == {"a": "8", "b": "3.2"}, "b did not answer again, and has spent what it said first"
    page = watch_page(tmp_path / "a", now=WROTE)
    assert "Epsilon 8 at delta 1e-05 per patient declared." in page
    assert "time left" not in page, "time tells how many patients were drawn"
    assert seen.seconds_left is None
    assert "no epsilon is spent" in watch_page(going_on(tmp_path / "b").folder, now=WROTE)


def test_sums_that_follow_the_rounds_are_no_rounds_and_a_finished_run_has_no_time_left(tmp_path):
    seen = look_at_run(going_on(tmp_path / "a", rounds=1), now=WROTE)
    assert (seen.done, seen.sum_rounds, seen.left) == (1, 1, "not known")
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
    assert all(link.startswith(("data:", "./", "still")) for link in read(page).links)
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


def test_no_picture_is_shown_that_begins_with_real_cases(tmp_path):
    run = going_on(tmp_path / "a", pairing="label-to-image")
    run.samples.mkdir(exist_ok=True)
    for name in ("step-000001.png", "synthetic.png"):
        Image.new("L", (4, 4)).save(run.samples / name)
    page = watch_page(run.folder, now=WROTE)
    assert "data:image/png" not in page
    assert "label maps of real cases" in page


def test_a_run_with_repeatable_randomness_spends_no_epsilon(tmp_path):
    run = going_on(tmp_path / "a", privacy={"epsilon": 8.0, "insecure-seed": 1})
    rows = run.rounds.read_text().replace(",4,,", ",4,3.2,")
    run.rounds.write_text(rows)
    page = watch_page(run.folder, now=WROTE)
    assert "Epsilon: NOT PRIVATE (repeatable randomness)." in page
    assert "Epsilon spent" not in page
    assert "declared" not in page


def test_a_run_that_goes_on_from_another_does_not_claim_its_whole_cost(tmp_path):
    run = going_on(tmp_path / "a", epsilon=8.0, start="runs/earlier")
    assert "declared; the end of the run tells" in watch_page(run.folder, now=WROTE)
    done = make_run(tmp_path / "b", epsilon=8.0, start="runs/earlier")
    assert "Epsilon: no guarantee, the run goes on from another" in watch_page(done.folder, now=WROTE)


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
        port, top = server.server_port, f"/{server.token}/"
        assert server.url == f"http://127.0.0.1:{port}{top}"
        status, headers, text = ask(port, top)
        assert status == 200
        assert headers["Refresh"] == str(SECONDS)
        assert "2 of 6 rounds" in text
        assert ask(port, f"{top}still")[1]["Refresh"] is None
        assert ask(port, top, host="evil.example")[0] == 421
        for path in ("/", "/still", "/etc/passwd", f"{top[:-2]}/", f"{top}../", "//"):
            assert ask(port, path)[0] == 404, "whoever does not know the address sees nothing"
        run.rounds.write_text(run.rounds.read_text() + "3,a,true,,1.0,1,1,4,,1\n")
        assert "3 of 6 rounds" in ask(port, top)[2]
        answers = []
        asking = threading.Thread(target=lambda: answers.append(ask(port, top)[0]), daemon=True)
        with server.kept.drawing:  # somebody else's page is being drawn
            asking.start()
            asking.join(0.5)
            assert answers == []
        asking.join(60)
        assert answers == [200]
        kept = run.rounds.read_text()
        run.rounds.write_text("round,site\nx,y\n")
        assert ask(port, top)[0] == 503
        run.rounds.write_text(kept + "3,b,true,,1.0,1,1,4,,1\n")
        assert ask(port, top)[0] == 200
        for damaged in ("{", "[]", "{}", '{"created": "yesterday"}'):
            run.environment.write_text(damaged)
            os.utime(run.rounds, (WROTE + len(damaged), WROTE + len(damaged)))
            status, _, text = ask(port, top)
            assert status == 503, damaged
            assert str(tmp_path) not in text
        run.config.write_text("rounds = ")
        status, _, text = ask(port, top)
        assert (status, str(tmp_path) in text) == (503, False)
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
