"""The order of training: a pure function that no rank, restart or neighbour can change."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datahall_trainer.config import AugmentConfig
from datahall_trainer.data.sampler import Sampler, shard, uniform
from datahall_trainer.data.split import ordered_classes, stratified
from datahall_trainer.errors import BadInput
from datahall_trainer.tasks.image_classification import augment

sizes = st.integers(1, 300)


@given(
    size=sizes,
    batch=st.integers(1, 64),
    seed=st.integers(0, 2**63 - 1),
    epoch=st.integers(0, 9),
    long=st.booleans(),
)
@settings(deadline=None)
def test_an_epoch_sees_no_sample_twice_and_leaves_less_than_a_batch(size, batch, seed, epoch, long):
    lengths = list(range(size)) if long else None
    sampler = Sampler(size, batch_size=batch, seed=seed, lengths=lengths)
    seen = np.concatenate([sampler.batch(epoch, step) for step in range(sampler.steps_per_epoch)])
    assert len(set(seen.tolist())) == len(seen)
    assert size - len(seen) < sampler.batch_size
    assert seen.min() >= 0
    assert seen.max() < size


@given(size=st.integers(20, 200), seed=st.integers(0, 99), epoch=st.integers(0, 5), data=st.data())
@settings(deadline=None)
def test_a_batch_depends_on_seed_epoch_and_step_alone(size, seed, epoch, data):
    first = Sampler(size, batch_size=7, seed=seed, lengths=[i % 5 for i in range(size)])
    step = data.draw(st.integers(0, first.steps_per_epoch - 1))
    for other_epoch in range(epoch):  # a history that must not matter
        first.batch(other_epoch, 0)
    fresh = Sampler(size, batch_size=7, seed=seed, lengths=[i % 5 for i in range(size)])
    np.testing.assert_array_equal(first.batch(epoch, step), fresh.batch(epoch, step))


@given(size=st.integers(8, 100), world_size=st.integers(1, 8))
@settings(deadline=None)
def test_ranks_share_a_batch_without_gap_or_overlap(size, world_size):
    batch = Sampler(size, batch_size=8, seed=1).batch(0, 0)
    parts = [shard(batch, rank, world_size) for rank in range(world_size)]
    assert sorted(np.concatenate(parts).tolist()) == sorted(batch.tolist())
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_epochs_and_seeds_give_other_orders():
    sampler = Sampler(100, batch_size=100, seed=1)
    assert sampler.batch(0, 0).tolist() != sampler.batch(1, 0).tolist()
    assert sampler.batch(0, 0).tolist() != Sampler(100, batch_size=100, seed=2).batch(0, 0).tolist()


def test_like_lengths_come_together():
    lengths = np.random.default_rng(0).integers(5, 60, 1600)
    spread = {}
    for name, known in (("random", None), ("bucketed", lengths.tolist())):
        sampler = Sampler(1600, batch_size=16, seed=1, lengths=known)
        batches = [lengths[sampler.batch(0, step)] for step in range(sampler.steps_per_epoch)]
        spread[name] = sum(int(batch.max()) * len(batch) for batch in batches)
    assert spread["bucketed"] < 0.65 * spread["random"]


def test_a_samples_random_numbers_are_its_own():
    together = uniform(np.array([3, 9, 4]), seed=7, epoch=2, draws=3)
    alone = uniform(np.array([9]), seed=7, epoch=2, draws=3)
    np.testing.assert_array_equal(together[1], alone[0])
    assert not np.array_equal(alone, uniform(np.array([9]), seed=7, epoch=3, draws=3))
    assert not np.array_equal(alone, uniform(np.array([9]), seed=8, epoch=2, draws=3))


def test_random_numbers_are_uniform():
    values = uniform(np.arange(20_000), seed=0, epoch=0, draws=2)
    assert values.min() >= 0
    assert values.max() < 1
    assert abs(values.mean() - 0.5) < 0.01
    assert abs(np.corrcoef(values.T)[0, 1]) < 0.02
    assert np.histogram(values, bins=10, range=(0, 1))[0].std() < 0.02 * len(values)


def test_augmentation_of_a_sample_does_not_depend_on_its_batch():
    pixels = torch.randint(0, 256, (4, 3, 9, 11), dtype=torch.uint8)
    config = AugmentConfig(rotate_degrees=20.0, translate_pixels=2)
    together = augment(pixels, np.array([5, 6, 7, 8]), config, seed=1, epoch=0)
    alone = augment(pixels[2:3], np.array([7]), config, seed=1, epoch=0)
    assert torch.equal(together[2], alone[0])
    assert together.shape == pixels.shape
    assert together.min() >= 0
    assert together.max() <= 255.001


def test_no_augmentation_leaves_the_pixels_alone():
    pixels = torch.randint(0, 256, (2, 1, 5, 5), dtype=torch.uint8)
    assert augment(pixels, np.array([0, 1]), AugmentConfig(), seed=1, epoch=0) is pixels


def test_a_shift_moves_by_at_most_its_bound():
    pixels = torch.zeros(50, 1, 21, 21, dtype=torch.uint8)
    pixels[:, :, 10, 10] = 255
    moved = augment(pixels, np.arange(50), AugmentConfig(translate_pixels=3), seed=1, epoch=0)
    rows, columns = moved[:, 0].amax(2).argmax(1), moved[:, 0].amax(1).argmax(1)
    for places in (rows, columns):
        assert (places - 10).abs().max() <= 3
        assert len(places.unique()) >= 6


@given(
    labels=st.lists(st.integers(0, 4), min_size=5, max_size=200),
    fraction=st.floats(0.1, 0.9),
    seed=st.integers(0, 2**63 - 1),
)
@settings(deadline=None)
def test_a_split_is_whole_stratified_and_repeatable(labels, fraction, seed):
    try:
        train, held = stratified(labels, fraction=fraction, seed=seed)
    except BadInput:
        assert round(len(labels) * fraction) in {0, len(labels)}
        return
    assert sorted([*train, *held]) == list(range(len(labels)))
    assert len(held) == round(len(labels) * fraction)
    array = np.asarray(labels)
    for label in set(labels):
        assert abs((array[held] == label).sum() - (array == label).sum() * fraction) <= 1
    again = stratified(labels, fraction=fraction, seed=seed)
    np.testing.assert_array_equal(held, again[1])


def test_a_split_that_leaves_a_side_empty_is_refused():
    with pytest.raises(BadInput, match="leaves one side empty"):
        stratified([0, 1], fraction=0.1, seed=0)


def test_class_names_sort_as_numbers_where_all_are():
    assert ordered_classes(["10", "9", "2"]) == ["2", "9", "10"]
    assert ordered_classes(["10", "9", "b"]) == ["10", "9", "b"]
