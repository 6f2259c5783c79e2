"""What several tests of TrainingJobs say to their world."""

from __future__ import annotations

from datahall.api.reasons import Reason
from datahall.api.trainingjob import LastCheckpoint
from datahall.control.claims import Claims, Unbound
from datahall.control.training.progress import read_progress
from datahall.control.training.seen import Report, Waiting
from tests.unit.control.world import PROGRESS, World

WAITS_FOR_POD = Claims(
    unbound=(
        Unbound("data", True, 'PersistentVolumeClaim "data" is Pending: its storage class "x" binds it'),
    )
)

UNSCHEDULABLE = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/2 nodes fit",
}

QUOTA = Waiting(Reason.QUOTA_EXCEEDED, "needs 2 GPUs; queue team-a has 0 of 2 left")


def report(
    world: World, step: int, *, generation: int | None = None, checkpoint: int | None = None
) -> Report:
    generation = world.status.generation if generation is None else generation
    saved = None if checkpoint is None else LastCheckpoint(step=checkpoint, uri=f"pvc://models/{checkpoint}")
    return Report(generation, read_progress({**PROGRESS, "step": step}, world.now), saved)
