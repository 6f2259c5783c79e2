"""Progress, learning rate and the preparation of the examples' data."""

import importlib.util
import itertools
import math
from pathlib import Path

import pytest

from datahall_trainer import progress as module
from datahall_trainer.progress import Progress
from datahall_trainer.schedule import learning_rate

EXAMPLES = Path(__file__).parents[3] / "examples"


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


def load(name):
    spec = importlib.util.spec_from_file_location(f"prepare_{name}", EXAMPLES / name / "prepare.py")
    prepare = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(prepare)
    return prepare


def test_the_digits_are_held_out_in_proportion():
    counts = load("digits").validation_counts([1001, 1127, 991, 1032, 980, 863, 1014, 1070, 944, 978])
    assert sum(counts) == 2000
    assert counts == pytest.approx([200, 225, 198, 206, 196, 173, 203, 214, 189, 196], abs=1)


def test_the_reviews_are_split_by_label_and_always_alike():
    rows = [(f"text {n}", "positive" if n % 3 else "negative") for n in range(300)]
    prepare = load("reviews")
    train, held_out = prepare.split(rows)
    assert sorted(train + held_out) == sorted(rows)
    assert sum(label == "negative" for _, label in held_out) == 20
    assert prepare.split(rows) == (train, held_out)


@pytest.mark.parametrize("name", ["digits", "reviews"])
def test_data_that_cannot_be_fetched_is_said_to_be_missing(name, tmp_path, monkeypatch):
    prepare = load(name)
    monkeypatch.setenv("DATAHALL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(prepare.shutil, "which", lambda _: None)
    monkeypatch.setattr(prepare.sys, "executable", "/bin/false")
    monkeypatch.setattr(prepare.sys, "argv", ["prepare.py", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="data package missing"):
        prepare.main()
    assert not (tmp_path / "out").exists()
