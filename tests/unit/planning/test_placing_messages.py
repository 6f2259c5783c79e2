"""What people read about places and times."""

import numpy as np
import pytest

from datahall.planning import placing_messages as messages
from datahall.planning.backfill import Reservation
from datahall.planning.placing import Demand, NoPlace, Placing
from datahall.planning.topology import Domain, Level

NEED = "8 x 8 GPUs"
NOW = 1_800_000_000.0  # 2027-01-15 08:00 UTC


def reservation(at=NOW + 3600, *, promised=NOW + 3600, last="team-a/x", overdue=False, slips=0, nodes=4):
    columns = np.arange(nodes)
    spare = np.zeros((3, nodes), dtype=np.int64)
    return Reservation(at, promised, columns, columns + 1, spare, last, NOW, NOW, slips, overdue)


def placing(level, racks, blocks):
    return Placing(np.arange(racks), np.ones(racks, dtype=np.int64), level, racks, blocks)


@pytest.mark.parametrize(
    ("refusal", "text"),
    [
        (
            NoPlace(Level.RACK, 8, Domain(Level.RACK, "b", "7"), 5, 40, 12),
            "needs 8 x 8 GPUs on one rack; the best, rack 7 in block b, has room for 5 of 8 workers; "
            "the whole hall has room for 40",
        ),
        (
            NoPlace(Level.RACK, 1, Domain(Level.RACK, host="n1"), 0, 0, 1, spread=1),
            "needs 8 x 8 GPUs on one rack; node n1, where it is, has room for 0 of 1 worker more; "
            "the whole hall has room for 0",
        ),
        (
            NoPlace(Level.BLOCK, 8, Domain(Level.BLOCK, None, "7"), 5, 6, 2),
            "needs 8 x 8 GPUs in one block; the best, rack 7, has room for 5 of 8 workers; "
            "the whole hall has room for 6",
        ),
        (
            NoPlace(Level.BLOCK, 8, Domain(Level.BLOCK, "b"), 5, 6, 2),
            "needs 8 x 8 GPUs in one block; the best, block b, has room for 5 of 8 workers; "
            "the whole hall has room for 6",
        ),
        (
            NoPlace(Level.HOST, 8, None, 0, 0, 2),
            "needs 8 x 8 GPUs on one node; none of 2 nodes has room for any",
        ),
        (
            NoPlace(Level.HALL, 8, Domain(Level.HALL), 6, 6, 1),
            "needs 8 x 8 GPUs at once; the hall has room for 6 of 8 workers",
        ),
        (
            NoPlace(Level.RACK, 1, Domain(Level.RACK, "b", "7"), 5, 6, 2, spread=2),
            "needs 8 x 8 GPUs on one rack, and it is on 2 racks since labels changed; "
            "only all of it can be moved to one",
        ),
    ],
)
def test_no_place(refusal, text):
    assert messages.no_place(refusal, NEED) == text
    assert messages.not_even_alone(refusal, NEED) == f"{text}, even once every running job has ended"


@pytest.mark.parametrize(
    ("kept", "text"),
    [
        (reservation(), "starts at about 09:00 UTC, when team-a/x ends"),
        (reservation(slips=2), "starts at about 09:00 UTC, when team-a/x ends (put off 2 times)"),
        (reservation(NOW + 86400), "starts at about 2027-01-16 08:00 UTC, when team-a/x ends"),
        (reservation(NOW, overdue=True), "starts when team-a/x ends, which is overdue"),
        (reservation(None), "starts when team-a/x ends; when that is, is not known yet"),
        (reservation(NOW, last=None), "starts as soon as it is its turn"),
    ],
)
def test_would_start(kept, text):
    assert messages.would_start(kept, NOW) == text


@pytest.mark.parametrize(
    ("kept", "end", "text"),
    [
        (reservation(), NOW + 5400, ", from 09:00 UTC on, and this one would run until 09:30 UTC"),
        (reservation(), None, ", from 09:00 UTC on, and nobody knows how long this one runs"),
        (reservation(promised=None), None, ""),
        (reservation(promised=NOW - 1), NOW + 60, ""),
    ],
)
def test_kept_for(kept, end, text):
    found = messages.kept_for(kept, NEED, "team-a/big", end_seconds=end, now_seconds=NOW)
    assert found == f"needs 8 x 8 GPUs; it would fit, but 4 nodes are kept for team-a/big, ahead of it{text}"
    one = messages.kept_for(reservation(nodes=1), NEED, "x", end_seconds=end, now_seconds=NOW)
    assert "1 node is kept" in one


@pytest.mark.parametrize(
    ("where", "asked", "text"),
    [
        (placing(Level.HOST, 1, 1), Level.RACK, "on one node"),
        (placing(Level.RACK, 1, 1), Level.HOST, "on one rack; one node was preferred"),
        (placing(Level.BLOCK, 3, 1), Level.RACK, "on 3 racks of 1 block; one rack was preferred"),
        (placing(Level.HALL, 3, 2), Level.BLOCK, "on 3 racks of 2 blocks; one block was preferred"),
        (placing(Level.HALL, 3, 2), None, "on 3 racks of 2 blocks"),
    ],
)
def test_spread(where, asked, text):
    assert messages.spread(where, Demand(1, 1, asked)) == text
