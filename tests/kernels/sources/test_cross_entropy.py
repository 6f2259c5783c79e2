"""cross_entropy.cu, run on the CPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from kernel_execution import InOut, Input, Library, Order, Output
from tests.kernels.sources.launching import DTYPES, EPSILON, i32, made, name_of

IGNORED = -100


def run(
    kernels: Library,
    logits: Tensor,
    targets: Tensor,
    *,
    stride: int = 0,
    smoothing: float = 0.0,
    order: Order = Order.FORWARD,
    scale: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Loss and gradient, the gradient being of 0.25 times the sum, or of the rows' losses by `scale`."""
    rows, width = logits.shape
    stride = stride or width
    padded = torch.full((rows, stride), float("inf"), dtype=logits.dtype)
    padded[:, :width] = logits
    loss, gradient = torch.empty(rows), torch.zeros_like(padded)
    of_each = scale is not None
    kernels.check(
        "datahall_cross_entropy",
        *(Input("logits", padded), Input("targets", targets)),
        *(Input("scale", scale if of_each else torch.tensor([0.25])), int(of_each)),
        *(Output("loss", loss), None),
        InOut("dlogits", gradient),
        *(rows, width, stride, IGNORED, smoothing, i32(DTYPES[logits.dtype]), None),
        order=order,
        seed=1,
    )
    return loss, gradient[:, :width]


def assert_right(logits: Tensor, targets: Tensor, found: tuple[Tensor, Tensor], smoothing: float) -> None:
    exact = logits.double().requires_grad_()
    losses = functional.cross_entropy(exact, targets, reduction="none", label_smoothing=smoothing)
    (losses.sum() * 0.25).backward()
    assert exact.grad is not None
    assert torch.allclose(found[0].double(), losses.detach(), rtol=1e-6, atol=3e-6)
    # One rounding of each element; and float32 has exp(z - logsumexp) as exactly as it has z - logsumexp.
    from_exp = 2.0**-23 * exact.abs().amax(-1, keepdim=True) * 2 * exact.softmax(-1) * 0.25
    allowed = EPSILON[logits.dtype] * exact.grad.abs() * 2 + from_exp.detach() + 1e-9
    if logits.dtype == torch.float16:
        allowed += 2.0**-25  # below its least normal number, steps are even
    assert bool(((found[1].double() - exact.grad).abs() <= allowed).all())


def targets_of(rows: int, width: int) -> Tensor:
    targets = torch.randint(0, width, (rows,), generator=torch.Generator().manual_seed(3))
    targets[-1] = width - 1
    if rows > 1:
        targets[0] = IGNORED
    return targets


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize(
    ("rows", "width", "stride"),
    [
        *((3, 1, 1), (5, 123, 123), (199, 40, 40), (4, 1000, 1000), (3, 1001, 1008), (2, 8200, 8200)),
        *((2, 16_385, 16_392), (2, 30_011, 30_011), (2, 50_257, 50_264), (1, 70_000, 70_000)),
    ],
)
def test_loss_and_gradient(kernels: Library, rows: int, width: int, stride: int, dtype: torch.dtype) -> None:
    logits, targets = made(rows, width, dtype=dtype, seed=1, scale=3.0), targets_of(rows, width)
    found = run(kernels, logits, targets, stride=stride, smoothing=0.1)
    assert_right(logits, targets, found, 0.1)


def test_no_rows(kernels: Library) -> None:
    loss, _ = run(kernels, torch.empty(0, 10), torch.empty(0, dtype=torch.long))
    assert loss.shape == (0,)


@pytest.mark.parametrize("order", Order)
@pytest.mark.parametrize("width", [777, 70_001])
def test_any_order_of_blocks_and_threads(kernels: Library, width: int, order: Order) -> None:
    logits, targets = made(3, width, dtype=torch.bfloat16, seed=2), targets_of(3, width)
    assert_right(logits, targets, run(kernels, logits, targets, order=order), 0.0)


def test_the_gradient_may_take_the_logits_place(kernels: Library) -> None:
    width = 1000
    logits, targets = made(4, width, dtype=torch.bfloat16, seed=4), targets_of(4, width)
    apart = run(kernels, logits, targets)
    together = logits.clone()
    place, loss = InOut("logits", together), torch.empty(4)
    kernels.check(
        "datahall_cross_entropy",
        *(place, Input("targets", targets), Input("scale", torch.tensor([0.25])), 0),
        *(Output("loss", loss), None),
        *(place, 4, width, width, IGNORED, 0.0, i32(DTYPES[torch.bfloat16]), None),
    )
    assert torch.equal(loss, apart[0])
    assert torch.equal(together, apart[1])


@pytest.mark.parametrize("width", [100, 70_000])
def test_each_row_has_a_scale_of_its_own(kernels: Library, width: int) -> None:
    logits, targets = made(4, width, dtype=torch.float32, seed=9), torch.tensor([3, IGNORED, 0, 7])
    scale = torch.tensor([0.5, 3.0, 0.0, -2.0])
    _, found = run(kernels, logits, targets, scale=scale)
    _, quarters = run(kernels, logits, targets)
    assert torch.allclose(found, quarters * 4 * scale[:, None], rtol=1e-6, atol=0)


def test_an_ignored_row_of_bad_logits_has_no_loss_and_no_gradient(kernels: Library) -> None:
    logits = made(2, 100, dtype=torch.float32, seed=5)
    logits[0, 3] = float("nan")
    loss, gradient = run(kernels, logits, torch.tensor([IGNORED, 5]))
    assert loss[0] == 0
    assert not gradient[0].any()
    assert torch.isfinite(loss[1])


@pytest.mark.parametrize("width", [100, 70_000])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_bad_logits_show_in_the_loss(kernels: Library, width: int, bad: float) -> None:
    logits = made(1, width, dtype=torch.float32, seed=6)
    logits[0, width // 2] = bad
    loss, _ = run(kernels, logits, torch.tensor([1]))
    assert torch.isnan(loss).all()


@pytest.mark.parametrize("width", [100, 70_000])
def test_logits_of_minus_infinity_are_classes_that_cannot_be(kernels: Library, width: int) -> None:
    logits = made(1, width, dtype=torch.float32, seed=7)
    logits[0, : width // 2] = float("-inf")
    targets = torch.tensor([width - 1])
    loss, gradient = run(kernels, logits, targets)
    assert torch.allclose(loss, functional.cross_entropy(logits, targets, reduction="none"), rtol=1e-6)
    assert not gradient[0, : width // 2].any()


@pytest.mark.parametrize("target", [-1, 100, 2**40])
def test_a_target_that_is_no_class_makes_the_loss_nan_and_reads_nothing(
    kernels: Library, target: int
) -> None:
    logits = made(1, 100, dtype=torch.float32, seed=8)
    loss, _ = run(kernels, logits, torch.tensor([target]))
    assert torch.isnan(loss).all()
