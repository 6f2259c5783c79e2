"""What the operator tells Prometheus about itself. Registered once per process."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from datahall.control.workqueue import Lane

_FINE = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.2,
    0.3,
    0.4,
    0.5,
    0.6,
    0.8,
    1.0,
    1.5,
    2.0,
    3.0,
    5.0,
    10.0,
    30.0,
)

LEADER = Gauge("datahall_leader", "1 while this process leads, else 0.")
QUEUE_DEPTH = Gauge("datahall_queue_depth", "Keys that are ready to be reconciled, by lane.", ["lane"])
QUEUE_OLDEST = Gauge(
    "datahall_queue_oldest_seconds", "How long the oldest of them has waited, by lane.", ["lane"]
)
for _lane in Lane:  # there from the start, so that an alert knows "none" from "unknown"
    QUEUE_DEPTH.labels(_lane)
    QUEUE_OLDEST.labels(_lane)
RECONCILES = Counter(
    "datahall_reconcile_total", "Reconciles that ended, by kind and outcome.", ["kind", "outcome"]
)
RECONCILE_SECONDS = Histogram("datahall_reconcile_seconds", "Time of one reconcile.", ["kind"], buckets=_FINE)
EVENT_TO_STATUS = Histogram(
    "datahall_event_to_status_seconds",
    "From the arrival of a change to the status write that it led to.",
    ["kind"],
    buckets=_FINE,
)
API_REQUESTS = Counter(
    "datahall_api_requests_total", "Requests to the API server.", ["verb", "resource", "code"]
)
API_SECONDS = Histogram("datahall_api_request_seconds", "Time of one request.", ["verb"], buckets=_FINE)
WATCH_EVENTS = Counter("datahall_watch_events_total", "Watch events taken in.", ["resource"])
JOBS = Gauge("datahall_jobs", "TrainingJobs, by state.", ["state"])
OBJECTS = Gauge("datahall_objects", "Objects in the store, by resource.", ["resource"])
PLANNER_SECONDS = Histogram(
    "datahall_planner_cycle_seconds", "Time of one planner cycle, API time excluded.", buckets=_FINE
)
PLANNER_DECISIONS = Counter("datahall_planner_decisions_total", "Answers of the planner.", ["decision"])
PLANNER_WAITS = Counter(
    "datahall_planner_waits_total", "Times that the planner told a job to wait, by what for.", ["reason"]
)
EVICTIONS = Counter(
    "datahall_evictions_total",
    "Runs of jobs that were told to end: Preempted (for another), Moved, Resized (to start with more workers).",
    ["reason"],
)
for _reason in ("Preempted", "Moved", "Resized"):
    EVICTIONS.labels(_reason)
JOBS_WAITING = Gauge("datahall_jobs_waiting", "TrainingJobs that wait, by what for.", ["reason"])
REPLICAS_REFUSED = Counter(
    "datahall_replicas_refused_total",
    "Replicas of services that the node chosen for them did not take, or whose gate could not be lifted.",
)
REPORTS = Counter("datahall_reports_total", "Reports of trainers, by what became of them.", ["outcome"])
QUOTA_USED = Gauge("datahall_queue_gpus_used", "GPUs held, by queue and quota entry.", ["queue", "model"])
QUOTA_NOMINAL = Gauge(
    "datahall_queue_gpus_nominal", "GPUs granted, by queue and quota entry.", ["queue", "model"]
)
QUOTA_BORROWED = Gauge(
    "datahall_queue_gpus_borrowed", "GPUs held beyond nominal, by queue and quota entry.", ["queue", "model"]
)
QUEUE_WATTS = Gauge("datahall_queue_reserved_watts", "Watts reserved at the caps of GPUs held.", ["queue"])
QUEUE_SHARE = Gauge(
    "datahall_queue_share",
    "Dominant share of the hall beyond nominal, by weight: of siblings, the smallest goes first.",
    ["queue"],
)


def forget_queue(name: str) -> None:
    """A queue is gone: so are its figures."""
    for gauge in (QUOTA_USED, QUOTA_NOMINAL, QUOTA_BORROWED, QUEUE_WATTS, QUEUE_SHARE):
        gauge.remove_by_labels({"queue": name})
