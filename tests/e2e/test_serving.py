"""A service under load: new versions and other numbers of replicas cost no request."""

import asyncio
import base64
import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from hall import Hall
from jobs import service

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

REQUESTS = 2000
CLIENTS = 4


def held_out() -> list[tuple[str, str]]:
    """(base64 of an image file, its digit), for some held-out digits."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "datahall"
    folder = Path(os.environ.get("DATAHALL_CACHE") or cache) / "examples" / "digits" / "validation"
    images = random.Random(3).sample(sorted(folder.glob("*/*.png")), 64)
    return [(base64.b64encode(image.read_bytes()).decode(), image.parent.name) for image in images]


@pytest.fixture(scope="module")
def steady(hall_up: Hall, team: str) -> str:
    hall_up.apply(service("steady", "digits", replicas={"min": 2}))
    hall_up.kubectl(
        "wait", "-n", team, "--for=condition=Ready", "inferenceservices.datahall.dev/steady", "--timeout=240s"
    )
    return str(hall_up.get("service", "steady", team)["spec"]["clusterIP"])


async def load(url: str, stop: asyncio.Event, outcomes: Counter[str]) -> None:
    """Ask one question after the other until told to stop, and at least until the quota of requests is reached."""
    samples = held_out()
    async with httpx.AsyncClient(timeout=30) as client:
        while not stop.is_set() or outcomes.total() < REQUESTS:
            image, digit = random.choice(samples)
            try:
                answer = await client.post(f"{url}/v1/classify", json={"inputs": [image]})
            except httpx.HTTPError as error:
                outcomes[type(error).__name__] += 1
                continue
            if answer.status_code != 200:
                outcomes[f"status {answer.status_code}"] += 1
            elif answer.json()["results"][0]["classes"][0]["label"] == digit:
                outcomes["right"] += 1
            else:
                outcomes["wrong"] += 1


async def test_rolling_update_under_load_fails_no_request(hall_up: Hall, team: str, steady: str) -> None:
    outcomes: Counter[str] = Counter()
    stop = asyncio.Event()
    clients = [asyncio.create_task(load(f"http://{steady}", stop, outcomes)) for _ in range(CLIENTS)]

    def generation() -> Any:
        deployment = hall_up.get("deployment", "steady", team)
        status = deployment["status"]
        done = status.get("updatedReplicas") == 2 == status.get("replicas") == status.get("availableReplicas")
        return done and status["observedGeneration"] == deployment["metadata"]["generation"] and deployment

    before = await asyncio.to_thread(hall_up.wait, "two replicas", generation)
    patch = '{"spec": {"postprocess": {"topK": 5}}}'
    await asyncio.to_thread(
        hall_up.kubectl,
        "patch",
        "inferenceservices.datahall.dev",
        "steady",
        "-n",
        team,
        "--type=merge",
        "-p",
        patch,
    )

    def rolled() -> Any:
        now = generation()
        return now and now["metadata"]["generation"] > before["metadata"]["generation"]

    await asyncio.to_thread(hall_up.wait, "rolled over", rolled, 300)
    stop.set()
    await asyncio.gather(*clients)
    failed = outcomes.total() - outcomes["right"] - outcomes["wrong"]
    assert failed == 0, outcomes
    assert outcomes.total() >= REQUESTS
    assert outcomes["right"] / outcomes.total() > 0.95

    async def classes() -> int:
        image, _ = held_out()[0]
        async with httpx.AsyncClient(timeout=30) as client:
            answer = await client.post(f"http://{steady}/v1/classify", json={"inputs": [image]})
        return len(answer.json()["results"][0]["classes"])

    # An old replica that drains answers until kube-proxy has taken it off the Service.
    deadline = time.monotonic() + 60
    while (found := await classes()) != 5:
        assert time.monotonic() < deadline, found


def test_kubectl_scale_changes_the_replicas(hall_up: Hall, team: str, steady: str) -> None:
    hall_up.kubectl("scale", "-n", team, "inferenceservices.datahall.dev/steady", "--replicas=1")

    def one() -> Any:
        found = hall_up.get("inferenceservices.datahall.dev", "steady", team)
        return found["status"].get("replicas") == 1 and found["status"].get("readyReplicas") == 1

    hall_up.wait("one replica", one)
    assert hall_up.condition("inferenceservices.datahall.dev", "steady", team, "Ready")["status"] == "True"
    hall_up.kubectl("delete", "inferenceservices.datahall.dev", "-n", team, "steady")


def test_malformed_request_gets_a_clear_error(hall_up: Hall, digits: str, team: str) -> None:
    address = hall_up.get("service", "digits", team)["spec"]["clusterIP"]
    answer = httpx.post(f"http://{address}/v1/classify", json={"inputs": ["no image"]}, timeout=30)
    assert answer.status_code in (400, 422)
    assert "inputs" in answer.json()["error"]["message"] or answer.json()["error"].get("param")
    assert httpx.get(f"http://{address}/v2/models/digits", timeout=30).json()["name"] == "digits"
