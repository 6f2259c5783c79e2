"""Roll-outs: where the quota for one replica more comes from, and who waits."""

from __future__ import annotations

import pytest

from tests.unit.control.replica_world import Service, gate_affinity

pytestmark = pytest.mark.looptime


async def test_a_roll_out_goes_through_quota_where_there_is_some():
    service = Service(nodes=2, nominal=12)
    service.start("r-1", "r-2")
    service.make("s-1", version="v2")
    service.cycle()
    assert service.hall.used == 12


async def test_a_roll_out_with_no_quota_to_spare_goes_on_one_replica_at_a_time():
    service = Service(nodes=2, nominal=8)
    service.start("r-1", "r-2")
    for number, old in ((1, "r-1"), (2, "r-2")):
        new = f"s-{number}"
        service.make(new, version="v2")
        service.cycle()
        assert service.lift() == {new}
        service.bind(new)
        assert service.hall.used == 8, "the one that goes pays for it"
        service.leave(old)
        if number == 1:
            service.make("s-early", version="v2")
            service.cycle()
            assert service.lift() == set(), "one after the other, and only when the old one is really gone"
            service.gone("s-early")
        service.gone(old)
        assert service.hall.used == 8
    assert {name: service.held(name) is not None for name in ("s-1", "s-2")} == {"s-1": True, "s-2": True}
    service.make("s-3", version="v2")
    service.cycle()
    assert service.waits() == {"s-3": "QuotaExceeded"}, "one that replaces nobody waits like anybody"


async def test_what_a_leaving_replica_frees_is_not_given_to_another_before_its_successor_has_it():
    service = Service(nodes=3, nominal=8)
    service.start("r-1", "r-2")
    service.make("s-1", version="v2")
    service.cycle()
    service.lift()
    job = service.hall.job(gpus=4)
    service.hall.settle(job)
    service.leave("r-1")
    service.cycle()
    service.gone("r-1")
    service.cycle()
    assert not service.hall.admitted(job)
    assert service.hall.used == 8


async def test_a_roll_out_to_larger_replicas_asks_for_the_quota_of_all_of_it():
    service = Service(nodes=2, nominal=8)
    service.start("r-1", "r-2")
    service.make("s-1", version="v2", gpus=6)
    service.cycle()
    assert service.waits() == {"s-1": "QuotaExceeded"}


async def test_a_roll_out_to_another_model_asks_for_the_quota_of_that():
    service = Service(nodes=2, nominal=8)
    service.hall.node("a100", metadata={"labels": {"nvidia.com/gpu.product": "A100"}})
    service.start("r-1", "r-2")
    service.make("s-1", version="v2", spec=gate_affinity("A100"))
    service.cycle()
    assert service.lift() == set()
    assert set(service.waits()) == {"s-1"}


async def test_a_roll_out_without_room_in_the_hall_waits_and_ends_nobody():
    service = Service(nodes=1, nominal=8)
    service.start("r-1", "r-2")
    service.make("s-1", version="v2")
    service.cycle()
    assert service.waits() == {"s-1": "NoRoom"}
    service.gone("r-1")
    service.cycle()
    assert service.lift() == {"s-1"}
    assert service.hall.used == 8


async def test_one_that_takes_over_quota_and_is_given_up_leaves_nothing_behind():
    service = Service(nodes=1, nominal=8)
    service.start("r-1", "r-2")
    service.make("s-1", version="v2")
    service.cycle()
    service.gone("s-1")
    service.make("t-1", version="v3")
    service.cycle()
    assert service.waits() == {"t-1": "NoRoom"}
    service.gone("r-2")
    service.gone("t-1")
    service.make("r-3")
    service.cycle()
    assert service.lift() == {"r-3"}
    assert service.hall.used == 8


async def test_a_new_leader_in_the_middle_of_a_roll_out_ends_with_the_same():
    service = Service(nodes=2, nominal=8)
    service.start("r-1", "r-2")
    service.make("s-1", version="v2")
    service.cycle()
    service.lift()
    service.bind("s-1")
    service.restart()
    assert service.hall.used == 12, "all three are there; nothing more starts until one is gone"
    service.leave("r-1")
    service.gone("r-1")
    assert service.hall.used == 8
    service.make("s-2", version="v2")
    service.cycle()
    assert service.lift() == {"s-2"}


async def test_a_service_that_lacks_quota_already_gets_no_replica_more_for_rolling_over():
    service = Service(nodes=3, nominal=8)
    service.start("r-1", "r-2")
    service.make("r-3")
    service.make("s-1", version="v2")
    service.cycle()
    assert service.lift() == {"s-1"}
    service.bind("s-1")
    service.make("s-2", version="v2")
    service.cycle()
    assert service.lift() == set()
    assert service.held("r-3") is None
