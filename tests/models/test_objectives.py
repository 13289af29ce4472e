import math

import pytest
import torch
from torch import nn

from fedsynth.models.objectives import (
    HINGE,
    LEAST_SQUARES,
    NON_SATURATING,
    WASSERSTEIN,
    Objective,
    r1,
    scores_and_slopes,
    unit_slope,
)

LN2 = math.log(2)


@pytest.mark.parametrize(
    ("objective", "score", "real", "fake", "generator"),
    [
        (NON_SATURATING, 0.0, LN2, LN2, LN2),
        (NON_SATURATING, 200.0, 0.0, 200.0, 0.0),
        (NON_SATURATING, -200.0, 200.0, 0.0, 200.0),
        (LEAST_SQUARES, 3.0, 4.0, 9.0, 4.0),
        (WASSERSTEIN, -2.0, 2.0, -2.0, 2.0),
        (HINGE, 0.5, 0.5, 1.5, -0.5),
        (HINGE, -3.0, 4.0, 0.0, 3.0),
        (HINGE, 3.0, 0.0, 4.0, -3.0),
    ],
)
def test_the_textbook_values(objective: Objective, score: float, real: float, fake: float, generator: float) -> None:
    scores = torch.tensor([score])
    assert objective.real(scores).item() == pytest.approx(real)
    assert objective.fake(scores).item() == pytest.approx(fake)
    assert objective.generator(scores).item() == pytest.approx(generator)


@pytest.mark.parametrize("score", [-200.0, 200.0])
@pytest.mark.parametrize("objective", [NON_SATURATING, LEAST_SQUARES, WASSERSTEIN, HINGE])
def test_a_wrong_score_keeps_a_finite_gradient_however_large(objective: Objective, score: float) -> None:
    for term, wrong in ((objective.real, -1), (objective.fake, 1), (objective.generator, -1)):
        scores = torch.tensor([score], requires_grad=True)
        (slope,) = torch.autograd.grad(term(scores).sum(), scores)
        assert torch.isfinite(slope).all()
        if score * wrong > 0:
            assert slope.abs().item() >= 1


def _judge() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(48, 1), nn.Flatten(0))


def test_the_penalty_of_a_plane_is_its_slope_squared() -> None:
    images, plane = torch.randn(3, 1, 2, 2), torch.tensor([1.0, 2.0, 3.0, 4.0])
    scores, slopes = scores_and_slopes(lambda x: x.flatten(1) @ plane, images)
    assert scores.tolist() == (images.flatten(1) @ plane).tolist()
    assert slopes.tolist() == pytest.approx([30.0] * 3)
    norm_less_one = math.sqrt(30) - 1
    _, penalty = unit_slope(weight=10, drift=0)(
        lambda x: x.flatten(1) @ plane, images, lambda: images * 0, torch.rand(3)
    )
    assert penalty.tolist() == pytest.approx([10 * norm_less_one**2] * 3, rel=1e-5)


def test_r1_and_its_parameter_gradients_equal_double_backward() -> None:
    scorer, images = _judge(), torch.randn(4, 2, 6, 6)
    scores, penalty = r1(3.0)(scorer, images, lambda: images, torch.rand(4))
    assert torch.equal(scores, scorer(images))
    ours = penalty.sum()
    leaf = images.clone().requires_grad_()
    (slope,) = torch.autograd.grad(scorer(leaf).sum(), leaf, create_graph=True)
    oracle = 1.5 * slope.flatten(1).square().sum()
    assert ours.item() == pytest.approx(oracle.item(), rel=1e-5)
    weights = [scorer[0].weight, scorer[3].weight]
    for mine, theirs in zip(torch.autograd.grad(ours, weights), torch.autograd.grad(oracle, weights), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)


def test_the_unit_slope_is_asked_between_real_and_made_images() -> None:
    asked: list[torch.Tensor] = []

    def scorer(x: torch.Tensor) -> torch.Tensor:
        asked.append(x.detach())
        return x.flatten(1).sum(1)

    unit_slope()(scorer, torch.ones(2, 1, 2, 2), lambda: -torch.ones(2, 1, 2, 2), torch.tensor([1.0, 0.25]))
    real, between = (torch.as_tensor(x.tolist()) for x in asked)
    assert between[:, 0, 0, 0].tolist() == [1.0, -0.5]
    assert (real == 1).all()


def test_a_penalty_of_a_flat_judge_has_a_finite_gradient() -> None:
    weight = torch.zeros(4, requires_grad=True)
    _, penalty = unit_slope()(
        lambda x: x.flatten(1) @ weight, torch.ones(2, 1, 2, 2), lambda: torch.ones(2, 1, 2, 2), torch.rand(2)
    )
    (slope,) = torch.autograd.grad(penalty.sum(), weight)
    assert torch.isfinite(slope).all()
