"""The training loop that every recipe shares."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from variants.training.batch import Batch
from variants.training.checkpoint import Checkpoint, Stateful
from variants.training.early_stop import EarlyStop
from variants.training.model import accuracy
from variants.training.recipe import Job
from variants.training.rows import Rows
from variants.training.settings import FitSettings

Loss = Callable[[nn.Module, Batch], Tensor]
"""Runs the module on a batch and returns the scalar to minimise."""


def cross_entropy(label_smoothing: float = 0.0) -> Loss:
    """Return the usual loss of a classifier; targets may be labels int64 [n] or shares float32 [n, k]."""

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        logits: Tensor = module(*batch.inputs)
        return nn.functional.cross_entropy(logits.float(), batch.targets, label_smoothing=label_smoothing)

    return loss


def fit(
    module: nn.Module,
    job: Job,
    settings: FitSettings,
    *,
    loss: Loss | None = None,
    rows: Rows | None = None,
    after_step: Callable[[float], None] | None = None,
    also: nn.Module | None = None,
) -> None:
    """Train the module in place and enter into the job what was measured and how many labels were read.

    `loss` defaults to `cross_entropy`. `rows` are learnt from in place of the labelled ones, by losses that read no
    label; then nothing is validated. `after_step` is called with the share of steps done, in (0, 1]. `also` is trained
    alongside (a projection that is thrown away, say). Where the job is sparse, weights that are zero stay zero. Raises
    `FloatingPointError` where the loss is no number.
    """
    if settings.epochs:
        _Fit(module, job, settings, loss, rows, after_step, also).run()
    if rows is None:
        job.measures["validation_accuracy"] = accuracy(module, job.data.validation)


class _Fit:
    """One run of the loop."""

    def __init__(
        self,
        module: nn.Module,
        job: Job,
        settings: FitSettings,
        loss: Loss | None,
        rows: Rows | None,
        after_step: Callable[[float], None] | None,
        also: nn.Module | None,
    ) -> None:
        self._module = module
        self._job = job
        self._settings = settings
        self._loss = loss or cross_entropy(settings.label_smoothing)
        self._validates = rows is None
        self._rows = job.data.train if rows is None else rows
        self._after_step = after_step
        self._parts = nn.ModuleList([module] if also is None else [module, also])
        self._optimizer = settings.optimizer_for(self._parts)
        self._steps_of_epoch = -(-len(self._rows) // settings.batch)
        self._steps = settings.epochs * self._steps_of_epoch
        self._rates = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: settings.share_of_rate(step / self._steps)
        )
        self._generator = torch.Generator().manual_seed(job.run.seed)
        self._zeros = zeros_of(module) if job.sparse else []

    def run(self) -> None:
        stop = EarlyStop(self._settings.patience if self._validates else None)
        parts: dict[str, Stateful] = {
            "modules": self._parts,
            "optimizer": self._optimizer,
            "rates": self._rates,
            "stop": stop,
        }
        key = f"{self._settings}, {len(self._rows)} rows, seed {self._job.run.seed}"
        checkpoint = Checkpoint(self._job.next_checkpoint(), key, parts, self._generator)
        epoch = checkpoint.restore()
        while epoch < self._settings.epochs and not stop.is_over:
            self._epoch(epoch)
            epoch += 1
            if self._validates and self._settings.patience is not None:
                stop.see(accuracy(self._module, self._job.data.validation), self._module)
            checkpoint.keep(epoch)
        stop.restore(self._module)
        self._module.eval()
        self._job.measures["epochs"] = self._job.measures.get("epochs", 0.0) + epoch
        if self._validates:
            self._job.labelled_rows = max(self._job.labelled_rows, len(self._rows))

    def _epoch(self, epoch: int) -> None:
        self._parts.train()
        total = 0.0
        for step, chosen in enumerate(self._rows.batches(self._settings.batch, self._generator), start=1):
            total += self._step(chosen) * len(chosen)
            done = (epoch * self._steps_of_epoch + step) / self._steps
            if self._after_step is not None:
                self._after_step(done)
            self._job.progress(done)
        if not math.isfinite(total):
            raise FloatingPointError(
                f"the loss is no number after {epoch + 1} epochs: choose a rate below {self._settings.rate:g}"
            )
        self._job.measures["training_loss"] = total / len(self._rows)

    def _step(self, chosen: Tensor) -> float:
        part = self._rows.take(chosen)
        batch = Batch(part.inputs, part.labels, chosen)
        if self._settings.augmentation is not None:
            batch = self._settings.augmentation(batch, self._generator)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._settings.bfloat16):
            value = self._loss(self._module, batch)
        self._optimizer.zero_grad()
        value.backward()
        if self._settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._parts.parameters(), self._settings.clip_norm)
        self._optimizer.step()
        self._rates.step()
        keep_zero(self._zeros)
        return float(value.detach())


def zeros_of(module: nn.Module) -> list[tuple[nn.Parameter, Tensor]]:
    """Return the matrices and kernels that have zeros, each with a tensor of its shape: 0.0 there, 1.0 elsewhere."""
    weights = [weight for weight in module.parameters() if weight.dim() > 1]
    return [(weight, (weight != 0).to(weight.dtype)) for weight in weights if not bool(weight.all())]


def keep_zero(zeros: list[tuple[nn.Parameter, Tensor]]) -> None:
    """Set to zero again what an optimizer moved away from it."""
    with torch.no_grad():
        for weight, kept in zeros:
            weight.mul_(kept)
