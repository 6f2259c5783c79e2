"""What a service has made: all of it, nothing twice, and as it should be when somebody changed it."""

from __future__ import annotations

import pytest

from datahall.control.actions import Plan
from datahall.kube.resources import DEPLOYMENTS, POD_DISRUPTION_BUDGETS, SERVICES
from tests.unit.control.serving_world import World, serving


def test_a_second_look_at_what_is_settled_writes_nothing():
    world = serving()
    made = world.plan()
    assert (made.status, made.actions, made.announcements, made.look_again_seconds) == (None, (), (), None)


@pytest.mark.parametrize("kind", ["Service", "Deployment", "PodDisruptionBudget"])
def test_a_child_that_somebody_deleted_is_made_again(kind):
    world = serving()
    del world.applied[kind]
    made = world.plan()
    assert [action.resource.kind for action in made.actions] == [kind]


@pytest.mark.parametrize("kind", ["Service", "PodDisruptionBudget"])
def test_writing_what_is_no_replica_does_not_make_it_unready(kind):
    world = serving()
    world.applied[kind]["metadata"]["annotations"] = {"datahall.dev/applied": "of another version"}
    world.settle()
    assert world.condition("Ready") == ("True", "Serving")
    assert world.news == ["ReplicasStarting", "Serving"]


def test_a_deployment_scaled_by_hand_is_scaled_back():
    world = serving()
    world.applied["Deployment"]["spec"]["replicas"] = 7
    made = world.plan()
    assert [action.resource for action in made.actions] == [DEPLOYMENTS]
    assert made.actions[0].body["spec"]["replicas"] == 2


def test_the_service_comes_first_so_that_its_name_is_there_early():
    made = World().plan()
    kinds = [action.resource for action in made.actions]
    assert kinds == [SERVICES, DEPLOYMENTS, POD_DISRUPTION_BUDGETS]


def test_children_go_with_their_service_and_are_found_by_its_label():
    for action in World().plan().actions:
        metadata = action.body["metadata"]
        assert metadata["ownerReferences"][0]["uid"] == "svc-1"
        assert metadata["labels"]["datahall.dev/inference-service"] == "digits"
        assert (metadata["name"], metadata["namespace"]) == ("digits", "team-a")


def test_a_service_that_is_being_deleted_is_left_alone():
    world = serving()
    world.seen["deleting"] = True
    world.edit(replicas={"min": 9})
    assert world.plan() == Plan()


def test_every_look_says_which_spec_it_speaks_of():
    world = serving()
    world.edit(timeoutSeconds=20)
    world.settle()
    assert world.status.observed_generation == 2
    assert {c.observed_generation for c in world.status.conditions} == {2}
