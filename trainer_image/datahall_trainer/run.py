"""One rank of one run, from its environment to its result."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from collections.abc import Mapping

import torch

from datahall_trainer import config as configuration
from datahall_trainer import tasks, termination
from datahall_trainer.checkpoint import CheckpointStore
from datahall_trainer.distributed import choose_device, collective_timeout_seconds, join
from datahall_trainer.errors import BadInput
from datahall_trainer.export import export
from datahall_trainer.interrupt import Interrupt
from datahall_trainer.loop import Loop
from datahall_trainer.place import Place
from datahall_trainer.report import Reporter

_log = logging.getLogger(__name__)


def run(place: Place, environment: Mapping[str, str], interrupt: Interrupt) -> None:
    """Trains, exports, and writes the termination message of a success.

    Everything that can be found wrong without the other ranks is found before they are waited for: so every
    rank finds it, and says the same sentence.

    Raises:
        TrainerError: see `errors`.
    """
    text = environment.get("DATAHALL_JOB_CONFIG")
    config = configuration.parse(text)
    if config.training.batch_size < place.world_size:
        raise BadInput(
            f"training.batchSize: {config.training.batch_size} samples cannot be shared by {place.world_size} ranks; "
            "it must be at least their number"
        )
    _be_deterministic(config.training.seed)
    device = choose_device(place, environment)
    task = tasks.build(config, local_world_size=place.local_world_size)
    interrupt.check()
    _log.info(
        "%s: %d samples to train on, %d held out, %d classes, %d parameters",
        config.architecture,
        len(task.train_labels),
        len(task.validation_labels),
        len(task.classes),
        sum(parameter.numel() for parameter in task.model.parameters()),
    )
    group = join(place, device, timeout_seconds=collective_timeout_seconds(), check=interrupt.check)
    fingerprint = hashlib.sha256(f"{text}\0{task.fingerprint()}".encode()).hexdigest()
    if len(set(group.gather_objects(fingerprint))) > 1:
        raise BadInput(
            f"data.train: {config.data.train}: the ranks do not see the same data or configuration"
        )
    store = CheckpointStore(
        config.output.uri, config.job.uid, generation=place.generation, keep=config.checkpoint.keep
    )
    reporter = Reporter(
        environment.get("DATAHALL_REPORT_URL") if group.rank == 0 else None,
        environment.get("DATAHALL_TOKEN_FILE"),
        uid=config.job.uid,
        generation=place.generation,
    )
    try:
        group.on_first(store.take_over)
        loop = Loop(config, task, group, store, reporter, stop_requested=lambda: interrupt.requested)
        loop.run()
        metrics = {name.removeprefix("validation_"): value for name, value in loop.validation_metrics.items()}
        uri, digest = group.on_first(lambda: export(config, task, store, metrics=metrics))
        progress, checkpoint = loop.messages()
        if group.rank == 0:
            reporter.send(progress, checkpoint, urgent=True)
    finally:
        reporter.close()
    if group.rank == 0:
        _log.info("model %s %s", uri, digest)
        termination.succeeded(uri=uri, digest=digest, progress=progress, checkpoint=checkpoint)
        sys.stdout.write(f"held-out accuracy: {100 * metrics['accuracy']:.1f} %\n")
        sys.stdout.flush()
    group.leave()


def _be_deterministic(seed: int) -> None:
    """Same bits from the same run: fixed algorithms, fixed number of threads, seeded generators."""
    # One thread per rank unless told otherwise: how a sum is cut over threads shows in its last bits.
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    torch.manual_seed(seed)
    # On a GPU some operations have no deterministic form; there it warns, here on the CPU it would raise.
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    # Part of that mode, to show the use of memory that nobody wrote; it costs time and changes no result.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
