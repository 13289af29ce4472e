"""From settings to a trainer that is ready to take its first step, plain or private. Everything is checked here.

A private run is planned from declared numbers alone: this file hands the door no count of patients. It does not know
whether a holder trains alone or in a federation.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from fedsynth.errors import ConfigError
from fedsynth.generators.augment import Augmentation
from fedsynth.generators.catalog import Recipe, build, find
from fedsynth.generators.pairing import read_pairing
from fedsynth.images import ImageSet
from fedsynth.privacy.door import Door
from fedsynth.privacy.feasibility import Feasibility, gauge
from fedsynth.privacy.ledger import Ledger
from fedsynth.privacy.lineage import Lineage, Training
from fedsynth.privacy.plan import PrivatePlan, make_plan
from fedsynth.privacy.randomness import InsecureRandomness, Randomness, SecretRandomness
from fedsynth.protocol import ImageShape, Model, global_randomness
from fedsynth.tasks.catalog import NETWORKS, build_task
from fedsynth.training.checkpoint import Card
from fedsynth.training.disk import Disk
from fedsynth.training.holder import Holder, MaskHolder
from fedsynth.training.lineage import Origin, origin_of, start_networks
from fedsynth.training.private import PrivateGradients, PrivateParts, parameters_behind_the_door, steps_by_turn
from fedsynth.training.settings import Privacy, TrainSettings, open_device
from fedsynth.training.trainer import PlainGradients, Trainer

TASK_RECIPE = Recipe(steps=400, rate=2e-3, betas=(0.9, 0.999), decay=0.5, augment=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """A trainer with what surrounds it; `origin` is where its networks come from and whom it reads.

    Private runs have a `door` and a `plan`, and keep a copy of their `charges`.
    """

    images: ImageSet
    settings: TrainSettings
    trainer: Trainer
    holder: Holder
    door: Door | None = None
    plan: PrivatePlan | None = None
    charges: Path | None = None
    origin: Origin

    @property
    def shown(self) -> str:
        """Whom the images show: a state remembers it, for a run does not change from one to the other."""
        return "phantoms" if self.images.header.phantoms else "patients"

    @property
    def feasibility(self) -> Feasibility | None:
        """Whether the plan of a private run can work, from declared numbers; None in plain runs."""
        return None if self.plan is None else gauge(self.plan, parameters_behind_the_door(self.trainer.family))

    def restart_insecure(self, randomness: InsecureRandomness) -> None:
        """Let a round of a run that can be repeated draw from a stream of its own; nothing in other runs."""
        if self.door is not None and not self.door.private:
            self.door.randomness = randomness

    def check_resumed(self) -> None:
        """Refuse to go on from a state whose private steps the ledger does not know."""
        if self.door is not None:
            taken = steps_by_turn(self.trainer.family, self.trainer.step)
            self.door.check_resumed(sum(taken.values()))

    def pay(self, first: int, steps: int, *, round: int | None = None) -> int:  # noqa: A002
        """How many of the next `steps` steps may be taken; in private runs they are charged when this returns.

        `round` is the block's number in the ledger, its first step where nothing is said.
        """
        if self.door is None:
            return steps
        family, block = self.trainer.family, first if round is None else round
        while steps and sum(steps_by_turn(family, steps, first=first).values()) > self.door.left_for(block):
            steps -= 1
        if steps:
            self.door.charge(steps_by_turn(family, steps, first=first), round=block)
            if self.charges is not None:
                self.door.copy_charges(self.charges)
        return steps

    def card(self) -> Card:
        """The card of the sampler as it stands. In private runs nothing on it was counted from patients."""
        header = self.images.header
        counted = self.plan is None and bool(self.trainer.family.turns)
        return Card(
            generator=self.settings.generator,
            shape=self.trainer.family.shape,
            options=self.settings.options,
            pairing=self.settings.pairing,
            channels=header.channels,
            classes=header.classes,
            mask_labels=header.mask_labels,
            spacing_mm=header.spacing_mm,
            class_shares=_class_shares(self.holder, counted=counted),
            steps=self.trainer.step,
            trained_on=header.name,
            privacy=self.lineage.claim(),
            lineage=self.lineage,
            private=self.plan is not None,
            private_networks=self.settings.private_networks,
        )

    @property
    def lineage(self) -> Lineage:
        """Where the weights come from, this run included."""
        steps, training = self.trainer.step, self._training
        return self.origin.lineage(self.settings, self.images.header, steps=steps, training=training, plan=self.plan)

    @property
    def _training(self) -> Training:
        if self.plan is None or self.door is None:
            return "plain" if self.trainer.family.turns else "untrained"
        return "private" if self.door.private else "insecure"


def training_members(images: ImageSet) -> ImageSet:
    """The images that may be trained on: the members, or everything where no roles were drawn."""
    roles = set(images.cases["role"])
    if roles == {""}:
        return images
    if "member" not in roles:
        raise ConfigError("the image set has no members to train on", file=images.folder, value=sorted(roles))
    return images.select(role="member")


def recipe_of(settings: TrainSettings) -> Recipe:
    """The family's recipe, plain or private, with what the user said put in its place."""
    if settings.generator in NETWORKS:
        return settings.over(replace(TASK_RECIPE, ema=(settings.steps or TASK_RECIPE.steps) / 40))
    entry = find(settings.generator)
    private = entry.private_recipe if settings.start is None else entry.private_started_recipe
    return settings.over(entry.recipe if settings.privacy is None else private)


def fresh_family(settings: TrainSettings, shape: ImageShape) -> Model:
    """The networks with their first weights, which follow from the seed: the same at every holder of a federation.

    A task network's name stands where a family's would: whoever trains the one trains the other.
    """
    with global_randomness(settings.seed):
        if settings.generator in NETWORKS:
            return build_task(settings.generator, shape, **settings.options)
        private = settings.privacy is not None or settings.private_networks
        return build(settings.generator, shape, private=private, **settings.options)


def prepare(
    images: ImageSet,
    settings: TrainSettings,
    *,
    disk: Disk | None = None,
    streams: int | None = None,
    masks_only: bool = False,
    recipe: Recipe | None = None,
) -> Prepared:
    """Build and check everything. Without a disk nothing is written and nothing can be charged.

    `streams` is the seed of batches and noise where it is not the run's own: in a federation networks start alike,
    and every holder shuffles for itself. With `masks_only` the family learns label maps and never sees a picture.
    `recipe` is for sites whose networks come from the server, which alone knows what they go on from.
    """
    recipe = recipe_of(settings) if recipe is None else recipe
    streams = settings.seed if streams is None else streams
    kind = MaskHolder if masks_only else Holder
    holder = kind(training_members(images), device=open_device(settings.device))
    header, shape = images.header, holder.shape
    pairing = read_pairing(settings.pairing, header.channels, header.mask_labels) if settings.pairing else None
    shape = shape if pairing is None else pairing.shape(shape, header.mask_labels)
    family = fresh_family(settings, shape).to(holder.device)
    origin = origin_of(holder, settings, disk)
    start_networks(family, settings)
    augmentation = Augmentation(image_channels=shape.channels) if recipe.augment else None
    if settings.privacy is not None:
        return _prepare_private(images, settings, settings.privacy, recipe, holder, family, augmentation, origin, disk)
    precision = torch.bfloat16 if settings.precision == "bfloat16" else None
    gradients = PlainGradients(
        family,
        holder,
        seed=streams,
        batch=recipe.batch,
        augmentation=augmentation,
        pairing=pairing,
        precision=precision,
    )
    steps = recipe.steps if family.turns else 0  # a family without turns has nothing to learn
    trainer = Trainer(family, recipe, seed=streams, total_steps=steps, gradients=gradients, device=holder.device)
    return Prepared(images=images, settings=settings, trainer=trainer, holder=holder, origin=origin)


def plan_privacy(settings: TrainSettings, family: Model, steps: int) -> PrivatePlan:
    """The mechanism of the whole run, from declared numbers."""
    assert settings.privacy is not None
    return make_plan(settings.privacy.settings(), steps_by_turn(family, steps))


def _prepare_private(
    images: ImageSet,
    settings: TrainSettings,
    privacy: Privacy,
    recipe: Recipe,
    holder: Holder,
    family: Model,
    augmentation: Augmentation | None,
    origin: Origin,
    disk: Disk | None,
) -> Prepared:
    if settings.precision != "float32":
        raise ConfigError(
            "private runs are in full precision", value=settings.precision, remedy="leave out --precision"
        )
    plan = plan_privacy(settings, family, recipe.steps)
    parts = PrivateParts(family, plan.settings, augmentation=augmentation)
    insecure = privacy.insecure_seed
    randomness: Randomness = SecretRandomness() if insecure is None else InsecureRandomness(insecure)
    door = Door(
        plan,
        parts.real,
        patients=holder.patients,
        randomness=randomness,
        run="rehearsal" if disk is None else disk.ledger_name(phantoms=images.header.phantoms),
        ledger=None if disk is None or images.header.phantoms else Ledger(disk.site, privacy.store),
        cap=None if disk is None else disk.cap,
    )
    shares = _class_shares(holder, counted=False)
    gradients = PrivateGradients(parts, holder, door, class_shares=shares, fakes=privacy.fakes)
    trainer = Trainer(
        family, recipe, seed=settings.seed, total_steps=recipe.steps, gradients=gradients, device=holder.device
    )
    return Prepared(
        images=images,
        settings=settings,
        trainer=trainer,
        holder=holder,
        door=door,
        plan=plan,
        origin=origin,
        charges=None if disk is None else disk.charges,
    )


def _class_shares(holder: Holder, *, counted: bool) -> tuple[float, ...]:
    """Of the data in plain runs; equal shares, a public prior, in private ones and where nothing is learnt."""
    n = holder.shape.n_classes
    if not counted or not n:
        return (1 / n,) * n if n else ()
    return tuple(round(float(share), 6) for share in holder.class_shares)
