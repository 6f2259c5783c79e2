from __future__ import annotations

from typing import Any

import pytest

from datahall.control.operator import Operator
from tests.unit.control.world import SETTINGS


@pytest.mark.parametrize(
    ("holder", "address"),
    [("", ""), ("operator-1/10.0.0.7:8080", "10.0.0.7:8080"), (SETTINGS.identity, "")],
    ids=["nobody", "another", "this one, before it is set up"],
)
async def test_a_standby_sends_trainers_to_the_leader_and_never_to_itself(holder, address):
    client: Any = None
    operator = Operator(client, SETTINGS)
    operator._lease.holder = holder
    assert operator._leader_address() == address
