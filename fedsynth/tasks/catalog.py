"""Every task network by name, and what a set must have for it."""

from fedsynth.errors import ConfigError, nearest
from fedsynth.protocol import ImageShape
from fedsynth.tasks.classification import Classification
from fedsynth.tasks.networks import CLASSIFICATION, SEGMENTATION
from fedsynth.tasks.segmentation import Segmentation
from fedsynth.tasks.task import Task
from fedsynth.tasks.views import Views

NETWORKS = {**dict.fromkeys(SEGMENTATION, "segmentation"), **dict.fromkeys(CLASSIFICATION, "classification")}
"""What each network is for."""


def build_task(network: str, shape: ImageShape, *, augment: bool = False) -> Task:
    """A new one, its first weights drawn from torch's generator. Unknown names and sets without targets are refused."""
    if network not in NETWORKS:
        remedy = nearest(network, NETWORKS) or f"there are {', '.join(NETWORKS)}"
        raise ConfigError("there is no task network of that name", value=network, remedy=remedy)
    views = Views() if augment else None
    if network in SEGMENTATION:
        if shape.n_labels < 2:
            raise ConfigError("segmentation needs masks, and the set has none", remedy="give a set with masks")
        return Segmentation(shape, SEGMENTATION[network](shape, shape.n_labels), views=views)
    if shape.n_classes < 2:
        remedy = "give a set whose images have classes"
        raise ConfigError("classification needs two classes or more", value=shape.n_classes, remedy=remedy)
    return Classification(shape, CLASSIFICATION[network](shape, shape.n_classes), views=views)
