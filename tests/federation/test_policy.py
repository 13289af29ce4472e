import re
from dataclasses import fields, replace
from pathlib import Path

import pytest

from fedsynth.errors import BudgetSpentError, ConfigError, RefusedError
from fedsynth.federation.asked import asked_of
from fedsynth.federation.error_codes import ErrorCode, to_code
from fedsynth.federation.policy import OPEN, Asked, Policy, load_policy
from fedsynth.federation.settings import FederationSettings
from fedsynth.privacy.accounting import Budget, Mechanism
from fedsynth.privacy.ledger import Ledger

PRIVATE = Asked(
    generator="dcgan",
    private=True,
    epsilon=4.0,
    delta=1e-5,
    patients=50,
    networks=("generator", "discriminator"),
    metrics=("steps",),
)
PLAIN = Asked(generator="dcgan", private=False, networks=("generator",), metrics=("steps", "generator_loss"))


@pytest.fixture
def write(tmp_path):
    def policy(text):
        (tmp_path / "policy.toml").write_text(text)
        return load_policy(tmp_path / "policy.toml")

    return policy


def code_of(policy, asked):
    with pytest.raises(RefusedError) as found:
        policy.check(asked)
    return to_code(found.value)


def test_every_key_is_read(write, tmp_path):
    text = """
    max-epsilon = 3
    delta = 1e-6
    allow-plain = false
    min-patients = 20
    generators = ["dcgan", "vae"]
    networks = ["generator"]
    metrics = []
    answer-every = 60
    secure-sum = true
    allow-one-shot = true
    max-rounds = 10
    max-local-steps = 20
    max-batch = 30
    max-parameters = 40
    runs-kept = 5
    minutes-a-day = 1.5
    megabytes-a-day = 60
    approved = "lists/approved.toml"
    health-page = false
    """
    assert write(text) == Policy(
        max_epsilon=3.0,
        delta=1e-6,
        min_patients=20,
        generators=("dcgan", "vae"),
        networks=("generator",),
        metrics=(),
        answer_every=60.0,
        secure_sum=True,
        allow_one_shot=True,
        max_rounds=10,
        max_local_steps=20,
        max_batch=30,
        max_parameters=40,
        runs_kept=5,
        minutes_a_day=1.5,
        megabytes_a_day=60.0,
        approved=tmp_path / "lists/approved.toml",
        health_page=False,
    )


def test_a_site_without_a_policy_allows_everything():
    assert load_policy(None) is OPEN
    OPEN.check(PLAIN)
    OPEN.check(PRIVATE)
    OPEN.check(replace(PRIVATE, delta=1e-2))
    OPEN.check(replace(PRIVATE, secure_sum=True, released_alone=True))
    OPEN.check_patients(1)
    assert OPEN.cap is None


def test_an_empty_policy_allows_private_runs_alone(write):
    policy = write("")
    policy.check(PRIVATE)
    assert code_of(policy, PLAIN) is ErrorCode.POLICY_PLAIN


def test_a_policy_that_is_named_and_missing_is_never_a_yes(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load_policy(tmp_path / "policy.toml")


def test_the_guide_names_every_key_and_no_other():
    guide = (Path(__file__).parents[2] / "docs" / "privacy.md").read_text(encoding="utf-8")
    section = guide.partition("## What a hospital allows")[2].partition("\n## ")[0]
    keys = [field.name.replace("_", "-") for field in fields(Policy)]
    assert re.findall(r"^\| `([a-z-]+)` \|", section, re.M) == keys


@pytest.mark.parametrize(
    ("text", "passes", "refused", "code"),
    [
        ("max-epsilon = 4", PRIVATE, replace(PRIVATE, epsilon=4.1), ErrorCode.POLICY_EPSILON),
        ("max-epsilon = 4", PRIVATE, replace(PRIVATE, epsilon=None), ErrorCode.POLICY_EPSILON),
        ("max-epsilon = 4", PRIVATE, PLAIN, ErrorCode.POLICY_PLAIN),
        ("max-epsilon = 4", replace(PRIVATE, delta=1e-6), replace(PRIVATE, delta=1e-4), ErrorCode.POLICY_DELTA),
        (
            "max-epsilon = 4\ndelta = 1e-4",
            replace(PRIVATE, delta=1e-4),
            replace(PRIVATE, delta=1e-3),
            ErrorCode.POLICY_DELTA,
        ),
        ("delta = 1e-6", replace(PRIVATE, delta=1e-6), PRIVATE, ErrorCode.POLICY_DELTA),
        ("allow-plain = true", PRIVATE, replace(PRIVATE, delta=1e-4), ErrorCode.POLICY_DELTA),
        ("", PRIVATE, replace(PRIVATE, delta=None), ErrorCode.POLICY_DELTA),
        ("allow-plain = true", PLAIN, replace(PRIVATE, patients=0), ErrorCode.POLICY_PATIENTS),
        ("min-patients = 50", PRIVATE, replace(PRIVATE, patients=49), ErrorCode.POLICY_PATIENTS),
        ("generators = ['dcgan']", PRIVATE, replace(PRIVATE, generator="vae"), ErrorCode.POLICY_GENERATORS),
        ("generators = []", None, PRIVATE, ErrorCode.POLICY_GENERATORS),
        ("networks = ['generator']", replace(PRIVATE, networks=("generator",)), PRIVATE, ErrorCode.POLICY_NETWORKS),
        ("networks = []", replace(PRIVATE, networks=()), PRIVATE, ErrorCode.POLICY_NETWORKS),
        ("metrics = ['steps']", PRIVATE, replace(PRIVATE, metrics=("steps", "patients")), ErrorCode.POLICY_METRICS),
        ("max-epsilon = 0", None, PRIVATE, ErrorCode.POLICY_EPSILON),
        ("max-epsilon = 0", None, PLAIN, ErrorCode.POLICY_PLAIN),
        ("", PRIVATE, replace(PRIVATE, secure_sum=True), ErrorCode.POLICY_SECURE_SUM),
        ("secure-sum = true", replace(PRIVATE, secure_sum=True), PLAIN, ErrorCode.POLICY_PLAIN),
        ("", PRIVATE, replace(PRIVATE, released_alone=True), ErrorCode.POLICY_ONE_SHOT),
        ("allow-plain = true", PLAIN, replace(PLAIN, released_alone=True), ErrorCode.POLICY_ONE_SHOT),
        (
            "allow-one-shot = true",
            replace(PRIVATE, released_alone=True),
            replace(PLAIN, released_alone=True),
            ErrorCode.POLICY_PLAIN,
        ),
    ],
)
def test_every_key_binds(write, text, passes, refused, code):
    policy = write(text)
    if passes is not None:
        policy.check(passes)
    assert code_of(policy, refused) is code


@pytest.mark.parametrize(
    "told",
    [
        {"federation": "one-shot", "sites": 3},
        {"sites": 1},
        {"sites": 3, "min_sites": 1},
        {"sites": 2, "weighting": "declared:north=1,south=1e-9"},
        {"sites": 3, "min_sites": 2, "weighting": "declared:north=95,south=5,west=95"},  # north and south may be left
        {"sites": 1, "federation": "central-generator"},
    ],
)
def test_an_average_of_one_site_needs_what_a_one_shot_federation_needs(told):
    asked = asked_of(FederationSettings(generator="dcgan", **told), "north")
    assert code_of(Policy(allow_plain=True), asked) is ErrorCode.POLICY_ONE_SHOT
    Policy(allow_plain=True, allow_one_shot=True).check(asked)


@pytest.mark.parametrize(
    "told",
    [
        {"sites": 2},
        {"sites": 4, "min_sites": 2},
        {"sites": 2, "weighting": "declared:north=9,south=1"},
        {"sites": 3, "min_sites": 3, "weighting": "declared:north=95,south=5,west=95"},
        {"sites": 2, "federation": "none"},
    ],
)
def test_an_average_of_several_sites_releases_nobody_alone(told):
    Policy(allow_plain=True).check(asked_of(FederationSettings(generator="dcgan", **told), "north"))


@pytest.mark.parametrize("patients", [0, 7, 19])
def test_too_few_patients_are_refused_without_telling_how_many(patients):
    policy = Policy(min_patients=20)
    policy.check_patients(20)
    with pytest.raises(RefusedError) as found:
        policy.check_patients(patients)
    assert str(found.value) == "the site's policy refuses: fewer patients than min-patients = 20"
    assert to_code(found.value) is ErrorCode.POLICY  # the server is not told the rule either


def test_the_cap_is_the_ledgers(tmp_path):
    assert Policy(max_epsilon=2.0, delta=1e-6).cap == Budget(epsilon=2.0, delta=1e-6)
    assert Policy().cap is None
    ledger = Ledger("north", tmp_path)
    with pytest.raises(BudgetSpentError) as found:
        ledger.check(ledger.group(["a", "b"]), [Mechanism(rate=0.5, noise=1.0, steps=500)], Policy(max_epsilon=2.0).cap)
    assert to_code(found.value) is ErrorCode.BUDGET


@pytest.mark.parametrize(
    ("text", "forbidden"),
    [
        ("max-epsilon = 0", True),
        ("generators = []", True),
        ("networks = []", True),
        ("", False),
        ("metrics = []", False),  # replies without a number do, unless the run weighs by patients
        ('metrics = ["steps"]', False),
        ("allow-plain = true", False),
        ("max-epsilon = 1", False),
    ],
)
def test_a_policy_that_forbids_everything_is_noticed(write, text, forbidden):
    assert bool(write(text).forbids_everything()) is forbidden


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max-epsilom = 3", "unknown key 'max-epsilom'; did you mean 'max-epsilon'"),
        ("max-epsilon = '3'", "'max-epsilon' must be a number"),
        ("max-epsilon = -1", "at least 0"),
        ("max-epsilon = 1000", "at most 50"),
        ("max-epsilon = inf", "leave it out to set no cap"),
        ("max-epsilon = 3\nallow-plain = true", "exclude each other"),
        ("delta = 0.5", "delta must lie between"),
        ("allow-plain = 1", "'allow-plain' must be true or false"),
        ("max-rounds = 0", "'max-rounds' must be a positive number"),
        ("minutes-a-day = inf", "leave it out to set no cap"),
        ("max-batch = 2.5", "whole number"),
        ("min-patients = 0", "'min-patients' must be at least 1"),
        ("min-patients = 2.5", "whole number"),
        ("generators = 'dcgan'", "must be a list"),
        ("networks = [1]", "must be a text"),
        ("metrics = [true]", "must be a text"),
    ],
)
def test_wrong_policies_name_file_key_and_remedy(write, text, words):
    with pytest.raises(ConfigError, match=words) as found:
        write(text)
    assert "policy.toml: " in str(found.value)
