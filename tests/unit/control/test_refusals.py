"""What is kept of a refusal, for how long, and that nothing of it outlives what it speaks of."""

from __future__ import annotations

from typing import Any

import pytest

from datahall.control.actions import Action, Create
from datahall.control.dispatch import JOB, SERVICE
from datahall.control.reconcilers import Reconcilers
from datahall.control.refusals import FIRST_SECONDS, LONGEST_SECONDS, Refusals
from datahall.control.training.seen import Refusal
from datahall.control.workqueue import Key, Lane
from datahall.kube import ForbiddenError
from datahall.kube.resources import PODS
from tests.unit.control.hall import Hall, Json

DIGITS = Key(SERVICE, "team-a", "digits")
FULL = Refusal("exceeded quota", final=False)


def kept(refusals: Refusals, *, times: int, uid: str = "a", generation: int = 1) -> float:
    """Refused so many times, each when the last was tried again; when the last one runs out."""
    now = 0.0
    for _ in range(times):
        refusals.keep(DIGITS, uid=uid, generation=generation, refusal=FULL, now=now)
        standing = refusals.standing(DIGITS, uid=uid, generation=generation, now=now)
        assert standing is not None
        now += standing[1]
    return now


def test_each_refusal_stands_twice_as_long_as_the_one_before_up_to_a_limit():
    assert kept(Refusals(), times=1) == FIRST_SECONDS
    assert kept(Refusals(), times=3) == 7 * FIRST_SECONDS
    assert kept(Refusals(), times=9) - kept(Refusals(), times=8) == LONGEST_SECONDS


def test_a_refusal_that_has_run_out_is_tried_again():
    refusals = Refusals()
    end = kept(refusals, times=1)
    assert refusals.standing(DIGITS, uid="a", generation=1, now=end - 0.1) == (FULL, pytest.approx(0.1))
    assert refusals.standing(DIGITS, uid="a", generation=1, now=end) is None


@pytest.mark.parametrize(("uid", "generation"), [("b", 1), ("a", 2)], ids=["another object", "another spec"])
def test_a_refusal_does_not_speak_of_another_object_or_spec(uid, generation):
    refusals = Refusals()
    kept(refusals, times=4)
    assert refusals.standing(DIGITS, uid=uid, generation=generation, now=0.0) is None
    assert len(refusals) == 0
    assert kept(refusals, times=1, uid=uid, generation=generation) == FIRST_SECONDS


# ---- in the reconcilers


class Server:
    """An API server that refuses children for as long as it is told to."""

    def __init__(self) -> None:
        self.refuses = True
        self.made: list[str] = []
        self.status: Json = {}

    async def write_status(self, *_: Any, after: Json, **__: Any) -> None:
        self.status = after

    async def run(self, action: Action) -> None:
        if self.refuses and not (isinstance(action, Create) and action.resource != PODS):
            raise ForbiddenError("exceeded quota", status=403)
        self.made.append(action.resource.kind)


class Quiet:
    def tell(self, *_: Any) -> None:
        pass


def served(hall: Hall) -> tuple[Reconcilers, Server, Json]:
    """A service whose children are refused."""
    server = Server()
    played: Any = server
    quiet: Any = Quiet()
    hall.reconcilers._executor, hall.reconcilers._recorder = played, quiet
    body = {
        "metadata": hall.meta("digits"),
        "spec": {"queue": "team-a", "model": {"uri": "pvc://models/x"}, "resources": {"gpus": 0}},
    }
    hall.tables.services.put(body)
    return hall.reconcilers, server, body


async def test_nothing_is_kept_of_a_service_that_is_deleted():
    hall = Hall()
    reconcilers, _, body = served(hall)
    await reconcilers.reconcile(DIGITS)
    assert len(reconcilers._refusals) == 1
    hall.tables.services.remove("team-a", "digits", body["metadata"]["uid"])
    await reconcilers.reconcile(DIGITS)
    assert len(reconcilers._refusals) == 0


async def test_nothing_is_kept_once_the_children_could_be_made(monkeypatch):
    hall = Hall()
    reconcilers, server, _ = served(hall)
    await reconcilers.reconcile(DIGITS)
    assert len(reconcilers._refusals) == 1
    server.refuses = False
    monkeypatch.setattr("datahall.control.reconcilers._loop_time", lambda: float("inf"))
    await reconcilers.reconcile(DIGITS)
    assert "Deployment" in server.made
    assert len(reconcilers._refusals) == 0


async def test_nothing_is_kept_of_a_job_that_is_deleted_while_it_is_refused():
    hall = Hall()
    reconcilers, server, _ = served(hall)
    key = Key(JOB, "team-a", "digits")
    job = hall.job(workers=1, places=True)
    await reconcilers.reconcile(key)
    hall.change_job(job, status=server.status)
    await reconcilers.reconcile(key, Lane.MAKE)
    assert len(reconcilers._refusals) == 1
    hall.delete_job(job)
    await reconcilers.reconcile(key)
    assert len(reconcilers._refusals) == 0
