"""Where a gang goes in the tree: named cases, and every small hall against plain counting."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datahall.planning.placing import Demand, NoPlace, Placing, place, place_beside
from datahall.planning.topology import Domain, Level, Topology

HOST, RACK, BLOCK, HALL = Level


class Hall:
    """Nodes in columns from 0, given as "block/rack/name": workers that fit."""

    def __init__(self, **blocks):
        self.nodes = [
            (f"{block}-{rack}-{i}", rack, block, fit)
            for block, racks in blocks.items()
            for rack, slots in racks.items()
            for i, fit in enumerate(slots)
        ]
        self.topology = Topology()
        for column, (name, rack, block, _) in enumerate(self.nodes):
            self.topology.put(column, name, rack=rack, block=block)
        self.slots = np.array([node[3] for node in self.nodes], dtype=np.int64)

    def columns(self, *names):
        return np.array([[n[0] for n in self.nodes].index(name) for name in names], dtype=np.int64)

    def flags(self, *names):
        flags = np.zeros(len(self.nodes), dtype=bool)
        flags[self.columns(*names)] = True
        return flags

    def told(self, found):
        assert isinstance(found, Placing), found
        return {
            self.nodes[c][0]: n for c, n in zip(found.columns.tolist(), found.workers.tolist(), strict=True)
        }

    def place(self, *demand, **options):
        return self.told(place(self.topology, self.slots, Demand(*demand), **options))

    def refused(self, *demand, **options):
        found = place(self.topology, self.slots, Demand(*demand), **options)
        assert isinstance(found, NoPlace), found
        return found

    def beside(self, names, *demand, **options):
        found = place_beside(self.topology, self.slots, Demand(*demand), self.columns(*names), **options)
        return self.told(found) if isinstance(found, Placing) else found


class TestOneDomain:
    def test_the_tightest_rack_that_holds_all(self):
        hall = Hall(a={"1": [8, 8], "2": [4, 2], "3": [4, 1]})
        assert hall.place(6, 6, RACK) == {"a-2-0": 4, "a-2-1": 2}

    def test_required_says_no_with_the_best_rack(self):
        hall = Hall(a={"1": [2, 2], "2": [3, 2]}, b={"1": [1]})
        refusal = hall.refused(8, 8, RACK, True)
        assert refusal == NoPlace(RACK, 8, Domain(RACK, "a", "2"), 5, 10, 3)

    def test_elastic_and_required_takes_what_the_best_rack_has(self):
        hall = Hall(a={"1": [2, 2], "2": [3, 2]})
        assert hall.place(3, 8, RACK, True) == {"a-2-0": 3, "a-2-1": 2}
        assert hall.refused(6, 8, RACK, True).best_has == 5

    def test_a_host_that_has_no_rack_label_is_a_rack_by_itself(self):
        topology = Topology()
        for column, name in enumerate("ab"):
            topology.put(column, name, rack=None, block=None)
        slots = np.array([4, 6])
        assert isinstance(place(topology, slots, Demand(7, 7, RACK, required=True)), NoPlace)
        found = place(topology, slots, Demand(6, 6, RACK, required=True))
        assert (found.columns.tolist(), found.level) == ([1], HOST)

    def test_columns_without_a_node_hold_nothing(self):
        topology = Topology()
        topology.put(1, "a", rack="1", block=None)
        found = place(topology, np.array([9, 2, 9]), Demand(1, 9))
        assert (found.columns.tolist(), found.total) == ([1], 2)
        assert place(Topology(), np.zeros(0, dtype=np.int64), Demand(1, 1, RACK, required=True)).domains == 0

    def test_inside_few_hosts_largest_first_and_the_last_tight(self):
        hall = Hall(a={"1": [2, 8, 3, 4, 8]})
        assert hall.place(19, 19, RACK) == {"a-1-1": 8, "a-1-2": 3, "a-1-4": 8}

    def test_the_last_single_worker_goes_where_the_packing_says(self):
        hall = Hall(a={"1": [8, 3, 4, 1]})
        cost = np.array([5.0, 2.0, 1.0, 9.0])
        assert hall.place(9, 9, RACK, cost=cost) == {"a-1-0": 8, "a-1-2": 1}
        assert hall.place(9, 9, RACK) == {"a-1-0": 8, "a-1-3": 1}


class TestWholeRacks:
    def test_a_rack_in_use_goes_before_an_untouched_one(self):
        hall = Hall(a={"1": [8, 8, 8], "2": [8] * 9})
        assert hall.place(16, 16, RACK) == {"a-1-0": 8, "a-1-1": 8}
        assert hall.place(16, 16, RACK, busy=hall.flags("a-2-8")) == {"a-2-0": 8, "a-2-1": 8}

    def test_unless_the_untouched_one_is_filled_exactly(self):
        hall = Hall(a={"1": [8, 8], "2": [8] * 9})
        assert hall.place(16, 16, RACK, busy=hall.flags("a-2-8")) == {"a-1-0": 8, "a-1-1": 8}

    def test_one_gpu_services_leave_whole_racks_whole(self):
        """kubernetes-sigs/kueue, pull request 10406: 1-GPU services were on every one of 33 racks."""
        racks, hosts, gpus = 33, 18, 4
        hall = Hall(a={f"{r:02}": [gpus] * hosts for r in range(racks)})
        busy = np.zeros(len(hall.slots), dtype=bool)
        # The packing alone would spread: an odd cost per host, such as of its power.
        cost = np.random.default_rng(7).random(len(hall.slots))
        for _ in range(2 * hosts * gpus):
            found = place(hall.topology, hall.slots, Demand(1, 1), cost=cost, busy=busy)
            hall.slots[found.columns] -= found.workers
            busy[found.columns] = True
        numbers = hall.topology.numbers(RACK, len(busy))
        assert len(set(numbers[busy])) == 2
        whole = place(hall.topology, hall.slots, Demand(hosts * gpus, hosts * gpus, RACK, required=True))
        assert whole.racks == 1

    def test_a_gang_of_one_is_packed_whatever_level_it_asks_for(self):
        hall = Hall(a={"1": [8, 2], "2": [1, 8]})
        assert hall.place(1, 1, BLOCK, True) == hall.place(1, 1, HOST) == hall.place(1, 1) == {"a-2-0": 1}

    def test_a_gang_without_a_level_fills_the_gaps(self):
        hall = Hall(a={"1": [8, 2], "2": [1, 8]})
        assert hall.place(5, 5) == {"a-1-1": 2, "a-2-0": 1, "a-2-1": 2}


class TestWider:
    def test_then_one_block_over_few_racks(self):
        hall = Hall(a={"1": [4], "2": [4], "3": [4]}, b={"1": [6], "2": [5], "3": [5]})
        assert hall.place(10, 10, RACK) == {"b-1-0": 6, "b-2-0": 4}
        assert hall.place(11, 11, RACK) == {"b-1-0": 6, "b-2-0": 5}
        assert hall.place(12, 12, RACK) == {"a-1-0": 4, "a-2-0": 4, "a-3-0": 4}, (
            "as few racks, and nothing left"
        )

    def test_then_anywhere_over_few_blocks_and_few_of_their_racks(self):
        hall = Hall(a={"1": [5], "2": [1]}, b={"1": [4], "2": [2]})
        assert hall.place(9, 9, RACK) == {"a-1-0": 5, "b-1-0": 4}
        assert hall.place(11, 11, RACK) == {"a-1-0": 5, "b-1-0": 4, "b-2-0": 2}

    def test_equal_racks_are_taken_block_by_block(self):
        hall = Hall(
            a={"1": [4], "2": [4], "3": [1]},
            b={"1": [4], "2": [4], "3": [2]},
            c={"1": [4], "2": [4], "3": [4]},
        )
        assert set(hall.place(19, 19, RACK)) == {"c-1-0", "c-2-0", "c-3-0", "a-1-0", "a-2-0"}

    def test_few_blocks_come_before_few_racks(self):
        hall = Hall(a={"1": [4], "2": [4], "3": [3]}, b={"1": [5], "2": [1]}, c={"1": [5]}, d={"1": [5]})
        assert set(hall.place(15, 15, RACK)) == {"a-1-0", "a-2-0", "a-3-0", "c-1-0"}

    def test_asked_for_a_block_few_blocks_come_first(self):
        hall = Hall(a={"1": [9], "2": [1]}, b={"1": [4], "2": [4], "3": [4]}, c={"1": [8]})
        assert hall.place(20, 20, BLOCK) == {"b-1-0": 4, "b-2-0": 4, "b-3-0": 4, "c-1-0": 8}

    def test_asked_for_a_host_few_hosts_of_one_rack(self):
        hall = Hall(a={"1": [2, 2, 2], "2": [3, 3], "3": [7, 7]})
        assert hall.place(6, 6, HOST) == {"a-3-0": 6}
        hall = Hall(a={"1": [2, 2, 2], "2": [3, 3]})
        assert hall.place(6, 6, HOST) == {"a-2-0": 3, "a-2-1": 3}

    def test_told_how_wide_it_got(self):
        hall = Hall(a={"1": [5], "2": [1]}, b={"1": [4], "2": [2]})
        for workers, level, racks, blocks in [
            (5, HOST, 1, 1), (6, BLOCK, 2, 1), (7, HALL, 2, 2), (12, HALL, 4, 2)
        ]:  # fmt: skip
            found = place(hall.topology, hall.slots, Demand(workers, workers, RACK))
            assert (found.level, found.racks, found.blocks) == (level, racks, blocks)

    @pytest.mark.parametrize(
        ("in_rack", "beside", "expected"), [(4, 1, 5), (5, 1, 5), (4, 2, 6), (8, 1, 8), (8, 2, 10), (3, 4, 7)]
    )
    def test_elastic_a_wider_level_must_bring_a_quarter_more(self, in_rack, beside, expected):
        hall = Hall(a={"1": [in_rack], "2": [beside]})
        assert sum(hall.place(2, 99, RACK).values()) == expected

    def test_elastic_the_smallest_rack_that_holds_the_most_it_can_use(self):
        hall = Hall(a={"1": [3], "2": [12], "3": [9]})
        assert hall.place(2, 8, RACK) == {"a-3-0": 8}


def test_ranks_follow_the_tree():
    topology = Topology()
    for column, (name, rack, block) in enumerate(
        [("z", "2", "a"), ("c", "1", "b"), ("y", "1", "a"), ("d", "1", "b"), ("x", "2", "a")]
    ):
        topology.put(column, name, rack=rack, block=block)
    found = place(topology, np.full(5, 2), Demand(10, 10, RACK))
    assert found.columns.tolist() == [2, 4, 0, 1, 3]


class TestStay:
    """kubernetes-sigs/kueue, issue 14723: a preemptor hopped to another domain while its victims were leaving."""

    def test_the_domain_that_was_cleared_is_kept_though_another_fits_better_by_now(self):
        hall = Hall(a={"1": [4, 4], "2": [4, 4, 4]})
        cleared = Domain(RACK, "a", "2")
        assert set(hall.place(8, 8, RACK, True)) == {"a-1-0", "a-1-1"}
        assert set(hall.place(8, 8, RACK, True, stay=cleared)) == {"a-2-0", "a-2-1"}
        assert set(hall.place(8, 8, RACK, stay=cleared)) == {"a-2-0", "a-2-1"}

    @pytest.mark.parametrize(
        "lost", [Domain(RACK, "a", "9"), Domain(RACK, "a", "2"), Domain(HALL), Domain(BLOCK, "a")]
    )
    def test_unless_it_is_gone_or_too_small_or_too_wide(self, lost):
        hall = Hall(a={"1": [4, 4], "2": [4]})
        assert set(hall.place(8, 8, RACK, True, stay=lost)) == {"a-1-0", "a-1-1"}
        assert hall.refused(9, 9, RACK, True, stay=lost).best_has == 8


class TestBeside:
    """volcano-sh/volcano, issues 5805 and 4607: a gang below its minimum after a node was lost stayed so for ever."""

    def test_a_lost_worker_is_made_good_in_the_gang_s_own_rack(self):
        hall = Hall(a={"1": [0, 0, 1], "2": [8, 8]})
        assert hall.beside(["a-1-0", "a-1-1"], 1, 1, RACK, True) == {"a-1-2": 1}

    def test_and_if_its_rack_is_full_the_answer_says_that_the_whole_gang_must_move(self):
        hall = Hall(a={"1": [0, 1, 0], "2": [8, 8]})
        refusal = hall.beside(["a-1-0", "a-1-2"], 2, 2, RACK, True)
        assert refusal == NoPlace(RACK, 2, Domain(RACK, "a", "1"), 1, 17, 2, spread=1)
        assert set(hall.place(4, 4, RACK, True)) == {"a-2-0"}

    def test_preferred_may_leave_the_rack_but_not_go_far(self):
        hall = Hall(a={"1": [0, 0], "2": [1]}, b={"1": [8]})
        assert hall.beside(["a-1-0", "a-1-1"], 1, 1, RACK) == {"a-2-0": 1}
        assert hall.beside(["a-1-0", "a-1-1"], 2, 2, RACK) == {"a-2-0": 1, "b-1-0": 1}

    def test_growth_fills_its_own_hosts_first_then_its_racks(self):
        hall = Hall(a={"1": [1, 9], "2": [3, 9], "3": [9, 9]})
        assert hall.beside(["a-1-0", "a-2-0"], 1, 5, BLOCK) == {"a-1-0": 1, "a-2-0": 3, "a-1-1": 1}
        assert hall.beside(["a-1-0", "a-2-0"], 1, 3, BLOCK) == {"a-2-0": 3}
        assert hall.beside(["a-1-0", "a-2-0"], 23, 23, BLOCK) == {
            "a-1-0": 1, "a-1-1": 9, "a-2-0": 3, "a-2-1": 9, "a-3-0": 1
        }  # fmt: skip

    def test_a_label_that_changed_under_the_gang_is_told(self):
        hall = Hall(a={"1": [4, 4], "2": [6, 6]})
        refusal = hall.beside(["a-1-0", "a-2-0"], 1, 1, RACK, True)
        assert (refusal.spread, refusal.best_has) == (2, 12)
        assert hall.beside(["a-1-0", "a-2-0"], 1, 1, RACK) == {"a-1-0": 1}

    def test_level_and_racks_tell_of_all_workers(self):
        hall = Hall(a={"1": [0], "2": [2]})
        found = place_beside(hall.topology, hall.slots, Demand(1, 1, RACK), hall.columns("a-1-0"))
        assert (found.level, found.racks, found.blocks) == (BLOCK, 2, 1)

    def test_growth_leaves_its_rack_only_for_a_quarter_more_workers_of_all(self):
        hall = Hall(a={"1": [0, 1], "2": [2]})
        assert hall.beside(["a-1-0"] * 8, 1, 9, RACK) == {"a-1-1": 1}
        assert hall.beside(["a-1-0"] * 3, 1, 9, RACK) == {"a-1-1": 1, "a-2-0": 2}

    def test_workers_whose_node_is_gone_do_not_bind_the_rest(self):
        hall = Hall(a={"1": [4], "2": [6]})
        gone = hall.columns("a-1-0")
        hall.topology.remove(0)
        found = place_beside(hall.topology, hall.slots, Demand(5, 5, RACK, required=True), gone)
        assert hall.told(found) == {"a-2-0": 5}


@pytest.mark.parametrize("bad", [(0, 1), (3, 2), (1, 1, None, True)])
def test_a_demand_that_makes_no_sense_is_refused(bad):
    with pytest.raises(ValueError, match=r"least|required"):
        Demand(*bad)


# ---- every small hall


@st.composite
def halls(draw):
    labels = st.tuples(st.sampled_from([None, "1", "2", "3"]), st.sampled_from([None, "a", "b"]))
    nodes = draw(st.lists(st.tuples(st.integers(0, 4), labels, st.booleans()), min_size=1, max_size=7))
    topology = Topology()
    for column, (_, (rack, block), _) in enumerate(nodes):
        topology.put(column, f"n{column}", rack=rack, block=block)
    slots = np.array([node[0] for node in nodes], dtype=np.int64)
    return topology, slots, np.array([node[2] for node in nodes])


@st.composite
def demands(draw):
    least = draw(st.integers(1, 12))
    most = draw(st.just(least) | st.integers(least, 16))
    level = draw(st.sampled_from([None, HOST, RACK, BLOCK]))
    return Demand(least, most, level, level is not None and draw(st.booleans()))


class Counting:
    """Plain counting over dictionaries."""

    def __init__(self, topology, slots):
        self.slots = dict(enumerate(slots.tolist()))
        self.of = {lv: dict(enumerate(topology.numbers(lv, len(slots)).tolist())) for lv in Level}

    def domains(self, level, columns=None):
        found = {}
        for column in self.slots if columns is None else columns:
            found.setdefault(self.of[level][column], []).append(column)
        return list(found.values())

    def room(self, columns):
        return sum(self.slots[c] for c in columns)

    def fewest(self, level, columns, need):
        """Fewest domains of a level that hold `need`, by trying all sets of them."""
        parts = [self.room(d) for d in self.domains(level, columns)]
        for n in range(1, len(parts) + 1):
            if any(sum(chosen) >= need for chosen in combinations(parts, n)):
                return n
        raise AssertionError("they do not fit")

    def expected(self, demand, workers_there=0):
        """The level at which one domain is to hold the gang, and how many workers."""
        found = None
        for level in Level:
            if level < demand.level or (demand.required and level > demand.level):
                continue
            room = min(demand.most, max(self.room(d) for d in self.domains(level)))
            if room >= demand.least and (found is None or room >= 1.25 * found[1]):
                found = level, room
        return found


@given(halls(), demands(), st.booleans())
@settings(max_examples=400)
def test_any_small_hall(hall, demand, cared_for):
    topology, slots, busy = hall
    count = Counting(topology, slots)
    found = place(topology, slots, demand, busy=busy if cared_for else None)
    total = int(slots.sum())
    if demand.level is None or demand.most == 1:
        if isinstance(found, NoPlace):
            assert (found.best_has, found.hall_has) == (total, total)
            assert total < demand.least
        else:
            assert found.total == min(demand.most, total)
            assert (found.workers <= slots[found.columns]).all()
        return
    expected = count.expected(demand)
    if expected is None:
        level = demand.level if demand.required else HALL
        assert isinstance(found, NoPlace)
        assert found.best_has == max(count.room(d) for d in count.domains(level)) < demand.least
        assert (found.level, found.needed, found.hall_has) == (level, demand.least, total)
        assert (found.best is None) == (found.best_has == 0)
        return
    level, workers = expected
    assert isinstance(found, Placing)
    assert found.total == workers
    assert (found.workers >= 1).all()
    assert (found.workers <= slots[found.columns]).all()
    columns = found.columns.tolist()
    assert len(set(columns)) == len(columns)
    assert columns == sorted(columns, key=lambda c: topology.rank(len(slots))[c])
    # In one domain of the level, and it is the best of them.
    chosen = [d for d in count.domains(level) if set(columns) <= set(d)]
    assert len(chosen) == 1

    def merit(domain):
        left = count.room(domain) - workers
        untouched = cared_for and not busy[domain].any()
        below = Level(level - 1) if level else None
        parts = count.fewest(below, domain, workers) if level > demand.level and level is not HALL else 0
        return parts, untouched and left > 0, left

    holding = [d for d in count.domains(level) if count.room(d) >= workers]
    assert merit(chosen[0]) == min(map(merit, holding))
    # As few domains as possible at the level by which it is filled.
    filled_by = {HOST: HOST, RACK: HOST, BLOCK: RACK, HALL: BLOCK}[level]
    used = {count.of[filled_by][c] for c in columns}
    assert len(used) == count.fewest(filled_by, chosen[0], workers)
    blocks = {count.of[BLOCK][c] for c in columns}
    in_blocks = [c for c in count.slots if count.of[BLOCK][c] in blocks]
    assert level < BLOCK or found.racks == count.fewest(RACK, in_blocks, workers)
    assert len({count.of[RACK][c] for c in columns}) == found.racks
    assert len({count.of[BLOCK][c] for c in columns}) == found.blocks
    assert found.level == min(lv for lv in Level if len({count.of[lv][c] for c in columns}) == 1)


@given(halls(), demands(), st.data())
@settings(max_examples=200)
def test_beside_in_any_small_hall(hall, demand, data):
    topology, slots, _ = hall
    count = Counting(topology, slots)
    there = data.draw(st.lists(st.integers(0, len(slots) - 1), min_size=1, max_size=4))
    found = place_beside(topology, slots, demand, np.array(there))
    if isinstance(found, Placing):
        assert demand.least <= found.total <= demand.most
        assert (found.workers <= slots[found.columns]).all()
    if demand.level is None:
        assert isinstance(found, Placing) == (slots.sum() >= demand.least)
        return
    rooms = {}
    for level in Level:
        homes = {count.of[level][c] for c in there}
        if len(homes) == 1:
            rooms[level] = sum(n for c, n in count.slots.items() if count.of[level][c] in homes)
    if demand.required:
        fits = rooms.get(demand.level, 0) >= demand.least
        assert isinstance(found, Placing) == fits
        if fits:
            assert found.total == min(demand.most, rooms[demand.level])
            assert found.level <= demand.level
        return
    assert isinstance(found, Placing) == (slots.sum() >= demand.least)
    if isinstance(found, Placing):
        best = None
        for level, room in rooms.items():
            more = min(demand.most, room)
            if level < demand.level or more < demand.least:
                continue
            if best is None or len(there) + more >= 1.25 * (len(there) + best):
                best = more
        assert found.total == best
        # Nobody goes to a stranger's rack while there is room in the gang's own.
        racks = {count.of[RACK][c] for c in there}
        taken = dict(zip(found.columns.tolist(), found.workers.tolist(), strict=True))
        if any(count.of[RACK][c] not in racks for c in taken):
            assert all(taken.get(c, 0) == n for c, n in count.slots.items() if count.of[RACK][c] in racks)
