"""Sentences for people about places and times: which domain is too small, and when a gang would start.

Times are in UTC, as in every status; the day is named where it is not today.
"""

from __future__ import annotations

import numpy as np

from datahall.planning.backfill import Reservation
from datahall.planning.messages import counted
from datahall.planning.placing import Demand, NoPlace, Placing
from datahall.planning.topology import Domain
from datahall.planning.types import Level

_NOUNS = {Level.HOST: "node", Level.RACK: "rack", Level.BLOCK: "block", Level.HALL: "hall"}
_ON_ONE = {Level.HOST: "on one node", Level.RACK: "on one rack", Level.BLOCK: "in one block"}


def domain(place: Domain) -> str:
    """A domain for people, such as "rack 7 in block b"; a rack or block that is one node is called by the node."""
    if place.level is Level.HALL:
        return "the hall"
    if place.host is not None:
        return f"node {place.host}"
    if place.rack is None:
        return f"block {place.block}"
    return f"rack {place.rack}" + (f" in block {place.block}" if place.block else "")


def moment(at_seconds: float, now_seconds: float) -> str:
    """A point in time for people, to the minute, such as "14:20 UTC".

    Args:
        at_seconds: The time, in seconds since the epoch.
        now_seconds: The present, in seconds since the epoch.
    """
    at, now = (np.datetime64(int(seconds // 60), "m") for seconds in (at_seconds, now_seconds))
    day, clock = str(at).split("T")
    return f"{clock} UTC" if day == str(now).split("T")[0] else f"{day} {clock} UTC"


def no_place(refusal: NoPlace, need: str) -> str:
    """Why there is no place, such as "needs 8 x 8 GPUs on one rack; the best, rack 7, has room for 5 of 8 workers".

    Args:
        refusal: The numbers.
        need: What the gang needs, as `messages.demand` says it.
    """
    workers = counted(refusal.needed, "worker")
    if refusal.level is Level.HALL:
        return f"needs {need} at once; the hall has room for {refusal.hall_has} of {workers}"
    noun = _NOUNS[refusal.level]
    text = f"needs {need} {_ON_ONE[refusal.level]}"
    if refusal.spread > 1:
        return f"{text}, and it is on {refusal.spread} {noun}s since labels changed; only all of it can be moved to one"
    hall = f"the whole hall has room for {refusal.hall_has}"
    if refusal.best is None:
        return f"{text}; none of {counted(refusal.domains, noun)} has room for any"
    if refusal.spread == 1:
        return f"{text}; {domain(refusal.best)}, where it is, has room for {refusal.best_has} of {workers} more; {hall}"
    return f"{text}; the best, {domain(refusal.best)}, has room for {refusal.best_has} of {workers}; {hall}"


def not_even_alone(refusal: NoPlace, need: str) -> str:
    """Why no time can be told: it does not fit even when all running jobs have ended."""
    return f"{no_place(refusal, need)}, even once every running job has ended"


def would_start(reservation: Reservation, now_seconds: float) -> str:
    """When a gang starts that room is kept for, such as "starts at about 14:20 UTC, when team-a/x ends"."""
    if reservation.last is None:
        return "starts as soon as it is its turn"
    text = f"when {reservation.last} ends"
    if reservation.overdue:
        text = f"starts {text}, which is overdue"
    elif reservation.at_seconds is None:
        text = f"starts {text}; when that is, is not known yet"
    else:
        text = f"starts at about {moment(reservation.at_seconds, now_seconds)}, {text}"
    return text + (f" (put off {counted(reservation.slips, 'time')})" if reservation.slips else "")


def kept_for(
    reservation: Reservation, need: str, keeper: str, *, end_seconds: float | None, now_seconds: float
) -> str:
    """Why a job waits that would fit now: the room is kept for a gang ahead of it.

    Args:
        reservation: What is kept.
        need: What the job needs.
        keeper: The gang ahead.
        end_seconds: When the job would end if it started now; None if nobody knows.
        now_seconds: The present, in seconds since the epoch.
    """
    nodes = len(reservation.columns)
    kept = f"{counted(nodes, 'node')} {'is' if nodes == 1 else 'are'} kept for {keeper}, ahead of it"
    text = f"needs {need}; it would fit, but {kept}"
    if reservation.promised_seconds is None or reservation.promised_seconds <= now_seconds:
        return text
    text += f", from {moment(reservation.promised_seconds, now_seconds)} on"
    if end_seconds is None:
        return f"{text}, and nobody knows how long this one runs"
    return f"{text}, and this one would run until {moment(end_seconds, now_seconds)}"


def spread(placing: Placing, demand: Demand) -> str:
    """How a gang is spread, such as "on 3 racks of 1 block; one rack was preferred"."""
    if placing.level <= Level.RACK:
        where = _ON_ONE[placing.level]
    else:
        where = f"on {counted(placing.racks, 'rack')} of {counted(placing.blocks, 'block')}"
    if demand.level is None or placing.level <= demand.level:
        return where
    return f"{where}; one {_NOUNS[demand.level]} was preferred"
