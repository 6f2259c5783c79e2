"""AdamW as an optimizer: all parameters of a type in one launch, clipping included.

Its 32-bit states have the names and the types of torch.optim.AdamW's, so that either goes on from a checkpoint of the
other. Where torch's own fused step does the same, it is the fallback; 8-bit states, stochastic rounding and float32
states of parameters in half precision are our own, and fall back on the reference.

A step waits for nothing and reads the learning rate (as a tensor), step numbers and norm on the device: it can be
captured into a CUDA graph, like that of torch's own with `capturable`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim.adamw import adamw as torch_adamw
from torch.optim.optimizer import ParamsT

from datahall_kernels.adamw import checks, reference
from datahall_kernels.dispatch import Path, path_of

_OP = "adamw"
_STATES = ("step", "exp_avg", "exp_avg_sq", "exp_avg_scale", "exp_avg_sq_scale")
_TORCH = Path.TORCH.value


@dataclass(frozen=True)
class _Bucket:
    """Parameters of one group, type and device that have a gradient."""

    settings: dict[str, Any]
    seed: int
    parameters: list[Tensor] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)
    states: list[dict[str, Tensor]] = field(default_factory=list)

    def of(self, name: str) -> list[Tensor]:
        """One state of all parameters; empty if they have none of that name."""
        return [state[name] for state in self.states if name in state]


class AdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov and Hutter, 2019) with the gradients' norm clipped in the same pass."""

    gradient_norm: Tensor | None = None
    """Of all gradients in the last step, before clipping: float32 []. None without `max_norm`."""

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        *,
        max_norm: float | None = None,
        state_bits: Literal[8, 32] = 32,
        stochastic_rounding: bool = False,
        seed: int = 0,
    ) -> None:
        """Makes no state yet.

        Args:
            params: as for every optimizer.
            lr: the learning rate; a tensor of its own for CUDA graphs.
            betas: how much of the means of gradients and of their squares stays in a step.
            eps: added to the root of the mean of squares.
            weight_decay: times the learning rate, what parameters lose in a step.
            max_norm: what the norm of all gradients together is clipped to; None: they are not clipped. Where torch's
                own step runs, gradients are clipped in their place, else they stay as they are.
            state_bits: 8 keeps a byte for each of the two means, and 4 bytes for 256 of them.
            stochastic_rounding: of bfloat16 parameters, which lose small steps otherwise.
            seed: of that. What is drawn depends on it, the step and the places of parameter and element.

        Raises:
            ValueError: a setting is out of its range; the text names it.
        """
        _check("lr", float(lr), float(lr) >= 0, "at least 0")
        for i, beta in enumerate(betas):
            _check(f"betas[{i}]", beta, 0 < beta < 1, "between 0 and 1")
        _check("eps", eps, eps >= 0, "at least 0")
        _check("weight_decay", weight_decay, weight_decay >= 0, "at least 0")
        _check("max_norm", max_norm, max_norm is None or max_norm > 0, "above 0")
        _check("state_bits", state_bits, state_bits in {8, 32}, "8 or 32")
        _check("seed", seed, 0 <= seed < 2**63, "from 0 to 2^63 - 1")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self._max_norm = max_norm
        self._is_eight_bit = state_bits == 8
        self._stochastic_rounding = stochastic_rounding
        self._seed = seed

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step for all parameters that have a gradient.

        Args:
            closure: makes the gradients anew and returns the loss.

        Returns:
            What the closure returned.

        Raises:
            ValueError: a parameter or gradient is not what the kernels take; the text names it. (From the CUDA kernel:
                RuntimeError with the same text.)
            KernelsError: DATAHALL_KERNELS=require, and our kernel cannot run.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        buckets = self._buckets()
        on_torch = [path_of(_OP, b.parameters[0].device, b.parameters[0].dtype) == _TORCH for b in buckets]
        is_fused = [
            is_on and self._torch_can(bucket) for is_on, bucket in zip(on_torch, buckets, strict=True)
        ]
        squared_norm = self._clip(buckets, in_place=any(is_fused), by_reference=any(on_torch))
        for bucket, is_on_torch, is_torchs_own in zip(buckets, on_torch, is_fused, strict=True):
            if is_torchs_own:
                _step_by_torch(bucket)
            else:
                step = reference.adamw_ if is_on_torch else torch.ops.datahall.adamw_
                self._step_by(step, bucket, squared_norm)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from `state_dict`, of this optimizer or of torch.optim.AdamW.

        Raises:
            ValueError: its states have another number of bits.
        """
        for state in state_dict["state"].values():
            if (state["exp_avg"].dtype == torch.uint8) != self._is_eight_bit:
                here, there = (8, 32) if self._is_eight_bit else (32, 8)
                raise ValueError(f"AdamW: state_bits is {here}; it must be {there} as in state_dict")
        super().load_state_dict(state_dict)
        # Torch has given floating-point states the parameter's type, and would so lose what they are for.
        numbers = [number for group in state_dict["param_groups"] for number in group["params"]]
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        for number, parameter in zip(numbers, parameters, strict=True):
            for name, value in state_dict["state"].get(number, {}).items():
                if name in _STATES:
                    kind = self._type_of(name, parameter)
                    self.state[parameter][name] = torch.as_tensor(value).to(parameter.device, kind, copy=True)

    def _buckets(self) -> list[_Bucket]:
        found: dict[tuple[int, torch.device, torch.dtype], _Bucket] = {}
        for index, group in enumerate(self.param_groups):
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                key = (index, parameter.device, parameter.dtype)
                # Buckets count their tensors from 0: each has random numbers of its own.
                bucket = found.setdefault(key, _Bucket(group, self._seed + len(found)))
                bucket.parameters.append(parameter)
                bucket.gradients.append(parameter.grad)
                bucket.states.append(self._state_of(parameter))
        return list(found.values())

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = torch.zeros_like(parameter, dtype=self._type_of(name, parameter))
                if self._is_eight_bit:
                    blocks = -(-parameter.numel() // checks.STATE_BLOCK)
                    state[f"{name}_scale"] = torch.zeros(blocks, device=parameter.device)
        return state

    def _type_of(self, name: str, parameter: Tensor) -> torch.dtype:
        if name not in {"exp_avg", "exp_avg_sq"}:
            return torch.float32
        return torch.uint8 if self._is_eight_bit else checks.state_type(parameter)

    def _clip(self, buckets: Sequence[_Bucket], *, in_place: bool, by_reference: bool) -> Tensor | None:
        """The squared norm to clip by, None where nothing is to be clipped (any more)."""
        gradients = [gradient for bucket in buckets for gradient in bucket.gradients]
        if self._max_norm is None or not gradients:
            return None
        if in_place:
            norm = torch.nn.utils.get_total_norm(gradients)
            parameters = [parameter for bucket in buckets for parameter in bucket.parameters]
            torch.nn.utils.clip_grads_with_norm_(parameters, self._max_norm, norm)
            self.gradient_norm = norm
            return None
        of_type: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
        for gradient in gradients:
            of_type.setdefault((gradient.device, gradient.dtype), []).append(gradient.contiguous())
        device = gradients[0].device
        norm_of = reference.squared_norm if by_reference else torch.ops.datahall.squared_norm
        squares = [norm_of(some).to(device) for some in of_type.values()]
        squared = squares[0] if len(squares) == 1 else torch.stack(squares).sum()
        self.gradient_norm = squared.sqrt()
        return squared

    def _torch_can(self, bucket: _Bucket) -> bool:
        """Whether torch's fused step does the same."""
        return not self._is_eight_bit and bucket.parameters[0].dtype in {torch.float32, torch.float64}

    def _step_by(self, step: Callable[..., None], bucket: _Bucket, squared_norm: Tensor | None) -> None:
        device = bucket.parameters[0].device
        rate = bucket.settings["lr"]
        if isinstance(rate, Tensor):
            rate = rate.to(device, torch.float32)
        else:
            # Filled and not copied: nothing is read from the host's memory.
            rate = torch.full((), rate, dtype=torch.float32, device=device)
        steps = bucket.of("step")
        torch._foreach_add_(steps, 1)
        step(
            *(bucket.parameters, [gradient.contiguous() for gradient in bucket.gradients]),
            *(bucket.of(name) for name in _STATES[1:]),
            *(steps, rate, None if squared_norm is None else squared_norm.to(device)),
            *(self._max_norm or math.inf, *bucket.settings["betas"]),
            *(bucket.settings["eps"], bucket.settings["weight_decay"]),
            *(self._stochastic_rounding, bucket.seed),
        )


def _step_by_torch(bucket: _Bucket) -> None:
    beta1, beta2 = bucket.settings["betas"]
    torch_adamw(
        *(bucket.parameters, bucket.gradients, bucket.of("exp_avg"), bucket.of("exp_avg_sq"), []),
        bucket.of("step"),
        fused=True,
        amsgrad=False,
        maximize=False,
        beta1=beta1,
        beta2=beta2,
        lr=bucket.settings["lr"],
        weight_decay=bucket.settings["weight_decay"],
        eps=bucket.settings["eps"],
    )


def _check(name: str, value: object, is_right: bool, must: str) -> None:
    if not is_right:
        raise ValueError(f"AdamW: {name} is {value}; it must be {must}")
