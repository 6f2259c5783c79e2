"""Assume, then commit or roll back."""

import pytest

from datahall.planning import GangRequest, NodeState, Placement, QueueState
from datahall.planning.quota import QuotaBook
from datahall.planning.state import NodeArrays
from datahall.planning.transaction import Transaction

GANG = GangRequest("k", "ns/k", "ns", "q", 0, 0.0, 2, 4, (), 1000, 10)
PLACES = (Placement(0, "a", "H100"), Placement(1, "unknown", "A100"))


@pytest.fixture
def books():
    nodes, quota = NodeArrays(), QuotaBook()
    nodes.upsert(NodeState("a", "H100", 8, 8000, 100))
    quota.upsert(QueueState("q", {"Any": 8}))
    return nodes, quota


def seen(books):
    nodes, quota = books
    return nodes.rows(), quota.accounts(), quota.room("q", "Any")


def test_what_is_not_committed_never_was(books):
    before = seen(books)
    with Transaction(*books) as transaction:
        transaction.assume(GANG, PLACES)
        assert seen(books)[2] == 0
        transaction.release(GANG, PLACES[:1])
    assert seen(books) == before


def test_an_error_rolls_back_to_the_last_commit(books):
    def fail_after_commit():
        with Transaction(*books) as transaction:
            transaction.assume(GANG, PLACES)
            transaction.commit()
            committed.append(seen(books))
            transaction.release(GANG, PLACES)
            raise RuntimeError("stop")

    committed = []
    with pytest.raises(RuntimeError, match="stop"):
        fail_after_commit()
    assert [seen(books)] == committed
    assert committed[0][2] == 0


def test_release_undoes_assume(books):
    before = seen(books)
    with Transaction(*books) as transaction:
        transaction.assume(GANG, PLACES)
        transaction.release(GANG, PLACES)
        transaction.commit()
    assert seen(books) == before
