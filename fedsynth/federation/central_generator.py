"""One generator at the server, discriminators at the hospitals, as AsynDGAN has it (Chang et al. 2020).

There the server sends generated images and gets back the gradient of each discriminator's verdict on them, which it
carries on through its generator. Here the generator travels, every site makes the images itself and returns the
gradient of the same loss for the generator's weights. By the chain rule that is the same gradient, for the same images;
it costs one message of the generator's size instead of one of the batch's, and no site sees another's images.
"""

from collections.abc import Sequence

import numpy as np
import torch

from fedsynth.errors import ConfigError
from fedsynth.federation.settings import FederationSettings
from fedsynth.federation.spilled_arrays import Column
from fedsynth.federation.strategies import Arrays, Reply, weighted_mean
from fedsynth.models.base import Model, Phase, RandomSource
from fedsynth.training.session import recipe_of
from fedsynth.training.trainer import Trainer


class CentralGenerator:
    """The server's generator with its optimiser. A reply's arrays are gradients, and buffers as they are."""

    def __init__(self, settings: FederationSettings, model: Model) -> None:
        refuse_what_is_not_central(model)
        recipe = recipe_of(settings.training())
        self._trainer = Trainer(
            model,
            recipe,
            seed=settings.seed,
            total_steps=settings.total_steps,
            gradients=_nowhere,
            device=torch.device("cpu"),
        )
        (self._phase,) = (phase for phase in model.phases if phase.net in model.sampler)

    def start(self, arrays: Arrays) -> None:
        """Nothing: every step begins from the weights that it is given."""

    def step(self, old: Arrays, replies: Sequence[Reply]) -> dict[str, np.ndarray]:
        """One step of the generator along the mean of the sites' gradients."""
        total = sum(weight for weight, _ in replies)
        shares = [weight / total for weight, _ in replies]
        model, net = self._trainer.family, self._phase.net
        network = model.nets[net]
        parameters = {f"{net}.{name}": value for name, value in network.named_parameters()}
        with torch.no_grad():
            for name, value in model.nets.state_dict().items():
                if name in old:
                    source = old[name] if name in parameters else replies[0][1][name]
                    value.copy_(torch.from_numpy(np.array(source)))
        gradients = []
        for name, parameter in parameters.items():
            mean = weighted_mean(Column(name, [arrays for _, arrays in replies]), shares)
            used = bool(np.any(mean))  # a parameter that this stage of growth does not use stays where it is
            gradients.append(torch.from_numpy(np.asarray(mean, old[name].dtype)).to(parameter.dtype) if used else None)
        if self._trainer.step % self._phase.interval == 0:
            self._trainer.apply(net, gradients, settle=False)
        self._trainer.step += 1
        state = model.nets.state_dict()
        return {name: state[name].detach().numpy().copy() for name in old}

    def state(self) -> dict[str, np.ndarray]:
        """The optimiser's memory and the step."""
        kept = {"step": np.array([self._trainer.step])}
        for index, values in self._trainer.optimisers[self._phase.net].state_dict()["state"].items():
            kept |= {f"{index}.{key}": value.numpy().copy() for key, value in values.items()}
        return kept

    def load(self, state: Arrays) -> None:
        """Go on from what `state` gave."""
        optimiser = self._trainer.optimisers[self._phase.net]
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in state.items():
            if name != "step":
                index, key = name.split(".")
                moments.setdefault(int(index), {})[key] = torch.from_numpy(np.array(value))
        optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
        self._trainer.step = int(state["step"][0])


def refuse_what_is_not_central(model: Model) -> None:
    """The generator must learn from discriminators alone: its gradient leaves the site."""
    phases = [phase for phase in model.phases if phase.net in model.sampler]
    if len(phases) != 1 or phases[0].reads_patients:
        problem = "this family's generator is not trained by a discriminator alone, so it cannot live at the server"
        raise ConfigError(problem, remedy="choose a GAN such as dcgan, or --federation average")


def _nowhere(
    phase: Phase, step: int, progress: float, rng: RandomSource
) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
    raise RuntimeError("the server has no images to take a gradient from")
