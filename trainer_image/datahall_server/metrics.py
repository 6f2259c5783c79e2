"""What `GET /metrics` tells, each in its own registry so that two servers in one test process do not meet.

`route` is the pattern of the path (`/v2/models/{model}/infer`), never the path itself: a client cannot grow the
label's values.
"""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

_LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256)

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The metrics of one server. Names and meanings are in README.md and are kept."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which nobody reads
        self.registry = CollectorRegistry()
        prefix = "datahall_server_"
        self.requests = Counter(
            prefix + "requests_total",
            "Requests answered, by route and HTTP status; 499: the client hung up before its answer.",
            ["route", "code"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            prefix + "request_seconds",
            "Seconds from a request's headers to its answer, by route.",
            ["route"],
            buckets=_LATENCY,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            prefix + "requests_in_flight", "Requests begun and not yet answered.", registry=self.registry
        )
        self.queue_depth = Gauge(
            prefix + "queue_depth", "Instances waiting for a batch.", registry=self.registry
        )
        self.queue_seconds = Histogram(
            prefix + "queue_seconds",
            "Seconds an instance waited before its batch was sent to the engine.",
            buckets=_LATENCY,
            registry=self.registry,
        )
        self.batch_size = Histogram(
            prefix + "batch_size", "Instances computed together.", buckets=_BATCH, registry=self.registry
        )
        self.engine_seconds = Histogram(
            prefix + "engine_seconds",
            "Seconds the engine took for a batch: decoding, forward pass and softmax.",
            buckets=_LATENCY,
            registry=self.registry,
        )
        self.expired = Counter(
            prefix + "expired_instances_total",
            "Instances dropped uncomputed: their deadline passed, or their client hung up.",
            registry=self.registry,
        )
        self.ready = Gauge(prefix + "ready", "1 while GET /ready answers 200.", registry=self.registry)
        self.model_info = Gauge(
            prefix + "model_info",
            "1; the labels say which model is served and where it runs.",
            ["name", "namespace", "task", "digest", "device"],
            registry=self.registry,
        )

    def render(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)
