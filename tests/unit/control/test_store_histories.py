"""One table against a cluster that writes history, told of it late, twice, out of order, by events and by lists."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from datahall.control.store import Change, Table

Json = dict[str, Any]

NAMES = st.sampled_from(["a", "b", "c"])
TEAMS = st.sampled_from([None, "x", "y"])


class Thing(NamedTuple):
    namespace: str
    name: str
    uid: str
    version: int
    team: str | None


def parse(body: Json) -> Thing:
    m = body["metadata"]
    return Thing("n", m["name"], m["uid"], int(m["resourceVersion"]), body["team"])


class Cluster(RuleBasedStateMachine):
    """Each fact (a state, a deletion, a whole list) may be delivered at any time after it became true.

    Whatever was delivered: of each object the table holds the newest state it was told of, it holds nothing that it
    was told is gone, and its listeners can rebuild it. Once the newest list is in, it is the cluster.
    """

    def __init__(self) -> None:
        super().__init__()
        self.things: Table[Thing] = Table(parse, group_by=lambda t: ("n", t.team) if t.team else None)
        self.changes: list[Change[Thing]] = []
        self.things.listen(self.changes.append)
        self.mirror: dict[str, Thing] = {}
        self.versions, self.uids, self.now = itertools.count(1), itertools.count(1), 0
        self.live: dict[str, Json] = {}
        self.facts: list[tuple[str, Any]] = []
        self.newest: dict[str, int] = {}
        self.gone: set[str] = set()

    @rule(name=NAMES, team=TEAMS)
    def write(self, name: str, team: str | None) -> None:
        uid = self.live[name]["metadata"]["uid"] if name in self.live else f"u{next(self.uids)}"
        self.now = next(self.versions)
        metadata = {"namespace": "n", "name": name, "uid": uid, "resourceVersion": str(self.now)}
        self.live[name] = {"metadata": metadata, "team": team}
        self.facts.append(("put", self.live[name]))

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        self.now = next(self.versions)
        self.facts.append(("remove", self.live.pop(data.draw(st.sampled_from(sorted(self.live))))))

    @rule()
    def make_list(self) -> None:
        self.facts.append(("list", (list(self.live.values()), self.now)))

    @precondition(lambda self: self.facts)
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        self._deliver(*data.draw(st.sampled_from(self.facts[-12:])))

    @rule()
    def deliver_the_newest_list(self) -> None:
        self._deliver("list", (list(self.live.values()), self.now))
        assert {t.name: t for t in self.things} == {name: parse(body) for name, body in self.live.items()}

    def _deliver(self, what: str, fact: Any) -> None:
        bodies, version = fact if what == "list" else ([fact], 0)
        if what == "remove":
            self.gone.add(fact["metadata"]["uid"])
            self.things.remove("n", fact["metadata"]["name"], fact["metadata"]["uid"])
            return
        for thing in map(parse, bodies):
            self.newest[thing.uid] = max(self.newest.get(thing.uid, 0), thing.version)
        if what == "put":
            self.things.put(fact)
            return
        here = {parse(body).uid for body in bodies}
        self.gone |= {t.uid for t in self.things if t.uid not in here and t.version <= version}
        self.things.replace(bodies, version)

    @invariant()
    def the_newest_told_wins_and_nothing_deleted_is_back(self) -> None:
        for thing in self.things:
            assert thing.uid not in self.gone
            assert thing.version == self.newest[thing.uid]

    @invariant()
    def listeners_can_rebuild_the_table(self) -> None:
        for old, new in self.changes:
            if old is not None:
                assert self.mirror.pop(old.name) == old
            if new is not None:
                assert new.name not in self.mirror
                self.mirror[new.name] = new
        self.changes.clear()
        assert self.mirror == {thing.name: thing for thing in self.things}

    @invariant()
    def groups_are_what_grouping_gives(self) -> None:
        for team in ("x", "y"):
            assert {t for t in self.things if t.team == team} == set(self.things.group(("n", team)))
        assert all(self.things._groups.values()), "no empty group is kept"


TestCluster = Cluster.TestCase
TestCluster.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
