"""AdamW as an optimizer: the steps of torch's own, states of 8 bits, rounding, clipping, checkpoints."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import datahall_kernels
from datahall_kernels import AdamW, Path, dispatch
from datahall_kernels.adamw import rounding, states

DEVICES = ["cpu", *(["cuda"] if datahall_kernels.available()["adamw"].ok else [])]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SHAPES = ((5, 123), (3, 2, 7), (), (0,), (300,), (2, 2048))
SETTINGS: dict[str, Any] = {"lr": 1e-2, "betas": (0.9, 0.99), "eps": 1e-8}


def ids(value: object) -> str:
    return str(value).removeprefix("torch.") if isinstance(value, torch.dtype) else str(value)


def parameters(dtype: torch.dtype, device: str = "cpu") -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator).to(device, dtype)) for shape in SHAPES]


def groups(of: list[torch.nn.Parameter]) -> list[dict[str, Any]]:
    return [{"params": of[:2], "weight_decay": 0.1}, {"params": of[2:], "weight_decay": 0.0}]


def set_gradients(
    of: list[torch.nn.Parameter], number: int, like: list[torch.nn.Parameter] | None = None
) -> None:
    """Equal ones for equal numbers, rounded to the type of `like`."""
    generator = torch.Generator().manual_seed(100 + number)
    for parameter, other in zip(of, like or of, strict=True):
        gradient = torch.randn(parameter.shape, generator=generator).to(other.dtype)
        parameter.grad = gradient.to(parameter.device, parameter.dtype)


@pytest.fixture(params=["reference", "off"])
def mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("DATAHALL_KERNELS", request.param)
    dispatch.forget()
    yield request.param
    dispatch.forget()


@pytest.mark.parametrize("dtype", DTYPES, ids=ids)
@pytest.mark.parametrize("max_norm", [None, 20.0])
@pytest.mark.parametrize("device", DEVICES)
def test_steps_are_those_of_torch_in_float64(
    mode: str, device: str, max_norm: float | None, dtype: torch.dtype
) -> None:
    own = parameters(dtype, device)
    exact = [torch.nn.Parameter(p.detach().cpu().double()) for p in own]
    ours = AdamW(groups(own), **SETTINGS, max_norm=max_norm)
    theirs = torch.optim.AdamW(groups(exact), **SETTINGS)
    steps = 3
    for number in range(steps):
        set_gradients(own, number)
        set_gradients(exact, number, like=own)
        norm = torch.nn.utils.clip_grad_norm_(exact, max_norm) if max_norm else None
        ours.step()
        theirs.step()
        if norm is None:
            assert ours.gradient_norm is None
        else:
            assert ours.gradient_norm is not None
            torch.testing.assert_close(ours.gradient_norm.cpu().double(), norm, rtol=1e-6, atol=0)
    taken = {Path.TORCH} if mode == "off" else {Path.REFERENCE if device == "cpu" else Path.CUDA}
    assert {one.path for one in datahall_kernels.paths()} == taken
    unit = torch.finfo(dtype).eps / 2
    for ours_is, exact_is in zip(own, exact, strict=True):
        # Each step rounds the parameter once, perhaps on the far side of a power of two.
        allowed = steps * (unit * (exact_is.abs() * 1.1 + 3e-2) + 2e-7)
        assert bool(((ours_is.cpu().double() - exact_is).abs() <= allowed).all())


def test_float32_steps_are_torchs_own_to_the_last_place() -> None:
    own, peer = parameters(torch.float32), parameters(torch.float32)
    ours, theirs = AdamW(groups(own), **SETTINGS), torch.optim.AdamW(groups(peer), **SETTINGS)
    steps = 5
    for number in range(steps):
        set_gradients(own, number)
        set_gradients(peer, number)
        ours.step()
        theirs.step()
    for one, other in zip(own, peer, strict=True):
        unit = torch.finfo(torch.float32).eps
        # A step of torch's rounds more often than ours: the last place, once a step.
        torch.testing.assert_close(one, other, rtol=steps * unit, atol=steps * unit * SETTINGS["lr"])


def test_a_parameter_that_sat_out_has_a_step_number_of_its_own(mode: str) -> None:
    own, peer = parameters(torch.float32), parameters(torch.float32)
    ours, theirs = AdamW(own, **SETTINGS), torch.optim.AdamW(peer, **SETTINGS)
    for number in range(4):
        for some, optimizer in ((own, ours), (peer, theirs)):
            set_gradients(some, number)
            if number < 2:
                some[0].grad = None
            optimizer.step()
    assert [ours.state[p]["step"].item() for p in own[:2]] == [2, 4]
    for one, other in zip(own, peer, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("eight_bit", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=ids)
def test_a_run_goes_on_from_its_checkpoint_with_the_same_bits(
    mode: str, dtype: torch.dtype, eight_bit: bool
) -> None:
    def optimizer(of: list[torch.nn.Parameter]) -> AdamW:
        return AdamW(
            groups(of),
            **SETTINGS,
            state_bits=8 if eight_bit else 32,
            stochastic_rounding=True,
            seed=3,
            max_norm=1.0,
        )

    whole = parameters(dtype)
    unbroken = optimizer(whole)
    for number in range(3):
        set_gradients(whole, number)
        unbroken.step()
    saved = copy.deepcopy(unbroken.state_dict())
    resumed = [torch.nn.Parameter(p.detach().clone()) for p in whole]
    again = optimizer(resumed)
    again.load_state_dict(saved)
    for some, one in ((whole, unbroken), (resumed, again)):
        set_gradients(some, 9)
        one.step()
    for one, other in zip(whole, resumed, strict=True):
        assert torch.equal(one, other)
    for kept, loaded in zip(unbroken.state.values(), again.state.values(), strict=True):
        assert {n: s.dtype for n, s in kept.items()} == {n: s.dtype for n, s in loaded.items()}


def test_checkpoints_of_torchs_own_optimizer_are_ours_and_the_other_way() -> None:
    first, second, third = (parameters(torch.float32) for _ in range(3))
    made: list[Callable[..., torch.optim.Optimizer]] = [torch.optim.AdamW, AdamW, torch.optim.AdamW]
    before: torch.optim.Optimizer | None = None
    for number, (some, make) in enumerate(zip((first, second, third), made, strict=True)):
        optimizer = make(groups(some), **SETTINGS)
        if before is not None:
            optimizer.load_state_dict(before.state_dict())
        set_gradients(some, number)
        optimizer.step()
        before = optimizer
    assert before is not None
    assert {state["step"].item() for state in before.state.values()} == {3}
    by_torch = parameters(torch.float32)
    alone = torch.optim.AdamW(groups(by_torch), **SETTINGS)
    for number in range(3):
        set_gradients(by_torch, number)
        alone.step()
    for state, other in zip(before.state.values(), alone.state.values(), strict=True):
        torch.testing.assert_close(state["exp_avg_sq"], other["exp_avg_sq"], rtol=1e-6, atol=0)


def test_states_of_half_precision_become_float32() -> None:
    before, after = parameters(torch.bfloat16), parameters(torch.bfloat16)
    theirs, ours = torch.optim.AdamW(before), AdamW(after)
    set_gradients(before, 1)
    theirs.step()
    ours.load_state_dict(theirs.state_dict())
    assert {state["exp_avg"].dtype for state in ours.state.values()} == {torch.float32}
    set_gradients(after, 2)
    ours.step()


@pytest.mark.parametrize(("saved", "loaded"), [(8, 32), (32, 8)])
def test_states_of_other_bits_are_refused(saved: Any, loaded: Any) -> None:
    own = parameters(torch.float32)
    set_gradients(own, 1)
    one, other = AdamW(own, state_bits=saved), AdamW(own, state_bits=loaded)
    one.step()
    with pytest.raises(ValueError, match=f"state_bits is {loaded}; it must be {saved} as in state_dict"):
        other.load_state_dict(one.state_dict())


def test_eight_bit_states_lead_to_the_same_place(mode: str) -> None:
    """A quadratic bowl: distances from its ground, after the same number of steps."""
    start = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    ends = []
    for bits in (8, 32):
        parameter = torch.nn.Parameter(start.clone())
        optimizer = AdamW([parameter], **SETTINGS, state_bits=bits)  # type: ignore[arg-type]
        for _ in range(40):
            parameter.grad = parameter.detach() * torch.linspace(0.1, 3.0, 1000)
            optimizer.step()
        ends.append(parameter.detach())
        kept = sum(s.numel() * s.element_size() for n, s in optimizer.state[parameter].items() if n != "step")
    assert (ends[0] - ends[1]).abs().max() < 0.05
    assert ends[0].norm() == pytest.approx(ends[1].norm().item(), rel=0.01)
    assert kept == 8000, "of 32 bits"


def test_eight_bit_states_take_a_quarter_of_the_memory() -> None:
    parameter = torch.nn.Parameter(torch.ones(4096))
    parameter.grad = torch.ones(4096)
    optimizer = AdamW([parameter], state_bits=8)
    optimizer.step()
    kept = [state for name, state in optimizer.state[parameter].items() if name != "step"]
    assert sum(state.numel() * state.element_size() for state in kept) == 2 * (4096 + 4096 // 256 * 4)


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=600))
def test_what_was_encoded_is_near_what_it_stands_for(values: list[float]) -> None:
    m = torch.tensor(values)
    v, count = m.square(), len(values)
    first, second = torch.zeros(count, dtype=torch.uint8), torch.zeros(count, dtype=torch.uint8)
    scales = [torch.zeros(-(-count // 256)) for _ in range(2)]
    states.encode_(first, second, *scales, m=m, v=v)
    decoded_m, decoded_v = states.decode(first, second, *scales)
    most = scales[0].repeat_interleave(256)[:count]
    # Below the least power of two the steps are as wide as above it.
    assert bool(((decoded_m - m).abs() <= m.abs() / 15.9 + most * 2.0**-16).all())
    assert bool(((decoded_v.sqrt() - v.sqrt()).abs() <= v.sqrt() / 31.9 + most * 2.0**-15).all())
    assert torch.equal(decoded_v > 0, v > 0)


@pytest.mark.parametrize("code", [states.FIRST, states.SECOND], ids=["first", "second"])
def test_every_code_stands_for_itself(code: states.SmallFloat) -> None:
    codes = torch.arange(code.most + 1, dtype=torch.int32)
    values = code.decode(codes)
    assert torch.equal(code.encode(values), codes)
    assert bool((values.diff() > 0).all())
    assert (values[0], values[-1]) == (0.0, 1.0)


def test_random_words_are_philoxs() -> None:
    """Known answers of Random123 (Salmon et al.): kat_vectors, philox4x32, 10 rounds."""

    def words(*counter: int, seed: int) -> list[str]:
        found = rounding.philox(seed, tuple(torch.tensor([word]) for word in counter))  # type: ignore[arg-type]
        return [f"{word.item():08x}" for word in found]

    assert words(0, 0, 0, 0, seed=0) == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]
    ones = 0xFFFFFFFF
    assert words(ones, ones, ones, ones, seed=(1 << 64) - 1) == [
        "408f276d",
        "41c83b0e",
        "a20bc7c6",
        "6d5451fd",
    ]
    assert words(0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, seed=0x299F31D0_A4093822) == [
        *("d16cfe09", "94fdcceb", "5001e420", "24126ea1"),
    ]  # fmt: skip


def test_small_steps_of_bfloat16_arrive_in_the_mean_when_rounded_stochastically(mode: str) -> None:
    size, rate, decay = 4096, 1e-2, 0.1
    moved = 100.0 * rate * decay + rate
    means = {}
    for stochastic in (False, True):
        parameter = torch.nn.Parameter(torch.full((size,), 100.0, dtype=torch.bfloat16))
        parameter.grad = torch.ones_like(parameter)
        AdamW([parameter], lr=rate, weight_decay=decay, stochastic_rounding=stochastic, seed=7).step()
        means[stochastic] = 100.0 - parameter.double().mean().item()
    assert means[False] == 0
    # Each goes 0.5 down with a chance of `moved` / 0.5: the mean of 4,096 is within four standard deviations.
    chance = moved / 0.5
    assert abs(means[True] - moved) < 4 * 0.5 * math.sqrt(chance * (1 - chance) / size)


def test_parameters_alike_are_not_rounded_alike(mode: str) -> None:
    def rounded(*, seed: int, number: int) -> list[Tensor]:
        some = [torch.nn.Parameter(torch.linspace(0.5, 2.0, 600).bfloat16()) for _ in range(3)]
        optimizer = AdamW(groups(some), lr=1e-3, stochastic_rounding=True, seed=seed)
        for group in optimizer.param_groups:
            group["weight_decay"] = 0.0
        for _ in range(number):
            for parameter in some:
                parameter.grad = torch.full_like(parameter, 0.5)
            optimizer.step()
        return [parameter.detach() for parameter in some]

    one = rounded(seed=1, number=1)
    assert all(torch.equal(a, b) for a, b in zip(one, rounded(seed=1, number=1), strict=True))
    assert not torch.equal(one[0], one[1])
    assert not torch.equal(one[0], one[2]), "they are of two groups"
    assert not torch.equal(one[0], rounded(seed=5, number=1)[0])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_norm_that_is_no_number_is_not_taken_for_a_small_one(mode: str, value: float) -> None:
    own = parameters(torch.float32)
    set_gradients(own, 1)
    assert own[4].grad is not None
    own[4].grad[7] = value
    AdamW(own, max_norm=1.0).step()
    assert bool(own[4][7].isnan())
    assert bool(own[0].isnan().all()) == math.isnan(value)


def test_gradients_are_left_as_they_are_by_our_step() -> None:
    own = parameters(torch.float32)
    set_gradients(own, 1)
    before = [p.grad.clone() for p in own if p.grad is not None]
    AdamW(own, max_norm=1e-3).step()
    assert all(torch.equal(p.grad, b) for p, b in zip(own, before, strict=True) if p.grad is not None)


def test_a_closure_is_called_with_gradients_on() -> None:
    parameter = torch.nn.Parameter(torch.ones(3))

    def closure() -> Tensor:
        loss = parameter.square().sum()
        loss.backward()
        return loss

    assert AdamW([parameter]).step(closure).item() == 3.0
    assert bool((parameter < 1).all())


def test_the_learning_rate_may_be_a_tensor(mode: str) -> None:
    rates: tuple[float | Tensor, ...] = (1e-2, torch.tensor(1e-2))
    ends = []
    for rate in rates:
        own = parameters(torch.float32)
        set_gradients(own, 1)
        AdamW(own, lr=rate).step()
        ends.append(own)
    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-8)


@pytest.mark.skipif(DEVICES == ["cpu"], reason="no GPU that the kernels can run on")
def test_a_captured_step_goes_on_with_step_numbers_rate_and_gradients_of_its_replay() -> None:
    ends = []
    for is_captured in (False, True):
        own = parameters(torch.float32, "cuda")
        rate = torch.tensor(1e-2, device="cuda")
        optimizer = AdamW(groups(own), lr=rate, max_norm=1.0)
        set_gradients(own, 0)
        optimizer.step()  # makes the states
        graph = torch.cuda.CUDAGraph()
        if is_captured:
            with torch.cuda.graph(graph):
                optimizer.step()
        for _ in range(2):
            rate.mul_(0.5)
            for parameter in own:
                assert parameter.grad is not None
                parameter.grad.neg_()
            if is_captured:
                graph.replay()
            else:
                optimizer.step()
        ends.append([parameter.detach().cpu() for parameter in own])
    for one, other in zip(*ends, strict=True):
        assert torch.equal(one, other)


def arguments(dtype: torch.dtype, *, eight_bit: bool, clipped: bool) -> tuple[Any, ...]:
    own = [p.detach() for p in parameters(dtype)]
    gradients = [torch.ones_like(p) for p in own]
    state = torch.uint8 if eight_bit else torch.float32
    first, second = ([torch.zeros_like(p, dtype=state) for p in own] for _ in range(2))
    scales = [[torch.zeros(-(-p.numel() // 256)) for p in own] if eight_bit else [] for _ in range(2)]
    steps = [torch.tensor(1.0) for _ in own]
    norm = torch.tensor(9.0) if clipped else None
    return (
        own,
        gradients,
        first,
        second,
        *scales,
        steps,
        torch.tensor(1e-2),
        norm,
        1.0,
        0.9,
        0.99,
        1e-8,
        0.1,
        True,
        3,
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=ids)
@pytest.mark.parametrize("eight_bit", [False, True])
def test_ops_pass_torchs_own_checks(eight_bit: bool, dtype: torch.dtype) -> None:
    given_ = arguments(dtype, eight_bit=eight_bit, clipped=eight_bit)
    torch.library.opcheck(torch.ops.datahall.adamw_.default, given_)
    torch.library.opcheck(torch.ops.datahall.squared_norm.default, (given_[1],))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "lr": ({"lr": -1.0}, "AdamW: lr is -1.0; it must be at least 0"),
    "beta": ({"betas": (0.9, 1.0)}, r"betas\[1\] is 1.0; it must be between 0 and 1"),
    "norm": ({"max_norm": 0.0}, "max_norm is 0.0; it must be above 0"),
    "bits": ({"state_bits": 4}, "state_bits is 4; it must be 8 or 32"),
    "seed": ({"seed": -1}, "seed is -1; it must be from 0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_setting_is_named(name: str) -> None:
    settings, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        AdamW([torch.nn.Parameter(torch.ones(2))], **settings)


def test_a_parameter_that_the_kernel_cannot_take_is_named() -> None:
    good, turned = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2, 3).t())
    for parameter in (good, turned):
        parameter.grad = torch.ones_like(parameter)
    with pytest.raises(
        ValueError, match=r"adamw_: parameters\[1\] has strides \[1, 3\]; it must be contiguous"
    ):
        AdamW([good, turned]).step()
