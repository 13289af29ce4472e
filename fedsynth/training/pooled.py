"""Training by one holder of data: the baseline that every federation is compared with."""

import numpy as np
import torch

from fedsynth.errors import ConfigError
from fedsynth.generators.augment import Augmentation
from fedsynth.generators.catalog import Recipe, build, find
from fedsynth.images import ImageSet
from fedsynth.training.checkpoint import Card
from fedsynth.training.holder import Holder
from fedsynth.training.settings import TrainSettings, open_device
from fedsynth.training.trainer import PlainGradients, Trainer


def training_members(images: ImageSet) -> ImageSet:
    """The images that may be trained on: the members, or everything where no roles were drawn."""
    roles = set(images.cases["role"])
    if roles == {""}:
        return images
    if "member" not in roles:
        raise ConfigError("the image set has no members to train on", file=images.folder, value=sorted(roles))
    return images.select(role="member")


def make_trainer(images: ImageSet, settings: TrainSettings) -> Trainer:
    """Networks, data and optimisers of a plain run, ready to take its first step."""
    entry = find(settings.generator)
    recipe: Recipe = settings.over(entry.recipe)
    device = open_device(settings.device)
    holder = Holder(training_members(images), device=device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        family = build(settings.generator, holder.shape, **settings.options)
    augmentation = Augmentation(image_channels=holder.shape.channels) if recipe.augment else None
    gradients = PlainGradients(
        family,
        holder,
        seed=settings.seed,
        batch=recipe.batch,
        augmentation=augmentation,
        precision=torch.bfloat16 if settings.precision == "bfloat16" else None,
    )
    return Trainer(family, recipe, seed=settings.seed, total_steps=recipe.steps, gradients=gradients, device=device)


def describe(images: ImageSet, settings: TrainSettings, trainer: Trainer) -> Card:
    """The card of the sampler as it stands."""
    header = images.header
    holder = Holder(training_members(images))
    shares = holder.class_shares if header.classes else np.zeros(0)
    return Card(
        generator=settings.generator,
        shape=trainer.family.shape,
        options=settings.options,
        channels=header.channels,
        classes=header.classes,
        mask_labels=header.mask_labels,
        spacing_mm=header.spacing_mm,
        class_shares=tuple(round(float(share), 6) for share in shares),
        steps=trainer.step,
        trained_on=header.name,
        privacy="none: trained without differential privacy",
    )
