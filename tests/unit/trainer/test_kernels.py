"""Where the trainer meets our own kernels."""

import copy

import pytest
import torch
from torch import nn

from datahall_kernels import Path, PathTaken, Reason
from datahall_trainer import kernels
from datahall_trainer.precision import Precision
from datahall_trainer.schedule import adamw


def test_norms_of_a_model_become_ours_and_its_weights_keep_their_names() -> None:
    torch.manual_seed(1)
    plain = nn.Sequential(
        nn.Linear(8, 6), nn.LayerNorm(6), nn.GroupNorm(2, 6), nn.Sequential(nn.LayerNorm(6))
    )
    nn.init.normal_(plain[1].weight)
    own = copy.deepcopy(plain)
    kernels.use_own_norms(own)
    assert [type(own[i]) for i in (1, 2)] == [kernels.LayerNorm, nn.GroupNorm]
    assert type(own[3][0]) is kernels.LayerNorm
    assert own.state_dict().keys() == plain.state_dict().keys()
    x = torch.randn(4, 8)
    assert torch.equal(own(x), plain(x))


def test_a_norm_over_two_dimensions_stays_torchs() -> None:
    model = nn.Sequential(nn.LayerNorm((2, 3)))
    kernels.use_own_norms(model)
    assert type(model[0]) is nn.LayerNorm


@pytest.mark.parametrize(
    ("paths", "text"),
    [
        ([], "cuda"),
        ([("layer_norm", Path.TORCH)], "cuda"),
        (
            [("layer_norm", Path.CUDA), ("adamw", Path.CUDA), ("layer_norm", Path.CUDA)],
            "cuda (kernels: adamw, layer_norm)",
        ),
    ],
)
def test_the_status_names_the_kernels_that_ran(
    monkeypatch: pytest.MonkeyPatch, paths: list[tuple[str, Path]], text: str
) -> None:
    taken = [
        PathTaken(op=op, device="cuda:0", dtype="float32", path=path, reason=Reason.OK) for op, path in paths
    ]
    monkeypatch.setattr(kernels.datahall_kernels, "paths", lambda: tuple(taken))
    assert kernels.describe("cuda") == text
    assert len(kernels.describe("cuda")) <= 128, "the status has no room for more"


def test_a_step_clips_the_norm_of_all_gradients() -> None:
    model = nn.Linear(3, 2)
    optimizer = adamw(model, learning_rate=1e-3, weight_decay=0.01, max_norm=1.0)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 100.0)
    Precision("fp32", torch.device("cpu")).step(optimizer)
    assert optimizer.gradient_norm is not None
    assert optimizer.gradient_norm.item() == pytest.approx(100 * 8**0.5)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.0]
    # m is (1 - beta1) of the clipped gradient.
    m = [optimizer.state[parameter]["exp_avg"].flatten() for parameter in model.parameters()]
    assert torch.cat(m).norm().item() == pytest.approx(0.1, rel=1e-4)
