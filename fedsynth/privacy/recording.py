"""One forward pass that remembers what went into every layer and lets gradients come back to its output.

The fast path's eyes. Knows nothing of patients, clipping or noise; refuses what it could not follow exactly.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedsynth.privacy.layers import unsupported


class NotFollowedError(Exception):
    """The fast path does not fit this network or loss; the text is the reason, for people."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of one layer: its name in the network, its input, its output."""

    name: str
    module: nn.Module
    given: Tensor
    output: Tensor
    version: int


def layers_of(net: nn.Module) -> dict[str, nn.Module]:
    """The modules that own parameters, by name; raises where one has no rule or a parameter has two owners."""
    owners: dict[str, nn.Module] = {}
    seen: set[int] = set()
    for name, module in net.named_modules():
        own = list(module.parameters(recurse=False))
        if not any(parameter.requires_grad for parameter in own):
            continue
        if reason := unsupported(module):
            raise NotFollowedError(reason)
        if any(id(parameter) in seen for parameter in own):
            raise NotFollowedError("a parameter is shared by two layers")
        seen.update(id(parameter) for parameter in own)
        owners[name] = module
    return owners


def record(
    layers: dict[str, nn.Module], losses: Callable[[], Tensor], share: float
) -> tuple[Tensor, list[tuple[Call, Tensor]]]:
    """Run `losses` once: what it gave, and of every layer used its call and the gradient of `share` times their sum."""
    with _watched(layers) as calls:
        each = losses()
        total = each.sum() * share
    _check(calls)
    outputs = [call.output for call in calls]
    backs = torch.autograd.grad(total, outputs, allow_unused=True)
    return each.detach(), [(call, back) for call, back in zip(calls, backs, strict=True) if back is not None]


@contextmanager
def _watched(layers: dict[str, nn.Module]) -> Iterator[list[Call]]:
    calls: list[Call] = []

    def remember(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
            if torch.is_grad_enabled():
                calls.append(
                    Call(name=name, module=module, given=given[0].detach(), output=output, version=output._version)
                )

        return hook

    handles = [module.register_forward_hook(remember(name)) for name, module in layers.items()]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _check(calls: list[Call]) -> None:
    names = [call.name for call in calls]
    if len(set(names)) < len(names):
        raise NotFollowedError("a layer is called twice in one loss (a gradient penalty, or two passes)")
    if any(call.output._version != call.version for call in calls):
        raise NotFollowedError("an operation changes a layer's output in place")
