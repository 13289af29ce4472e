"""Under which settings gradients of patients are taken: full precision, and the stage of growth that is asked for."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fedsynth.errors import RefusedError
from tests.privacy.test_per_patient_gradients import patients, setting

TF32 = (torch.backends.cudnn, torch.backends.cuda.matmul)


@pytest.fixture(params=[(True, False), (False, True)])
def chosen(request):
    """What the user says of TF32."""
    before = [place.allow_tf32 for place in TF32]
    TF32[0].allow_tf32, TF32[1].allow_tf32 = request.param
    yield request.param
    TF32[0].allow_tf32, TF32[1].allow_tf32 = before


def test_factors_of_gradients_are_never_shortened_and_the_users_choice_comes_back(chosen):
    """TF32 keeps ten bits: a norm of one precision would clip a gradient of another."""
    net, seen = nn.Linear(3, 1), set()

    def flags():
        return tuple(place.allow_tf32 for place in TF32)

    def loss(batch, noise, progress):
        seen.add(flags())
        return net(batch["image"])[:, 0]

    gradients = setting(net, (3,), loss=loss)
    gradients.path()
    seen.clear()
    indices, fetch = patients(3, (3,))
    gradients.clipped_sum(indices, fetch)
    gradients.norms(indices, fetch)
    gradients.clipped_mean({"image": torch.randn(3, 3)}, {})
    assert seen == {(False, False)}
    with pytest.raises(ZeroDivisionError):
        gradients.clipped_sum(indices, lambda drawn: 1 / 0)
    assert flags() == chosen


def test_a_network_is_fully_grown_where_no_progress_is_given():
    net, seen = nn.Linear(3, 1), set()

    def loss(batch, noise, progress):
        seen.add(progress)
        return net(batch["image"])[:, 0]

    indices, fetch = patients(3, (3,))
    setting(net, (3,), loss=loss).path()
    gradients = setting(net, (3,), loss=loss)
    gradients.clipped_sum(indices, fetch)
    gradients.norms(indices, fetch)
    gradients.clipped_mean({"image": torch.randn(3, 3)}, {})
    gradients.renew()
    gradients.clipped_sum(indices, fetch)
    assert seen == {1.0}


def test_weights_from_elsewhere_are_looked_at_in_the_stage_that_is_asked_for():
    """At these weights an early stage mixes samples, and the last does not."""
    net = nn.Linear(3, 1)

    def loss(batch, noise, progress):
        score = net(batch["image"])[:, 0]
        return score if progress == 1.0 else score + F.relu(net.weight.sum() - 60) * score.mean()

    gradients, (indices, fetch) = setting(net, (3,), loss=loss, growing=True), patients(3, (3,))
    with torch.no_grad():
        net.weight.fill_(30.0)
    gradients.renew()
    gradients.clipped_sum(indices, fetch)
    gradients.renew()
    with pytest.raises(RefusedError, match="mixes samples"):
        gradients.clipped_sum(indices, fetch, 0.2)
