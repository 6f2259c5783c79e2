"""Whatever happens to a job and in whatever order, the rules of the gang hold (`World._create` checks them)."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from datahall.control.claims import Claims, Unbound
from datahall.control.training import plan as training
from datahall.control.training.seen import Eviction, LeftBehind
from tests.unit.control.world import SUCCEEDED, World, failed

RANKS = st.integers(0, 2)
ENDS = st.sampled_from(
    [
        (0, SUCCEEDED, {}),
        (0, None, {}),
        (1, None, {}),
        (65, failed("BadInput", "no data"), {}),
        (75, None, {}),
        (137, None, {"reason": "OOMKilled"}),
        (143, None, {}),
        (137, None, {"pod_reason": "Evicted"}),
        (143, None, {"disruption": "DeletionByPodGC"}),
    ]
)

CLAIMS = st.sampled_from(
    [
        Claims(),
        Claims(missing=("data",)),
        Claims(unbound=(Unbound("data", False, "data is Pending"),)),
        Claims(unbound=(Unbound("data", True, "data is Pending until it has a pod"),)),
    ]
)


class Life(RuleBasedStateMachine):
    """Events of a job's life, looks of the operator that may break off, and time."""

    @initialize(workers=st.integers(1, 3), restarts=st.integers(0, 2), deadline=st.sampled_from([None, 200]))
    def start(self, workers, restarts, deadline):
        self.world = World(
            workers=workers, failurePolicy={"maxRestarts": restarts}, activeDeadlineSeconds=deadline
        )
        self.finished = None

    def current(self, rank):
        """The name of a pod of the present generation, if it is there and has not ended."""
        world = self.world
        name = f"digits-g{world.status.generation}-{rank}"
        alive = name in world.pods and world.pods[name]["status"]["phase"] in ("Pending", "Running")
        return name if alive else None

    @rule(crash_after=st.none() | st.integers(0, 4))
    def look(self, crash_after):
        self.world.look(crash_after=crash_after)

    @rule(rank=RANKS)
    def pod_runs(self, rank):
        if self.current(rank):
            self.world.run(rank)

    @rule()
    def gang_runs(self):
        for rank in range(self.world.placed):
            if self.current(rank):
                self.world.run(rank)

    @rule(rank=RANKS, end=ENDS)
    def pod_ends(self, rank, end):
        if self.current(rank):
            exit_code, said, more = end
            self.world.end(rank, exit_code, said, **more)

    @rule(rank=RANKS)
    def pod_is_deleted(self, rank):
        if self.current(rank):
            self.world.delete_pod(rank)

    @rule(rank=RANKS)
    def pod_vanishes(self, rank):
        if self.current(rank):
            self.world.vanish(rank)

    @rule()
    def kubelet_confirms(self):
        self.world.reap()

    @rule(data=st.data())
    def kubelet_confirms_one(self, data):
        leaving = [n for n, p in self.world.pods.items() if "deletionTimestamp" in p["metadata"]]
        if leaving:
            self.world.reap(data.draw(st.sampled_from(leaving)))

    @rule(seconds=st.sampled_from([1, 11, 61, 150]))
    def time_passes(self, seconds):
        self.world.wait(seconds)

    @rule(suspend=st.booleans())
    def user_suspends(self, suspend):
        self.world.edit(suspend=suspend)

    @rule(room=st.booleans())
    def room_changes(self, room):
        self.world.room = room

    @rule()
    def planner_evicts(self):
        if self.world.raw is not None and self.world.status.placement:
            self.world.eviction = Eviction("team-a/urgent", 1000, "makes room")

    @rule()
    def new_leader(self):
        self.world.eviction = None

    @rule(placed=st.integers(1, 3))
    def the_next_gang_has_another_size(self, placed):
        if self.world.raw is not None and not self.world.pods and not self.world.status.placement:
            self.world.placed = min(placed, self.world.workers)

    @rule(claims=CLAIMS)
    def claims_change(self, claims):
        self.world.claims = claims

    @rule(there=st.booleans())
    def an_earlier_jobs_service_is_there(self, there):
        self.world.left_behind = LeftBehind("Service", "digits-workers", "earlier") if there else None

    @rule(rank=RANKS)
    def pod_finds_no_node(self, rank):
        if (name := self.current(rank)) and not self.world.pods[name]["spec"].get("nodeName"):
            condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "x"}
            self.world.pods[name]["status"]["conditions"] = [condition]

    @rule(lost=st.booleans(), rank=RANKS)
    def node_is_lost(self, lost, rank):
        node = f"node-{min(rank, self.world.workers - 1)}"
        self.world.lost = frozenset({node}) if lost else frozenset()

    @precondition(lambda self: self.world.raw is not None)
    @rule()
    def at_rest_a_look_changes_nothing(self):
        self.world.settle()
        plan = self.world.plan()
        assert plan.status is None
        assert plan.actions == ()

    @invariant()
    def terminal_is_final(self):
        if not hasattr(self, "world") or self.world.raw is None:
            return
        job = self.world.job
        if self.finished is None and training.terminal(job):
            self.finished = (
                job.status.state,
                job.status.generation,
                job.status.output,
                job.status.completion_time,
            )
        if self.finished is not None:
            found = (job.status.state, job.status.generation, job.status.output, job.status.completion_time)
            assert found == self.finished
            assert job.status.placement == ()

    @invariant()
    def conditions_agree(self):
        if not hasattr(self, "world") or self.world.raw is None:
            return
        true, status = self.world.true(), self.world.status
        ends = {"Succeeded", "Failed"} & true
        assert len(ends) <= 1
        if ends:
            assert true == ends
        if "Admitted" in true:
            assert len(status.placement) == status.workers == self.world.placed
            assert not {"Queued", "Suspended"} & true
        if "Running" in true:
            assert "Admitted" in true
        waits = status.waiting is not None
        assert not waits or "Queued" in true
        assert status.spread is None or status.placement
        told = 0 if status.restarts is None else status.restarts.uncounted
        assert (status.preemptions or 0) <= told
        allowed = self.world.job.spec.failure_policy.max_restarts
        assert status.restarts is None or status.restarts.counted <= allowed


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
