"""The power tree: what it reserves, refuses and forgives."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from datahall.planning.packing.states import NodeKind
from datahall.planning.packing.watts import WattModel, WattPoints
from datahall.planning.power_tree import (
    UNLIMITED_WATTS,
    PowerDomainSpec,
    PowerTree,
    Refused,
    added_watts,
    refused_text,
)
from datahall.planning.promises import Promises

NODES = [f"n{i}" for i in range(6)]
DOMAINS = ["site", "row", "rack-a", "rack-b"]


def tree(*domains, nodes=()):
    """A tree from (name, parent, budget) or (name, parent, budget, margin), and (node, domain)."""
    made = PowerTree()
    for domain in domains:
        made.upsert(PowerDomainSpec(*domain))
    for node, domain in nodes:
        made.assign(node, *([domain] if isinstance(domain, str) else domain))
    return made


def hall():
    """A site of 10 kW with two racks of 6 kW; two nodes in each, one node without a domain."""
    return tree(
        ("site", None, 10_000),
        ("rack-a", "site", 6_000),
        ("rack-b", "site", 6_000),
        nodes=[("a1", "rack-a"), ("a2", "rack-a"), ("b1", "rack-b"), ("b2", "rack-b")],
    )


ALL = ["a1", "a2", "b1", "b2", "free"]


def asked(*watts):
    return np.array(watts, dtype=np.int64)


def test_what_is_reserved_counts_on_the_whole_way_up():
    power = hall()
    power.reserve("a1", 2_000)
    power.reserve("b1", 3_000)
    power.reserve("free", 9_999)
    assert [power.reserved_watts(d) for d in ("site", "rack-a", "rack-b")] == [5_000, 2_000, 3_000]
    # Rack a would have 4,000 by itself, and the site has 5,000.
    assert [power.headroom_watts(d) for d in ("site", "rack-a", "rack-b")] == [5_000, 4_000, 3_000]
    assert power.room(power.places(ALL)).tolist() == [4_000, 4_000, 3_000, 3_000, UNLIMITED_WATTS]
    power.reserve("a2", 4_000)
    assert power.room(power.places(ALL)).tolist() == [0, 0, 1_000, 1_000, UNLIMITED_WATTS]
    power.release("a2", 4_000)
    power.release("b1", 1_000)
    assert power.headroom_watts("site") == 6_000


def test_nodes_of_one_gang_count_together():
    power = hall()
    places = power.places(ALL)
    assert power.allows(places, asked(3_000, 3_000, 0, 0, 0)) is None
    assert power.allows(places, asked(3_000, 3_001, 0, 0, 0)) == Refused("rack-a", 6_000, 6_000, 0, 6_001)
    # Each rack would do, the site would not.
    assert power.allows(places, asked(3_000, 2_500, 3_000, 2_000, 0)) == Refused(
        "site", 10_000, 10_000, 0, 10_500
    )
    # What lacks most is named; the node without a domain never.
    assert power.allows(places, asked(9_000, 0, 2_000, 0, 99_999)).domain == "rack-a"
    assert power.allows(places, asked(0, 0, 0, 0, 99_999)) is None
    assert power.reserved_watts("site") == 0, "asking reserves nothing"


def test_the_margin_is_kept_from_admissions():
    power = tree(("rack", None, 1_000, 10.0), nodes=[("n", "rack")])
    places = power.places(["n"])
    assert power.allows(places, asked(900)) is None
    refused = power.allows(places, asked(901))
    assert refused == Refused("rack", 1_000, 900, 0, 901)
    assert refused_text(refused) == (
        "needs 901 W under power domain rack, which has 900 W left, 1 W too few "
        "(0 of 1000 W reserved, 100 W kept as margin)"
    )
    assert PowerDomainSpec("x", None, 500, 35.4).limit_watts == 323, "floats alone make 322 of it"


def test_a_budget_lowered_below_use_ends_nothing_and_refuses():
    power = hall()
    power.reserve("a1", 5_000)
    power.upsert(PowerDomainSpec("rack-a", "site", 4_000))
    places = power.places(ALL)
    assert power.reserved_watts("rack-a") == 5_000
    assert power.headroom_watts("rack-a") == -1_000
    assert power.room(places).tolist() == [-1_000, -1_000, 5_000, 5_000, UNLIMITED_WATTS]
    assert power.allows(places, asked(0, 0, 0, 0, 0)) is None
    refused = power.allows(places, asked(0, 1, 0, 0, 0))
    assert refused_text(refused) == (
        "needs 1 W under power domain rack-a, which is 1000 W above its limit, 1001 W too few (5000 of 4000 W reserved)"
    )
    assert power.allows(places, asked(0, 0, 5_000, 0, 0)) is None
    power.release("a1", 1_001)
    assert power.allows(places, asked(0, 1, 0, 0, 0)) is None


@pytest.mark.parametrize(
    ("domains", "domain", "text"),
    [
        (
            [],
            "rack",
            "power domain rack does not exist: nothing starts on its nodes until it is created or they name another",
        ),
        (
            [("rack", "row", 9_000)],
            "rack",
            "power domain rack has a parent that does not exist, row: "
            "nothing starts below it until that is created or spec.parent changed",
        ),
        (
            [("rack", "row", 9_000), ("row", "site", 9_000)],
            "rack",
            "power domain row has a parent that does not exist, site: "
            "nothing starts below it until that is created or spec.parent changed",
        ),
        (
            [("rack", "row", 9_000), ("row", "site", 9_000), ("site", "row", 9_000)],
            "rack",
            "power domains feed each other in a circle (row -> site -> row): "
            "nothing starts below them until spec.parent of one is changed",
        ),
        (
            [("rack", "rack", 9_000)],
            "rack",
            "power domains feed each other in a circle (rack -> rack): "
            "nothing starts below them until spec.parent of one is changed",
        ),
    ],
    ids=["no domain", "no parent", "no grandparent", "circle above", "its own parent"],
)
def test_what_is_not_known_limits_too(domains, domain, text):
    power = tree(*domains, ("other", None, 500), nodes=[("n", domain), ("m", "other")])
    places = power.places(["n", "m"])
    assert power.headroom_watts(domain) == 0
    assert power.room(places).tolist() == [0, 500]
    assert power.problems()[domain] == text
    refused = power.allows(places, asked(100, 100))
    assert refused.asked_watts == 100
    assert refused_text(refused) == f"needs 100 W; {text}"
    assert power.allows(places, asked(0, 100)) is None
    assert power.limit_slots(places, asked(3, 3), 100).tolist() == [0, 3]
    # What runs there already stays accounted, and the mended tree knows it.
    power.reserve("n", 700)
    for name in ("rack", "row", "site"):
        power.upsert(PowerDomainSpec(name, {"rack": "row", "row": "site"}.get(name), 1_000))
    assert power.problems() == {}
    assert power.room(power.places(["n", "m"])).tolist() == [300, 500]


def test_a_node_moves_with_what_is_reserved_on_it():
    power = hall()
    power.reserve("a1", 2_000)
    before = power.version
    assert power.assign("a1", "rack-b")
    assert power.version > before, "places of before no longer hold"
    assert [power.reserved_watts(d) for d in ("site", "rack-a", "rack-b")] == [2_000, 0, 2_000]
    assert power.assign("a1")
    assert power.reserved_watts("site") == 0
    assert not power.assign("a1")
    power.assign("a1", "rack-a")
    assert power.reserved_watts("rack-a") == 2_000


def test_the_lowest_of_the_domains_that_claim_a_node_feeds_it():
    power = hall()
    power.assign("a1", "site", "rack-a")
    power.reserve("a1", 2_000)
    assert [power.reserved_watts(d) for d in ("site", "rack-a", "rack-b")] == [2_000, 2_000, 0]
    assert power.problems() == {}
    assert power.report("site").nodes == 4
    assert not power.assign("a1", "rack-a", "site"), "in any order"


def test_nothing_starts_on_a_node_that_two_domains_claim_and_both_count_it():
    power = hall()
    power.reserve("a1", 2_000)
    power.assign("a1", "rack-a", "rack-b")
    places = power.places(ALL)
    assert [power.reserved_watts(d) for d in ("site", "rack-a", "rack-b")] == [2_000, 2_000, 2_000]
    assert power.room(places).tolist() == [-2_000, 4_000, 4_000, 4_000, UNLIMITED_WATTS]
    assert power.limit_slots(places, asked(4, 4, 4, 4, 4), 1_000).tolist() == [0, 4, 4, 0, 4]
    assert refused_text(power.allows(places, asked(100, 0, 0, 0, 0))) == (
        "needs 100 W; power domains rack-a and rack-b select the same nodes, and neither feeds the other: "
        "nothing starts on these nodes until spec.nodeSelector or spec.parent of one is changed"
    )
    report = power.report("rack-a")
    assert (report.nodes, report.available_watts, report.problem) == (2, 4_000, "")
    assert report.shared == {"a1": ("rack-b",)}
    assert power.report("site").shared == {}
    power.upsert(PowerDomainSpec("rack-b", "rack-a", 6_000))
    assert power.report("rack-b").shared == {}, "one feeds the other now"
    assert [power.reserved_watts(d) for d in ("site", "rack-a", "rack-b")] == [2_000, 2_000, 2_000]
    power.release("a1", 2_000)
    assert [power.reserved_watts(d) for d in ("site", "rack-a", "rack-b")] == [0, 0, 0]


def test_of_what_is_held_only_what_lacks_may_count_until_the_tree_changes():
    power = hall()
    power.reserve("a2", 1_500)
    power.hold({"a1": 2_000})
    held, leaving = power.entries([(0, {"a1": 2_000})]), power.entries([(0, {"a2": 1_500})])
    power.count_held(Promises({"gang": range(1)}, held, leaving))
    assert [power.headroom_watts(d) for d in ("site", "rack-a", "rack-b")] == [8_000, 4_000, 6_000]
    power.upsert(PowerDomainSpec("rack-b", "site", 5_000))
    assert [power.headroom_watts(d) for d in ("site", "rack-a", "rack-b")] == [6_500, 2_500, 5_000]
    power.count_held(Promises({"gang": range(1)}, held, leaving))
    power.count_held(None)
    assert power.headroom_watts("rack-a") == 2_500


def test_a_report_has_what_is_left_by_all_above():
    power = hall()
    power.reserve("a1", 5_000)
    power.reserve("b1", 5_500)
    report = power.report("rack-a")
    assert (report.limit_watts, report.reserved_watts, report.nodes) == (6_000, 5_000, 2)
    assert report.available_watts == 0, "the site is above its limit"
    assert power.headroom_watts("site") == -500
    assert power.report("rack-c") is None
    power.remove("site")
    assert power.report("site") is None
    assert "has a parent that does not exist, site" in power.report("rack-b").problem


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: PowerDomainSpec("x", None, -1),
        lambda: PowerDomainSpec("x", None, 1, 101.0),
        lambda: hall().reserve("a1", -1),
        lambda: hall().release("a1", 1),
        lambda: hall().hold({"a1": 1}, -1),
    ],
)
def test_nonsense_is_an_error_with_numbers(wrong):
    with pytest.raises(ValueError, match=r"\d"):
        wrong()


# ---- slots


def limited(power, nodes, slots, watts, **more):
    return power.limit_slots(power.places(nodes), asked(*slots), watts, **more).tolist()


def test_slots_are_cut_to_the_budgets_in_order():
    power = hall()
    assert limited(power, ALL, [8, 8, 8, 8, 8], 1_000) == [6, 0, 4, 0, 8]
    assert limited(power, ALL, [4, 4, 4, 4, 4], 1_000) == [4, 2, 4, 0, 4]
    assert limited(power, ALL, [4, 4, 4, 4, 4], 1_000, order=asked(3, 2, 1, 0, 4)) == [0, 4, 2, 4, 4]
    assert limited(power, ALL, [4, 4, 4, 4, 4], 0) == [4, 4, 4, 4, 4]
    assert limited(power, ALL, [4, 4, 4, 4, 4], 3_500) == [1, 0, 1, 0, 4]
    power.reserve("a1", 99_000)
    assert limited(power, ALL, [4, 4, 4, 4, 4], 1) == [0, 0, 0, 0, 4]


def test_each_group_is_limited_as_if_it_were_alone():
    power = hall()
    group = asked(0, 0, 1, 1, 1)
    # Together the site has 10 workers' watts; either rack alone has 6 of them.
    assert limited(power, ALL, [4, 4, 4, 4, 4], 1_000, group_of=group) == [4, 2, 4, 2, 4]


def slow_limit(power, nodes, slots, watts, ranks, groups, domain_of, specs):
    """The same by going through nodes one by one with plain dictionaries."""
    result = [0] * len(nodes)
    for group in set(groups):
        left = {d: max(0, own_headroom(power, d, specs)) // watts for d in path_domains(specs, domain_of)}
        for i in sorted(range(len(nodes)), key=lambda i: (ranks[i], i)):
            if groups[i] != group:
                continue
            path = path_of(domain_of.get(nodes[i]), specs)
            result[i] = min([slots[i], *(left[d] for d in path)])
            for d in path:
                left[d] -= result[i]
    return result


def path_of(domain, specs):
    path = []
    while domain is not None and domain not in path:
        path.append(domain)
        domain = specs[domain].parent if domain in specs else None
    return path


def feeders_of(claim, specs):
    """The domain that feeds a node, and those above it; for a claim of rivals, their stand-in and all of theirs."""
    paths = {domain: path_of(domain, specs) for domain in claim}
    lowest = [d for d in claim if not any(d in paths[o] and o not in paths[d] for o in claim)]
    rest = [above for domain in lowest for above in paths[domain]]
    return list(dict.fromkeys([" and ".join(lowest), *rest])) if len(lowest) > 1 else rest


def broken(domain, specs):
    if " and " in domain:
        return True
    path = path_of(domain, specs)
    return path[-1] not in specs or specs[path[-1]].parent is not None


def path_domains(specs, domain_of):
    return {*specs, *(s.parent for s in specs.values() if s.parent), *filter(None, domain_of.values())}


def own_headroom(power, domain, specs):
    limit = 0 if broken(domain, specs) else specs[domain].limit_watts
    return limit - power.reserved_watts(domain)


specs = st.builds(
    PowerDomainSpec,
    name=st.sampled_from(DOMAINS),
    parent=st.sampled_from([None, None, *DOMAINS, "gone"]),
    budget_watts=st.sampled_from([0, 500, 3_000, 10_000]),
    margin_percent=st.sampled_from([0.0, 10.0, 33.3]),
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_limited_slots_are_those_of_going_node_by_node(data):
    known = {s.name: s for s in data.draw(st.lists(specs, max_size=5))}
    domain_of = data.draw(
        st.dictionaries(st.sampled_from(NODES), st.sampled_from([*DOMAINS, DOMAINS[2], "lost"]), max_size=6)
    )
    power = tree(nodes=domain_of.items())
    for spec in known.values():
        power.upsert(spec)
    for node in data.draw(st.lists(st.sampled_from(NODES), max_size=3)):
        power.reserve(node, 400)
    six = {"min_size": 6, "max_size": 6}
    slots = data.draw(st.lists(st.integers(0, 8), **six))
    ranks = data.draw(st.lists(st.integers(0, 3), **six))
    groups = data.draw(st.sampled_from([[0] * 6, [0, 0, 0, 1, 1, 1], [0, 1, 0, 1, 2, 2]]))
    watts = data.draw(st.sampled_from([1, 300, 700]))
    places = power.places(NODES)
    fast = power.limit_slots(places, asked(*slots), watts, order=asked(*ranks), group_of=asked(*groups))
    assert fast.tolist() == slow_limit(power, NODES, slots, watts, ranks, groups, domain_of, known)
    for group in set(groups):
        chosen = np.where(asked(*groups) == group, fast, 0)
        assert power.allows(places, chosen * watts) is None


class History(RuleBasedStateMachine):
    """Whatever happens, the tree is the one that its facts would make anew."""

    def __init__(self):
        super().__init__()
        self.power = PowerTree()
        self.specs = {}
        self.claims = {}
        self.reserved = {}
        self.held = {}

    @rule(spec=specs)
    def upsert(self, spec):
        assert self.power.upsert(spec) == (self.specs.get(spec.name) != spec)
        self.specs[spec.name] = spec

    @rule(name=st.sampled_from(DOMAINS))
    def remove(self, name):
        assert self.power.remove(name) == (self.specs.pop(name, None) is not None)

    @rule(
        node=st.sampled_from(NODES),
        claim=st.lists(st.sampled_from([*DOMAINS, "gone"]), max_size=3, unique=True),
    )
    def assign(self, node, claim):
        changed = self.claims.get(node, []) != sorted(claim)
        assert self.power.assign(node, *claim) == changed
        self.claims[node] = sorted(claim)

    @rule(node=st.sampled_from(NODES), watts=st.integers(0, 4_000))
    def reserve(self, node, watts):
        self.power.reserve(node, watts)
        self.reserved[node] = self.reserved.get(node, 0) + watts

    @precondition(lambda self: any(self.reserved.values()))
    @rule(data=st.data())
    def release(self, data):
        node = data.draw(st.sampled_from(sorted(n for n, w in self.reserved.items() if w)))
        watts = data.draw(st.integers(0, self.reserved[node]))
        self.power.release(node, watts)
        self.reserved[node] -= watts

    @rule(watts=st.dictionaries(st.sampled_from(NODES), st.integers(0, 4_000)))
    def hold(self, watts):
        self.power.hold(watts)
        for node, more in watts.items():
            self.held[node] = self.held.get(node, 0) + more

    @precondition(lambda self: any(self.held.values()))
    @rule(data=st.data())
    def give_back(self, data):
        node = data.draw(st.sampled_from(sorted(n for n, w in self.held.items() if w)))
        watts = data.draw(st.integers(0, self.held[node]))
        self.power.hold({node: watts}, -1)
        self.held[node] -= watts

    @rule(watts=st.lists(st.integers(0, 3_000), min_size=6, max_size=6))
    def admit(self, watts):
        """What is allowed leaves no domain that it touches above its limit; what is refused would."""
        places = self.power.places(NODES)
        refused = self.power.allows(places, asked(*watts))
        asked_below = {}
        for node, more in zip(NODES, watts, strict=True):
            for domain in feeders_of(self.claims.get(node, []), self.specs):
                asked_below[domain] = asked_below.get(domain, 0) + more
        lacking = {d: a - self.own_headroom(d) for d, a in asked_below.items() if a > 0}
        if refused is None:
            assert all(lack <= 0 for lack in lacking.values())
            for node, more in zip(NODES, watts, strict=True):
                self.reserve(node, more)
        else:
            assert lacking[refused.domain] == max(lacking.values()) > 0
            assert refused.asked_watts == asked_below[refused.domain]
            assert refused.reserved_watts == self.power.reserved_watts(refused.domain)
            assert refused.held_watts == self.below(refused.domain, self.held)
            assert bool(refused.problem) == broken(refused.domain, self.specs)

    def below(self, domain, of_nodes):
        return sum(w for n, w in of_nodes.items() if domain in feeders_of(self.claims.get(n, []), self.specs))

    def own_headroom(self, domain):
        return own_headroom(self.power, domain, self.specs) - self.below(domain, self.held)

    @invariant()
    def is_what_its_facts_make(self):
        fresh = tree(nodes=self.claims.items())
        for node, watts in self.reserved.items():
            fresh.reserve(node, watts)
        for spec in self.specs.values():
            fresh.upsert(spec)
        fresh.hold(self.held)
        watts, below = self.power.entries([(7, self.held)]), self.power.below(self.held)
        assert set(watts.gangs.tolist()) <= {7}
        assert np.bincount(watts.slots, watts.amounts[0], len(below)).tolist() == below.tolist()
        assert self.power.problems() == fresh.problems()
        for domain in [*DOMAINS, "gone"]:
            below = self.below(domain, self.reserved)
            claimed = dict(enumerate(itertools.chain(*self.claims.values())))
            known = domain in path_domains(self.specs, claimed)
            assert (
                self.power.reserved_watts(domain) == fresh.reserved_watts(domain) == (below if known else 0)
            )
            assert self.power.headroom_watts(domain) == fresh.headroom_watts(domain)
            if known:
                path = path_of(domain, self.specs)
                least = min(self.own_headroom(d) for d in path)
                assert self.power.headroom_watts(domain) == least
        mine, other = self.power.room(self.power.places(NODES)), fresh.room(fresh.places(NODES))
        assert mine.tolist() == other.tolist()


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


# ---- added watts


def test_added_watts_are_those_of_the_two_point_model():
    kinds = [NodeKind("H100", 8, 96_000, 1 << 20), NodeKind("A10", 2, 64_000, 1 << 19)]
    points = [WattPoints(70, 700, 50, 250, 48_000), WattPoints(15, 150, 40, 200, 64_000)]
    model = WattModel(kinds, points)
    free = np.array([[8, 6, 2, 8], [96_000, 40_000, 64_000, 96_000]])
    added = added_watts(model, asked(0, 0, 1, 0), free, (1, 8_000), asked(1, 2, 1, 0))
    # Idle: one GPU and the first socket. Both sockets busy already: two GPUs. The small node: GPU and socket. Nobody.
    assert added.tolist() == [630 + 200, 2 * 630, 135 + 160, 0]
    assert added_watts(model, asked(1), np.array([[0], [8_000]]), (0, 8_000), asked(1)).tolist() == [0]
