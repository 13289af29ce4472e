"""From settings to a trainer that is ready to take its first step, plain or private. Everything is checked here.

A private run is planned from declared numbers alone: this file hands the mechanism no count of patients. It does not
know whether a site trains alone or in a federation.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from fedsynth.data import ImageSet
from fedsynth.errors import ConfigError, RefusedError
from fedsynth.models.augmentation import Augmentation
from fedsynth.models.base import ImageShape, Model, Tensors, global_randomness
from fedsynth.models.downstream.tasks import NETWORKS, build_task
from fedsynth.models.generators.catalog import Recipe, build, find, recipe_for
from fedsynth.models.pairing import Pairing, read_pairing
from fedsynth.privacy.feasibility import Feasibility, gauge
from fedsynth.privacy.ledger import Ledger
from fedsynth.privacy.lineage import Lineage, Training
from fedsynth.privacy.mechanism import ClippedSum, GaussianMechanism
from fedsynth.privacy.noise_shares import NoiseShares
from fedsynth.privacy.patient_statistics import GRID, RELEASE
from fedsynth.privacy.plan import PrivatePlan, make_plan
from fedsynth.privacy.secure_rng import InsecureRandomness, Randomness, SecretRandomness
from fedsynth.training.checkpoint import Card
from fedsynth.training.dp_gradients import PrivateGradients, PrivateParts, private_parameters, steps_by_phase
from fedsynth.training.fitting import fit_alone, private_sums, statistics_of, sums_of
from fedsynth.training.lineage import Origin, origin_of, start_networks
from fedsynth.training.patient_batches import PatientBatches
from fedsynth.training.settings import SIMULATED, Privacy, TrainSettings, computes_bfloat16, open_device
from fedsynth.training.site_storage import SiteStorage
from fedsynth.training.trainer import PlainGradients, Trainer

FEWEST_PATIENTS = 10
REFINING = 0.3
"""Of the family's learning rates in plain runs that begin with simulated heads: what was learnt there is to stay."""
TASK_RECIPE = Recipe(steps=400, rate=2e-3, betas=(0.9, 0.999), decay=0.5, augment=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """A trainer with what surrounds it; `origin` is where its networks come from and whom it reads.

    Private runs have a `mechanism` and a `plan`, and keep a copy of their `charges`.
    """

    images: ImageSet
    settings: TrainSettings
    trainer: Trainer
    dataset: PatientBatches
    mechanism: GaussianMechanism | None = None
    plan: PrivatePlan | None = None
    charges: Path | None = None
    storage: SiteStorage | None = None
    origin: Origin
    pairing: Pairing | None = None

    def check_members(self) -> None:
        """Refuse images that the family must not learn from. For whoever holds them: a server must not learn it."""
        self.trainer.family.check_members(self.images)

    @property
    def shown(self) -> str:
        """Whom the images show: a state remembers it, for a run does not change from one to the other."""
        return "phantoms" if self.images.header.phantoms else "patients"

    @property
    def feasibility(self) -> Feasibility | None:
        """Whether the plan of a private run can work, from declared numbers; None in plain runs."""
        if self.plan is None:
            return None
        family = self.trainer.family
        numbers = statistics_of(family).length + 1 if family.per_patient else private_parameters(family)
        return gauge(self.plan, numbers)

    def restart_insecure(self, randomness: InsecureRandomness) -> None:
        """Let a round of a run that can be repeated draw from a stream of its own; nothing in other runs."""
        if self.mechanism is not None and not self.mechanism.private:
            self.mechanism.randomness = randomness

    def fit(self, but: Collection[str] = ()) -> None:
        """Fit to this site's images what is not trained, except the networks in `but`."""
        fit_alone(self.trainer, self.sums, but=but)

    def sums(self, number: int, *, round: int = 0) -> Tensors:  # noqa: A002
        """What pass `number` of a fit takes from this site; in private runs one noised sum, charged in `round`."""
        family = self.trainer.family
        if self.mechanism is None:
            return sums_of(family, self.dataset, number, pairing=self.pairing, seed=self.trainer.seed)
        if not family.per_patient:
            raise RefusedError("sums over images have no bound per patient: they never leave a private run")
        sums = private_sums(self.mechanism, self.dataset, self.storage, round=round, public=family.public)
        if self.charges is not None:
            self.mechanism.copy_charges(self.charges)
        return sums

    def check_resumed(self) -> None:
        """Refuse to go on from a state whose private steps the ledger does not know."""
        if self.mechanism is not None:
            taken = steps_by_phase(self.trainer.family, self.trainer.step)
            self.mechanism.check_resumed(sum(taken.values()))

    def pay(self, first: int, steps: int, *, round: int | None = None) -> int:  # noqa: A002
        """How many of the next `steps` steps may be taken; in private runs they are charged when this returns.

        `round` is the block's number in the ledger, its first step where nothing is said.
        """
        if self.mechanism is None:
            return steps
        family, block = self.trainer.family, first if round is None else round
        while steps and sum(steps_by_phase(family, steps, first=first).values()) > self.mechanism.left_for(block):
            steps -= 1
        if steps:
            self.mechanism.charge(steps_by_phase(family, steps, first=first), round=block)
            if self.charges is not None:
                self.mechanism.copy_charges(self.charges)
        return steps

    def card(self) -> Card:
        """The card of the sampler as it stands. In private runs nothing on it was counted from patients."""
        header = self.images.header
        counted = self.plan is None and learns(self.trainer.family)
        return Card(
            generator=self.settings.generator,
            shape=self.trainer.family.shape,
            options=self.settings.options,
            pairing=self.settings.pairing,
            channels=header.channels,
            classes=header.classes,
            mask_labels=header.mask_labels,
            spacing_mm=header.spacing_mm,
            class_shares=_class_shares(self.dataset, counted=counted),
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
        if self.plan is None or self.mechanism is None:
            return "plain" if learns(self.trainer.family) else "untrained"
        return "private" if self.mechanism.private else "insecure"


def learns(family: Model) -> bool:
    """Whether anything of it is trained on patients or fitted to them."""
    return bool(family.phases or family.passes)


def training_members(images: ImageSet) -> ImageSet:
    """The images that may be trained on: the members, or everything where no roles were drawn."""
    roles = set(images.cases["role"])
    if roles == {""}:
        return images
    if "member" not in roles:
        raise ConfigError("the image set has no members to train on", file=images.folder, value=sorted(roles))
    return images.select(role="member")


def refuse_empty_maps(sets: Iterable[ImageSet], generator: str) -> None:
    """Refuse to train two stages, before the first step, where no member's label map names anything."""
    if find(generator).kind != "two-stage":
        return
    members = [training_members(images).masks for images in sets]
    if not any(
        np.asarray(masks[start : start + 256]).any()
        for masks in members
        if masks is not None
        for start in range(0, len(masks), 256)
    ):
        problem = "every label map is empty, and a model of them would draw empty ones only"
        raise ConfigError(problem, remedy="give images with a lesion, or choose a joint family such as dcgan")


def default_generator(images: ImageSet, *, private: bool, paired: bool) -> str:
    """What is trained where nobody says anything: two stages where there are masks, and no privacy to keep."""
    return "two-stage" if images.masks is not None and not private and not paired else "dcgan"


def recipe_of(settings: TrainSettings) -> Recipe:
    """The family's recipe, plain or private, with what the user said put in its place."""
    if settings.generator in NETWORKS:
        return settings.over(replace(TASK_RECIPE, ema=(settings.steps or TASK_RECIPE.steps) / 40))
    if settings.privacy is None:
        recipe = recipe_for(settings.generator, settings.options)
        return settings.over(recipe.slower(REFINING) if settings.start == SIMULATED else recipe)
    entry = find(settings.generator)
    return settings.over(entry.private_recipe if settings.start is None else entry.private_started_recipe)


def fresh_family(settings: TrainSettings, shape: ImageShape) -> Model:
    """The networks with their first weights, which follow from the seed: the same at every site of a federation.

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
    storage: SiteStorage | None = None,
    streams: int | None = None,
    recipe: Recipe | None = None,
    shares: NoiseShares | None = None,
) -> Prepared:
    """Build and check everything. Without a disk nothing is written and nothing can be charged.

    `streams` is the seed of batches and noise where it is not the run's own: in a federation networks start alike,
    and every site shuffles for itself. `recipe` is for sites whose networks come from the server, which alone knows
    what they go on from. `shares` is for sites whose releases are summed under masks.
    """
    recipe = recipe_of(settings) if recipe is None else recipe
    streams = settings.seed if streams is None else streams
    dataset = PatientBatches(training_members(images), device=open_device(settings.device))
    header, shape = images.header, dataset.shape
    pairing = read_pairing(settings.pairing, header.channels, header.mask_labels) if settings.pairing else None
    shape = shape if pairing is None else pairing.shape(shape, header.mask_labels)
    family = fresh_family(settings, shape).to(dataset.device)
    origin = origin_of(dataset, settings, storage)
    start_networks(family, settings, dataset.shape)
    augmentation = Augmentation(image_channels=shape.channels) if recipe.augment else None
    if settings.privacy is not None:
        return _prepare_private(
            images, settings, settings.privacy, recipe, dataset, family, augmentation, origin, storage, shares
        )
    own = recipe.precision if computes_bfloat16(dataset.device) else "float32"
    precision = torch.bfloat16 if (settings.precision or own) == "bfloat16" else None
    gradients = PlainGradients(
        family,
        dataset,
        seed=streams,
        batch=recipe.batch,
        augmentation=augmentation,
        pairing=pairing,
        precision=precision,
    )
    steps = recipe.steps if family.phases else 0  # a family without phases has nothing to learn
    trainer = Trainer(family, recipe, seed=streams, total_steps=steps, gradients=gradients, device=dataset.device)
    return Prepared(images=images, settings=settings, trainer=trainer, dataset=dataset, origin=origin, pairing=pairing)


def plan_privacy(settings: TrainSettings, family: Model, steps: int, shares: NoiseShares | None = None) -> PrivatePlan:
    """The mechanism of the whole run, from declared numbers: private steps, or one release of statistics.

    With `shares` it is a release whose noise several sites add together.
    """
    assert settings.privacy is not None
    declared = settings.privacy.settings()
    if not family.per_patient:
        if shares is not None:
            raise ConfigError("only a family that is fitted to one sum over patients has a secure sum")
        return make_plan(declared, steps_by_phase(family, steps))
    if declared.patients < FEWEST_PATIENTS:
        problem = f"statistics of fewer than {FEWEST_PATIENTS} patients would be noise"
        remedy = "take the public images as they are, or those of `fedsynth phantom --styles public`"
        raise ConfigError(problem, value=declared.patients, remedy=remedy)
    whole = replace(declared, batch=declared.patients, clip=1.0, slices_per_patient=1)
    plan = replace(make_plan(whole, {RELEASE: 1}), release=True, shares=shares)
    if shares is not None:
        shares.check(plan.noise, GRID)
    return plan


def _prepare_private(
    images: ImageSet,
    settings: TrainSettings,
    privacy: Privacy,
    recipe: Recipe,
    dataset: PatientBatches,
    family: Model,
    augmentation: Augmentation | None,
    origin: Origin,
    storage: SiteStorage | None,
    shares: NoiseShares | None,
) -> Prepared:
    if settings.precision == "bfloat16":
        raise ConfigError(
            "private runs are in full precision", value=settings.precision, remedy="leave out --precision"
        )
    plan = plan_privacy(settings, family, recipe.steps, shares)
    parts = PrivateParts(family, plan.settings, augmentation=augmentation)
    sums: dict[str, ClippedSum] = {RELEASE: statistics_of(family)} if family.per_patient else {**parts.real}
    insecure = privacy.insecure_seed
    randomness: Randomness = SecretRandomness() if insecure is None else InsecureRandomness(insecure)
    mechanism = GaussianMechanism(
        plan,
        sums,
        patients=dataset.patients,
        randomness=randomness,
        run="rehearsal" if storage is None else storage.ledger_name(phantoms=images.header.phantoms),
        ledger=None if storage is None or images.header.phantoms else Ledger(storage.site, privacy.store),
        cap=None if storage is None else storage.cap,
        joint="" if storage is None or images.header.phantoms or shares is None else storage.run,
    )
    classes = _class_shares(dataset, counted=False)
    gradients = PrivateGradients(parts, dataset, mechanism, class_shares=classes, fakes=privacy.fakes)
    trainer = Trainer(
        family, recipe, seed=settings.seed, total_steps=recipe.steps, gradients=gradients, device=dataset.device
    )
    return Prepared(
        images=images,
        settings=settings,
        trainer=trainer,
        dataset=dataset,
        mechanism=mechanism,
        plan=plan,
        origin=origin,
        charges=None if storage is None else storage.charges,
        storage=storage,
    )


def _class_shares(dataset: PatientBatches, *, counted: bool) -> tuple[float, ...]:
    """Of the data in plain runs; equal shares, a public prior, in private ones and where nothing is learnt."""
    n = dataset.shape.n_classes
    if not counted or not n:
        return (1 / n,) * n if n else ()
    return tuple(round(float(share), 6) for share in dataset.class_shares)
