from __future__ import annotations

import pytest

from datahall.control.feed import news
from datahall.control.tables import Tables
from tests.unit.control.world import job_body


def event(type_: str = "MODIFIED", **metadata: str) -> dict[str, object]:
    body = job_body()
    body["metadata"] |= {"uid": "u1", "resourceVersion": "7", **metadata}
    return {"type": type_, "object": body}


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (event(), False),
        (event(resourceVersion="6"), False),
        (event(resourceVersion="10"), True),  # as a number: "10" sorts before "7"
        (event(uid="u2", resourceVersion="3"), True),
        (event(name="other"), True),
        (event(namespace="team-b"), True),
        (event("DELETED"), True),
    ],
    ids=["our own write", "late", "newer", "another object", "another name", "another namespace", "gone"],
)
def test_only_what_the_store_does_not_know_is_taken_in(seen, told):
    table = Tables().jobs
    table.put(event()["object"])
    assert news(table, seen) is told


def test_the_first_event_of_an_object_is_news():
    assert news(Tables().jobs, event("ADDED"))
