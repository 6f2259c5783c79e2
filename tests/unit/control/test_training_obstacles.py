"""What is in a job's way besides the planner: claims, and objects of an earlier job of its name."""

from __future__ import annotations

from datahall.control.claims import Claims, Unbound
from datahall.control.training.seen import LeftBehind
from tests.unit.control.training_samples import WAITS_FOR_POD
from tests.unit.control.world import SUCCEEDED, UID, World, running


def test_a_missing_claim_is_named_and_nothing_is_made():
    world = World()
    world.claims = Claims(missing=("data", "models"))
    world.settle()
    queued = world.condition("Queued")
    assert queued.reason == "ClaimNotFound"
    assert queued.message == 'PersistentVolumeClaim "data", "models" does not exist in namespace team-a'
    assert world.created() == []
    world.claims = Claims()
    world.settle()
    assert world.names() == ["digits-g1-0", "digits-g1-1"]


def test_a_claim_that_no_pod_would_bind_is_named_and_no_pod_is_made():
    world = World()
    world.claims = Claims(unbound=(Unbound("data", False, 'PersistentVolumeClaim "data" is Pending: x'),))
    world.settle()
    queued = world.condition("Queued")
    assert (queued.reason, queued.message) == ("ClaimNotBound", 'PersistentVolumeClaim "data" is Pending: x')
    assert world.created() == []
    for _ in range(10):
        world.wait(300)
        assert world.plan().status is None
    assert world.status.restarts is None
    world.claims = Claims()
    world.settle()
    assert world.names() == ["digits-g1-0", "digits-g1-1"]


def test_a_claim_that_waits_for_its_first_pod_gets_one():
    world = World()
    world.claims = WAITS_FOR_POD
    world.settle()
    assert world.names() == ["digits-g1-0", "digits-g1-1"]


def test_pods_that_wait_for_a_volume_say_for_which():
    world = World()
    world.claims = WAITS_FOR_POD
    world.settle()
    before = world.condition("Reconciling").message
    plan = world.plan()
    assert plan.status is None, "a volume may take a moment"
    world.wait(plan.look_again_seconds)
    world.settle()
    message = world.condition("Reconciling").message
    assert message != before
    assert message == f"2 of 2 pods have no node yet: {WAITS_FOR_POD.unbound[0].sentence}"
    world.claims = Claims()
    world.run()
    world.settle()
    assert world.condition("Reconciling").status == "False"


def test_an_object_of_an_earlier_job_of_the_name_is_named_until_it_is_gone():
    world = World()
    world.left_behind = LeftBehind("Service", "digits-workers", "uid-of-the-first")
    world.settle()
    queued = world.condition("Queued")
    assert queued.reason == "NameInUse"
    assert 'Service "digits-workers" of an earlier TrainingJob' in queued.message
    assert "uid-of-the-first" in queued.message
    assert world.created() == []
    assert world.plan().look_again_seconds is None, "its deletion is an event"
    world.left_behind = None
    world.settle()
    assert world.names() == ["digits-g1-0", "digits-g1-1"]


def test_an_object_that_is_found_in_the_way_after_admission_is_named_too():
    world = World()
    world.look(crash_after=1)
    world.left_behind = LeftBehind("Service", "digits-workers", "uid-of-the-first")
    world.settle()
    assert world.condition("Reconciling").reason == "NameInUse"
    assert world.created() == []
    world.left_behind = None
    world.settle()
    assert world.names() == ["digits-g1-0", "digits-g1-1"]


def test_pods_left_by_an_earlier_job_of_the_name_go_first():
    world = running()
    world.raw["status"] = {}
    world.look()
    assert world.status.placement == ()
    assert all("deletionTimestamp" in pod["metadata"] for pod in world.pods.values())
    world.settle()
    assert world.names() == ["digits-g1-0", "digits-g1-1"]


def test_a_pod_of_an_earlier_job_of_the_name_that_still_leaves_is_named():
    world = running()
    world.raw["status"] = {}
    world.raw["metadata"]["uid"] = "second"
    world.look()
    queued = world.condition("Queued")
    assert queued.reason == "NameInUse"
    assert f'Pod "digits-g1-0" of an earlier TrainingJob of this name (uid {UID})' in queued.message
    assert "Restarting" not in world.true()


def test_an_orphan_of_an_earlier_job_of_the_name_is_named_and_stopped():
    world = running()
    world.raw["status"] = {}
    for pod in world.pods.values():
        del pod["metadata"]["ownerReferences"]
    world.look()
    message = world.condition("Queued").message
    assert message.startswith('Pod "digits-g1-0" of an earlier TrainingJob of this name is still there')
    world.settle()
    assert world.created()[-2:] == ["digits-g1-0", "digits-g1-1"]


def test_a_pod_of_an_earlier_job_is_never_taken_for_one_of_this_job():
    world = running()
    for rank in (0, 1):
        world.end(rank, 0, SUCCEEDED if rank == 0 else None)
    world.raw["metadata"]["uid"] = "second"  # as if its own pods had these names, generation and ranks
    world.look()
    assert world.true() == {"Admitted", "Running"}
    assert all("deletionTimestamp" in pod["metadata"] for pod in world.pods.values())


def test_finished_pods_left_by_an_earlier_job_of_the_name_are_fenced():
    world = running()
    for rank in (0, 1):
        world.end(rank, 1)
    world.raw["status"] = {}
    world.settle()
    assert world.status.generation == 2
    assert world.names() == ["digits-g2-0", "digits-g2-1"]
