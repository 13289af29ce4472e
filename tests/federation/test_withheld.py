"""What a site's policy keeps back: numbers that it does not name, and every refusal in the list of what left."""

from dataclasses import replace
from pathlib import Path

import pytest

from fedsynth.federation.egress_log import read_egress
from fedsynth.runs import Run
from fedsynth.training.checkpoint import load_generator
from tests.federation.tiny import SETTINGS, go, rows, start

UNIFORM = replace(SETTINGS, weighting="uniform", rounds=2)


def begun(tmp_path: Path, policy: str, **changes: object) -> Run:
    settings = replace(UNIFORM, **changes)  # type: ignore[arg-type]
    run = start(tmp_path, settings)
    run.site("site-0").mkdir(parents=True)
    (run.site("site-0") / "policy.toml").write_text(policy)
    go(run, settings)
    return run


def left(run: Run, site: str) -> list[tuple[str, int, set[str]]]:
    """Message, round and the names of the numbers and codes that left, without the weights'."""
    lines = read_egress(run.site(site) / "egress.jsonl")
    return [
        (line["message"], line["round"], {name for name in line["content"] if "." not in name} - {"facts"})
        for line in lines
    ]


def test_numbers_that_a_policy_does_not_name_stay_at_home(tmp_path: Path) -> None:
    run = begun(tmp_path, 'allow-plain = true\nmetrics = ["steps", "discriminator_loss"]')
    assert left(run, "site-0") == [
        ("hello", 0, set()),
        ("train", 1, {"steps", "discriminator_loss"}),
        ("train", 2, {"steps", "discriminator_loss"}),
    ]
    assert {"generator_loss", "patients", "share_0"} < left(run, "site-1")[1][2]
    told = {(row["site"], row["round"]): row for row in rows(run)}
    assert {row["answered"] for row in told.values()} == {"true"}
    assert told["site-0", "2"]["generator_loss"] == ""
    assert told["site-0", "2"]["discriminator_loss"] != ""
    assert told["site-1", "2"]["generator_loss"] != ""
    shares = load_generator(run.checkpoints)[1].class_shares  # as the other site has them
    assert abs(sum(shares) - 1) < 1e-5


def test_a_site_that_tells_no_number_at_all_trains_too(tmp_path: Path) -> None:
    run = begun(tmp_path, "allow-plain = true\nmetrics = []")
    assert left(run, "site-0")[1:] == [("train", 1, set()), ("train", 2, set())]
    assert {row["answered"] for row in rows(run)} == {"true"}


def test_a_run_that_weighs_by_patients_is_refused_where_they_must_not_be_told(tmp_path: Path) -> None:
    policy = 'allow-plain = true\nallow-one-shot = true\nmetrics = ["steps"]'
    run = begun(tmp_path, policy, weighting="auto", min_sites=1)
    told = {(row["site"], row["answered"], row["reason"]) for row in rows(run)}
    assert told == {("site-0", "false", "refused by its policy: metrics"), ("site-1", "true", "")}
    assert ("refusal", 0, {"refused by its policy: metrics"}) in left(run, "site-0")


@pytest.mark.slow
def test_refusals_are_in_the_list_of_what_left(tmp_path: Path) -> None:
    policy = "allow-plain = true\nallow-one-shot = true"
    run = begun(tmp_path, policy, inject="straggler=0.5", min_sites=1, rounds=6, seed=3)
    for site in ("site-0", "site-1"):
        refused = {number: names for message, number, names in left(run, site) if message == "refusal"}
        late = {int(row["round"]) for row in rows(run) if row["site"] == site and row["answered"] == "false"}
        assert late <= refused.keys()
        assert all(names == {"did not answer in time"} for names in refused.values())
    assert {row["answered"] for row in rows(run)} == {"true", "false"}  # by the seed
