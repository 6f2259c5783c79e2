"""From a trained model to `versions/HEX`: what the server loads by digest."""

from __future__ import annotations

from datahall_trainer import uris
from datahall_trainer.artifact import FileEntry, Manifest, write_artifact
from datahall_trainer.checkpoint import CheckpointStore, storage_error
from datahall_trainer.config import JobConfig
from datahall_trainer.tasks import Task


def export(
    config: JobConfig, task: Task, store: CheckpointStore, *, metrics: dict[str, float]
) -> tuple[str, str]:
    """Writes the model; only rank 0 calls it.

    Args:
        config: of the run.
        task: holds the trained weights.
        store: knows whether a later generation has begun.
        metrics: of the held-out data.

    Returns:
        The URI of the directory and the digest.

    Raises:
        Fenced: a later generation has begun.
        BadInput: the disk is full or cannot be written.
    """

    def manifest(files: dict[str, FileEntry]) -> Manifest:
        return Manifest(
            task=config.task,
            architecture=config.architecture,
            classes=task.classes,
            preprocess=task.preprocess,
            model=task.hyper_parameters,
            metrics=metrics,
            files=files,
        )

    versions = uris.child(config.output.uri, "versions")
    try:
        path, digest = write_artifact(
            uris.resolve(versions),
            manifest=manifest,
            weights=task.model.state_dict(),
            extra_files=task.extra_files(),
            before_publish=store.check_fence,
        )
    except OSError as error:
        doing = "writing the finished model"
        raise storage_error(error, field="output.uri", uri=config.output.uri, doing=doing) from error
    return uris.child(versions, path.name), digest
