"""adamw.cu, run on the CPU."""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from kernel_execution import InOut, Input, Library, Order, Output, Scratch, Table
from tests.kernels.sources.launching import DTYPES, EPSILON, i32, made, name_of, u64

RATE, BETA1, BETA2, TINY, DECAY = 1e-2, 0.9, 0.99, 1e-8, 0.1
SIZES = (5 * 123, 2 * 4096 + 300, 0, 1, 256)


@dataclass
class Model:
    """Parameters of some sizes, with the states that the kernel keeps for them."""

    dtype: torch.dtype
    eight_bit: bool = False
    sizes: tuple[int, ...] = SIZES
    misaligned: bool = False
    tensors: list[dict[str, Tensor]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for i, size in enumerate(self.sizes):
            blocks = -(-size // 256)
            state = torch.uint8 if self.eight_bit else torch.float32
            self.tensors.append(
                {
                    "parameter": made(size, dtype=self.dtype, seed=i),
                    "gradient": torch.zeros(size, dtype=self.dtype),
                    "first": torch.zeros(size, dtype=state),
                    "second": torch.zeros(size, dtype=state),
                    "first_scales": torch.zeros(blocks),
                    "second_scales": torch.zeros(blocks),
                }
            )

    def table(self, number: int) -> tuple[Table, int]:
        rows, chunks = [], 0
        off = self.dtype.itemsize if self.misaligned else 0
        for i, tensor in enumerate(self.tensors):
            scales = [
                InOut(f"{name} {i}", tensor[name]) if self.eight_bit else None
                for name in ("first_scales", "second_scales")
            ]
            rows.append(
                [
                    InOut(f"parameter {i}", tensor["parameter"], off),
                    Input(f"gradient {i}", tensor["gradient"], off),
                    InOut(f"first {i}", tensor["first"]),
                    InOut(f"second {i}", tensor["second"]),
                    *scales,
                    Input(f"step {i}", torch.tensor([float(number)])),
                    tensor["parameter"].numel(),
                    chunks,
                ]
            )
            chunks += -(-tensor["parameter"].numel() // 4096)
        return Table("tensors", rows), chunks

    def step(
        self,
        kernels: Library,
        number: int,
        *,
        most_norm: float = 0.0,
        stochastic: bool = False,
        order: Order = Order.FORWARD,
        seed: int = 7,
    ) -> float:
        """One step; the squared norm of the gradients, if they were to be clipped."""
        table, chunks = self.table(number)
        squared, code = torch.zeros(1), i32(DTYPES[self.dtype])
        count = i32(len(self.tensors))
        if most_norm:
            kernels.check(
                *("datahall_squared_norm", table, count, chunks, Scratch("sums", chunks * 4)),
                *(Output("norm", squared), code, None),
                order=order,
            )
        kernels.check(
            *("datahall_adamw", table, count, chunks, Input("rate", torch.tensor([RATE]))),
            Input("norm", squared) if most_norm else None,
            *(most_norm, 1 - BETA1, 1 - BETA2, math.log(BETA1), math.log(BETA2), TINY, DECAY),
            *(i32(self.eight_bit), i32(stochastic), u64(seed), code, None),
            order=order,
            seed=number,
        )
        return squared.item()


def gradients(model: Model, number: int) -> None:
    for i, tensor in enumerate(model.tensors):
        tensor["gradient"] = made(tensor["parameter"].numel(), dtype=model.dtype, seed=100 * number + i)


def beside_torch(model: Model) -> tuple[list[torch.nn.Parameter], torch.optim.AdamW]:
    exact = [torch.nn.Parameter(tensor["parameter"].double()) for tensor in model.tensors]
    return exact, torch.optim.AdamW(exact, lr=RATE, betas=(BETA1, BETA2), eps=TINY, weight_decay=DECAY)


@pytest.mark.parametrize("order", Order)
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_steps_are_those_of_torch_in_float64(kernels: Library, dtype: torch.dtype, order: Order) -> None:
    model = Model(dtype, misaligned=order is Order.REVERSE)
    exact, optimizer = beside_torch(model)
    steps = 3
    for number in range(1, steps + 1):
        gradients(model, number)
        for parameter, tensor in zip(exact, model.tensors, strict=True):
            parameter.grad = tensor["gradient"].double()
        norm = torch.nn.utils.clip_grad_norm_(exact, 20.0)
        optimizer.step()
        assert model.step(kernels, number, most_norm=20.0, order=order) == pytest.approx(
            norm.item() ** 2, rel=1e-5
        )
    for parameter, tensor in zip(exact, model.tensors, strict=True):
        # Each step rounds once, perhaps on the far side of a power of two.
        allowed = steps * (EPSILON[dtype] * (parameter.detach().abs() * 1.1 + 3 * RATE) + 2e-7)
        assert bool(((tensor["parameter"].double() - parameter.detach()).abs() <= allowed).all())


def test_eight_bit_states_lead_to_the_same_place(kernels: Library) -> None:
    """A quadratic bowl: distances from its ground, after the same number of steps."""
    model, wide = (Model(torch.float32, eight_bit=bits, sizes=(1000,)) for bits in (True, False))
    for number in range(1, 41):
        for bowl in (model, wide):
            tensor = bowl.tensors[0]
            tensor["gradient"] = tensor["parameter"] * torch.linspace(0.1, 3.0, 1000)
            bowl.step(kernels, number)
    ours, theirs = (bowl.tensors[0]["parameter"] for bowl in (model, wide))
    assert (ours - theirs).abs().max() < 0.05
    assert ours.norm() == pytest.approx(theirs.norm().item(), rel=0.01)


def test_an_eight_bit_state_is_near_what_it_stands_for(kernels: Library) -> None:
    model = Model(torch.float32, eight_bit=True, sizes=(512,))
    tensor = model.tensors[0]
    tensor["gradient"] = torch.logspace(-6, 2, 512)
    model.step(kernels, 1)
    first_codes, scales = tensor["first"].int(), tensor["first_scales"].repeat_interleave(256)
    bits = ((first_codes & 0x7F) + (127 * 8 - 127)) << 20
    decoded = torch.where(first_codes == 0, 0.0, bits.int().view(torch.float32) * scales)
    wanted = tensor["gradient"] * (1 - BETA1)
    near = wanted > scales * 2.0**-15
    assert near.sum() > 250
    assert ((decoded - wanted).abs() <= wanted / 15)[near].all()
    assert bool((tensor["second"] > 0).all()), "a step divides by it: 0 stands for 0 alone"


def test_small_steps_of_bfloat16_arrive_in_the_mean_when_rounded_stochastically(kernels: Library) -> None:
    size = 4096
    lost, kept = Model(torch.bfloat16, sizes=(size,)), Model(torch.bfloat16, sizes=(size,))
    for model in (lost, kept):
        tensor = model.tensors[0]
        tensor["parameter"] = torch.full((size,), 100.0, dtype=torch.bfloat16)
        tensor["gradient"] = torch.ones(size, dtype=torch.bfloat16)
        model.step(kernels, 1, stochastic=model is kept)
    moved = 100.0 * RATE * DECAY + RATE
    assert bool((lost.tensors[0]["parameter"] == 100.0).all())
    mean = 100.0 - kept.tensors[0]["parameter"].double().mean().item()
    # Each goes 0.5 down with a chance of `moved` / 0.5: the mean of 4,096 is within four standard deviations.
    chance = moved / 0.5
    assert abs(mean - moved) < 4 * 0.5 * math.sqrt(chance * (1 - chance) / size)


def test_stochastic_rounding_is_the_same_for_the_same_seed_and_another_at_each_step(kernels: Library) -> None:
    found = []
    for seed, number in ((7, 1), (7, 1), (8, 1), (7, 2)):
        model = Model(torch.bfloat16, sizes=(600, 600))
        gradients(model, 1)
        model.tensors[1] = {name: value.clone() for name, value in model.tensors[0].items()}
        model.step(kernels, number, stochastic=True, seed=seed, order=Order.SHUFFLED)
        found.append([tensor["parameter"] for tensor in model.tensors])
    assert torch.equal(found[0][0], found[1][0])
    assert not torch.equal(found[0][0], found[2][0])
    assert not torch.equal(found[0][0], found[0][1]), "two tensors alike are not rounded alike"
    assert not torch.equal(found[0][0], found[3][0])


@pytest.mark.parametrize("eight_bit", [False, True])
def test_a_gradient_that_is_nan_shows(kernels: Library, eight_bit: bool) -> None:
    model = Model(torch.float32, eight_bit=eight_bit, sizes=(300,))
    model.tensors[0]["gradient"][5] = float("nan")
    model.step(kernels, 1)
    assert torch.isnan(model.tensors[0]["parameter"][5])
    assert torch.isfinite(model.tensors[0]["parameter"][256:]).all()


def test_a_norm_that_is_nan_is_not_taken_for_a_small_one(kernels: Library) -> None:
    model = Model(torch.float32, sizes=(300, 300))
    gradients(model, 1)
    model.tensors[0]["gradient"][5] = float("nan")
    model.step(kernels, 1, most_norm=1.0)
    assert all(bool(tensor["parameter"].isnan().all()) for tensor in model.tensors)


def test_each_tensor_has_a_step_of_its_own(kernels: Library) -> None:
    model = Model(torch.float32, sizes=(20, 20))
    gradients(model, 1)
    model.tensors[1] = {name: value.clone() for name, value in model.tensors[0].items()}
    table, chunks = model.table(1)
    table.rows[1][6] = Input("step 1", torch.tensor([5.0]))
    kernels.check(
        *("datahall_adamw", table, i32(2), chunks, Input("rate", torch.tensor([RATE])), None),
        *(0.0, 1 - BETA1, 1 - BETA2, math.log(BETA1), math.log(BETA2), TINY, 0.0),
        *(i32(False), i32(False), u64(0), i32(DTYPES[torch.float32]), None),
    )
    started = made(20, dtype=torch.float32, seed=0)
    first, later = (tensor["parameter"] - started for tensor in model.tensors)
    # The mean is as far from the gradient in both, but the first step makes up for all of it.
    assert torch.allclose(first.abs(), torch.full((20,), RATE), rtol=1e-3)
    factor = (1 - BETA1) / (1 - BETA1**5) * math.sqrt((1 - BETA2**5) / (1 - BETA2))
    assert torch.allclose(later, first * factor, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("number", [0, 1, 48, 100])
def test_the_table_is_written_row_by_row(kernels: Library, number: int) -> None:
    rows = torch.arange(number * 9, dtype=torch.long).view(number, 9)
    table = torch.zeros_like(rows)
    host = ctypes.c_void_p(rows.data_ptr())
    kernels.check("datahall_adamw_table", host, i32(number), Output("table", table), None)
    assert torch.equal(table, rows)


def test_no_tensors_is_no_launch(kernels: Library) -> None:
    Model(torch.float32, sizes=(0,)).step(kernels, 1)
