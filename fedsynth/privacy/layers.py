"""One layer's share in every patient's gradient, from what went into the layer and what came back to its output.

Norms and weighted sums without a gradient per patient where that is cheaper (ghost norms: Li et al. 2022, Bu et al.
2022). Knows nothing of losses, patients' data or clipping.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

Sums: TypeAlias = dict[str, Tensor]
Convolution: TypeAlias = nn.Conv1d | nn.Conv2d | nn.Conv3d

ROUNDING = 2.0**-20
"""What a ghost norm adds of its own largest possible value: float32 cancellation must not make a norm too small."""

BLOCK = 8  # patients


@dataclass(frozen=True, kw_only=True)
class Share:
    """`squared` (n,) is each patient's squared gradient norm in this layer; `weighted` sums the gradients by weight."""

    squared: Tensor
    weighted: Callable[[Tensor], Sums]


def unsupported(module: nn.Module) -> str:
    """Why the layer has no rule here; empty where it has one."""
    name = type(module).__name__
    if any(not parameter.requires_grad for parameter in module.parameters(recurse=False)):
        return f"{name} is partly frozen"
    if type(module) in (nn.Conv1d, nn.Conv2d, nn.Conv3d):
        assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        plain = module.groups == 1 and module.padding_mode == "zeros" and not isinstance(module.padding, str)
        return "" if plain else f"{name} with groups or special padding"
    if type(module) in (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d):
        return f"{name} with running statistics" if module.track_running_stats else ""
    return "" if type(module) in (nn.Linear, nn.GroupNorm, nn.LayerNorm) else f"{name} has no rule"


def share(module: nn.Module, given: Tensor, back: Tensor, patients: int) -> Share:
    """The layer's share for `patients` patients whose views lie one after another along the first axis.

    `given` is the layer's input and `back` the gradient of the summed losses by the layer's output.
    """
    if isinstance(module, Convolution):
        return _convolution(module, given, back, patients)
    if isinstance(module, nn.Linear):
        return _linear(module, given, back, patients)
    return _scale_and_shift(module, given, back, patients)


def _convolution(module: Convolution, given: Tensor, back: Tensor, patients: int) -> Share:
    rows = _by_patient(back.flatten(2), patients)
    ghost = _ghost_is_cheaper(rows.shape[2], fan_in=module.weight[0].numel(), fan_out=rows.shape[1])
    kernel = (_kernel_by_norm if ghost else _kernel_held)(module, given, back, patients)
    if module.bias is None:
        return kernel
    bias = rows.sum(2)

    def weighted(weights: Tensor) -> Sums:
        return {**kernel.weighted(weights), "bias": weights @ bias}

    return Share(squared=kernel.squared + bias.square().sum(1), weighted=weighted)


def _kernel_by_norm(module: Convolution, given: Tensor, back: Tensor, patients: int) -> Share:
    """Ghost norms, and one weighted backward pass through the layer for the sum."""
    views = len(given) // patients

    def squared(x: Tensor, g: Tensor) -> Tensor:
        n = len(x) // views
        return _ghost_norm(_by_patient(_unfold(module, x), n), _by_patient(g.flatten(2), n))

    def weighted(weights: Tensor) -> Sums:
        each = weights.repeat_interleave(views).reshape(-1, *[1] * (back.dim() - 1))
        return {"weight": _weight_gradient(module, module.weight.detach(), given, back * each)}

    return Share(squared=torch.cat([squared(x, g) for x, g in _blocks(given, back, views)]), weighted=weighted)


def _kernel_held(module: Convolution, given: Tensor, back: Tensor, patients: int) -> Share:
    """Every patient's gradient, held in blocks that are never copied into one."""
    views = len(given) // patients
    blocks = [_each_gradient(module, x, g, views) for x, g in _blocks(given, back, views)]
    squared = torch.cat([torch.linalg.vector_norm(block, dim=1).square() for block in blocks])

    def weighted(weights: Tensor) -> Sums:
        parts = torch.split(weights, [len(block) for block in blocks])
        total = torch.stack([part @ block for part, block in zip(parts, blocks, strict=True)]).sum(0)
        return {"weight": total.reshape(module.weight.shape)}

    return Share(squared=squared, weighted=weighted)


def _blocks(given: Tensor, back: Tensor, views: int) -> Iterator[tuple[Tensor, Tensor]]:
    """A few patients at a time on a CPU, whose caches are small; all at once on a GPU."""
    step = len(given) if given.is_cuda else BLOCK * views
    return zip(torch.split(given, step), torch.split(back, step), strict=True)


def _each_gradient(module: Convolution, given: Tensor, back: Tensor, views: int) -> Tensor:
    """(patients, weights), the quickest of three ways as measured on a CPU and on a GPU.

    On a CPU one small convolution after another beats one batched product; small kernels whose channels fill the
    vector registers go together, as the groups of one convolution.
    """
    patients, weight = len(given) // views, module.weight.detach()
    if given.is_cuda:
        columns, rows = _by_patient(_unfold(module, given), patients), _by_patient(back.flatten(2), patients)
        return (rows @ columns.transpose(1, 2)).flatten(1)
    if weight.numel() <= 2**15 and module.in_channels % 16 == 0 and module.out_channels % 16 == 0:
        return _grouped_gradient(module, given, back, views)
    singles = zip(torch.split(given, views), torch.split(back, views), strict=True)
    return torch.stack([_weight_gradient(module, weight, x, g) for x, g in singles]).flatten(1)


def _grouped_gradient(module: Convolution, given: Tensor, back: Tensor, views: int) -> Tensor:
    """(patients, weights): patients become the groups of one convolution, views its batch."""
    patients, shape = len(given) // views, module.weight.shape
    weight = module.weight.new_empty((patients * shape[0], *shape[1:]))  # of a weight only the shape is read
    inputs, outputs = (_as_groups(values, patients, views) for values in (given, back))
    return _weight_gradient(module, weight, inputs, outputs, groups=patients).reshape(patients, -1)


def _as_groups(values: Tensor, patients: int, views: int) -> Tensor:
    return values.reshape(patients, views, *values.shape[1:]).transpose(0, 1).flatten(1, 2)


def _linear(module: nn.Linear, given: Tensor, back: Tensor, patients: int) -> Share:
    columns = given.reshape(patients, -1, given.shape[-1]).transpose(1, 2)
    rows = back.reshape(patients, -1, back.shape[-1]).transpose(1, 2)
    bias = rows.sum(2) if module.bias is not None else None
    squared = _ghost_norm(columns, rows)

    def weighted(weights: Tensor) -> Sums:
        scaled = (rows * weights[:, None, None]).transpose(1, 2).flatten(0, 1)
        sums = {"weight": scaled.T @ columns.transpose(1, 2).flatten(0, 1)}
        return sums if bias is None else {**sums, "bias": weights @ bias}

    return Share(squared=squared if bias is None else squared + bias.square().sum(1), weighted=weighted)


def _scale_and_shift(module: nn.Module, given: Tensor, back: Tensor, patients: int) -> Share:
    """Normalisation with a learnt scale and shift: both gradients are small enough to be held for every patient."""
    if isinstance(module, nn.LayerNorm):
        standard = F.layer_norm(given, module.normalized_shape, eps=module.eps)
        axes = tuple(range(1, given.dim() - len(module.normalized_shape)))
    else:
        groups = module.num_groups if isinstance(module, nn.GroupNorm) else given.shape[1]
        standard = F.group_norm(given, groups, eps=float(module.eps))  # type: ignore[arg-type]
        axes = tuple(range(2, given.dim()))
    both = {"weight": back * standard, "bias": back}
    names = [name for name in both if getattr(module, name, None) is not None]
    each = {name: _views_summed(both[name].sum(axes) if axes else both[name], patients) for name in names}
    squared = torch.stack([value.flatten(1).square().sum(1) for value in each.values()]).sum(0)

    def weighted(weights: Tensor) -> Sums:
        return {name: torch.tensordot(weights, value, 1) for name, value in each.items()}

    return Share(squared=squared, weighted=weighted)


def _ghost_is_cheaper(positions: int, fan_in: int, fan_out: int) -> bool:
    """Two Gram matrices over positions instead of one gradient per patient. The factor was measured on a CPU."""
    return 16 * positions**2 <= fan_in * fan_out


def _ghost_norm(columns: Tensor, rows: Tensor) -> Tensor:
    """Squared norms of rows @ columns^T per patient, without the product: sum over s, t of <a_s, a_t> <g_s, g_t>."""
    if columns.shape[2] == 1:
        return columns.square().sum((1, 2)) * rows.square().sum((1, 2))
    inner, outer = columns.transpose(1, 2) @ columns, rows.transpose(1, 2) @ rows
    largest = (inner.diagonal(dim1=1, dim2=2) * outer.diagonal(dim1=1, dim2=2)).clamp_min(0).sqrt().sum(1).square()
    return (inner * outer).sum((1, 2)).clamp_min(0) + ROUNDING * largest


def _by_patient(values: Tensor, patients: int) -> Tensor:
    """(patients * views, features, positions) as (patients, features, views * positions)."""
    if len(values) == patients:
        return values
    return values.reshape(patients, -1, *values.shape[1:]).transpose(1, 2).flatten(2)


def _views_summed(values: Tensor, patients: int) -> Tensor:
    return values if len(values) == patients else values.reshape(patients, -1, *values.shape[1:]).sum(1)


def _unfold(module: Convolution, given: Tensor) -> Tensor:
    """Patches as columns: (n, channels * kernel, positions), in any number of dimensions."""
    kernel, stride, dilation = module.kernel_size, module.stride, module.dilation
    padding = tuple(int(width) for width in module.padding)
    if isinstance(module, nn.Conv2d):
        return F.unfold(given, kernel, dilation=dilation, padding=padding, stride=stride)
    padded = F.pad(given, [width for one in reversed(padding) for width in (one, one)])
    for axis, (size, step, spread) in enumerate(zip(kernel, stride, dilation, strict=True), start=2):
        padded = padded.unfold(axis, spread * (size - 1) + 1, step)[..., ::spread]
    n, dimensions = len(given), len(kernel)
    order = (0, 1, *range(2 + dimensions, 2 + 2 * dimensions), *range(2, 2 + dimensions))
    return padded.permute(order).reshape(n, given.shape[1] * module.weight[0, 0].numel(), -1)


def _weight_gradient(module: Convolution, weight: Tensor, given: Tensor, back: Tensor, *, groups: int = 1) -> Tensor:
    nothing, only_weight = [0] * len(module.kernel_size), [False, True, False]
    _, gradient, _ = torch.ops.aten.convolution_backward(
        back, given, weight, None, module.stride, module.padding, module.dilation, False, nothing, groups, only_weight
    )
    return torch.as_tensor(gradient)
