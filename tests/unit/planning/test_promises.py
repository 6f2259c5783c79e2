"""What others must leave of what is held, against a slow reckoning of who gives back to whom."""

from itertools import chain, combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datahall.planning.promises import Entries, Promises

FIRST, SECOND, BOTH, NOBODY = range(1), range(1, 2), range(2), range(1, 1)


def promises(held, leaving, *, resources=1):
    """From (slots, amounts of each, departures) by key, and entries (slot, amounts, departure)."""

    def entries(found):
        table = np.array([(slot, gang, *amounts) for slot, amounts, gang in found], dtype=np.int64)
        table = table.reshape(-1, 2 + resources).T
        return Entries(table[0], table[2:], table[1])

    places = [
        (slot, amounts if resources > 1 else [amounts], number)
        for number, (slots, amounts_of, _) in enumerate(held.values())
        for slot, amounts in zip(slots, amounts_of, strict=True)
    ]
    return Promises({key: of for key, (_, _, of) in held.items()}, entries(places), entries(leaving))


@pytest.mark.parametrize(
    ("held", "leaving", "lacking"),
    [
        pytest.param([(4, FIRST)], [4], 0, id="all comes from who ends for it"),
        pytest.param([(4, FIRST)], [3], 1, id="some is there already"),
        pytest.param([(4, FIRST)], [9], 0, id="nobody else gets what it does not need"),
        pytest.param([(4, FIRST)], [0], 4, id="who ended for it has gone"),
        pytest.param([(4, FIRST)], [0, 4], 4, id="who leaves later does not count for it"),
        pytest.param([(4, SECOND)], [4, 0], 4, id="nor who left before, where it counts on its own alone"),
        pytest.param([(4, BOTH)], [4, 0], 0, id="unless its own are not enough"),
        pytest.param([(4, NOBODY)], [4, 4], 4, id="nobody ends for it"),
        pytest.param([(4, range(0))], [4, 4], 4, id="nobody had left"),
        pytest.param([(4, FIRST), (4, SECOND)], [4, 4], 0, id="two end for two"),
        pytest.param([(4, FIRST), (4, SECOND)], [0, 4], 4, id="the first one's has gone"),
        pytest.param([(4, FIRST), (4, SECOND)], [4, 0], 4, id="the second one's has gone"),
        pytest.param([(4, FIRST), (4, BOTH)], [4, 4], 0, id="one of two is shared"),
        pytest.param([(4, FIRST), (4, BOTH)], [4, 0], 4, id="a shared one is the first one's"),
        pytest.param([(4, FIRST), (4, BOTH)], [0, 4], 4, id="and where it has gone, that is what the first lacks"),
        pytest.param([(3, FIRST), (4, BOTH)], [6, 0], 1, id="what the first does not need is the second one's"),
        pytest.param([(3, FIRST), (4, BOTH)], [6, 2], 0, id="which is enough with its own"),
        pytest.param([(3, FIRST), (4, SECOND)], [9, 2], 2, id="if it counts on it"),
        pytest.param([(2, FIRST), (1, FIRST), (1, FIRST)], [4], 0, id="one ends, and comes back smaller"),
    ],
)  # fmt: skip
def test_what_is_lacking(held, leaving, lacking):
    found = promises(
        {f"g{i}": ([0], [amount], counts_on) for i, (amount, counts_on) in enumerate(held)},
        [(0, [amount], number) for number, amount in enumerate(leaving)],
    )
    assert found.lacking(np.arange(1)).tolist() == [[lacking]]


def test_slots_and_resources_are_reckoned_apart():
    found = promises(
        {"a": ([1, 3], [(4, 40), (1, 10)], FIRST), "b": ([3], [(2, 20)], SECOND)},
        [(1, (4, 10), 0), (3, (5, 0), 1), (0, (7, 7), 0)],
        resources=2,
    )
    assert found.lacking(np.arange(5)).tolist() == [[0, 0, 0, 1, 0], [0, 30, 0, 30, 0]]


def test_who_is_judged_does_not_count_and_who_ends_for_it_gives_back_to_those_who_share_them():
    found = promises({"a": ([0], [4], FIRST), "b": ([0], [4], BOTH)}, [(0, [4], 0)])
    assert found.lacking(np.arange(1)).tolist() == [[4]]
    found.count("a", -1)
    assert found.lacking(np.arange(1)).tolist() == [[0]]
    found.count("a", 1)
    found.count("b", -1)
    assert found.lacking(np.arange(1)).tolist() == [[0]]
    found.count("a", -1)
    assert found.lacking(np.arange(1)).tolist() == [[0]]


def test_nothing_is_held():
    assert promises({}, [(0, [4], 0)]).lacking(np.arange(2)).tolist() == [[0, 0]]
    assert promises({"a": ([], [], FIRST)}, []).lacking(np.arange(2)).tolist() == [[0, 0]]


@st.composite
def histories(draw):
    """Gangs that leave for others or by themselves, in turn, and what is held for those others then."""
    held, leaving = {}, []
    amounts, slots = st.integers(0, 5), st.sets(st.integers(0, 2))
    for turn in range(draw(st.integers(0, 5))):
        before = len(leaving)
        leaving += [{slot: draw(amounts) for slot in draw(slots)} for _ in range(draw(st.integers(0, 2)))]
        if draw(st.integers(0, 3)):
            own = range(before, len(leaving))
            counts_on = draw(st.sampled_from([own, range(own.stop)]))
            for number in range(draw(st.integers(1, 3))):
                here = sorted(draw(slots))
                # The first may count on all up to those who end for it; those of them who come back, on these alone.
                held[f"{turn}-{number}"] = (here, [draw(amounts) for _ in here], own if number else counts_on)
    return held, [
        (slot, [amount], number) for number, of in enumerate(leaving) for slot, amount in of.items()
    ]


def slowly(held, leaving, slot):
    """The most that some of the holds have beyond all that any of them counts on."""
    lacking = 0
    for some in chain.from_iterable(combinations(held.values(), n) for n in range(len(held) + 1)):
        asked = sum(
            amount
            for slots, amounts, _ in some
            for s, amount in zip(slots, amounts, strict=True)
            if s == slot
        )
        comes = sum(
            amounts[0]
            for s, amounts, number in leaving
            if s == slot and any(number in of for _, _, of in some)
        )
        lacking = max(lacking, asked - comes)
    return lacking


@given(histories(), st.data())
def test_no_other_way_to_give_back_would_leave_less_lacking(drawn, data):
    held, leaving = drawn
    found = promises(held, leaving)
    for _ in range(2):
        assert found.lacking(np.arange(3)).tolist() == [[slowly(held, leaving, slot) for slot in range(3)]]
        if held:
            key = data.draw(st.sampled_from(sorted(held)))
            found.count(key, -1)
            held = {other: of for other, of in held.items() if other != key}
