"""When answers of private runs leave: what a server sees of the time tells nothing of the patients who were drawn."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
from flwr.app import Context, Message, RecordDict

from fedsynth.federation import client_app, clock
from fedsynth.federation.clock import CLOCK, wait_for_slot
from fedsynth.federation.engines.flower_names import identity, number
from fedsynth.federation.error_codes import ErrorCode, NeutralError
from fedsynth.federation.exchange import Order
from fedsynth.federation.messages import hello_content, order_contents
from fedsynth.federation.settings import FederationSettings
from tests.federation.hospital import Hospital
from tests.federation.tiny import private
from tests.training.tiny import tiny_set


def waited(folder: Path, elapsed: float, seconds: float) -> float:
    """How long after its message an answer leaves whose work took so long."""
    began = time.monotonic() - elapsed
    wait_for_slot(folder, began, seconds)
    return time.monotonic() - began


@pytest.mark.parametrize("elapsed", [0.0, 0.05, 0.15])
def test_an_answer_leaves_when_its_slot_ends_whatever_the_work_took(tmp_path: Path, elapsed: float) -> None:
    assert 0.2 <= waited(tmp_path, elapsed, 0.2) < 0.3
    assert not (tmp_path / CLOCK).exists()


def test_work_that_outlasts_its_slot_doubles_it_for_the_rest_of_the_run(tmp_path: Path) -> None:
    assert 0.4 <= waited(tmp_path, 0.25, 0.2) < 0.5
    assert 0.4 <= waited(tmp_path, 0.0, 0.2) < 0.5
    assert float((tmp_path / CLOCK).read_text()) == 0.4


@pytest.mark.parametrize("elapsed", [0.85, 1.05, 1.25])
def test_an_answer_far_too_late_tells_how_often_its_slot_was_doubled_and_no_more(
    tmp_path: Path, elapsed: float
) -> None:
    """At the next multiple of the first slot it would tell how many of them the work took."""
    assert 1.6 <= waited(tmp_path, elapsed, 0.2) < 1.7
    assert float((tmp_path / CLOCK).read_text()) == 1.6


def test_a_slot_that_ends_while_its_length_is_written_down_is_answered_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock.atomic_files, "write_text", lambda *_: time.sleep(0.06))
    assert 0.2 <= waited(tmp_path, 0.15, 0.1) < 0.3


def test_without_a_slot_nothing_waits(tmp_path: Path) -> None:
    assert waited(tmp_path, 0.0, 0.0) < 0.05


def asked(folder: Path, settings: FederationSettings, kind: str, content: RecordDict) -> tuple[Message, float]:
    """The hospital's answer to a message, and how long it took."""
    told = settings.to_run_config(Path("run"))
    place = {"site-file": str(folder / "site.toml")}
    context = Context(run_id=1, node_id=7, node_config=place, state=RecordDict(), run_config=told)
    with identity():
        began = time.monotonic()
        answer = client_app.app(number(Message(content, 7, kind), "a"), context)
        return answer, time.monotonic() - began


def test_a_real_hospital_answers_private_runs_by_the_clock_and_others_at_once(tmp_path: Path) -> None:
    settings = private(tmp_path, insecure=False)
    hospital = Hospital(tmp_path)
    tiny_set(patients=9).save(tmp_path / "tiny")
    hospital.write(images="tiny")
    (tmp_path / "policy.toml").write_text("max-epsilon = 9\ndelta = 0.001\nanswer-every = 1\n")
    answer, seconds = asked(tmp_path, settings, "query.hello", hello_content("x"))
    assert "refused" not in answer.content.config_records["words"]
    assert seconds >= 1
    order = Order(round=1, first_step=10**6, steps=2, experiment="x")
    answer, seconds = asked(tmp_path, settings, "train", order_contents({"here": order}, {})["here"])
    assert answer.content.config_records["words"]["refused"] == "settings do not fit the site"
    assert seconds >= 1
    plain = replace(settings, privacy=None, batch=4)
    answer, seconds = asked(tmp_path, plain, "query.hello", hello_content("x"))
    assert answer.content.config_records["words"]["refused"] == "refused by its policy: allow-plain"
    assert seconds < 1


def test_a_second_message_does_not_tell_when_the_work_on_the_first_is_done(tmp_path: Path) -> None:
    """Sent at another time again and again it was answered "busy", or was not."""
    client_app.forget_everything()
    settings = private(tmp_path, insecure=False)
    hospital = Hospital(tmp_path)
    tiny_set(patients=9).save(tmp_path / "tiny")
    hospital.write(images="tiny")
    (tmp_path / "policy.toml").write_text("max-epsilon = 9\ndelta = 0.001\nanswer-every = 0.4\n")
    asked(tmp_path, settings, "query.hello", hello_content("x"))
    (work,) = client_app._works.values()
    doing, goes_on = Event(), Event()

    def slow(*_: object, **__: object) -> None:
        doing.set()
        goes_on.wait(30)
        raise NeutralError(ErrorCode.SETTINGS)

    train, order = work._train, Order(round=1, first_step=0, steps=1, experiment="x")
    work._train = slow  # type: ignore[method-assign]
    told = settings.to_run_config(Path("run"))
    context = Context(
        run_id=1, node_id=7, node_config={"site-file": str(tmp_path / "site.toml")}, state=RecordDict(), run_config=told
    )
    with identity(), ThreadPoolExecutor(2) as sites:
        contents = [order_contents({"here": order}, {})["here"] for _ in range(2)]
        first = sites.submit(client_app.app, number(Message(contents[0], 7, "train"), "a"), context)
        assert doing.wait(30)
        second = sites.submit(client_app.app, number(Message(contents[1], 7, "train"), "b"), context)
        time.sleep(0.5)
        work._train = train  # type: ignore[method-assign]
        goes_on.set()
        answers = [one.result(30).content.config_records["words"]["refused"] for one in (first, second)]
    assert "busy" not in str(answers[1]).lower()
