"""The tasks, by the names that specs use."""

from __future__ import annotations

from datahall_trainer.config import JobConfig
from datahall_trainer.tasks.base import Task
from datahall_trainer.tasks.image_classification import ImageClassification
from datahall_trainer.tasks.text_classification import TextClassification

__all__ = ["Task", "build"]


def build(config: JobConfig, *, local_world_size: int) -> Task:
    """Reads data and model of a run.

    Raises:
        BadInput: they can never work.
    """
    if config.task == "ImageClassification":
        return ImageClassification(config, local_world_size=local_world_size)
    return TextClassification(config)
