"""One forward pass that remembers what went into every layer and lets gradients come back to its output.

The fast path's eyes. Knows nothing of patients, clipping or noise; refuses what it could not follow exactly.
"""

from collections import Counter
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
    """The modules that own parameters, by name; raises where one has no rule."""
    owners: dict[str, nn.Module] = {}
    for name, module in net.named_modules():
        if not any(parameter.requires_grad for parameter in module.parameters(recurse=False)):
            continue
        if reason := unsupported(module):
            raise NotFollowedError(reason)
        owners[name] = module
    return owners


def record(
    layers: dict[str, nn.Module], losses: Callable[[], Tensor], *, samples: int, share: float
) -> tuple[Tensor, list[tuple[Call, Tensor]]]:
    """Run `losses` of so many samples once: what it gave, and the call of every layer that it used, with the gradient
    of `share` times the losses' sum by the layer's output.

    Raises where the layers' calls are not all there is to the gradient. This looks at how the loss was computed, not at
    numbers, so that nothing hides behind a factor of zero.
    """
    with _watched(layers) as calls:
        each = losses()
        total = each.sum() * share
    _check_calls(calls, samples)
    backs = torch.autograd.grad(total, [call.output for call in calls], allow_unused=True)
    used = [(call, back) for call, back in zip(calls, backs, strict=True) if back is not None]
    _check_uses(total, layers, {call.name for call, _ in used})
    return each.detach(), used


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


def _check_calls(calls: list[Call], samples: int) -> None:
    names = [call.name for call in calls]
    if len(set(names)) < len(names):
        raise NotFollowedError("a layer is called twice in one loss (a gradient penalty, or two passes)")
    if any(call.output._version != call.version for call in calls):
        raise NotFollowedError("an operation changes a layer's output in place")
    if any(len(values) != samples for call in calls for values in (call.given, call.output)):
        raise NotFollowedError("a layer's rows are not the samples")


def _check_uses(total: Tensor, layers: dict[str, nn.Module], used: set[str]) -> None:
    """Every parameter must be reached from the loss as often as its layer was called: the call is the one recorded."""
    reached = _uses_of_leaves(total)
    for name, module in layers.items():
        if any(reached[id(parameter)] != (name in used) for parameter in module.parameters(recurse=False)):
            raise NotFollowedError("a parameter is used outside its layer")


def _uses_of_leaves(total: Tensor) -> Counter[int]:
    """How many operations behind `total` take each parameter, by its id."""
    uses: Counter[int] = Counter()
    waiting = [total.grad_fn] if total.grad_fn is not None else []
    seen = set(waiting)
    while waiting:
        for node, _ in waiting.pop().next_functions:
            if node is None or node in seen:
                continue
            if hasattr(node, "variable"):
                uses[id(node.variable)] += 1
            else:
                seen.add(node)
                waiting.append(node)
    return uses
