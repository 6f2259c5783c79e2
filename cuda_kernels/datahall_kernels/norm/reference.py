"""What the norms compute, in plain torch: the CPU implementation, and what the tests hold the CUDA to.

Everything is computed in float64 and rounded once at the end, so that this is what a kernel that computes in float32
comes near to, and no worse in any type than torch's own op. Two things are rounded between, because they are kept:
`summed` = x + residual, to x's type (the norm is taken of the rounded value, which is what flows on to the next layer
and what the backward pass reads), and the statistics of each row, to float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from datahall_kernels.norm import checks


def rms_norm(x: Tensor, weight: Tensor | None, epsilon: float) -> tuple[Tensor, Tensor]:
    """RMSNorm over the last dimension (Zhang and Sennrich, 2019): y = x / sqrt(mean(x^2) + epsilon) * weight.

    Returns:
        y [..., width] of x's type, and rstd [rows] = 1 / sqrt(mean(x^2) + epsilon).
    """
    checks.data("rms_norm", x)
    checks.scale("rms_norm", "weight", weight, x)
    rows = _rows(x)
    rstd = torch.rsqrt(rows.square().mean(dim=1) + epsilon)
    return _rounded(_affine(rows * rstd[:, None], weight, None), x), rstd.to(checks.statistics_type(x))


def add_rms_norm(
    x: Tensor, residual: Tensor, weight: Tensor | None, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`rms_norm` of summed = x + residual; returns y, summed, rstd."""
    checks.data("add_rms_norm", x)
    checks.like_data("add_rms_norm", "residual", residual, x)
    checks.scale("add_rms_norm", "weight", weight, x)
    summed = _sum(x, residual)
    y, rstd = rms_norm(summed, weight, epsilon)
    return y, summed, rstd


def rms_norm_backward(
    dy: Tensor,
    dsummed: Tensor | None,
    x: Tensor,
    weight: Tensor | None,
    rstd: Tensor,
    weight_gradient: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of `rms_norm`, and of `add_rms_norm` with its `summed` as x.

    Args:
        dy: gradient of y.
        dsummed: gradient that reached `summed` past the norm, added to dx; None for none.
        x: what was normalised.
        weight: as in the forward pass.
        rstd: from the forward pass.
        weight_gradient: whether dweight is wanted.

    Returns:
        dx of x's type; dweight of weight's type, or [0] elements where it is not wanted or there is no weight.
    """
    checks.backward("rms_norm_backward", dy=dy, dsummed=dsummed, x=x, weight=weight, rstd=rstd)
    gradient, normalised = _rows(dy), _rows(x) * rstd[:, None]
    scaled = _affine(gradient, weight, None)
    dx = rstd[:, None] * (scaled - normalised * (scaled * normalised).mean(dim=1, keepdim=True))
    dweight = _column_sum(gradient * normalised, weight, x, wanted=weight_gradient)
    return _rounded(_add(dx, dsummed), x), dweight


def layer_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """LayerNorm over the last dimension (Ba et al., 2016).

    y = (x - mean) / sqrt(variance + epsilon) * weight + bias.

    Returns:
        y [..., width] of x's type, mean [rows], and rstd [rows] = 1 / sqrt(variance + epsilon).
    """
    checks.data("layer_norm", x)
    checks.weight_and_bias("layer_norm", weight, bias, x)
    rows = _rows(x)
    mean = rows.mean(dim=1)
    centred = rows - mean[:, None]
    rstd = torch.rsqrt(centred.square().mean(dim=1) + epsilon)
    kept = checks.statistics_type(x)
    return _rounded(_affine(centred * rstd[:, None], weight, bias), x), mean.to(kept), rstd.to(kept)


def add_layer_norm(
    x: Tensor, residual: Tensor, weight: Tensor | None, bias: Tensor | None, epsilon: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`layer_norm` of summed = x + residual; returns y, summed, mean, rstd."""
    checks.data("add_layer_norm", x)
    checks.like_data("add_layer_norm", "residual", residual, x)
    checks.weight_and_bias("add_layer_norm", weight, bias, x)
    summed = _sum(x, residual)
    y, mean, rstd = layer_norm(summed, weight, bias, epsilon)
    return y, summed, mean, rstd


def layer_norm_backward(
    dy: Tensor,
    dsummed: Tensor | None,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    weight_gradient: bool,
    bias_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `layer_norm` and `add_layer_norm`: dx, dweight, dbias, as `rms_norm_backward` has them."""
    checks.backward(
        "layer_norm_backward", dy=dy, dsummed=dsummed, x=x, weight=weight, rstd=rstd, bias=bias, mean=mean
    )
    gradient, normalised = _rows(dy), (_rows(x) - mean[:, None]) * rstd[:, None]
    scaled = _affine(gradient, weight, None)
    along_mean = scaled.mean(dim=1, keepdim=True)
    along_deviation = normalised * (scaled * normalised).mean(dim=1, keepdim=True)
    dx = rstd[:, None] * (scaled - along_mean - along_deviation)
    dweight = _column_sum(gradient * normalised, weight, x, wanted=weight_gradient)
    dbias = _column_sum(gradient, bias, x, wanted=bias_gradient)
    return _rounded(_add(dx, dsummed), x), dweight, dbias


def _rows(x: Tensor) -> Tensor:
    """[rows, width] in float64."""
    return x.reshape(checks.rows_of(x), x.shape[-1]).double()


def _rounded(rows: Tensor, x: Tensor) -> Tensor:
    return rows.to(x.dtype).reshape(x.shape)


def _sum(x: Tensor, residual: Tensor) -> Tensor:
    return _rounded(_rows(x) + _rows(residual), x)


def _add(rows: Tensor, tensor: Tensor | None) -> Tensor:
    return rows if tensor is None else rows + _rows(tensor)


def _affine(rows: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if weight is not None:
        rows = rows * weight.double()
    return rows if bias is None else rows + bias.double()


def _column_sum(rows: Tensor, parameter: Tensor | None, x: Tensor, *, wanted: bool) -> Tensor:
    if parameter is None or not wanted:
        return x.new_empty(0)
    return rows.sum(dim=0).to(parameter.dtype)
