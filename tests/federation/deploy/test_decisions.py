"""What a hospital decides: that both ends hear of it at once, that it binds, and that nobody asks again."""

import csv
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from fedsynth.cli import app
from fedsynth.errors import ConfigError, FedSynthError, RefusedError
from fedsynth.federation import approval
from fedsynth.federation.asked import asked_of
from fedsynth.federation.client import SiteWork
from fedsynth.federation.deploy import run_supervisor
from fedsynth.federation.deploy.run_supervisor import TurnedDownError, load_settings
from fedsynth.federation.deploy.server_files import load_server
from fedsynth.federation.error_codes import ErrorCode, PolicyRefusedError
from fedsynth.federation.exchange import Arrays, Order
from fedsynth.federation.messages import Hello, Reply
from fedsynth.federation.policy import Policy
from fedsynth.federation.rounds import Progress
from fedsynth.federation.server_app import GridSites, Refusals, read_refusals
from fedsynth.federation.settings import FederationSettings, from_run_config
from fedsynth.federation.site_caps import DailyUsage
from fedsynth.federation.site_context import SITE_FILE, open_site_context
from fedsynth.federation.trained_rounds import SPARE
from fedsynth.training.checkpoint import load_generator
from fedsynth.training.settings import Privacy
from tests.federation.deploy.real_sites import NAMES, deployed, serve, set_policy
from tests.federation.tiny import SETTINGS
from tests.training.tiny import tiny_set

PLAIN = replace(SETTINGS, rounds=2)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    made = deployed(tmp_path, tiny_set(size=16))
    for name in NAMES:
        set_policy(made, name, **{"max-epsilon": None, "allow-plain": True, "allow-one-shot": True})
    return made


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "rounds.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_what_init_writes_lets_all_hospitals_take_part(tmp_path: Path) -> None:
    """Before, the plan was without privacy, and every policy refused it: 0 of 2."""
    out = deployed(tmp_path, tiny_set(size=16))
    settings = load_settings(load_server(out / "server"))
    assert settings.privacy is not None
    small = replace(settings, privacy=replace(settings.privacy, fakes=8), options={"base": 8})
    run = serve(out, replace(small, rounds=1, local_steps=1))
    assert [row["answered"] for row in rows(run)] == ["true", "true"]


def test_a_refusal_is_said_at_both_ends_at_once(out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """South never comes: before, the server waited for it for an hour."""
    for name in NAMES:
        set_policy(out, name, **{"max-rounds": 1})
    begun = time.monotonic()
    with pytest.raises(FedSynthError, match=r"0 of 2 sites take part.*max-rounds"):
        serve(out, PLAIN, without=("south",))
    assert time.monotonic() - begun < 30
    said = capfd.readouterr()
    assert "north refuses: refused by its policy: max-rounds" in said.out
    assert "north refuses hello: the site's policy refuses: 2 is above max-rounds = 1" in said.err
    assert "2 is above max-rounds = 1" in (out / "north/state/site.log").read_text()
    assert not list((out / "north/state").glob("run-*"))  # a run that is not let in is not kept
    assert read_refusals(out / "server/run") == {"north": ErrorCode.POLICY_ROUNDS}


def test_a_server_that_was_turned_down_does_not_try_again(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_supervisor, "BETWEEN", 0.0)
    monkeypatch.setattr(run_supervisor, "_ENDING", 0.0)
    submitted: list[str] = []

    def ask(word: str, *rest: str) -> dict[str, object]:
        """Flower, which carries the run out and says how it ended."""
        if word == "run":
            submitted.append(rest[0])
            with pytest.raises(FedSynthError):
                serve(out, settings)
            return {"run-id": "1"}
        return {"runs": [{"run-id": "1", "status": "finished:failed" if submitted else "finished:completed"}]}

    settings = PLAIN
    for name in NAMES:
        set_policy(out, name, generators=["dcgan"])
    said: list[str] = []
    carrier = run_supervisor.Carrier(
        place=load_server(out / "server"),
        link=SimpleNamespace(flower=SimpleNamespace(ask=ask), check_alive=lambda: None),  # type: ignore[arg-type]
        hospitals=SimpleNamespace(reconcile=lambda: None),  # type: ignore[arg-type]
        report=said.append,
        settings=settings,
    )
    with pytest.raises(TurnedDownError, match=r"take part \(north: .*generators, south: .*generators"):
        carrier.carry_out()
    assert len(submitted) == 1  # before: three
    assert [line for line in said if "will not take part" in line] == [
        f"{name} will not take part: refused by its policy: generators" for name in NAMES
    ]


def test_a_policy_that_changes_in_the_middle_is_final(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def watch(progress: Progress) -> None:
        set_policy(out, "south", **{"max-batch": 3})

    asked: list[list[str]] = []
    ask = GridSites.ask

    def listed(self: GridSites, orders: Mapping[str, Order], arrays: Arrays) -> list[Reply]:
        asked.append(sorted(orders))
        return ask(self, orders, arrays)

    monkeypatch.setattr(GridSites, "ask", listed)
    run = serve(out, replace(PLAIN, rounds=3, min_sites=1), watch=watch)
    found = [(row["round"], row["site"], row["reason"]) for row in rows(run) if row["answered"] != "true"]
    assert found == [(str(number), "south", "refused by its policy: max-batch") for number in (1, 2, 3)]
    assert asked == [["north", "south"], ["north"], ["north"]]


@pytest.mark.parametrize(
    ("key", "allowed", "refused"),
    [
        ("max-rounds", 2, 1),
        ("max-local-steps", 2, 1),
        ("max-batch", 4, 3),
        ("max-parameters", 10**6, 1000),
    ],
)
def test_caps_bind(out: Path, key: str, allowed: int, refused: int) -> None:
    set_policy(out, "north", **{key: allowed})
    set_policy(out, "south", **{key: refused})
    run = serve(out, replace(PLAIN, min_sites=1))
    assert {(row["site"], row["reason"]) for row in rows(run)} == {
        ("north", ""),
        ("south", f"refused by its policy: {key}"),
    }


def test_runs_kept_binds_for_new_runs_alone(out: Path) -> None:
    set_policy(out, "south", **{"runs-kept": 1})
    once = replace(PLAIN, rounds=1, min_sites=1)
    serve(out, once)
    serve(out, replace(once, seed=1), run="second")
    assert [row["reason"] for row in rows(out / "server/second")] == ["", "refused by its policy: runs-kept"]
    assert len(list((out / "south/state").glob("run-*"))) == 1
    (kept,) = (out / "south/state").glob("run-*")
    kept.rename(out / "elsewhere")
    serve(out, replace(once, seed=2), run="third")
    assert [row["answered"] for row in rows(out / "server/third")] == ["true", "true"]


def test_what_may_leave_in_a_day_is_refused_before_a_round_is_trained(out: Path) -> None:
    """Two answers fit and the third does not; the next day it would, so it is asked in every round."""
    run = serve(out, replace(PLAIN, rounds=1))
    sent = DailyUsage(out / "south/state").today().bytes
    assert sent == int(rows(run)[1]["bytes_up"]) > 0
    set_policy(out, "south", **{"megabytes-a-day": 3.5 * sent / 1e6})
    run = serve(out, replace(PLAIN, rounds=4, min_sites=1, seed=1), run="second")
    assert [row["reason"].rpartition(" ")[2] for row in rows(run) if row["site"] == "south"] == [
        "",
        "",
        "megabytes-a-day",
        "megabytes-a-day",
    ]
    assert sorted(path.name for path in (out / "south/state").glob("run-*/state-*"))[-1] == "state-000002.safetensors"


def test_minutes_of_a_day_bind_and_end_with_it(out: Path) -> None:
    usage = DailyUsage(out / "south/state")
    usage.add(seconds=61.0, bytes=0)
    set_policy(out, "south", **{"minutes-a-day": 1})
    run = serve(out, replace(PLAIN, min_sites=1))
    assert {row["reason"] for row in rows(run) if row["site"] == "south"} == {"refused by its policy: minutes-a-day"}
    before = (out / "south/state/usage.json").read_text()
    (out / "south/state/usage.json").write_text(before.replace(usage.today().day, "2020-01-01"))
    assert usage.today().seconds == 0.0


def test_a_server_that_repeats_rounds_is_answered_no_more_often_than_the_plan_and_some(out: Path) -> None:
    """Before, a plan of two rounds was trained as often as a server sent other weights."""
    experiment, file = "exp-1", {SITE_FILE: str(out / "north/site.toml")}
    site = open_site_context(file, Path("/srv/run"), experiment)
    work = SiteWork(site, PLAIN, experiment=experiment)
    for number in range(PLAIN.rounds + SPARE + 1):
        if number % 5 == 0:
            work = SiteWork(site, PLAIN, experiment=experiment)  # the node was started again
        sent = {name: value + np.float32(number) for name, value in work._arrays().items()}
        order = Order(round=1 + number % 2, first_step=2 * (number % 2), steps=2, experiment=experiment)
        if number < PLAIN.rounds + SPARE:
            work.train(order, sent)
            work.train(order, sent)  # finished and lost on the way: sent again, and not counted
    with pytest.raises(RefusedError, match="more rounds than its plan holds"):
        work.train(order, sent)


def test_a_refusal_that_a_new_day_lifts_ends_no_run_and_one_that_was_taken_back_is_forgotten(tmp_path: Path) -> None:
    """Before, a day's minutes used up at both hospitals ended the server for good, as if they had decided so."""
    place = SimpleNamespace(run=tmp_path)
    carrier = run_supervisor.Carrier(
        place=place,  # type: ignore[arg-type]
        link=None,  # type: ignore[arg-type]
        hospitals=None,  # type: ignore[arg-type]
        report=print,
        settings=PLAIN,
    )
    heard = Refusals(tmp_path)
    for code, final in ((ErrorCode.POLICY_MINUTES, 0), (ErrorCode.REFUSED, 0), (ErrorCode.POLICY_APPROVED, 2)):
        for name in NAMES:
            heard.add(Hello(site=name, refused=code))
        assert len(carrier._final_refusals()) == final
    heard.add(Hello(site="north"))
    assert read_refusals(tmp_path) == {"south": ErrorCode.POLICY_APPROVED}


def typed(out: Path, name: str, *words: str, answer: str = "") -> str:
    done = CliRunner().invoke(app, ["site", *words, str(out / name / "site.toml")], input=answer)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_sampler_of_one_hospital_leaves_only_where_its_policy_says_so(
    out: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    set_policy(out, "south", **{"allow-one-shot": False})
    settings = replace(PLAIN, federation="one-shot", min_sites=1)
    run = serve(out, settings)
    said = capfd.readouterr()
    assert [line for line in said.out.splitlines() if "refuses" in line] == [
        "south refuses: refused by its policy: allow-one-shot"
    ]
    assert [line for line in said.err.splitlines() if "refuses" in line] == [
        "south refuses hello: the site's policy refuses: a run that may release a sampler of this site alone "
        "(allow-one-shot)"
    ]
    assert {row["site"] for row in rows(run) if row["answered"] == "true"} == {"north"}
    assert load_generator(run / "checkpoints")[1].mixture == (1.0,)
    assert not list((out / "south/state").glob("run-*"))
    page = approval.page(approval.Plan(settings=settings), Policy(allow_plain=True), asked_of(settings, "south"))
    assert "What leaves each hospital: once, at the end, its whole sampler" in page
    assert "REFUSES it, approved or not: the site's policy refuses: a run that may release a sampler of this" in page


def test_a_hospital_takes_part_only_in_a_plan_that_somebody_there_has_approved(out: Path) -> None:
    set_policy(out, "south", approved="approved.toml")
    settings = replace(PLAIN, rounds=1)
    with pytest.raises(FedSynthError, match="south: refused by its policy: approved"):
        serve(out, settings)
    plan = approval.Plan(settings=settings)
    page = typed(out, "south", "approve", answer="mlp-00000000\n")
    assert "Trains the generator 'mlp' at 2 hospitals: 1 round(s) of 2 step(s)" in page
    assert "WITHOUT PRIVACY" in page
    assert "Not approved." in page
    assert f"waiting  {plan.name}" in typed(out, "south", "status")
    assert f"Approved: {plan.name}" in typed(out, "south", "approve", answer=f"{plan.name}\n")
    assert "No plan waits" in typed(out, "south", "approve")
    run = serve(out, settings)
    assert [row["answered"] for row in rows(run)] == ["true", "true"]
    with pytest.raises(FedSynthError, match="south: refused by its policy: approved"):
        serve(out, replace(settings, local_steps=3), run="another")  # any other number is another plan
    (out / "south/approved.toml").unlink()
    with pytest.raises(FedSynthError, match="south: refused by its policy: approved"):
        serve(out, replace(settings, seed=1), run="withdrawn")


def test_a_plan_is_approved_before_a_run_from_the_servers_file(out: Path) -> None:
    """What a person reads in the server's file is what the node is sent, to the hash."""
    place = load_server(out / "server")
    sent = load_settings(place)
    set_policy(out, "south", approved="approved.toml", **{"max-rounds": 3})
    name = approval.read_plan(place.settings).name
    said = CliRunner().invoke(
        app, ["site", "approve", str(out / "south/site.toml"), "--plan", str(place.settings)], input=name + "\n"
    )
    assert f"Approved: {name}" in said.output
    assert "REFUSES it" in said.output  # the list does not lift the policy's other lines
    received, _ = from_run_config(sent.to_run_config(Path("/srv/run"), nodes=Path("/srv/nodes.toml")))
    assert approval.Plan(settings=received).sha256 in approval.approved(out / "south/approved.toml")
    other = replace(received, privacy=replace(received.privacy, epsilon=7.0))  # type: ignore[type-var]
    assert approval.Plan(settings=other).sha256 not in approval.approved(out / "south/approved.toml")


def test_a_server_cannot_fill_the_disk_with_plans(tmp_path: Path) -> None:
    policy = Policy(approved=tmp_path / "approved.toml")
    for seed in range(approval.MOST_WAITING + 5):
        with pytest.raises(PolicyRefusedError):
            approval.check_approved(policy, FederationSettings(seed=seed), "south", tmp_path)
    assert approval.waiting(tmp_path) == []  # the policy refuses them, approved or not
    policy = replace(policy, allow_plain=True)
    for seed in range(approval.MOST_WAITING + 5):
        with pytest.raises(PolicyRefusedError):
            approval.check_approved(policy, FederationSettings(seed=seed), "south", tmp_path)
    assert len(approval.waiting(tmp_path)) == approval.MOST_WAITING


@pytest.mark.parametrize("generator", ["../../escaped", "a\nb", "aaa"])
def test_a_servers_text_names_no_file(tmp_path: Path, generator: str) -> None:
    """Before, a family called '../../escaped' wrote a file beside the hospital's folder."""
    home = tmp_path / "north" / "state"
    policy = Policy(approved=tmp_path / "approved.toml", allow_plain=True)
    with pytest.raises(ConfigError, match="unknown generator"):
        approval.check_approved(policy, FederationSettings(generator=generator), "north", home)
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize("said", ['{"base":null}', '{"a":[null]}', '{"a":{"b":null}}', '{"a":NaN}', '{"\\ud800":1}'])
def test_what_toml_cannot_keep_is_in_no_plan(said: str) -> None:
    """Before, '{}' and '{"base": null}' had one hash, and an approval of the one let the other in."""
    table = PLAIN.to_run_config(Path("/srv/run"))
    with pytest.raises(ConfigError, match="options"):
        from_run_config(table | {"options": said})


def test_one_plan_that_cannot_be_shown_hides_no_other(out: Path) -> None:
    set_policy(out, "south", approved="approved.toml")
    with pytest.raises(FedSynthError, match="approved"):
        serve(out, PLAIN)
    (waits,) = (out / "south/state" / approval.WAITING).iterdir()
    (waits.parent / "0.toml").write_text(waits.read_text().replace('"mlp"', '"aaa"'))
    page = typed(out, "south", "approve", answer="\n")
    assert "cannot be shown, nor approved" in page
    assert f"Plan {approval.Plan(settings=PLAIN).name}" in page


def test_a_page_shows_this_hospitals_number_and_obeys_no_text_of_the_servers() -> None:
    private = Privacy(epsilon=8.0, patients=100)
    options = {"note\u202e": "\x1b[2J"}
    settings = FederationSettings(
        generator="mlp", weighting="declared:north=5,south=7", privacy=private, options=options
    )
    page = approval.page(approval.Plan(settings=settings), Policy(), asked_of(settings, "north"))
    assert "declares 5 patients for this hospital" in page
    assert "\u202e" not in page
    assert "\x1b" not in page
