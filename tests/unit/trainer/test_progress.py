"""Progress and learning rate."""

import itertools
import math

import pytest

from datahall_trainer import progress as module
from datahall_trainer.progress import Progress
from datahall_trainer.schedule import learning_rate


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_speed_and_time_left_are_of_the_last_steps_and_leave_out_pauses(clock):
    progress = Progress(total_steps=100, epochs=4, steps_per_epoch=25, batch_size=10, device="cpu")
    progress.start(0)
    assert not progress.known
    for _ in range(30):
        clock[0] += 0.5
        progress.advance(2.0)
    clock[0] += 60  # a validation
    progress.start(30)
    message = progress.to_message()
    assert message["samplesPerSecond"] == 20.0
    assert message["etaSeconds"] == 35
    assert (message["step"], message["epoch"], message["metrics"]) == (30, 2, {"loss": 2.0})
    clock[0] += 0.25
    progress.advance(None)
    assert progress.to_message()["samplesPerSecond"] == 40.0
    assert progress.known
    assert "step 31/100 epoch 2/4 loss=2.0000 40.0 samples/s eta 17 s" in progress.to_line()


def test_the_end_needs_no_speed(clock):
    progress = Progress(total_steps=10, epochs=2, steps_per_epoch=5, batch_size=1, device="cpu")
    progress.start(10)
    assert progress.known
    assert (progress.to_message()["epoch"], progress.to_message()["etaSeconds"]) == (2, 0)


def test_the_learning_rate_climbs_and_falls():
    rates = [learning_rate(s, total_steps=100, peak=1.0, warmup_fraction=0.1) for s in range(100)]
    assert rates[:10] == pytest.approx([(s + 1) / 10 for s in range(10)])
    assert rates[10] == 1.0 == max(rates)
    assert rates[55] == pytest.approx(0.5)
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert 0 < rates[-1] < 0.001


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_warm_up_may_be_nothing_or_everything(fraction):
    rates = [learning_rate(s, total_steps=4, peak=1.0, warmup_fraction=fraction) for s in range(4)]
    assert all(math.isfinite(r) and 0 < r <= 1 for r in rates)
