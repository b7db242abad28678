"""One cell from its plan to its files: train, predict every test night, count, keep. No Ray and no store here.

Files in the cell's folder:

```
lock                     held by the one process that works on the cell
checkpoint.json          and pass-NNNN.safetensors: where to continue (removed when the cell is complete)
weights.safetensors      best network by validation macro-F1
history.json             every pass
predictions/CORPUS/RECORDING.safetensors    probabilities, predicted and true stages of every epoch
outcome.json             written last: results, counts and the checksums of the files above
```
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.numpy import save

from tusp.datasets.prepared import PreparedRecording, open_prepared
from tusp.datasets.splits import corpus_of
from tusp.jobs.checkpoints import STATE, save_tensors, with_sorted_header
from tusp.jobs.cost import Meter
from tusp.jobs.fitting import Fitted, Report, fit_estimator, fit_network
from tusp.jobs.job import CellJob, Outcome
from tusp.jobs.recipes import recipe_from_settings
from tusp.models.families import from_plan
from tusp.platform.environment import capture_environment
from tusp.platform.errors import CellError, TuspError
from tusp.platform.files import atomic_path, disk_errors_named, file_lock, write_json_atomic
from tusp.platform.identity import file_sha256, fingerprint
from tusp.platform.scoring.counts import confusion
from tusp.platform.scoring.rules import RULES, rule_mask

OUTCOME: Final = "outcome.json"


def _open_nights(job: CellJob, role: str) -> list[PreparedRecording]:
    nights = []
    for entry in job.plan["corpora"]:
        for name, expected in sorted(entry[role].items()):
            recording = open_prepared(Path(job.nights[entry["name"]][name]))
            if recording.fingerprint != expected or recording.corpus != corpus_of(entry["name"]):
                raise CellError(
                    f"{recording.folder}: holds {recording.corpus}/{recording.name} {recording.fingerprint[:12]}, but "
                    f"the cell was planned with {entry['name']}/{name} {expected[:12]}; prepare the corpus again"
                )
            # A subset's results stand under the subset's name.
            nights.append(replace(recording, corpus=entry["name"]))
    return nights


def _file_name(name: str) -> str:
    safe = re.sub(r"[^\w.+-]", "_", name)
    # Two names that differ only in what a file name cannot hold stay two files.
    return safe if safe == name else f"{safe}-{fingerprint(name)[:8]}"


def _keep_prediction(job: CellJob, recording: PreparedRecording, probabilities: np.ndarray[Any, Any]) -> Path:
    path = job.folder / "predictions" / _file_name(recording.corpus) / f"{_file_name(recording.name)}.safetensors"
    content = save(
        {
            "probabilities": probabilities,
            "predicted": probabilities.argmax(axis=1).astype(np.int8),
            "true": recording.stages(),
        },
        metadata={
            "cell": job.id,
            "corpus": recording.corpus,
            "recording": recording.name,
            "subject": recording.subject,
            "first_epoch": str(recording.first_epoch),
            **({f"lights_{what}": str(at) for what, at in zip(("off", "on"), recording.lights or (), strict=False)}),
            "simulated": json.dumps(recording.simulated),
        },
    )
    with atomic_path(path) as temporary:
        temporary.write_bytes(with_sorted_header(content))
    return path


def _artefact(job: CellJob, path: Path, kind: str, recording: str | None = None) -> dict[str, Any]:
    return {
        "path": path.relative_to(job.home).as_posix(),
        "kind": kind,
        "recording": recording,
        "sha256": file_sha256(path),
        "size_bytes": path.stat().st_size,
    }


def _whole(job: CellJob) -> Outcome | None:
    """The outcome of an earlier attempt that completed the cell without being recorded, if its files still hold."""
    path = job.folder / OUTCOME
    if not path.exists():
        return None
    outcome: Outcome = json.loads(path.read_text(encoding="utf-8"))
    for artefact in outcome["artefacts"]:
        file = Path(job.home) / artefact["path"]
        if not file.is_file() or file_sha256(file) != artefact["sha256"]:
            return None
    return outcome


def _fit(
    job: CellJob,
    report: Report | None = None,
    checkpoint_seconds: float = 300,
    *,
    rank: int = 0,
    before_training: Callable[[], None] | None = None,
) -> Fitted:
    family, settings = from_plan(job.plan["model"])
    train, validation = _open_nights(job, "train"), _open_nights(job, "validation")
    try:
        if family.kind == "estimator":
            return fit_estimator(job, family, settings, train, validation)
        network = family.build(settings, seed=job.plan["seed"])
        if before_training:
            before_training()
        return fit_network(
            job,
            network,
            recipe_from_settings(job.plan["recipe"]),
            train,
            validation,
            report=report,
            checkpoint_seconds=checkpoint_seconds,
            rank=rank,
        )
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise CellError(
            f"out of memory on {job.device}: {str(error).splitlines()[0] if str(error) else 'CPU'}"
        ) from error


def _environment(job: CellJob, conditions: Mapping[str, Any]) -> dict[str, Any]:
    environment = {**capture_environment(), "device": job.device, "threads": job.threads, "workers": job.workers}
    environment |= conditions
    if job.device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(job.device)
        environment["gpu"] = {"name": properties.name, "memory_bytes": properties.total_memory}
    return environment


def run_cell(
    job: CellJob,
    *,
    report: Report | None = None,
    checkpoint_seconds: float = 300,
    before_training: Callable[[], None] | None = None,
) -> Outcome:
    """Run a cell to its end, from its last checkpoint where there is one; a complete cell is returned as it is.

    Args:
        before_training: called when a network is about to be trained, so that the job's other workers begin to follow
            (``follow_cell``). Not called where there is nothing to train together.

    Raises:
        CellError: the cell cannot be run; the reason in one line.
        UserError: the disk is full, or a file may not be read or written.
    """
    with disk_errors_named(f"cell {job.id[:12]}", Path(job.home)), file_lock(job.folder / "lock"):
        done = _whole(job)
        if done is not None:
            return done
        torch.set_num_threads(job.threads)
        devices = job.gpus if job.device.startswith("cuda") else job.threads
        meter = Meter(device=job.device, devices=devices * job.workers)
        with meter.whole():
            fitted = _fit(job, report, checkpoint_seconds, before_training=before_training)
            counts, artefacts, prediction_seconds = _judge(job, fitted, meter)
        return _complete(job, fitted, counts, artefacts, prediction_seconds, meter)


def follow_cell(job: CellJob, *, rank: int) -> None:
    """Train along in a cell that another process runs; returns when its training is over. Records nothing.

    Needs the default process group of torch.distributed, in which the process that runs the cell is the first.

    Raises:
        CellError: the cell cannot be trained.
    """
    torch.set_num_threads(job.threads)
    _fit(job, rank=rank)


def _judge(job: CellJob, fitted: Fitted, meter: Meter) -> tuple[list[dict[str, Any]], list[dict[str, Any]], float]:
    """Predict every test night: counts, kept files, seconds."""
    began = time.monotonic()
    counts, artefacts = [], []
    for recording in _open_nights(job, "test"):
        with meter.prediction(recording.n_epochs):
            probabilities = fitted.predict(recording)
        true, predicted = recording.stages(), probabilities.argmax(axis=1)
        for rule in RULES:
            mask = rule_mask(true, rule)
            counts.append(
                {
                    "corpus": recording.corpus,
                    "recording": recording.name,
                    "subject": recording.subject,
                    "rule": rule,
                    "matrix": confusion(true[mask], predicted[mask]).tolist(),
                }
            )
        path = _keep_prediction(job, recording, probabilities)
        artefacts.append(_artefact(job, path, "predictions", f"{recording.corpus}/{recording.name}"))
    return counts, artefacts, time.monotonic() - began


def _complete(
    job: CellJob,
    fitted: Fitted,
    counts: list[dict[str, Any]],
    artefacts: list[dict[str, Any]],
    prediction_seconds: float,
    meter: Meter,
) -> Outcome:
    """Write what is left to write, the outcome last, and remove the checkpoints."""
    save_tensors(job.folder / "weights.safetensors", fitted.tensors, {"cell": job.id})
    curve = [asdict(record) for record in fitted.history]
    write_json_atomic(job.folder / "history.json", curve)
    artefacts.append(_artefact(job, job.folder / "weights.safetensors", "weights"))
    artefacts.append(_artefact(job, job.folder / "history.json", "history"))
    best = fitted.history[fitted.best_pass - 1]
    outcome = {
        "result": {
            "n_parameters": fitted.n_parameters,
            "n_trainable": fitted.n_trainable,
            "training_seconds": fitted.training_seconds,
            "prediction_seconds": prediction_seconds,
            "passes": len(fitted.history),
            "best_pass": fitted.best_pass,
            "validation_macro_f1": best.validation_macro_f1,
            "validation_accuracy": best.validation_accuracy,
            "train_stage_counts": list(fitted.train_stage_counts),
            "device": job.device,
            "threads": job.threads,
            "workers": job.workers,
            "precision": fitted.conditions.get("precision"),
            "micro_batch": fitted.conditions.get("micro_batch"),
            "macs_per_epoch": fitted.macs_per_epoch,
            **meter.record(training_seconds=fitted.training_seconds, resumed=fitted.resumed_from_pass is not None),
        },
        "counts": counts,
        "curve": curve,
        "artefacts": artefacts,
        "environment": _environment(job, fitted.conditions),
        "resumed_from_pass": fitted.resumed_from_pass,
    }
    write_json_atomic(job.folder / OUTCOME, outcome)
    (job.folder / STATE).unlink(missing_ok=True)
    for checkpoint in job.folder.glob("pass-*.safetensors"):
        checkpoint.unlink(missing_ok=True)
    # Read back, so that what is recorded now equals what would be recorded after a restart.
    return json.loads((job.folder / OUTCOME).read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def reason_of(error: BaseException) -> str:
    """One line saying why a cell failed."""
    if isinstance(error, TuspError):
        return str(error)
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
