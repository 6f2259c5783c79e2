"""Which implementation runs, why, and how people learn of it."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

import datahall_kernels
from datahall_kernels import Availability, KernelsError, Mode, Path, Reason, dispatch, families, native

OK = Availability(Reason.OK)
NOT_BUILT = Availability(Reason.NOT_BUILT, "the package has no native library")


@pytest.fixture(autouse=True)
def undecided(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DATAHALL_KERNELS", "reference")
    dispatch.forget()
    yield
    dispatch.forget()


@pytest.mark.parametrize(
    ("device", "mode", "kernel", "path"),
    [
        ("cuda", Mode.AUTO, OK, Path.CUDA),
        ("cuda", Mode.AUTO, NOT_BUILT, Path.TORCH),
        ("cuda", Mode.OFF, OK, Path.TORCH),
        ("cuda", Mode.REQUIRE, OK, Path.CUDA),
        ("cuda", Mode.REFERENCE, OK, Path.CUDA),
        ("cuda", Mode.REFERENCE, NOT_BUILT, Path.TORCH),
        ("cpu", Mode.AUTO, NOT_BUILT, Path.TORCH),
        ("cpu", Mode.REFERENCE, NOT_BUILT, Path.REFERENCE),
        ("cpu", Mode.REQUIRE, NOT_BUILT, Path.TORCH),
        ("cpu", Mode.OFF, NOT_BUILT, Path.TORCH),
        ("mps", Mode.AUTO, NOT_BUILT, Path.TORCH),
    ],
)
def test_path(device: str, mode: Mode, kernel: Availability, path: Path) -> None:
    assert dispatch.decide("rms_norm", device_type=device, mode=mode, kernel=kernel) is path


def test_requiring_what_cannot_be_had_says_why() -> None:
    with pytest.raises(
        KernelsError, match=r"require, but rms_norm .*: library not built: the package has no native"
    ):
        dispatch.decide("rms_norm", device_type="cuda", mode=Mode.REQUIRE, kernel=NOT_BUILT)


def test_a_mode_that_is_none_is_an_error_that_lists_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATAHALL_KERNELS", "on")
    with pytest.raises(
        KernelsError, match=r"DATAHALL_KERNELS: 'on' is none of auto, reference, off, require"
    ):
        datahall_kernels.rms_norm(torch.ones(1, 4), None, 1e-5)
    with pytest.raises(KernelsError, match="DATAHALL_KERNELS"):
        datahall_kernels.available()


def test_the_path_is_logged_once_per_op_device_and_type_and_kept(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="datahall_kernels")
    for dtype in (torch.float32, torch.float32, torch.bfloat16):
        datahall_kernels.rms_norm(torch.ones(1, 4, dtype=dtype), None, 1e-5)
    datahall_kernels.layer_norm(torch.ones(1, 4), None, None, 1e-5)
    assert [record.getMessage() for record in caplog.records] == [
        "kernel op=rms_norm device=cpu dtype=float32 path=reference",
        "kernel op=rms_norm device=cpu dtype=bfloat16 path=reference",
        "kernel op=layer_norm device=cpu dtype=float32 path=reference",
    ]
    assert [(taken.op, taken.dtype, taken.path) for taken in datahall_kernels.paths()] == [
        ("rms_norm", "float32", Path.REFERENCE),
        ("rms_norm", "bfloat16", Path.REFERENCE),
        ("layer_norm", "float32", Path.REFERENCE),
    ]


def test_a_fallback_that_nobody_asked_for_is_a_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, logger="datahall_kernels")
    monkeypatch.delenv("DATAHALL_KERNELS")
    monkeypatch.setattr(native, "LIBRARY", NOT_BUILT)
    assert dispatch.path_of("rms_norm", torch.device("cuda", 0), torch.bfloat16) == "torch"
    assert dispatch.path_of("rms_norm", torch.device("cuda", 0), torch.float64) == "torch"
    monkeypatch.setenv("DATAHALL_KERNELS", "off")
    assert dispatch.path_of("layer_norm", torch.device("cuda", 0), torch.bfloat16) == "torch"
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (
            "WARNING",
            "kernel op=rms_norm device=cuda:0 dtype=bfloat16 path=torch: the package has no native library",
        ),
        (
            "WARNING",
            "kernel op=rms_norm device=cuda:0 dtype=float64 path=torch: "
            "the kernels know float32, bfloat16 and float16, not torch.float64",
        ),
        ("INFO", "kernel op=layer_norm device=cuda:0 dtype=bfloat16 path=torch: DATAHALL_KERNELS=off"),
    ]


@pytest.mark.parametrize("weight_dtype", [torch.bfloat16, torch.float32], ids=["of x's type", "float32"])
@pytest.mark.parametrize("kind", ["rms_norm", "layer_norm"])
def test_torchs_own_op_gives_what_the_reference_gives(
    kind: str, weight_dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(1)
    x, residual = (torch.randn(7, 48, generator=generator).bfloat16() for _ in range(2))
    weight, bias = (torch.randn(48, generator=generator).to(weight_dtype) for _ in range(2))

    def norm() -> tuple[torch.Tensor, torch.Tensor]:
        if kind == "rms_norm":
            return datahall_kernels.rms_norm(x, weight, 1e-5, residual)
        return datahall_kernels.layer_norm(x, weight, bias, 1e-5, residual)

    y, summed = norm()
    monkeypatch.setenv("DATAHALL_KERNELS", "off")
    dispatch.forget()
    torch_y, torch_summed = norm()
    assert [taken.path for taken in datahall_kernels.paths()] == [Path.TORCH]
    assert torch.equal(summed, torch_summed)
    assert torch_y.dtype is torch.bfloat16
    # Torch may round between norm and weight: two units in the last place.
    torch.testing.assert_close(y, torch_y, rtol=2**-7, atol=2**-9)


@pytest.mark.parametrize("mode", ["reference", "auto"])
def test_a_wrong_argument_is_named_on_every_path(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATAHALL_KERNELS", mode)
    with pytest.raises(ValueError, match=r"rms_norm: weight has shape \[3\]; it must be \[4\]"):
        datahall_kernels.rms_norm(torch.ones(2, 4), torch.ones(3), 1e-5)
    with pytest.raises(ValueError, match=r"layer_norm: residual has shape \[4\]; it must be x's, \[2, 4\]"):
        datahall_kernels.layer_norm(torch.ones(2, 4), None, None, 1e-5, torch.ones(4))


def test_available_gives_a_reason_for_every_op(monkeypatch: pytest.MonkeyPatch) -> None:
    found = datahall_kernels.available()
    assert {"rms_norm", "layer_norm", "cross_entropy", "linear_cross_entropy"} <= found.keys()
    assert all(one.ok or one.detail for one in found.values())
    monkeypatch.setenv("DATAHALL_KERNELS", "off")
    assert {one.reason for one in datahall_kernels.available().values()} == {Reason.FORCED_OFF}


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("2.10.1+cu128", Reason.WRONG_TORCH),
        ("2.11.0", Reason.OK),
        ("2.15.0+cpu", Reason.OK),
        ("3.0.0", Reason.OK),
    ],
)
def test_torch_must_be_new_enough(version: str, reason: Reason) -> None:
    assert native.judge_torch(version).reason is reason


def test_the_first_thing_in_the_way_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    present: set[str] = set()
    monkeypatch.setattr(
        torch._C, "_dispatch_has_kernel_for_dispatch_key", lambda name, key: key == "CUDA" and name in present
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert native.judge("rms_norm", library=NOT_BUILT).reason is Reason.NOT_BUILT
    assert native.judge("rms_norm", library=OK).reason is Reason.NOT_IN_LIBRARY
    present.update(f"datahall::{name}" for name in families.PARTS["rms_norm"])
    assert native.judge("rms_norm", library=OK).reason is Reason.NO_CUDA_DEVICE
    assert native.judge("layer_norm", library=OK).reason is Reason.NOT_IN_LIBRARY
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(native, "cuda_of_driver", lambda: (12, 8))
    # An H100 whose driver is new enough for a torch of CUDA 12.8: launches would fail, one and all.
    assert native.judge("rms_norm", library=OK) == Availability(
        Reason.OLD_DRIVER, "the driver supports CUDA up to 12.8; the kernels need 13.0"
    )
    monkeypatch.setattr(native, "cuda_of_driver", lambda: (13, 0))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    old = native.judge("rms_norm", library=OK)
    assert old == Availability(
        Reason.OLD_DEVICE, "the device has compute capability 7.5; the kernels need 8.0"
    )
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert native.judge("rms_norm", library=OK).ok


def test_importing_starts_no_cuda_and_no_compiler() -> None:
    # Both would cost seconds, and CUDA would break every later fork.
    code = (
        "import torch, sys; before = set(sys.modules); import datahall_kernels; "
        "new = set(sys.modules) - before; "
        "assert not torch.cuda.is_initialized(); "
        "assert 'torch._dynamo' not in new, 'dynamo'"
    )
    paths = f"import sys; sys.path[:] = {sys.path!r}; "
    subprocess.run([sys.executable, "-c", paths + code], check=True)
