"""Which claims can be used: the scheduler's own rules, in words for people."""

from __future__ import annotations

from typing import Any

import pytest

from datahall.control.claims import Claims, look_up
from datahall.control.storage_views import claim_view, storage_class_view
from tests.unit.control.hall import Json

CLASSES = {"at-once": "Immediate", "with-pod": "WaitForFirstConsumer"}


def meta(name: str, **more: Any) -> Json:
    return {"name": name, "uid": name, "resourceVersion": "1", **more}


def found(phase: str = "Pending", *, annotation: str = "", **spec: Any) -> Claims:
    annotations = {"volume.beta.kubernetes.io/storage-class": annotation} if annotation else {}
    body = {
        "metadata": meta("data", namespace="team-a", annotations=annotations),
        "spec": spec,
        "status": {"phase": phase},
    }
    classes = {
        name: storage_class_view({"metadata": meta(name), "volumeBindingMode": mode})
        for name, mode in CLASSES.items()
    }
    return look_up(("data", "data"), claim=lambda _: claim_view(body), storage_class=classes.get)


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"storageClassName": "at-once"}, 'its storage class "at-once" has not made a volume yet'),
        ({"annotation": "at-once"}, 'its storage class "at-once" has not made a volume yet'),
        ({}, "it has no storage class, and waits for a volume that fits"),
        ({"storageClassName": ""}, "it has no storage class, and waits for a volume that fits"),
        ({"storageClassName": "x"}, 'its storage class "x" does not exist, and no volume fits'),
        ({"storageClassName": "with-pod", "volumeName": "v"}, 'it waits for the volume "v"'),
    ],
    ids=["immediate", "by annotation", "no class", "empty class", "unknown class", "named volume"],
)
def test_a_claim_that_no_pod_would_bind_blocks(spec, why):
    claims = found(**spec)
    assert claims.blocking
    assert [claim.sentence for claim in claims.stuck] == [f'PersistentVolumeClaim "data" is Pending: {why}']


def test_a_claim_that_waits_for_its_first_pod_does_not_block():
    claims = found(storageClassName="with-pod")
    assert not claims.blocking
    assert claims.stuck == ()
    (claim,) = claims.unbound
    assert claim.sentence.startswith('PersistentVolumeClaim "data" is Pending: ')
    assert claim.sentence.endswith('"with-pod" binds it when a pod that uses it has a node')


def test_a_claim_that_lost_its_volume_blocks_whatever_its_class():
    claims = found("Lost", storageClassName="with-pod", volumeName="v")
    assert [claim.sentence for claim in claims.stuck] == [
        'PersistentVolumeClaim "data" is Lost: its volume "v" is gone'
    ]


def test_a_bound_claim_is_nothing_to_speak_of():
    assert found("Bound", storageClassName="at-once", volumeName="v") == Claims()


def test_a_claim_that_does_not_exist_blocks():
    claims = look_up(("data", "models"), claim=lambda _: None, storage_class=lambda _: None)
    assert claims.missing == ("data", "models")
    assert claims.blocking
