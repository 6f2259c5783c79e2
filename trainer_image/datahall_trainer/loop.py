"""The training loop: steps, validation after each epoch, checkpoints, an orderly stop at any step boundary.

The state of a run is a number of steps done and a number of epochs validated; everything else that decides the
next step is either a pure function of those (order of samples, augmentation, learning rate) or in the
checkpoint (weights, optimizer, loss scale, random generators). So an interrupted run ends with the same bits.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datahall_kernels import cross_entropy
from datahall_trainer import kernels, metrics
from datahall_trainer.checkpoint import CheckpointStore, Saved
from datahall_trainer.config import JobConfig
from datahall_trainer.data.sampler import Indices, Sampler, shard
from datahall_trainer.distributed import Group
from datahall_trainer.errors import BadInput, Interrupted
from datahall_trainer.gradients import Gradients
from datahall_trainer.precision import Precision
from datahall_trainer.progress import Progress
from datahall_trainer.report import Reporter
from datahall_trainer.schedule import adamw, learning_rate
from datahall_trainer.tasks import Task

_MAX_GRADIENT_NORM = 1.0
_VALIDATION_BATCH = 128
_LOG_INTERVAL_SECONDS = 5.0
# On a GPU, to read a loss is to wait for it, so it is read only now and then.
_STEPS_BETWEEN_READS = {"cpu": 1, "cuda": 10}
_log = logging.getLogger(__name__)


class Loop:
    """One run on one rank, in step with the others."""

    def __init__(
        self,
        config: JobConfig,
        task: Task,
        group: Group,
        store: CheckpointStore,
        reporter: Reporter,
        *,
        stop_requested: Callable[[], bool],
    ) -> None:
        """Puts the model on the device and lays out gradients and optimizer.

        Raises:
            BadInput: the batch, the data or the precision does not fit the gang.
        """
        training = config.training
        self._config = config
        self._task = task
        self._group = group
        self._store = store
        self._reporter = reporter
        self._stop_requested = stop_requested
        self._precision = Precision(training.precision, group.device)
        self._labels = task.train_labels
        self._sampler = Sampler(
            len(self._labels),
            batch_size=training.batch_size,
            seed=training.seed,
            lengths=task.train_lengths,
        )
        if self._sampler.batch_size < group.world_size:
            raise BadInput(
                f"data.train: {len(self._labels)} samples to train on are fewer than the {group.world_size} ranks"
            )
        self._total_steps = training.epochs * self._sampler.steps_per_epoch
        if training.max_steps is not None:
            self._total_steps = min(self._total_steps, training.max_steps)
        task.model.to(group.device)
        self._optimizer = adamw(
            task.model,
            learning_rate=training.learning_rate_value,
            weight_decay=training.weight_decay_value,
            max_norm=_MAX_GRADIENT_NORM,
        )
        self._gradients = Gradients([p for p in task.model.parameters() if p.requires_grad], group)
        self._progress = Progress(
            total_steps=self._total_steps,
            epochs=training.epochs,
            steps_per_epoch=self._sampler.steps_per_epoch,
            batch_size=self._sampler.batch_size,
            device=group.device.type,
        )
        self._step = 0
        self._validated_epochs = 0
        self._saved: Saved | None = None
        self._read_every = _STEPS_BETWEEN_READS[group.device.type]
        self._loss_sum = torch.zeros((), device=group.device)
        self._bad_step = torch.full((), -1, dtype=torch.int64, device=group.device)
        self._losses_unread = 0

    def run(self) -> None:
        """Trains to the end, from the newest valid checkpoint if there is one.

        Raises:
            Interrupted: SIGTERM reached some rank; a checkpoint is saved.
            BadInput: the loss is no number any more, or the disk is full.
            PeerLost: another rank went away.
        """
        self._resume()
        self._progress.start(self._step)
        last_log = time.monotonic()
        per_epoch = self._sampler.steps_per_epoch
        while True:
            at_end = self._step >= self._total_steps
            epochs_done = math.ceil(self._step / per_epoch) if at_end else self._step // per_epoch
            if epochs_done > self._validated_epochs:
                self._validate(epochs_done)
                self._progress.start(self._step)
            if at_end:
                break
            stop = self._train_step()
            if stop is not None:
                self._checkpoint()
                raise Interrupted(
                    f"SIGTERM at rank {stop}: the checkpoint of step {self._step} of {self._total_steps} is saved"
                )
            if self._step % self._config.checkpoint.every_steps == 0 or self._step == self._total_steps:
                self._checkpoint()
                self._progress.start(self._step)
            if time.monotonic() - last_log >= _LOG_INTERVAL_SECONDS:
                last_log = time.monotonic()
                if self._group.rank == 0:
                    _log.info("%s", self._progress.to_line())
            self._report()

    @property
    def validation_metrics(self) -> dict[str, float]:
        """Of the last validation."""
        return self._progress.validation

    def messages(self) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """Progress and newest checkpoint, as the contract wants them."""
        return self._progress.to_message(), self._saved.to_message() if self._saved else None

    def _report(self, *, urgent: bool = False) -> None:
        if self._group.rank == 0 and self._progress.known:
            self._progress.device = kernels.describe(self._group.device.type)
            self._reporter.send(*self.messages(), urgent=urgent)

    def _train_step(self) -> int | None:
        """One optimizer step; returns the rank that was asked to stop, if one was."""
        training = self._config.training
        epoch, step_in_epoch = divmod(self._step, self._sampler.steps_per_epoch)
        batch = self._sampler.batch(epoch, step_in_epoch)
        own = shard(batch, self._group.rank, self._group.world_size)
        self._task.model.train()
        self._gradients.zero()
        with self._precision.autocast():
            logits = self._task.train_logits(own, epoch=epoch, device=self._group.device)
        labels = self._labels[torch.from_numpy(own)].to(self._group.device)
        # A sum over the own samples by the size of the whole batch: summed over ranks it is the batch's mean.
        loss = cross_entropy(logits, labels, reduction="sum") / len(batch)
        self._precision.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._gradients.finish()
        stop = self._exchange(loss.detach())
        rate = learning_rate(
            self._step,
            total_steps=self._total_steps,
            peak=training.learning_rate_value,
            warmup_fraction=training.warmup_fraction,
        )
        for parameter_group in self._optimizer.param_groups:
            parameter_group["lr"] = rate
        self._precision.step(self._optimizer)
        self._step += 1
        return stop

    def _exchange(self, loss: Tensor) -> int | None:
        """What all ranks must know at the end of each backward pass: stop requests and losses.

        Raises:
            BadInput: some rank's loss is not finite; on a CPU before it can reach the weights.
        """
        self._loss_sum += loss
        broken = ~torch.isfinite(loss) & (self._bad_step < 0)
        self._bad_step = torch.where(broken, torch.full_like(self._bad_step, self._step + 1), self._bad_step)
        self._losses_unread += 1
        stop = float(self._stop_requested())
        done = self._step + 1
        read = (
            done % self._read_every == 0
            or done % self._config.checkpoint.every_steps == 0
            or done % self._sampler.steps_per_epoch == 0
            or done == self._total_steps
        )
        own = [stop, self._bad_step.item(), self._loss_sum.item()] if read else [stop, -1.0, 0.0]
        everyone = self._group.exchange(own)
        stops = everyone[:, 0].nonzero()
        bad = everyone[:, 1]
        if (bad >= 0).any():
            step = int(bad[bad >= 0].min())
            raise BadInput(
                f"training: the loss is not a finite number at step {step} of {self._total_steps}; "
                "a lower training.learningRate or cleaner data may help"
            )
        mean = everyone[:, 2].sum().item() / self._losses_unread
        self._progress.advance(mean if read else None)
        if read:
            self._loss_sum.zero_()
            self._losses_unread = 0
        return int(stops[0]) if len(stops) else None

    def _validate(self, epochs_done: int) -> None:
        labels = self._task.validation_labels
        logits = self._predict(labels)
        scores = metrics.classification(logits, labels)
        if not math.isfinite(scores["loss"]):
            raise BadInput(
                f"training: the loss on held-out data is not a finite number after step {self._step}; "
                "a lower training.learningRate may help"
            )
        self._progress.validation = {f"validation_{name}": value for name, value in scores.items()}
        self._validated_epochs = epochs_done
        if self._group.rank == 0:
            text = " ".join(f"{name}={value:.4f}" for name, value in scores.items())
            _log.info("epoch %d/%d held out: %s", epochs_done, self._config.training.epochs, text)
        self._report(urgent=True)

    def _predict(self, labels: Tensor) -> Tensor:
        """Logits of all held-out samples in their order, float32 [N, classes], on every rank."""
        order: Indices = np.arange(len(labels))
        if self._task.validation_lengths is not None:
            order = np.argsort(np.asarray(self._task.validation_lengths), kind="stable")
        own = shard(order, self._group.rank, self._group.world_size)
        longest = -(-len(order) // self._group.world_size)
        found = torch.zeros(longest, len(self._task.classes))
        self._task.model.eval()
        with torch.no_grad():
            for start in range(0, len(own), _VALIDATION_BATCH):
                part = own[start : start + _VALIDATION_BATCH]
                with self._precision.autocast():
                    logits = self._task.validation_logits(part, device=self._group.device)
                found[start : start + len(part)] = logits.float().cpu()
        everyone = self._group.gather(found)
        result = torch.empty(len(order), found.shape[1])
        for rank, rows in enumerate(everyone):
            indices = torch.from_numpy(shard(order, rank, self._group.world_size))
            result[indices] = rows[: len(indices)]
        return result

    def _checkpoint(self) -> None:
        generators = self._group.gather_objects(_random_states(self._group.device))

        def save() -> Saved:
            state = {
                "step": self._step,
                "validated_epochs": self._validated_epochs,
                "validation": self._progress.validation,
                "model": self._task.model.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "precision": self._precision.state_dict(),
                "random": generators,
                "threads": torch.get_num_threads(),
            }
            return self._store.save(self._step, state, world_size=self._group.world_size)

        began = time.monotonic()
        self._saved = self._group.on_first(save)
        if self._group.rank == 0:
            seconds = time.monotonic() - began
            _log.info("checkpoint of step %d: %d bytes in %.2f s", self._step, self._saved.bytes, seconds)
        self._report(urgent=True)

    def _resume(self) -> None:
        self._saved = self._group.on_first(self._store.newest_valid)
        if self._saved is None:
            return
        state = self._store.load(self._saved)
        self._step = state["step"]
        self._validated_epochs = state["validated_epochs"]
        self._progress.validation = state["validation"]
        self._task.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._precision.load_state_dict(state["precision"])
        if len(state["random"]) != self._group.world_size:
            _log.warning(
                "the checkpoint is of %d ranks and this gang has %d: the run goes on, but not with the same bits",
                len(state["random"]),
                self._group.world_size,
            )
        _set_random_states(state["random"][self._group.rank % len(state["random"])], self._group.device)
        if state["threads"] != torch.get_num_threads():
            _log.warning(
                "the checkpoint is of processes with %d threads, this one has %d: last bits may differ",
                state["threads"],
                torch.get_num_threads(),
            )
        if self._group.rank == 0:
            _log.info("resuming from the checkpoint of step %d of %d", self._step, self._total_steps)


def _random_states(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _set_random_states(states: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
