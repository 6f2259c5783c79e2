"""Whatever comes and goes: no start takes a power domain above its limit, and none goes where watts are not known."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from datahall.planning import Admit, Level, PowerDomainSpec
from tests.unit.planning.planners import NOW, gang, hall, node

NODES = [f"n{i}" for i in range(5)]
DOMAINS = ["site", "row", "rack-a", "rack-b"]
RACKS = {name: f"r{i % 2}" for i, name in enumerate(NODES)}


class History(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.planner = hall()
        self.claims = {}
        self.caps = {}
        self.now = NOW
        self.gangs = 0
        for name in NODES:
            self.change_node(name, (), 500)

    @rule(
        name=st.sampled_from(NODES),
        claim=st.lists(st.sampled_from(DOMAINS), max_size=2, unique=True).map(tuple),
        cap=st.sampled_from([0, 300, 500]),
    )
    def change_node(self, name, claim, cap):
        self.claims[name], self.caps[name] = claim, cap
        self.planner.upsert_node(node(name, watts=cap, domain=claim, rack=RACKS[name]))

    @rule(
        name=st.sampled_from(DOMAINS),
        parent=st.sampled_from([None, *DOMAINS]),
        budget=st.sampled_from([0, 1_000, 4_000, 9_000]),
        margin=st.sampled_from([0.0, 12.5]),
    )
    def change_domain(self, name, parent, budget, margin):
        self.planner.upsert_power_domain(PowerDomainSpec(name, parent, budget, margin))

    @rule(name=st.sampled_from(DOMAINS))
    def remove_domain(self, name):
        self.planner.remove_power_domain(name)

    @rule(
        workers=st.integers(1, 4),
        gpus=st.sampled_from([0, 1, 4, 8]),
        least=st.integers(1, 4),
        level=st.sampled_from([None, Level.RACK]),
        priority=st.integers(0, 2),
    )
    def submit(self, workers, gpus, least, level, priority):
        self.gangs += 1
        least = min(least, workers)
        where = {"level": level, "required": level is not None}
        more = {**where, "min_workers": least, "priority": priority, "created": self.gangs}
        self.planner.submit(gang(f"g{self.gangs}", workers, gpus, **more))

    @rule(data=st.data())
    def withdraw(self, data):
        if self.gangs:
            self.planner.withdraw(f"g{data.draw(st.integers(1, self.gangs))}")

    @rule()
    def cycle(self):
        self.now += 20.0
        before = self.reports()
        starts = [d for d in self.planner.cycle(self.now) if isinstance(d, Admit)]
        for name, report in self.reports().items():
            limit = 0 if report.problem else report.limit_watts
            assert report.reserved_watts <= max(limit, before[name].reserved_watts), name
        shared = {name for report in before.values() for name in report.shared}
        for start in starts:
            for place in start.placements:
                if place.gpu_model and self.claims[place.node]:
                    assert self.caps[place.node] > 0, "below a domain, what is not known is not used"
                    assert place.node not in shared

    def reports(self):
        found = {name: self.planner.power_report(name) for name in DOMAINS}
        return {name: report for name, report in found.items() if report is not None}


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
