from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from datahall.control.store import Table


@dataclass(frozen=True)
class Thing:
    namespace: str
    name: str
    uid: str
    version: int
    group: str


def parse(raw):
    meta = raw["metadata"]
    return Thing(
        meta.get("namespace") or "",
        meta["name"],
        meta["uid"],
        int(meta["resourceVersion"]),
        raw.get("group", ""),
    )


def raw(name="x", version=1, uid="u1", group="", namespace="a"):
    meta = {"namespace": namespace, "name": name, "uid": uid, "resourceVersion": str(version)}
    return {"metadata": meta, "group": group}


def table():
    made = Table(parse, group_by=lambda thing: ("a", thing.group) if thing.group else None)
    changes = []
    made.listen(
        lambda change: changes.append((change.old and change.old.version, change.new and change.new.version))
    )
    return made, changes


def test_newer_states_replace_older_ones_and_are_told():
    things, changes = table()
    things.put(raw(version=1))
    things.put(raw(version=3))
    assert things.get("a", "x").version == 3
    assert changes == [(None, 1), (1, 3)]


def test_stale_and_repeated_events_are_ignored():
    things, changes = table()
    things.put(raw(version=3))
    things.put(raw(version=2))
    things.put(raw(version=3))
    assert things.get("a", "x").version == 3
    assert changes == [(None, 3)]


def test_a_late_event_cannot_bring_a_deleted_object_back():
    things, changes = table()
    things.put(raw(version=3))
    things.remove("a", "x", "u1")
    things.put(raw(version=9))
    assert things.get("a", "x") is None
    assert changes == [(None, 3), (3, None)]


def test_an_object_that_is_deleted_before_it_is_seen_stays_gone():
    things, changes = table()
    things.remove("a", "x", "u1")
    things.put(raw(version=3))
    assert len(things) == 0
    assert changes == []


def test_a_later_object_of_the_name_replaces_the_earlier_one():
    things, changes = table()
    things.put(raw(version=3, uid="u1"))
    things.put(raw(version=5, uid="u2"))
    assert things.get("a", "x").uid == "u2"
    assert changes == [(None, 3), (3, None), (None, 5)]
    things.put(raw(version=4, uid="u1"))
    things.remove("a", "x", "u1")
    assert things.get("a", "x").uid == "u2"


def test_a_late_event_of_an_earlier_object_is_ignored():
    things, _ = table()
    things.put(raw(version=5, uid="u2"))
    things.put(raw(version=4, uid="u1"))
    assert things.get("a", "x").uid == "u2"


def test_a_list_removes_what_it_lacks_but_not_what_is_younger():
    things, _ = table()
    things.put(raw("old", 3, "u1"))
    things.put(raw("young", 9, "u2"))
    things.replace([raw("new", 4, "u3")], 5)
    assert {thing.name for thing in things} == {"young", "new"}


def test_groups_follow_their_members():
    things, _ = table()
    things.put(raw("x", 1, "u1", "red"))
    things.put(raw("y", 2, "u2", "red"))
    things.put(raw("x", 3, "u1", "blue"))
    assert [t.name for t in things.group(("a", "red"))] == ["y"]
    assert [t.name for t in things.group(("a", "blue"))] == ["x"]
    things.remove("a", "y", "u2")
    assert things.group(("a", "red")) == []


NAMES, GROUPS = ("x", "y"), ("", "red", "blue")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_the_order_of_events_the_newest_state_wins(data):
    """A history of the API server, delivered shuffled, repeated and with gaps, then listed once."""
    history, alive = [], {}
    for version in range(1, data.draw(st.integers(1, 14)) + 1):
        name = data.draw(st.sampled_from(NAMES))
        if name in alive and data.draw(st.booleans()):
            history.append(("DELETED", alive.pop(name)))
            continue
        uid = alive[name]["metadata"]["uid"] if name in alive else f"{name}-{version}"
        alive[name] = raw(name, version, uid, data.draw(st.sampled_from(GROUPS)))
        history.append(("PUT", alive[name]))
    delivered = data.draw(st.lists(st.sampled_from(history), max_size=20)) + data.draw(
        st.permutations(history)
    )
    things, changes = table()
    known: set[str] = set()
    for kind, body in delivered:
        meta = body["metadata"]
        if kind == "PUT":
            things.put(body)
        else:
            things.remove("a", meta["name"], meta["uid"])
        known = {t.uid for t in things}
    things.replace(list(alive.values()), 99)
    assert {t.name: (t.uid, t.version) for t in things} == {
        name: (body["metadata"]["uid"], int(body["metadata"]["resourceVersion"]))
        for name, body in alive.items()
    }
    for group in GROUPS[1:]:
        assert {t.name for t in things.group(("a", group))} == {
            name for name, body in alive.items() if body["group"] == group
        }
    # What listeners were told adds up to what is there.
    assert sum((new is not None) - (old is not None) for old, new in changes) == len(things)
    assert len(known) <= len(NAMES)
