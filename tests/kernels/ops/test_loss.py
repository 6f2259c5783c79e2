"""Cross-entropy, alone and with the linear layer before it: right against float64, torch's own op and differences."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import datahall_kernels
from datahall_kernels import Path, cross_entropy, dispatch, families, linear_cross_entropy
from datahall_kernels.loss import linear

OPS = torch.ops.datahall
DEVICES = ["cpu", *(["cuda"] if datahall_kernels.available()["linear_cross_entropy"].ok else [])]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
IGNORED = -100
FLOAT32_LEAVES = {"cpu": 0.0, "cuda": 2e-6}
"""Of a probability: the kernels have a logsumexp of 10 in float32, and the reference in float64."""


def ids(value: object) -> str:
    return str(value).removeprefix("torch.") if isinstance(value, torch.dtype) else str(value)


def made(*shape: int, dtype: torch.dtype, seed: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator, dtype=torch.float64) * scale).to(dtype)


def targets_of(rows: int, classes: int) -> Tensor:
    targets = torch.randint(0, classes, (rows,), generator=torch.Generator().manual_seed(3))
    targets[1:2] = IGNORED
    return targets


def loss_and_gradients(leaves: list[Tensor], loss: Callable[..., Tensor], scale: float = 1.0) -> list[Tensor]:
    own = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    value = loss(*own)
    (value.sum() * scale).backward()
    return [value.detach().cpu(), *(leaf.grad.cpu() for leaf in own)]


@pytest.fixture
def off(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything by torch's own ops."""
    monkeypatch.setenv("DATAHALL_KERNELS", "off")
    dispatch.forget()
    yield
    dispatch.forget()


@pytest.mark.parametrize("dtype", DTYPES, ids=ids)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(("rows", "classes"), [(5, 123), (1, 1), (0, 7), (33, 1000), (3, 50_257)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("device", DEVICES)
def test_loss_and_gradient_are_those_of_float64(
    device: str, smoothing: float, rows: int, classes: int, reduction: Any, dtype: torch.dtype
) -> None:
    logits, targets = made(rows, classes, dtype=dtype, seed=1, scale=3.0), targets_of(rows, classes)

    def ours(z: Tensor) -> Tensor:
        return cross_entropy(z, targets.to(device), label_smoothing=smoothing, reduction=reduction)

    def exactly(z: Tensor) -> Tensor:
        return functional.cross_entropy(z, targets, label_smoothing=smoothing, reduction=reduction)

    loss, gradient = loss_and_gradients([logits.to(device)], ours)
    exact_loss, exact_gradient = loss_and_gradients([logits.double()], exactly)
    assert loss.dtype is torch.float32
    torch.testing.assert_close(loss.double(), exact_loss, rtol=3e-6, atol=3e-6, equal_nan=True)
    assert gradient.dtype is dtype
    unit, left = torch.finfo(dtype).eps / 2, FLOAT32_LEAVES[device]
    smallest = 3e-8 if dtype is torch.float16 else 2e-8
    torch.testing.assert_close(
        gradient.double(), exact_gradient, rtol=unit * 1.01 + left, atol=smallest + left
    )


def test_leading_dimensions_are_rows() -> None:
    logits, targets = made(2, 3, 5, dtype=torch.float32, seed=1), targets_of(6, 5).view(2, 3)
    losses = cross_entropy(logits, targets, reduction="none")
    flat = cross_entropy(logits.view(6, 5), targets.view(6), reduction="none")
    assert torch.equal(losses, flat.view(2, 3))
    one = cross_entropy(logits[0, 0], targets[0, 0])
    assert torch.equal(one, losses[0, 0])
    turned = cross_entropy(logits.permute(2, 1, 0).contiguous().permute(2, 1, 0), targets, reduction="none")
    assert torch.equal(turned, losses)


def test_mean_of_nothing_is_nan_and_has_no_gradient() -> None:
    logits = made(2, 4, dtype=torch.float32, seed=1).requires_grad_()
    loss = cross_entropy(logits, torch.full((2,), IGNORED))
    loss.backward()
    assert loss.isnan()
    assert logits.grad is not None
    assert not logits.grad.any()


def test_a_target_that_is_no_class_shows_in_the_loss() -> None:
    logits = made(3, 4, dtype=torch.float32, seed=1)
    losses = cross_entropy(logits, torch.tensor([0, 4, -1]), reduction="none")
    assert losses.isnan().tolist() == [False, True, True]


def test_a_class_that_cannot_be_has_no_gradient() -> None:
    logits = made(2, 6, dtype=torch.float32, seed=1)
    logits[:, 2] = float("-inf")
    loss, gradient = loss_and_gradients([logits], lambda z: cross_entropy(z, torch.tensor([0, 5])))
    assert loss.isfinite()
    assert not gradient[:, 2].any()


def test_backward_twice_adds_up_and_leaves_the_graph() -> None:
    hidden, weight = (made(7, 8, dtype=torch.float32, seed=seed).requires_grad_() for seed in (1, 2))
    targets = targets_of(7, 7)
    for loss in (
        cross_entropy(hidden @ weight.t(), targets),
        linear_cross_entropy(hidden, weight, targets, chunk_bytes=64),
    ):
        hidden.grad = None
        loss.backward(retain_graph=True)
        once = hidden.grad.clone()
        loss.backward()
        assert torch.equal(hidden.grad, 2 * once)


def test_gradients_of_gradients_are_an_error_that_says_so() -> None:
    logits = made(2, 4, dtype=torch.float64, seed=1).requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(logits, torch.tensor([1, 2])), logits, create_graph=True)
    with pytest.raises(NotImplementedError, match="gradients of cross_entropy's gradient"):
        gradient.sum().backward()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_gradients_are_those_of_differences(reduction: Any, smoothing: float) -> None:
    logits = made(4, 5, dtype=torch.float64, seed=1).requires_grad_()
    targets = targets_of(4, 5)
    assert torch.autograd.gradcheck(
        lambda z: cross_entropy(z, targets, reduction=reduction, label_smoothing=smoothing), (logits,)
    )


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("with_bias", [False, True])
def test_gradients_of_the_linear_layer_are_those_of_differences(reduction: Any, with_bias: bool) -> None:
    leaves = [made(*shape, dtype=torch.float64, seed=1) for shape in ((5, 4), (7, 4), (7,))]
    targets = targets_of(5, 7)

    def loss(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return linear_cross_entropy(
            hidden, weight, targets, bias, reduction=reduction, label_smoothing=0.1, chunk_bytes=2 * 8 * 8
        )

    given = tuple(leaf.requires_grad_() for leaf in leaves[: 3 if with_bias else 2])
    assert torch.autograd.gradcheck(loss, given)


@pytest.mark.parametrize("dtype", DTYPES, ids=ids)
@pytest.mark.parametrize("weight_dtype", ["hidden's", "float32"])
@pytest.mark.parametrize("scale", [1.0, 1024.0], ids=["plain", "scaled loss"])
@pytest.mark.parametrize("classes", [64, 1001])
@pytest.mark.parametrize("device", DEVICES)
def test_chunks_give_what_all_logits_at_once_give(
    device: str, classes: int, scale: float, weight_dtype: str, dtype: torch.dtype
) -> None:
    rows, width = 50, 48
    kept = dtype if weight_dtype == "hidden's" else torch.float32
    leaves = [
        made(rows, width, dtype=dtype, seed=1),
        made(classes, width, dtype=kept, seed=2, scale=0.3),
        made(classes, dtype=kept, seed=3),
    ]
    targets = targets_of(rows, classes)

    def exactly(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return functional.cross_entropy(hidden @ weight.t() + bias, targets, label_smoothing=0.1)

    def ours(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        # Seven rows at a time, and one at the end.
        chunk_bytes = 7 * (classes + 7) * dtype.itemsize
        return linear_cross_entropy(
            hidden, weight, targets.to(device), bias, label_smoothing=0.1, chunk_bytes=chunk_bytes
        )

    on_device = [leaf.to(device) for leaf in leaves]
    found = loss_and_gradients(on_device, ours, scale)
    exact = loss_and_gradients([leaf.to(dtype).double() for leaf in leaves], exactly, scale)
    assert [one.dtype for one in found] == [torch.float32, *(leaf.dtype for leaf in leaves)]
    # Products of float32 matrices lose a few bits in the order of their sums.
    unit = torch.finfo(dtype).eps * (8 if dtype is torch.float32 else 1)
    for name, one, other in zip(("loss", "dhidden", "dweight", "dbias"), found, exact, strict=True):
        error = (one.double() - other).abs().max().item()
        assert error <= 2 * unit * max(other.abs().max().item(), 1e-3 * scale), name


def test_float16_keeps_the_gradients_of_improbable_classes() -> None:
    # Each is 1/50,000 of the rows' 1/512: below float16's least number before the loss is scaled.
    rows, classes = 512, 50_000
    hidden = torch.zeros(rows, 1, dtype=torch.float16, requires_grad=True)
    weight = torch.zeros(classes, 1, dtype=torch.float16)
    bias = torch.zeros(classes, dtype=torch.float32, requires_grad=True)
    (linear_cross_entropy(hidden, weight, torch.zeros(rows, dtype=torch.long), bias) * 65_536).backward()
    assert bias.grad is not None
    torch.testing.assert_close(bias.grad[1:], torch.full((classes - 1,), 65_536 / classes), rtol=2e-3, atol=0)


def test_only_what_is_wanted_is_made() -> None:
    hidden, weight = made(6, 4, dtype=torch.float32, seed=1), made(9, 4, dtype=torch.float32, seed=2)
    targets = targets_of(6, 9)
    with torch.no_grad():
        evaluated = linear_cross_entropy(hidden.requires_grad_(), weight, targets)
    assert not evaluated.requires_grad
    trained = linear_cross_entropy(hidden, weight, targets)
    torch.testing.assert_close(trained, evaluated)
    trained.backward()
    frozen = linear_cross_entropy(hidden.detach(), weight.requires_grad_(), targets)
    frozen.backward()
    assert weight.grad is not None
    empty = [wanted.numel() == 0 for wanted in OPS.linear_cross_entropy(
        *(hidden.detach(), weight.detach(), None, targets, IGNORED, 0.0, True, 1 << 20, False, True, False)
    )[1:4]]  # fmt: skip
    assert empty == [True, False, True]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=ids)
def test_under_autocast_it_computes_as_a_linear_layer_does(dtype: torch.dtype) -> None:
    leaves = [made(30, 16, dtype=torch.float32, seed=1), made(40, 16, dtype=torch.float32, seed=2)]
    targets = targets_of(30, 40)
    with torch.autocast("cpu", dtype, enabled=dtype is torch.bfloat16):
        ours = loss_and_gradients(leaves, lambda h, w: linear_cross_entropy(h, w, targets, chunk_bytes=1000))
        plain = loss_and_gradients(
            leaves, lambda h, w: functional.cross_entropy(functional.linear(h, w), targets)
        )
    for one, other in zip(ours, plain, strict=True):
        assert one.dtype is torch.float32
        scale = other.abs().max().item()
        torch.testing.assert_close(one, other, rtol=0, atol=scale * torch.finfo(dtype).eps * 2)


@pytest.mark.usefixtures("off")
@pytest.mark.parametrize("dtype", DTYPES, ids=ids)
def test_torchs_own_op_gives_what_ours_gives(dtype: torch.dtype) -> None:
    hidden, weight = made(2, 5, 16, dtype=dtype, seed=1), made(40, 16, dtype=torch.float32, seed=2)
    targets = targets_of(10, 40).view(2, 5)
    losses: list[Callable[..., Tensor]] = [
        lambda h, w: linear_cross_entropy(h, w, targets, chunk_bytes=1000),
        lambda h, w: cross_entropy(h @ w.t().to(h.dtype), targets, label_smoothing=0.1),
        lambda h, w: cross_entropy(h @ w.t().to(h.dtype), targets, reduction="none"),
    ]
    by_torch = [loss_and_gradients([hidden, weight], loss) for loss in losses]
    assert {taken.path for taken in datahall_kernels.paths()} == {Path.TORCH}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATAHALL_KERNELS", "reference")
        dispatch.forget()
        by_ours = [loss_and_gradients([hidden, weight], loss) for loss in losses]
        assert Path.REFERENCE in {taken.path for taken in datahall_kernels.paths()}
    for ours, theirs in zip(by_ours, by_torch, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert (one.shape, one.dtype) == (other.shape, other.dtype)
            torch.testing.assert_close(one, other, rtol=4 * torch.finfo(dtype).eps, atol=2e-3)


REFERENCES = {op.name: op.reference for op in families.OPS}


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of storages that are alive, and the most there were; those inside our ops, too."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "datahall":
            with self:
                result = REFERENCES[func._schema.name.removeprefix("datahall::")](*args)
        else:
            result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: Any) -> None:
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        size = storage.nbytes()
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def test_a_step_of_a_large_vocabulary_takes_a_quarter_of_the_memory() -> None:
    rows, width, classes = 2048, 16, 49_152
    hidden = made(rows, width, dtype=torch.float32, seed=1).requires_grad_()
    weight = made(classes, width, dtype=torch.float32, seed=2).requires_grad_()
    targets = targets_of(rows, classes)

    def step(loss: Callable[[], Tensor]) -> int:
        hidden.grad = weight.grad = None
        with LiveBytes() as live:
            loss().backward()
        return live.most

    chunked = step(lambda: linear_cross_entropy(hidden, weight, targets))
    plain = step(lambda: functional.cross_entropy(functional.linear(hidden, weight), targets))
    print(f"peak bytes: chunked {chunked:,}, plain {plain:,}: {plain / chunked:.1f} times")
    assert plain >= 2 * rows * classes * 4
    assert chunked <= plain / 4


@pytest.mark.parametrize(
    ("classes", "dtype", "chunk_bytes", "rows"),
    [
        (49_152, torch.bfloat16, 128 << 20, 1280),
        (50_257, torch.bfloat16, 128 << 20, 1280),
        (50_257, torch.float32, 1, 1),
        (1000, torch.float32, 8000, 2),
        (1000, torch.float32, 4000 * 300, 256),
    ],
)
def test_rows_of_a_chunk_fit_into_its_bytes(
    classes: int, dtype: torch.dtype, chunk_bytes: int, rows: int
) -> None:
    assert linear.chunk_rows(classes, dtype, chunk_bytes) == rows


@pytest.mark.parametrize("name", ["cross_entropy", "linear_cross_entropy"])
def test_torch_compile_traces_it_whole_and_changes_nothing(name: str) -> None:
    leaves = [made(10, 8, dtype=torch.float32, seed=1), made(12, 8, dtype=torch.float32, seed=2)]
    targets = targets_of(10, 12)

    def loss(hidden: Tensor, weight: Tensor) -> Tensor:
        if name == "cross_entropy":
            return cross_entropy(hidden @ weight.t(), targets)
        return linear_cross_entropy(hidden, weight, targets, chunk_bytes=100)

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    for ours, traced in zip(
        loss_and_gradients(leaves, loss), loss_and_gradients(leaves, compiled), strict=True
    ):
        assert torch.equal(ours, traced)


def arguments(op: str, rows: int, classes: int, dtype: torch.dtype) -> tuple[Any, ...]:
    logits, targets = made(rows, classes, dtype=dtype, seed=1), targets_of(rows, classes)
    dlosses = made(rows, dtype=torch.float32, seed=2)
    weight, bias = (
        made(classes + 2, classes, dtype=torch.float32, seed=4),
        made(classes + 2, dtype=dtype, seed=5),
    )
    return {
        "cross_entropy": (logits.requires_grad_(), targets, IGNORED, 0.1),
        "cross_entropy_backward": (dlosses, logits.detach(), targets, IGNORED, 0.1),
        "cross_entropy_with_gradient_": (logits.detach(), targets, dlosses, IGNORED, 0.0),
        "linear_cross_entropy": (
            *(logits, weight.requires_grad_(), bias.requires_grad_(), targets, IGNORED, 0.1, rows > 0, 100),
            *(True, True, True),
        ),
    }[op]  # fmt: skip


# Torch's own check looks at gradients of tensors that have none.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("dtype", DTYPES, ids=ids)
@pytest.mark.parametrize(("rows", "classes"), [(5, 123), (2, 1), (0, 8)])
@pytest.mark.parametrize(
    "op", ["cross_entropy", "cross_entropy_backward", "cross_entropy_with_gradient_", "linear_cross_entropy"]
)
def test_op_passes_torchs_own_checks(op: str, rows: int, classes: int, dtype: torch.dtype) -> None:
    torch.library.opcheck(getattr(OPS, op).default, arguments(op, rows, classes, dtype))


Z, T = torch.ones(2, 4), torch.tensor([0, 1])
WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "whole numbers": (lambda: cross_entropy(Z.int(), T), r"cross_entropy: logits is torch.int32; it must be float"),
    "no class": (lambda: cross_entropy(torch.ones(2, 0), T), r"logits has shape \[2, 0\] and targets \[2\]; "),
    "targets too many": (lambda: cross_entropy(Z, torch.tensor([0])), r"logits has shape \[2, 4\] and targets \[1\]"),
    "targets no numbers": (lambda: cross_entropy(Z, T.int()), r"targets is torch.int32; it must be torch.int64"),
    "smoothing": (lambda: cross_entropy(Z, T, label_smoothing=1.5), r"label_smoothing is 1.5; it must be from 0 to 1"),
    "reduction": (
        lambda: cross_entropy(Z, T, reduction="avg"),  # type: ignore[arg-type]
        r"cross_entropy: reduction is 'avg'; it must be one of mean, sum, none",
    ),
    "no reduction": (
        lambda: linear_cross_entropy(Z, Z, T, reduction="none"),  # type: ignore[arg-type]
        r"linear_cross_entropy: reduction is 'none'; it must be one of mean, sum",
    ),
    "narrow weight": (
        lambda: linear_cross_entropy(Z, torch.ones(9, 3), T),
        r"linear_cross_entropy: weight has shape \[9, 3\]; it must be \[classes, 4\], hidden's width",
    ),
    "other weight": (
        lambda: linear_cross_entropy(Z.bfloat16(), Z.half(), T),
        r"weight is torch.float16; it must be torch.bfloat16 as hidden is, or float32",
    ),
    "long bias": (
        lambda: linear_cross_entropy(Z, Z, T, torch.ones(3)),
        r"bias has shape \[3\]; it must be \[2\], weight's classes",
    ),
    "no bytes": (lambda: linear_cross_entropy(Z, Z, T, chunk_bytes=0), r"chunk_bytes is 0; it must be at least 1"),
    "rows that overlap": (
        lambda: OPS.cross_entropy_with_gradient_(Z.as_strided((2, 4), (2, 1)), T, torch.ones(2), 0, 0.0),
        r"logits has strides \[2, 1\]; each row must be contiguous, none may overlap",
    ),
    "short dlosses": (
        lambda: OPS.cross_entropy_backward(torch.ones(3), Z, T, 0, 0.0),
        r"dlosses has shape \[3\]; it must be \[2\], one per row of logits",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mode", ["reference", "off"])
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_argument_is_named_on_every_path(
    name: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATAHALL_KERNELS", mode)
    dispatch.forget()
    call, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        call()
    dispatch.forget()
