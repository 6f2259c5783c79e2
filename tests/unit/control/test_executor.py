from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datahall.control.actions import Apply, Create, Delete, Patch
from datahall.control.executor import Executor, NameTakenError, NotLeadingError, TokenBucket, difference
from datahall.kube import AlreadyExistsError, ConflictError, ForbiddenError, InvalidError, NotFoundError
from datahall.kube.resources import PODS, TRAINING_JOBS
from tests.unit.control.world import merged

VALUES = st.recursive(
    st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.sampled_from("abcd"), VALUES, max_size=4)


@given(OBJECTS, OBJECTS)
def test_the_difference_turns_one_into_the_other(before, after):
    assert merged(before, difference(before, after)) == after


@given(OBJECTS)
def test_nothing_changed_is_an_empty_patch(value):
    assert difference(value, value) == {}


def test_only_what_changed_is_sent():
    before = {"state": "Running", "progress": {"step": 1, "epochs": 5}, "gone": 1}
    after = {"state": "Running", "progress": {"step": 2, "epochs": 5}}
    assert difference(before, after) == {"progress": {"step": 2}, "gone": None}


class Client:
    """Answers with what the test puts in, an exception or a body; remembers the calls."""

    def __init__(self, **answers):
        self.answers = answers
        self.calls = []

    def __getattr__(self, verb):
        async def call(*arguments, **options):
            self.calls.append((verb, arguments, options))
            answer = self.answers[verb]
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call


def pod(owner="u", name="p", **metadata):
    references = [{"kind": "TrainingJob", "name": "digits", "uid": owner}]
    return {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "a", "uid": "pu", "ownerReferences": references, **metadata},
    }


def executor(client, *, leading=True):
    saw, gone = [], []
    made = Executor(
        client,
        leading=lambda: leading,
        writes_per_second=1000,
        saw=lambda resource, body: saw.append(body),
        gone=lambda *what: gone.append(what[1:]),
    )
    return made, saw, gone


async def test_nothing_is_written_by_who_does_not_lead():
    client = Client()
    made, _, _ = executor(client, leading=False)
    actions = (Create(PODS, pod()), Apply(PODS, pod()), Delete(PODS, "a", "p", "u"))
    for action in actions:
        with pytest.raises(NotLeadingError):
            await made.run(action)
    with pytest.raises(NotLeadingError):
        await made.write_status(TRAINING_JOBS, before={}, after={}, at_version=1, meta={"name": "x"})
    assert client.calls == []


async def test_what_is_created_is_seen_at_once():
    made, saw, _ = executor(Client(create=pod()))
    await made.run(Create(PODS, pod()))
    assert saw == [pod()]


async def test_a_pod_that_exists_and_is_ours_is_taken_in():
    made, saw, _ = executor(Client(create=AlreadyExistsError("exists"), get=pod(resourceVersion="7")))
    await made.run(Create(PODS, pod()))
    assert saw == [pod(resourceVersion="7")]


async def test_a_foreign_object_of_the_name_is_named_and_not_taken():
    foreign = {"kind": "Pod", "metadata": {"name": "p", "namespace": "a", "uid": "f"}}
    made, saw, _ = executor(Client(create=AlreadyExistsError("exists"), get=foreign))
    with pytest.raises(NameTakenError, match="Pod p exists and is not ours"):
        await made.run(Create(PODS, pod()))
    assert saw == []


async def test_a_child_of_an_earlier_job_of_the_name_is_waited_for():
    made, saw, _ = executor(Client(create=AlreadyExistsError("exists"), get=pod(owner="earlier")))
    with pytest.raises(ConflictError, match="not collected yet") as caught:
        await made.run(Create(PODS, pod()))
    assert not isinstance(caught.value, NameTakenError)
    assert saw == [pod(owner="earlier")], "the next look tells of it"


@pytest.mark.parametrize("answer", [NotFoundError("gone"), {"kind": "Status"}])
async def test_deleted_is_gone(answer):
    made, _, gone = executor(Client(delete=answer))
    await made.run(Delete(PODS, "a", "p", "u"))
    assert gone == [("a", "p", "u")]


@pytest.mark.parametrize("found", [pod(uid="later"), NotFoundError("gone meanwhile")], ids=["later", "gone"])
async def test_a_name_that_belongs_to_a_later_object_means_gone(found):
    made, _, gone = executor(Client(delete=ConflictError("uid precondition"), get=found))
    await made.run(Delete(PODS, "a", "p", "u"))
    assert gone == [("a", "p", "u")]


async def test_a_delete_that_met_a_conflict_is_not_taken_for_done():
    made, _, gone = executor(Client(delete=ConflictError("modified meanwhile"), get=pod(uid="u")))
    with pytest.raises(ConflictError):
        await made.run(Delete(PODS, "a", "p", "u"))
    assert gone == [], "the fence would open on a pod that still runs"


async def test_the_first_apply_takes_nothing_over_that_is_not_ours():
    foreign = {"kind": "Service", "metadata": {"name": "p", "namespace": "a", "uid": "f"}}
    client = Client(get=foreign, apply=pod())
    made, _, _ = executor(client)
    with pytest.raises(NameTakenError):
        await made.run(Apply(PODS, pod(), first=True))
    assert [verb for verb, _, _ in client.calls] == ["get"]
    client.answers["get"] = NotFoundError("free")
    await made.run(Apply(PODS, pod(), first=True))
    await made.run(Apply(PODS, pod()))
    assert [verb for verb, _, _ in client.calls] == ["get", "get", "apply", "apply"]


async def test_a_pod_with_grace_is_still_there():
    body = pod(deletionTimestamp="2026-11-22T16:00:00Z")
    client = Client(delete=body)
    made, saw, gone = executor(client)
    await made.run(Delete(PODS, "a", "p", "pu", grace_seconds=0))
    assert (saw, gone) == ([body], [])
    assert client.calls[0][2] == {"namespace": "a", "uid": "pu", "grace_seconds": 0}


async def test_a_status_is_written_only_over_the_version_that_was_seen():
    client = Client(merge_patch={"metadata": {}})
    made, _, _ = executor(client)
    await made.write_status(
        TRAINING_JOBS,
        before={"state": "Queued"},
        after={"state": "Running"},
        at_version=41,
        meta={"name": "digits", "namespace": "a"},
    )
    ((verb, arguments, options),) = client.calls
    assert arguments[1] == {"metadata": {"resourceVersion": "41"}, "status": {"state": "Running"}}
    assert (verb, options["subresource"]) == ("merge_patch", "status")


@pytest.mark.looptime
async def test_the_bucket_lets_a_burst_through_and_then_the_rate():
    bucket, loop = TokenBucket(10), asyncio.get_running_loop()
    started = loop.time()
    for _ in range(10):
        await bucket.take()
    assert loop.time() == started
    for _ in range(20):
        await bucket.take()
    assert loop.time() - started == pytest.approx(2, abs=0.01)


@pytest.mark.looptime
async def test_a_write_that_waited_for_its_turn_asks_again_who_leads():
    client, leads = Client(create=pod()), True
    made = Executor(
        client, leading=lambda: leads, writes_per_second=1, saw=lambda *_: None, gone=lambda *_: None
    )
    await made.run(Create(PODS, pod()))
    waits = asyncio.create_task(made.run(Create(PODS, pod())))
    await asyncio.sleep(0.5)
    leads = False
    with pytest.raises(NotLeadingError):
        await waits
    assert len(client.calls) == 1


CHANGED = {"metadata": {"name": "p", "namespace": "a", "uid": "pu", "resourceVersion": "8"}}


@pytest.mark.parametrize(
    ("answers", "seen", "left"),
    [
        ({"merge_patch": CHANGED}, [CHANGED], []),
        ({"merge_patch": NotFoundError("gone")}, [], [("a", "p", "pu")]),
        ({"merge_patch": ConflictError("changed"), "get": CHANGED}, [CHANGED], []),
        ({"merge_patch": ConflictError("changed"), "get": NotFoundError("gone")}, [], [("a", "p", "pu")]),
    ],
    ids=["done", "gone", "changed by others", "changed and gone"],
)
async def test_a_patch_of_what_others_made_ends_with_its_present_state_known(answers, seen, left):
    client = Client(**answers)
    made, saw, gone = executor(client)
    await made.run(Patch(PODS, "a", "p", "pu", {"metadata": {"resourceVersion": "7"}}))
    assert (saw, gone) == (seen, left)
    assert client.calls[0][1][1] == {"metadata": {"resourceVersion": "7"}}


@pytest.mark.parametrize("error", [InvalidError("only additions"), ForbiddenError("no")])
async def test_a_patch_that_is_refused_is_told(error):
    made, _, _ = executor(Client(merge_patch=error))
    with pytest.raises(type(error)):
        await made.run(Patch(PODS, "a", "p", "pu", {}))
