"""The quota tree, case by case: what is lent, what is borrowed, what Any means, and trees that people got wrong."""

import pytest

from datahall.planning.queues.spec import JOULES_PER_DAY, Limits, QueueSpec
from datahall.planning.queues.tree import QueueTree
from datahall.planning.queues.verdicts import (
    Fits,
    MissingParent,
    ParentsInCircle,
    RefusalReason,
    Refused,
)

H100, A100, ANY = "gpu:H100", "gpu:A100", "gpu:Any"


def queue(name, parent="", *, weight=1.0, namespaces=(), **limits):
    """A queue; limits by resource, each a nominal or (nominal, borrowing limit, lending limit)."""
    names = {"h100": H100, "a100": A100, "any_gpu": ANY, "watts": "watts", "joules": JOULES_PER_DAY}
    entries = {
        names[short]: Limits(*(given if isinstance(given, tuple) else (given,)))
        for short, given in limits.items()
    }
    return QueueSpec(name, parent, weight, entries, frozenset(namespaces))


def tree(*specs, **charges):
    """A tree of queues, with H100s charged by queue (- for _)."""
    made = QueueTree()
    for spec in specs:
        made.upsert(spec)
    for name, gpus in charges.items():
        made.charge(name, {H100: gpus}, 1)
    return made


def refusal(made, name, **amounts):
    verdict = made.verdict(name, {H100: amounts["h100"]} if "h100" in amounts else amounts["amounts"])
    assert isinstance(verdict, Refused), verdict
    return verdict


# ---- one queue, and lending between two


def test_a_queue_alone_holds_its_nominal_and_no_more():
    made = tree(queue("a", h100=8), a=5)
    assert made.verdict("a", {H100: 3}) == Fits({})
    verdict = refusal(made, "a", h100=4)
    assert (verdict.reason, verdict.where, verdict.room, verdict.ever) == (
        RefusalReason.QUOTA_IN_USE,
        "a",
        3,
        True,
    )
    assert (verdict.nominal, verdict.own, verdict.quota_there, verdict.used_there) == (8, 5, 8, 5)
    assert not refusal(made, "a", h100=9).ever


def test_a_queue_borrows_what_its_neighbour_leaves():
    made = tree(queue("hall"), queue("a", "hall", h100=8), queue("b", "hall", h100=8), a=6)
    assert made.verdict("a", {H100: 10}) == Fits({H100: 8})
    assert made.room("a", H100) == 10
    made.charge("b", {H100: 3}, 1)
    verdict = refusal(made, "a", h100=8)
    assert (verdict.reason, verdict.where, verdict.room, verdict.most) == (
        RefusalReason.NOTHING_TO_BORROW,
        "hall",
        7,
        16,
    )


def test_only_what_is_beyond_nominal_is_borrowed_and_own_use_counts_alone():
    made = tree(queue("a", h100=8), queue("b", "a", h100=8), b=10)
    assert made.verdict("a", {H100: 6}) == Fits({})
    assert made.verdict("b", {H100: 6}) == Fits({H100: 6})
    made.charge("a", {H100: 5}, 1)
    assert made.verdict("a", {H100: 1}) == Fits({})


def test_the_limits_of_borrowing_and_lending_hold():
    made = tree(queue("hall"), queue("a", "hall", h100=(8, 2)), queue("b", "hall", h100=(8, None, 3)))
    verdict = refusal(made, "a", h100=11)
    assert (verdict.reason, verdict.where, verdict.room) == (RefusalReason.BORROWING_LIMIT, "a", 10)
    assert verdict.borrowing_limit_there == 2
    assert not verdict.ever
    made.upsert(queue("a", "hall", h100=8))
    assert made.room("a", H100) == 11, "b lends 3 of its 8"
    made.charge("a", {H100: 11}, 1)
    assert made.room("b", H100) == 5, "b keeps 5"


def test_what_a_queue_keeps_serves_it_even_when_the_pool_is_overdrawn():
    made = tree(queue("hall"), queue("a", "hall", h100=8), queue("b", "hall", h100=(8, None, 3)), a=11)
    made.upsert(queue("a", "hall", h100=2))
    assert made.room("a", H100) == -6
    assert made.verdict("b", {H100: 5}) == Fits({})
    assert refusal(made, "b", h100=6).room == 5


def test_a_borrowing_limit_of_a_parent_binds_all_beneath_together():
    made = tree(
        queue("hall", h100=100),
        queue("dept", "hall", h100=(0, 4)),
        queue("a", "dept", h100=4),
        queue("b", "dept", h100=4),
        a=9,
    )
    verdict = refusal(made, "b", h100=4)
    assert (verdict.reason, verdict.where, verdict.room) == (RefusalReason.LENT_AWAY, "dept", 3)
    made.charge("b", {H100: 3}, 1)
    verdict = refusal(made, "a", h100=1)
    assert (verdict.reason, verdict.where, verdict.room) == (RefusalReason.BORROWING_LIMIT, "dept", 0)


def test_quota_that_others_borrowed_is_said_to_be_lent_away():
    made = tree(queue("hall"), queue("a", "hall", h100=8), queue("b", "hall", h100=8), b=12)
    verdict = refusal(made, "a", h100=8)
    assert (verdict.reason, verdict.where, verdict.room, verdict.ever) == (
        RefusalReason.LENT_AWAY,
        "hall",
        4,
        True,
    )


def test_the_sum_of_quotas_is_never_exceeded_by_many_that_borrow_at_once():
    """As in kueue #5243 and #4329, whose sums admitted more than there was."""
    made = tree(queue("hall"), *(queue(f"q{i}", "hall", h100=8) for i in range(4)))
    admitted = 0
    for turn in range(100):
        if isinstance(made.verdict(f"q{turn % 4}", {H100: 3}), Fits):
            made.charge(f"q{turn % 4}", {H100: 3}, 1)
            admitted += 3
    assert admitted == 30, "10 gangs of 3 in 32"
    assert [made.room(f"q{i}", H100) for i in range(4)] == [2] * 4


# ---- resources


@pytest.mark.parametrize(
    ("limits", "asked", "fits"),
    [
        ({"any_gpu": 8}, H100, True),
        ({"h100": 8}, A100, False),
        ({"h100": 8, "any_gpu": 0}, H100, True),
        ({"h100": 0, "any_gpu": 8}, H100, False),
        ({"h100": 0, "any_gpu": 8}, A100, True),
        ({}, H100, False),
        ({"watts": 10}, H100, False),
    ],
)
def test_any_covers_the_models_without_an_entry_of_their_own(limits, asked, fits):
    assert isinstance(tree(queue("a", **limits)).verdict("a", {asked: 8}), Fits) == fits


def test_models_without_an_entry_share_one_any():
    made = tree(queue("a", h100=2, any_gpu=8))
    made.charge("a", {A100: 3, "gpu:L40": 2, H100: 2}, 1)
    assert made.room("a", A100) == made.room("a", ANY) == 3
    made.upsert(queue("a", h100=2, a100=3, any_gpu=8))
    assert (made.room("a", A100), made.room("a", "gpu:L40")) == (0, 6), "facts are kept by model"


def test_a_parent_with_any_pools_the_models_of_its_children():
    made = tree(queue("hall", any_gpu=4), queue("a", "hall", h100=8), queue("b", "hall", a100=8, h100=0))
    assert made.room("b", A100) == 20
    made.charge("b", {A100: 16}, 1)
    assert refusal(made, "a", h100=5).reason == RefusalReason.LENT_AWAY
    assert made.room("a", H100) == 4


def test_a_parent_without_entries_pools_each_name_apart():
    made = tree(queue("hall"), queue("a", "hall", h100=8), queue("b", "hall", a100=8, h100=0))
    assert (made.room("b", A100), made.room("b", H100), made.room("a", H100)) == (8, 8, 8)


def test_once_any_it_stays_any_on_the_way_up():
    made = tree(queue("hall", h100=64), queue("a", "hall", any_gpu=4), queue("b", "hall", any_gpu=4))
    assert made.room("a", H100) == 8, "from b, not from the 64"
    coarse = tree(
        queue("site", h100=64, any_gpu=1), queue("hall", "site", any_gpu=0), queue("a", "hall", h100=4)
    )
    assert coarse.room("a", H100) == 5, "the hall's Any reaches the site's Any"


def test_a_queue_without_gpu_entries_uses_its_parents():
    made = tree(queue("hall", h100=8), queue("a", "hall"))
    assert made.verdict("a", {H100: 8}) == Fits({H100: 8})
    assert refusal(made, "a", amounts={A100: 1}).reason == RefusalReason.NOT_GRANTED


def test_a_queue_that_names_models_may_use_no_others_whatever_its_parent_has():
    made = tree(queue("hall", h100=8, a100=8), queue("a", "hall", a100=2))
    verdict = refusal(made, "a", h100=1)
    assert (verdict.reason, verdict.where, verdict.ever) == (RefusalReason.NOT_GRANTED, "a", False)
    assert made.room("a", H100) == 0


def test_a_budget_limits_those_who_name_it_and_all_beneath():
    made = tree(
        queue("site"),
        queue("hall", "site", watts=1000),
        queue("a", "hall", watts=(500, 0)),
        queue("b", "hall"),
        queue("c", "site"),
    )
    assert made.room("c", "watts") is None, "neither c nor the site names watts"
    assert made.verdict("c", {"watts": 10**9}) == Fits({})
    assert (made.room("a", "watts"), made.room("b", "watts"), made.room("hall", "watts")) == (500, 1500, 1500)
    made.charge("b", {"watts": 1200}, 1)
    assert (made.room("a", "watts"), made.room("b", "watts")) == (300, 300)
    verdict = refusal(made, "b", amounts={"watts": 301})
    assert (verdict.where, verdict.reason) == ("hall", RefusalReason.NOTHING_TO_BORROW)


def test_all_resources_of_a_gang_must_fit_and_the_first_that_does_not_is_told():
    made = tree(queue("a", h100=8, watts=5000), a=6)
    assert made.verdict("a", {H100: 2, "watts": 5000}) == Fits({})
    verdict = refusal(made, "a", amounts={"watts": 6000, H100: 2})
    assert (verdict.resource, verdict.asked, verdict.room) == ("watts", 6000, 5000)


def test_nothing_asked_fits_even_without_room():
    made = tree(queue("a", h100=8), a=20)
    assert made.verdict("a", {H100: 0}) == made.verdict("a", {}) == Fits({})


def test_what_makes_no_sense_is_refused_at_the_door():
    made = tree(queue("a", any_gpu=8))
    with pytest.raises(ValueError, match="gpu:H100: -1 cannot be asked for"):
        made.verdict("a", {H100: -1})
    with pytest.raises(ValueError, match="one member of family gpu, and names two"):
        made.verdict("a", {H100: 1, A100: 1})
    with pytest.raises(ValueError, match="weight is 0; it must be greater than 0"):
        QueueSpec("a", weight=0)
    with pytest.raises(ValueError, match="lending_limit of watts is -1"):
        QueueSpec("a", limits={"watts": Limits(1, None, -1)})
    with pytest.raises(ValueError, match="must have one"):
        QueueSpec("")


def test_an_unknown_queue_is_refused_and_may_be_charged():
    made = QueueTree()
    assert refusal(made, "a", h100=1).reason == RefusalReason.QUEUE_NOT_FOUND
    made.charge("a", {H100: 3}, 1)
    assert refusal(made, "a", h100=1).reason == RefusalReason.QUEUE_NOT_FOUND
    assert made.names() == []
    made.upsert(queue("a", h100=8))
    assert made.room("a", H100) == 5


# ---- trees that people got wrong, and changes under use


def test_a_missing_parent_leaves_a_queue_alone_until_it_comes():
    made = tree(queue("a", "dept", h100=8), queue("b", "dept", h100=8), queue("c", "a", h100=1), a=6)
    assert made.trouble("a") == MissingParent("a", "dept")
    assert (made.parent("a"), made.room("a", H100), made.room("c", H100)) == (None, 3, 3)
    made.upsert(queue("dept"))
    assert made.trouble("a") is None
    assert (made.parent("a"), made.room("a", H100)) == ("dept", 11)


def test_a_parent_removed_under_use_evicts_nobody_and_lends_no_more():
    made = tree(queue("dept", h100=4), queue("a", "dept", h100=8), queue("b", "dept", h100=8), a=14)
    made.remove("dept")
    assert made.charged("a") == {H100: 14}
    assert (made.room("a", H100), made.room("b", H100)) == (-6, 8)
    assert made.trouble("b") == MissingParent("b", "dept")
    verdict = refusal(made, "a", h100=1)
    assert (verdict.reason, verdict.room, verdict.ever) == (RefusalReason.QUOTA_IN_USE, -6, True)
    made.upsert(queue("dept", h100=4))
    assert made.room("a", H100) == 6


def test_a_queue_removed_under_use_keeps_its_charges_to_itself():
    made = tree(queue("dept"), queue("a", "dept", h100=8), queue("b", "dept", h100=8), a=5)
    made.remove("a")
    assert made.room("b", H100) == 8
    made.charge("a", {H100: 2}, -1)
    made.upsert(queue("a", "dept", h100=8))
    assert (made.charged("a"), made.room("b", H100)) == ({H100: 3}, 13)


def test_a_circle_leaves_each_of_its_queues_alone_and_the_rest_works_on():
    made = tree(
        queue("a", "c", h100=4),
        queue("b", "a", h100=4),
        queue("leaf", "b", h100=1),
        queue("other", h100=9),
        b=2,
    )
    assert made.trouble("a") == MissingParent("a", "c")
    made.upsert(queue("c", "b", h100=4))
    circle = ParentsInCircle(("a", "c", "b"))
    assert [made.trouble(name) for name in "abc"] == [circle] * 3
    assert [made.room(name, H100) for name in "abc"] == [4, 3, 4]
    assert made.trouble("leaf") is None
    assert (made.parent("leaf"), made.room("leaf", H100)) == ("b", 3)
    assert (made.trouble("other"), made.room("other", H100)) == (None, 9)
    made.upsert(queue("c", h100=4))
    assert [made.trouble(name) for name in "abc"] == [None] * 3
    assert made.room("leaf", H100) == 11


def test_a_queue_that_is_its_own_parent_stands_alone():
    made = tree(queue("a", "a", h100=4))
    assert made.trouble("a") == ParentsInCircle(("a",))
    assert made.room("a", H100) == 4
    made.remove("a")
    assert made.names() == []
    made.upsert(queue("a", h100=4))
    assert made.trouble("a") is None


def test_a_circle_ends_when_one_of_it_is_removed():
    made = tree(queue("a", "b", h100=4), queue("b", "a", h100=4))
    made.remove("b")
    assert made.trouble("a") == MissingParent("a", "b")
    made.upsert(queue("b", h100=4))
    assert made.room("a", H100) == 8


def test_a_queue_hung_elsewhere_under_use_takes_its_use_along():
    made = tree(
        queue("x", h100=10), queue("y", h100=10), queue("a", "x", h100=2), queue("b", "x", h100=2), a=6
    )
    assert (made.room("x", H100), made.room("y", H100)) == (8, 10)
    made.upsert(queue("a", "y", h100=2))
    assert (made.room("x", H100), made.room("y", H100)) == (12, 6)
    assert (made.children("x"), made.children("y")) == (["b"], ["a"])


def test_a_limit_below_use_refuses_what_is_new_and_recovers():
    made = tree(queue("a", h100=8, watts=100), a=8)
    made.upsert(queue("a", h100=3, watts=100))
    assert made.room("a", H100) == -5
    assert refusal(made, "a", h100=1).room == -5
    assert made.verdict("a", {"watts": 1}) == Fits({})
    made.charge("a", {H100: 6}, -1)
    assert made.verdict("a", {H100: 1}) == Fits({})


def test_elastic_growth_and_shrinking_by_deltas_leave_nothing_behind():
    """As in kueue #11557 and #11553, where scaling leaked quota."""
    made = tree(queue("hall", any_gpu=2), queue("a", "hall", h100=4), queue("b", "hall", h100=(4, None, 1)))
    empty = {name: made.accounts(name) for name in made.names()}
    for size in (3, 9, 1, 5, 7, 2):
        made.charge("a", {H100: size, "watts": 700 * size}, 1)
    for size in (3, 9, 1, 5, 7, 2):
        made.charge("a", {H100: size, "watts": 700 * size}, -1)
    assert {name: made.accounts(name) for name in made.names()} == empty
    assert made.charged("a") == {}


def test_taking_back_more_than_was_charged_is_an_error_and_changes_nothing():
    made = tree(queue("a", h100=8), a=3)
    with pytest.raises(ValueError, match="queue a: 4 of gpu:H100 cannot be taken back, 3 are charged"):
        made.charge("a", {"watts": 0, H100: 4}, -1)
    with pytest.raises(ValueError, match="0 are charged"):
        made.charge("nobody", {H100: 1}, -1)
    assert made.charged("a") == {H100: 3}
    assert made.charged("nobody") == {}


def test_changes_are_noticed_and_what_is_the_same_is_not_one():
    made = QueueTree()
    assert made.upsert(queue("a", h100=8))
    version = made.version
    assert not made.upsert(queue("a", h100=8))
    assert not made.remove("b")
    assert made.version == version
    assert made.remove("a")
    assert not made.remove("a")


def test_accounts_show_what_is_lent_and_what_overflows():
    made = tree(queue("hall"), queue("a", "hall", h100=(8, None, 6)), a=5)
    account = made.accounts("a")[H100]
    assert (account.nominal, account.own, account.lent, account.overflow, account.room) == (8, 5, 6, 3, 3)
    pool = made.accounts("hall")[H100]
    assert (pool.nominal, pool.own, pool.quota, pool.used) == (0, 0, 6, 3)
    assert made.accounts("nobody") == {}
