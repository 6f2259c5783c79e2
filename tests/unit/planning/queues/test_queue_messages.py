"""What people read about quota: numbers with units, and what would help."""

import pytest

from datahall.planning.queues import messages
from datahall.planning.queues.reclaim import reclaimable
from datahall.planning.queues.spec import JOULES_PER_DAY
from tests.unit.planning.queues.test_queue_tree import A100, H100, queue, refusal, tree


def told(made, name, amounts):
    return messages.refused(
        refusal(made, name, amounts=amounts),
        spec=made.spec(name),
        gives_back=reclaimable(made, name, amounts),
    )


@pytest.mark.parametrize(
    ("resource", "amount", "text"),
    [
        (H100, 8, "8 H100 GPUs"),
        (H100, 1, "1 H100 GPU"),
        ("gpu:Any", 2, "2 GPUs"),
        ("gpu:", 2, "2 GPUs"),
        ("gpu_milli:H100", 500, "0.5 H100 GPUs"),
        ("watts", 700, "700 W"),
        ("watts", 12_500, "12.5 kW"),
        (JOULES_PER_DAY, 3_600_000_000, "3600 MJ"),
        ("watts", 10**18, "1e+06 TW"),
        (H100, -3, "0 H100 GPUs"),
        ("licences", 3, "3 licences"),
    ],
)
def test_amounts_have_units(resource, amount, text):
    assert messages.quantity(resource, amount) == text


def test_quota_in_use():
    assert told(tree(queue("a", h100=8), a=6), "a", {H100: 4}) == (
        "needs 4 H100 GPUs; queue a has 2 H100 GPUs of quota left: 6 of 8 in use"
    )
    assert told(tree(queue("a", any_gpu=8), a=12), "a", {H100: 4}) == (
        "needs 4 H100 GPUs; queue a has 0 GPUs of quota left: 12 of 8 in use"
    )


def test_borrowing():
    made = tree(queue("hall"), queue("a", "hall", h100=(8, 4)), queue("b", "hall", h100=8), a=10)
    assert told(made, "a", {H100: 4}) == (
        "needs 4 H100 GPUs; queue a uses 10, may borrow 4 beyond its 8, and has 2 H100 GPUs left"
    )
    made.upsert(queue("a", "hall", h100=8))
    assert told(made, "a", {H100: 8}) == (
        "needs 8 H100 GPUs; queue a holds 10 (nominal 8), "
        "and queue hall, above it, has 6 H100 GPUs left to lend: 10 of 16 in use"
    )
    assert told(made, "b", {H100: 8}) == (
        "needs 8 H100 GPUs; that is within the 8 H100 GPUs of queue b (0 in use), "
        "and 6 H100 GPUs of it are there now: the rest is borrowed by a"
    )


def test_a_limit_above():
    made = tree(queue("hall", h100=9), queue("d", "hall", h100=(2, 1)), queue("a", "d"), a=2)
    assert told(made, "a", {H100: 2}) == (
        "needs 2 H100 GPUs; queue d, above it, uses 2, may borrow 1 beyond its 2, and has 1 H100 GPU left"
    )


def test_what_can_never_fit():
    made = tree(queue("hall"), queue("a", "hall", h100=8, any_gpu=0), queue("b", "hall", h100=(8, None, 2)))
    assert told(made, "a", {H100: 11}) == (
        "can never fit: needs 11 H100 GPUs; queue a can have 10 H100 GPUs at most, 8 H100 GPUs of its own and the "
        "rest borrowed: lower what is asked for or raise the quota"
    )
    assert told(tree(queue("a", h100=8)), "a", {H100: 9}) == (
        "can never fit: needs 9 H100 GPUs; the whole quota of queue a is 8 H100 GPUs: "
        "lower what is asked for or raise the quota"
    )
    assert told(tree(queue("a", h100=8)), "a", {A100: 1}) == (
        "can never fit: needs 1 A100 GPU; queue a has no quota for A100 GPUs (it has: H100)"
    )
    assert told(tree(queue("a")), "a", {A100: 1}).endswith("no quota for A100 GPUs (it has: none)")
    assert told(tree(), "a", {A100: 1}) == 'needs 1 A100 GPU; there is no queue "a"'


def test_energy_says_over_which_time():
    made = tree(queue("a", joules=90_000_000))
    made.charge("a", {JOULES_PER_DAY: 80_000_000}, 1)
    assert told(made, "a", {JOULES_PER_DAY: 20_000_000}) == (
        "needs 20 MJ within 24 h; queue a has 10 MJ of quota left: 80 MJ of 90 MJ in use within 24 h"
    )


def test_many_who_give_back_are_not_all_listed():
    made = tree(queue("hall"), queue("a", "hall", h100=8), *(queue(f"q{i}", "hall") for i in range(8)))
    for i in range(8):
        made.charge(f"q{i}", {H100: 1}, 1)
    assert told(made, "a", {H100: 8}).endswith("is borrowed by q0, q1, q2, q3, q4, ...")


def test_trouble_says_what_mends_it():
    made = tree(queue("a", "dept"), queue("x", "y"), queue("y", "x"))
    assert messages.trouble(made.trouble("a")) == (
        'parent: there is no queue "dept"; until it is created or another is named, '
        "queue a stands alone, with its own quota and nothing to borrow or lend"
    )
    assert messages.trouble(made.trouble("y")) == (
        "parent: the parents go in a circle (x -> y -> x); until one of them names another, "
        "each of these queues stands alone, with its own quota and nothing to borrow or lend"
    )


def test_a_demand_is_said_once_and_a_budget_beside_it():
    """What a gang needs says how many GPUs: the amount would repeat it. Of joules it says nothing."""
    made = tree(queue("a", h100=8, joules=90_000_000))
    gpus = refusal(made, "a", amounts={H100: 11})
    joules = refusal(made, "a", amounts={JOULES_PER_DAY: 100_000_000})
    assert messages.refused(gpus, need="11 x 1 GPU").startswith("can never fit: needs 11 x 1 GPU; the whole ")
    assert messages.refused(joules, need="11 x 1 GPU").startswith(
        "can never fit: needs 11 x 1 GPU, 100 MJ within 24 h; the whole "
    )
