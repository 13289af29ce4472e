"""What an outsider could look at after a training: the critic, the generator, the released images.

Every view gives one score per canary, larger for one that looks as if it took part. No view sees a coin.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsynth.generators.family import Family
from fedsynth.images import ImageSet
from fedsynth.protocol import SeededDraws, Tensors
from fedsynth.run import Run
from fedsynth.study.canaries import Canaries
from fedsynth.training.checkpoint import load_generator
from fedsynth.training.holder import Holder
from fedsynth.training.judging import judge_of
from fedsynth.training.streams import stream_seed
from fedsynth.training.synthetic import Drawing

Scores = NDArray[np.float64]
Step = Callable[[str], None]
STARTS, ITERATIONS, RATE, BATCH = 64, 40, 0.05, 64
NEIGHBOURS = 50


def look(
    run: Run, canaries: Canaries, *, images: int, seed: int, step: Step
) -> tuple[dict[str, Scores], dict[str, str]]:
    """The scores of every view that this run has, and why it has not the others."""
    family, card = load_generator(run.checkpoints)
    found: dict[str, Scores] = {}
    missing: dict[str, str] = {}
    step("judging the canaries")
    judge = judge_of(run, seed=seed)
    likelihood = any(turn.reads_patients and turn.net in family.sampler for turn in family.turns)
    if judge is not None:
        each = judge(canaries.images).reshape(len(canaries), -1).mean(1)
        found["generator" if likelihood else "critic"] = standardised(each, canaries)
    if likelihood:
        missing["critic"] = "the family has none"
    else:
        if judge is None:
            missing["critic"] = "it stayed with the sites"
        step("looking for the canaries in the generator")
        found["generator"] = standardised(reconstructed(family, canaries, seed=seed), canaries)
    step("drawing images")
    drawn = Drawing(family, card, count=images, seed=seed).in_memory("audit")
    found["images"] = standardised(nearest(drawn, canaries), canaries)
    return found, missing


def standardised(scores: Scores, canaries: Canaries) -> Scores:
    """Kind by kind about its median in units of its spread: what differs between kinds says nothing of coins."""
    result, kinds = np.zeros(len(scores)), np.array(canaries.kinds)
    for kind in set(kinds):
        own = scores[kinds == kind]
        middle = np.median(own)
        spread = np.median(np.abs(own - middle))
        result[kinds == kind] = (own - middle) / max(spread, 1e-12)
    return result


def nearest(drawn: ImageSet, canaries: Canaries) -> Scores:
    """How near the nearest drawn image comes to a canary, next to how near its 50 nearest come."""
    ours = _flat(canaries.images).reshape(len(canaries), canaries.images_each, -1)
    theirs = torch.from_numpy(_flat(drawn))
    scores = np.empty(len(canaries))
    for i, one in enumerate(ours):
        mode = "donot_use_mm_for_euclid_dist"
        distances = torch.cdist(torch.from_numpy(one), theirs, compute_mode=mode).min(0).values.sort().values
        scores[i] = -float(distances[0] / distances[:NEIGHBOURS].mean().clamp_min(1e-9))
    return scores


def reconstructed(family: Family, canaries: Canaries, *, seed: int) -> Scores:
    """How well the generator can be made to draw a canary: the error after a search through its noise, negative."""
    holder = Holder(canaries.images)
    rows = np.arange(0, len(canaries.images), canaries.images_each)
    errors = [
        _searched(family, holder.fetch(rows[start : start + BATCH]), stream_seed(seed, "search", start))
        for start in range(0, len(rows), BATCH)
    ]
    return -np.concatenate(errors)


def _searched(family: Family, wanted: Tensors, seed: int) -> Scores:
    draws = SeededDraws(seed)
    n = len(wanted["image"])
    condition = {name: value for name, value in wanted.items() if name == "label"}
    best, noise = torch.full((n,), torch.inf), family.noise(n, draws)
    with torch.no_grad():
        for _ in range(STARTS):
            other = family.noise(n, draws)
            error = _error(family, condition, other, wanted)
            better = error < best
            best = torch.where(better, error, best)
            noise = {k: torch.where(better.reshape(-1, *[1] * (v.ndim - 1)), other[k], v) for k, v in noise.items()}
    free = {k: v.clone().requires_grad_() for k, v in noise.items() if v.is_floating_point()}
    optimiser = torch.optim.Adam(list(free.values()), RATE)
    for _ in range(ITERATIONS):
        error = _error(family, condition, {**noise, **free}, wanted)
        best = torch.minimum(best, error.detach())
        found = torch.autograd.grad(error.sum(), list(free.values()), allow_unused=True)
        for value, gradient in zip(free.values(), found, strict=True):
            value.grad = gradient
        optimiser.step()
    return np.asarray(best.double().numpy())


def _error(family: Family, condition: Tensors, noise: Tensors, wanted: Tensors) -> Tensor:
    made = family.sample(condition, noise)
    return torch.stack([(made[k] - wanted[k]).square().flatten(1).mean(1) for k in made if k in wanted]).sum(0)


def _flat(images: ImageSet) -> NDArray[np.float32]:
    values: NDArray[np.float32] = np.asarray(images.images[:], np.float32).reshape(len(images), -1)
    return values / np.float32(255) if images.images.dtype == np.uint8 else values
