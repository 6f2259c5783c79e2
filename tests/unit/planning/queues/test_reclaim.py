"""Who borrowed gives back: who is named, in which order, and that a queue within its nominal is always served."""

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from datahall.planning.queues.reclaim import borrowed_share, reclaimable
from datahall.planning.queues.tree import QueueTree
from datahall.planning.queues.verdicts import Fits
from tests.unit.planning.queues.reference import Reference
from tests.unit.planning.queues.strategies import NAMES, RESOURCES, sound_trees, specs
from tests.unit.planning.queues.test_queue_tree import A100, ANY, H100, queue, tree


def departments(**charges):
    return tree(
        queue("hall"),
        queue("d1", "hall"),
        queue("d2", "hall"),
        queue("a", "d1", h100=8),
        queue("b", "d1", h100=8),
        queue("c", "d2", h100=8),
        queue("d", "d2", h100=8),
        **charges,
    )


def test_nobody_gives_back_while_the_amount_fits():
    assert reclaimable(departments(c=20), "a", {H100: 8}) == ()


def test_the_nearest_borrower_gives_back_first():
    made = departments(b=10, c=22)
    assert reclaimable(made, "a", {H100: 8}) == ("b", "c")


def test_a_borrower_inside_a_department_that_is_within_its_own_owes_nothing_outside():
    made = departments(b=8, c=12, d=4, a=1)
    made.upsert(queue("x", "hall"))
    made.charge("x", {H100: 7}, 1)
    assert made.verdict("a", {H100: 7}) != Fits({})
    assert reclaimable(made, "a", {H100: 7}) == ("x",), "c borrowed from d, who may have it back"
    assert reclaimable(made, "d", {H100: 4}) == ("c", "x"), "to its neighbour c owes"


def test_what_a_queue_keeps_is_not_asked_of_its_department():
    made = tree(
        queue("hall"),
        queue("d1", "hall"),
        queue("a", "d1", h100=(8, None, 4)),
        queue("b", "d1", h100=8),
        queue("c", "d1", h100=4),
        queue("x", "hall"),
        b=12,
        x=4,
    )
    assert reclaimable(made, "a", {H100: 8}) == ("x",), (
        "4 are its own, and with the other 4 d1 is within its 16"
    )


def test_who_is_most_beyond_its_share_gives_back_first_and_weight_counts():
    made = tree(
        queue("hall"),
        queue("a", "hall", h100=12),
        queue("b", "hall"),
        queue("c", "hall"),
        b=5,
        c=7,
    )
    assert reclaimable(made, "a", {H100: 1}) == ("c", "b")
    made.upsert(queue("c", "hall", weight=2.0))
    assert reclaimable(made, "a", {H100: 1}) == ("b", "c")
    assert (borrowed_share(made, "b"), borrowed_share(made, "c")) == (5 / 12, 7 / 24)
    assert (borrowed_share(made, "a"), borrowed_share(made, "hall"), borrowed_share(made, "nobody")) == (
        0,
        0,
        0,
    )


def test_the_dominant_resource_decides_the_share():
    made = tree(
        queue("hall", watts=1000),
        queue("a", "hall", h100=10),
        queue("b", "hall"),
        queue("c", "hall"),
        b=6,
        c=4,
    )
    made.charge("c", {"watts": 700}, 1)
    assert (borrowed_share(made, "b"), borrowed_share(made, "c")) == (0.6, 0.7)
    assert reclaimable(made, "a", {H100: 1}) == ("c", "b")


def test_equal_borrowers_give_back_by_name():
    made = tree(queue("hall"), queue("a", "hall", h100=8), queue("c", "hall"), queue("b", "hall"), b=4, c=4)
    assert reclaimable(made, "a", {H100: 8}) == ("b", "c")


def test_a_queue_beyond_its_nominal_takes_nothing_back():
    made = tree(queue("hall"), queue("a", "hall", h100=4), queue("b", "hall", h100=4), a=2, b=6)
    assert reclaimable(made, "a", {H100: 3}) == ()
    assert reclaimable(made, "a", {H100: 2}) == ("b",)


def test_what_a_department_is_entitled_to_is_taken_back_for_any_of_its_queues():
    made = departments(c=20, d=12)
    made.upsert(queue("new", "d1"))
    assert reclaimable(made, "new", {H100: 16}) == ("c", "d")
    made.charge("c", {H100: 10}, -1)
    made.charge("a", {H100: 10}, 1)
    assert reclaimable(made, "new", {H100: 7}) == (), "17 of 16: its department would borrow, too"


def test_children_that_hold_what_is_a_parents_own_give_it_back_to_it():
    made = tree(queue("a", h100=8), queue("b", "a", h100=1), b=6)
    assert reclaimable(made, "a", {H100: 8}) == ("b",)


def test_a_parent_that_holds_what_its_children_lent_gives_it_back():
    made = tree(queue("a", h100=2), queue("b", "a", h100=8), a=9)
    assert reclaimable(made, "b", {H100: 8}) == ("a",)


def test_what_was_borrowed_under_any_is_taken_back_from_whichever_model():
    made = tree(queue("hall", any_gpu=0), queue("a", "hall", h100=8), queue("b", "hall", any_gpu=2))
    made.charge("b", {A100: 9}, 1)
    assert reclaimable(made, "a", {H100: 8}) == ("b",)
    assert reclaimable(made, "b", {ANY: 2}) == ()


def test_a_queue_may_have_borrowed_from_itself():
    made = tree(queue("hall", any_gpu=0), queue("a", "hall", h100=4, a100=0))
    made.charge("a", {A100: 3}, 1)
    assert reclaimable(made, "a", {H100: 4}) == ("a",)


def test_a_parent_on_the_way_may_be_the_borrower_under_another_entry():
    made = tree(queue("b", any_gpu=0), queue("c", "b"), queue("f", "c", any_gpu=1), c=1)
    assert reclaimable(made, "f", {H100: 1}) == ("c",)


def test_each_missing_resource_names_its_borrowers_and_one_without_ends_it():
    made = tree(
        queue("hall", watts=0),
        queue("a", "hall", h100=4, watts=1000),
        queue("b", "hall"),
        queue("c", "hall"),
        b=4,
    )
    made.charge("c", {"watts": 900}, 1)
    assert reclaimable(made, "a", {H100: 4, "watts": 1000}) == ("b", "c")
    assert reclaimable(made, "a", {H100: 4, "watts": 1001}) == (), "no eviction that does not start it"
    assert reclaimable(made, "a", {H100: 4, "gpu_milli:H100": 1}) == ()


def test_joules_that_are_spent_are_not_given_back_by_an_eviction():
    made = tree(queue("hall", joules=0), queue("a", "hall", joules=100), queue("b", "hall"))
    made.charge("b", {"joules_per_day": 60}, 1)
    assert made.room("a", "joules_per_day") == 40
    assert reclaimable(made, "a", {"joules_per_day": 50}) == ()


def test_a_queue_in_trouble_takes_nothing_from_those_it_has_left():
    made = tree(queue("a", "hall", h100=8), queue("b", h100=1), b=9, a=8)
    assert reclaimable(made, "a", {H100: 1}) == ()
    assert reclaimable(made, "nobody", {H100: 1}) == ()


@settings(max_examples=300)
@given(
    data=st.data(),
    made=st.one_of(sound_trees(), st.lists(specs(), min_size=2, max_size=6, unique_by=lambda s: s.name)),
    charges=st.dictionaries(
        st.tuples(st.sampled_from(NAMES), st.sampled_from(RESOURCES)), st.integers(0, 20), max_size=14
    ),
    amounts=st.dictionaries(
        st.sampled_from(["gpu:H100", "watts", "slots:x"]), st.integers(0, 8), min_size=1, max_size=2
    ),
)
def test_a_queue_within_its_nominal_is_served_by_borrowers_alone(data, made, charges, amounts):
    tree, reference = QueueTree(), Reference()
    for spec in made:
        tree.upsert(spec)
        reference.specs[spec.name] = spec
    for (name, resource), amount in charges.items():
        tree.charge(name, {resource: amount}, 1)
        reference.charge(name, resource, amount)
    owners = [
        spec.name
        for spec in made
        if all(reference.within_nominal(spec.name, r, n) or r == "slots:x" for r, n in amounts.items() if n)
    ]
    assume(owners)
    queue = data.draw(st.sampled_from(owners), label="queue")
    rightful = all(reference.within_nominal(queue, r, n) for r, n in amounts.items() if n)
    for _ in range(400):
        if isinstance(tree.verdict(queue, amounts), Fits):
            return
        givers = reclaimable(tree, queue, amounts)
        if not rightful:
            assert not givers, "what has no end in a start is not begun"
            return
        assert givers, "within its nominal, and not served"
        for giver in givers:
            entries = {entry: a.own - a.nominal for entry, a in tree.accounts(giver).items()}
            assert max(entries.values()) > 0, f"{giver} is within its nominal"
        giver = data.draw(st.sampled_from(givers), label="giver")
        held = {
            resource: amount
            for resource, amount in tree.charged(giver).items()
            if reference.own(giver, reference.entry(giver, resource))
            > reference.nominal(giver, reference.entry(giver, resource))
        }
        resource = data.draw(st.sampled_from(sorted(held)), label="resource")
        gang = data.draw(st.integers(1, held[resource]), label="gang")
        tree.charge(giver, {resource: gang}, -1)
        reference.charge(giver, resource, -gang)
    raise AssertionError("evicting went on without end")
