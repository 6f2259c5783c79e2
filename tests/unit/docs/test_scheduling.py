"""The page on scheduling: its pictures are what the planner does today, and every reason to wait is explained."""

from __future__ import annotations

import re
from functools import cache
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.pictures import FOLDER, PICTURES
from bench.played_hall import Job, play, racks
from datahall.api.reasons import Reason
from datahall.planning import QueueState
from datahall.planning.types import Limits

drawn = cache(lambda name: PICTURES[name]())
PAGE = Path(__file__).parents[3] / "docs" / "scheduling.md"


@pytest.mark.parametrize("name", sorted(PICTURES))
def test_a_picture_is_byte_for_byte_what_a_run_of_the_planner_draws(name: str) -> None:
    assert drawn(name) == (FOLDER / name).read_text(encoding="utf-8"), (
        "the planner decides otherwise now: look whether that is meant, then `python -m bench.pictures`"
    )


def test_every_picture_there_is_is_drawn_and_shown() -> None:
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(PICTURES)
    shown = re.findall(r"\(pictures/([a-z]+\.svg)\)", PAGE.read_text(encoding="utf-8"))
    assert sorted(shown) == sorted(PICTURES)


@pytest.mark.parametrize("name", sorted(PICTURES))
def test_a_picture_is_sound_xml_and_nothing_lies_outside_it(name: str) -> None:
    root = ElementTree.fromstring(drawn(name))
    width, height = (float(root.attrib[side]) for side in ("width", "height"))
    for box in root.iter("{http://www.w3.org/2000/svg}rect"):
        x, y, w, h = (float(box.attrib[part]) for part in ("x", "y", "width", "height"))
        assert 0 <= x <= x + w <= width
        assert 0 <= y <= y + h <= height


def test_a_played_job_runs_for_as_long_as_it_said_and_no_two_are_on_one_node() -> None:
    jobs = [Job(f"j{number}", "lab", 3 * number, 10 + number, 1 + number % 3) for number in range(9)]
    record = play(racks(2, 2), [QueueState("lab", {"H100": Limits(32)})], jobs, minutes=200)
    for job in jobs:
        spans = [span for span in record.spans if span.job == job.name]
        assert sum(span.end - span.start for span in spans) == job.minutes
        assert all(len(span.nodes) == job.workers for span in spans)
    for node in ("a1", "a2", "b1", "b2"):
        mine = sorted((span.start, span.freed) for span in record.spans if node in span.nodes)
        assert all(freed <= start for (_, freed), (start, _) in pairwise(mine))


def test_every_reason_to_wait_is_explained() -> None:
    table = PAGE.read_text(encoding="utf-8").partition("## Why something waits")[2]
    named = set(re.findall(r"`([A-Z]\w+)`", table))
    catalogue = list(Reason)
    waits = catalogue[catalogue.index(Reason.QUEUE_NOT_FOUND) : catalogue.index(Reason.PLACE_REFUSED) + 1]
    assert Reason.BORROWED_AWAY in waits
    assert {str(reason) for reason in waits} - named == set()
