"""One layer's share in every patient's gradient, from what went into the layer and what came back to its output.

Norms and weighted sums without a gradient per patient where that is cheaper (ghost norms: Li et al. 2022, Bu et al.
2022). Knows nothing of losses, patients' data or clipping.

**Why no norm is too small and no sum too large.** `given` and `back` are float32, and every number that bounds or adds
patients is taken from them in float64: u = 2^-53, and no product of four float32 numbers under- or overflows. A sum of
n products in any order has relative error gamma_n = n u / (1 - n u) of the sum of their magnitudes (Higham 2002,
Accuracy and Stability of Numerical Algorithms, ch. 3.1 and 4.2).

- *A gradient that is held* for each patient is what is added later, whatever rounding made of it on the way: its
  norm has relative error gamma_n and bounds what that patient contributes.
- *A ghost norm* stands for G = sum over positions t of g_t a_t^T, which is never formed. By Cauchy and Schwarz the
  errors of the Gram entries <a_s, a_t> and <g_s, g_t>, of their product and of the sum over s and t come to at most
  gamma_m S^2 with m = fan-in + fan-out + T^2 and S = sum over t of |a_t| |g_t|. `SPREAD` exceeds 2 gamma_m up to
  m = 2^30; so sqrt(computed + SPREAD S^2) is never below |G|. It exceeds |G| by less than SPREAD T / 2 of it where the
  positions do not cancel: S^2 <= T |G|^2.
- *The weighted sum* of c patients has c T terms and an error of at most gamma_cT times the sum of their w S. The weight
  w = clip / norm keeps w S <= clip / sqrt(SPREAD) = 2^11 clip, even where everything cancels. Over n patients, with and
  without one of them, that is at most 2 n c T 2^-53 2^11 clip: the reserve of 2^-10 that `clipping_engines.SLACK` keeps
  holds for n c T <= 2^31 (c = 16 and T = 64: two million patients a step).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

Sums: TypeAlias = dict[str, Tensor]
Convolution: TypeAlias = nn.Conv1d | nn.Conv2d | nn.Conv3d

EXACT = torch.float64
SPREAD = 2.0**-22
"""What a ghost norm adds of its own largest possible value, squared."""

BLOCK = 8  # patients


@dataclass(frozen=True, kw_only=True)
class Share:
    """`squared` (n,) is each patient's squared gradient norm in this layer; `weighted` sums the gradients by weight.

    A weight of zero does not silence a gradient that is not finite.
    """

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


def exact_bytes(module: nn.Module, output: Tensor) -> int:
    """What a layer's float64 copies for a ghost norm take; 0 where none is formed."""
    if not isinstance(module, Convolution):
        return 0
    fan_in, positions = module.weight[0].numel(), output[0, 0].numel()
    ghost = _ghost_is_cheaper(positions, fan_in=fan_in, fan_out=output.shape[1])
    return ghost * len(output) * positions * (fan_in + output.shape[1]) * EXACT.itemsize


def share(module: nn.Module, given: Tensor, back: Tensor, patients: int, precision: torch.dtype = EXACT) -> Share:
    """The layer's share for `patients` patients whose slices lie one after another along the first axis.

    `given` is the layer's input and `back` the gradient of the summed losses by the layer's output. What was said above
    holds for `EXACT`; float32 is for samples that are nobody.
    """
    if isinstance(module, Convolution):
        return _convolution(module, given, back, patients, precision)
    if isinstance(module, nn.Linear):
        columns, rows = (values.to(precision).reshape(patients, -1, values.shape[-1]) for values in (given, back))
        ghost = _ghost_is_cheaper(rows.shape[1], fan_in=columns.shape[2], fan_out=rows.shape[2])
        weight = _ghost(columns, rows) if ghost else _held([rows.transpose(1, 2) @ columns], precision)
        return _with_bias(module, weight, rows.sum(1))
    return _scale_and_shift(module, given, back, patients, precision)


def _convolution(module: Convolution, given: Tensor, back: Tensor, patients: int, precision: torch.dtype) -> Share:
    slices, flat = len(given) // patients, back.flatten(2)
    if _ghost_is_cheaper(slices * flat.shape[2], fan_in=module.weight[0].numel(), fan_out=flat.shape[1]):
        weight = _ghost(*(_by_patient(values, patients, precision) for values in (_unfold(module, given), flat)))
    else:
        blocks = [block for x, g in _blocks(given, back, slices) for block in _each_gradient(module, x, g, slices)]
        weight = _held(blocks, precision)
    return _with_bias(module, weight, _slices_summed(flat.sum(2).to(precision), patients))


def _with_bias(module: nn.Linear | Convolution, weight: Share, bias: Tensor) -> Share:
    def weighted(weights: Tensor) -> Sums:
        sums = {"weight": weight.weighted(weights)["weight"].reshape(module.weight.shape)}
        return sums if module.bias is None else {**sums, "bias": weights @ bias}

    squared = weight.squared if module.bias is None else weight.squared + bias.square().sum(1)
    return Share(squared=squared, weighted=weighted)


def _held(blocks: list[Tensor], precision: torch.dtype) -> Share:
    """Every patient's gradient of a weight, (patients, ...) in blocks that are never copied into one."""
    flat = [block.flatten(1) for block in blocks]
    squared = torch.cat([torch.linalg.vector_norm(block, dim=1, dtype=precision).square() for block in flat])

    def weighted(weights: Tensor) -> Sums:
        total = torch.zeros_like(flat[0][0], dtype=precision)
        for part, block in zip(torch.split(weights, [len(block) for block in flat]), flat, strict=True):
            total += part @ block.to(precision)
        return {"weight": total}

    return Share(squared=squared, weighted=weighted)


def _ghost(columns: Tensor, rows: Tensor) -> Share:
    """The share of a weight whose gradient is rows^T @ columns, both (patients, positions, features), never formed.

    Its squared norm is the sum over s, t of <a_s, a_t> <g_s, g_t>.
    """

    def weighted(weights: Tensor) -> Sums:
        scaled = rows * weights[:, None, None]
        return {"weight": scaled.flatten(0, 1).T @ columns.flatten(0, 1)}

    if columns.shape[1] == 1:
        squared = columns.square().sum((1, 2)) * rows.square().sum((1, 2))
        return Share(squared=squared, weighted=weighted)
    inner, outer = columns @ columns.transpose(1, 2), rows @ rows.transpose(1, 2)
    largest = (inner.diagonal(dim1=1, dim2=2) * outer.diagonal(dim1=1, dim2=2)).sqrt().sum(1).square()
    squared = (inner * outer).sum((1, 2)).clamp_min(0) + SPREAD * largest
    return Share(squared=squared, weighted=weighted)


def _blocks(given: Tensor, back: Tensor, slices: int) -> Iterator[tuple[Tensor, Tensor]]:
    """A few patients at a time on a CPU, whose caches are small; all at once on a GPU."""
    step = len(given) if given.is_cuda else BLOCK * slices
    return zip(torch.split(given, step), torch.split(back, step), strict=True)


def _each_gradient(module: Convolution, given: Tensor, back: Tensor, slices: int) -> list[Tensor]:
    """Blocks of (patients, ...), the quickest of three ways as measured on a CPU and on a GPU.

    On a CPU one small convolution after another beats one batched product; small kernels whose channels fill the
    vector registers go together, as the groups of one convolution.
    """
    patients, weight = len(given) // slices, module.weight.detach()
    if given.is_cuda:
        columns, rows = (_by_patient(x, patients, x.dtype) for x in (_unfold(module, given), back.flatten(2)))
        return [rows.transpose(1, 2) @ columns]
    if weight.numel() <= 2**15 and module.in_channels % 16 == 0 and module.out_channels % 16 == 0:
        return [_grouped_gradient(module, given, back, slices)]
    singles = zip(torch.split(given, slices), torch.split(back, slices), strict=True)
    return [_weight_gradient(module, weight, x, g)[None] for x, g in singles]


def _grouped_gradient(module: Convolution, given: Tensor, back: Tensor, slices: int) -> Tensor:
    """(patients, weights): patients become the groups of one convolution, slices its batch."""
    patients, shape = len(given) // slices, module.weight.shape
    weight = module.weight.new_empty((patients * shape[0], *shape[1:]))  # of a weight only the shape is read
    inputs, outputs = (_as_groups(values, patients, slices) for values in (given, back))
    return _weight_gradient(module, weight, inputs, outputs, groups=patients).reshape(patients, -1)


def _as_groups(values: Tensor, patients: int, slices: int) -> Tensor:
    return values.reshape(patients, slices, *values.shape[1:]).transpose(0, 1).flatten(1, 2)


def _scale_and_shift(module: nn.Module, given: Tensor, back: Tensor, patients: int, precision: torch.dtype) -> Share:
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
    sums = {name: both[name].sum(axes) if axes else both[name] for name in names}
    each = {name: _slices_summed(value.to(precision), patients) for name, value in sums.items()}
    squared = torch.stack([value.flatten(1).square().sum(1) for value in each.values()]).sum(0)

    def weighted(weights: Tensor) -> Sums:
        return {name: torch.tensordot(weights, value, 1) for name, value in each.items()}

    return Share(squared=squared, weighted=weighted)


def _ghost_is_cheaper(positions: int, fan_in: int, fan_out: int) -> bool:
    """Two Gram matrices over positions instead of one gradient per patient. The factor was measured on a CPU."""
    return 16 * positions**2 <= fan_in * fan_out


def _by_patient(values: Tensor, patients: int, dtype: torch.dtype) -> Tensor:
    """(patients * slices, features, positions) as (patients, views * positions, features)."""
    turned = values.transpose(1, 2).to(dtype, memory_format=torch.contiguous_format)
    return turned.reshape(patients, -1, values.shape[1])


def _slices_summed(values: Tensor, patients: int) -> Tensor:
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
