"""Every training of every arm that a plan asks for, and of the controls beside them, scored on the holdout."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from fedsynth.data import ImageSet
from fedsynth.evaluation.score import content_hash
from fedsynth.evaluation.utility import classification, segmentation
from fedsynth.evaluation.utility.arm_cache import ArmCache, Trainings
from fedsynth.evaluation.utility.controls import fit_threshold, has_lesions, majority_class
from fedsynth.evaluation.utility.training_arms import (
    AUGMENTED,
    FINE_TUNED,
    MAJORITY,
    MEAN_IMAGE,
    OF_STRATEGY,
    OF_SYNTHETIC,
    THRESHOLD,
    Arm,
    Learner,
    Material,
    train_arm,
)

Kind = Literal["segmentation", "classification"]
WAYS: dict[Kind, Any] = {"segmentation": segmentation, "classification": classification}
OnArm = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to run: `arms` with whether each is augmented, and how many trainings of each, with which first seed.

    The controls are added to them, and the arms on images of `nobody`. `settings` hold for every arm; `federated` says
    how sites' networks become one.
    """

    kind: Kind
    arms: Sequence[tuple[str, bool]]
    seeds: int = 3
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    federated: Mapping[str, Any] = field(default_factory=dict)
    nobody: Mapping[str, ImageSet] = field(default_factory=dict)


def arm_name(arm: str, augmented: bool) -> str:
    """What the arm is called in results."""
    return arm + AUGMENTED if augmented else arm


def train_all(
    real: ImageSet,
    material: Material,
    holdout: ImageSet,
    plan: Plan,
    learner: Learner,
    kept: ArmCache,
    on_arm: OnArm,
) -> dict[str, list[Trainings]]:
    """Every training of every arm, scored; what another process is at work on comes last."""
    way, arms = WAYS[plan.kind], _all_arms(material, plan)
    facts = {"kind": plan.kind, "settings": plan.settings, "real": content_hash(real), "header": repr(real.header)}
    if plan.kind == "classification":
        facts["table"] = "with networks"  # those kept by earlier versions do not say which network was asked
    found: dict[tuple[str, bool, int], Trainings] = {}

    def make(arm: str, augmented: bool, number: int) -> Trainings:
        made = train_arm(arm, material, learner, seed=plan.seed + number, augment=augmented)
        return _scored(made, way.score_arm(made.networks, holdout))

    def take(job: tuple[str, bool, int], *, wait: bool) -> bool:
        arm, augmented, number = job
        on_arm(arm_name(arm, augmented), len(found), len(jobs))
        cache = ArmCache() if arm in OF_SYNTHETIC else kept
        shown: dict[str, Any] = {arm: content_hash(plan.nobody[arm])} if arm in plan.nobody else {}
        shown |= {"federated": plan.federated} if arm in OF_STRATEGY else {}
        shown |= {"start": "a candidate"} if arm == FINE_TUNED else {}  # it was none in earlier versions
        own = {**facts, **shown, "arm": arm, "augmented": augmented, "seed": plan.seed + number}
        made = cache.get(own, lambda: make(*job), wait=wait)
        if made is not None:
            found[job] = made
        return made is not None

    jobs = [(*arm, number) for arm in arms for number in range(plan.seeds)]
    for job in [job for job in jobs if not take(job, wait=False)]:
        take(job, wait=True)
    on_arm("scores", len(jobs), len(jobs))
    trained = {arm_name(*arm): [found[*arm, number] for number in range(plan.seeds)] for arm in arms}
    for name, control in _untrained(material, holdout, plan).items():
        trained[name] = [Trainings(table=way.score_arm({None: control}, holdout), steps=[0])] * plan.seeds
    return trained


def _all_arms(material: Material, plan: Plan) -> list[tuple[str, bool]]:
    """The arms that were asked for, and beside them those that are trained for comparison, augmented alike."""
    beside = list(material.nobody)
    beside += [MEAN_IMAGE] if plan.kind == "segmentation" and has_lesions(material.reference) else []
    ways = dict.fromkeys(augmented for _, augmented in plan.arms)
    return list(dict.fromkeys([*plan.arms, *((arm, augmented) for augmented in ways for arm in beside)]))


def _untrained(material: Material, holdout: ImageSet, plan: Plan) -> dict[str, Any]:
    """The controls that learn nothing from images."""
    if plan.kind == "classification":
        named = [name for name in holdout.cases["class"] if name]
        return {MAJORITY: majority_class(named, holdout.header.classes)}
    reference = material.reference
    return {THRESHOLD: fit_threshold(reference)} if reference is not None and has_lesions(reference) else {}


def _scored(made: Arm, table: pd.DataFrame) -> Trainings:
    networks = made.networks.values()
    collapsed = sum(network.collapsed for network in networks)
    return Trainings(
        table=table, steps=[network.steps for network in networks], repeated=made.repeated, collapsed=collapsed
    )
