"""A home with results that hold: prepared nights, a registered corpus, real plans, predictions and their counts.

Nothing is trained: predictions are the true stages with errors. Tests tamper with it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file
from sqlalchemy import select, update

from tusp.datasets.prepared import SAMPLES_PER_EPOCH, PreparedChannel, PreparedRecording, write_prepared
from tusp.jobs.plan import CellTask, CorpusNights, Request, make_plan
from tusp.jobs.recipes import recipe_called
from tusp.platform import processes
from tusp.platform.files import write_json_atomic
from tusp.platform.identity import file_sha256, fingerprint
from tusp.platform.scoring.counts import confusion
from tusp.platform.scoring.rules import RULES, rule_mask
from tusp.platform.settings import Settings, load_settings
from tusp.platform.store.models import Artefact, Corpus, Recording
from tusp.platform.store.record import (
    ArtefactRow,
    CellOutcome,
    Claimant,
    CountRow,
    CurveRow,
    add_cells,
    claim,
    create_submission,
    finish_submission,
    record_done,
)
from tusp.platform.store.session import Store, open_store

PEOPLE = 6
CORPUS = "toy"

Change = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Home:
    """A home, its store, and its cells by (arm, fold)."""

    settings: Settings
    store: Store
    cells: Mapping[tuple[str, int], str]

    @property
    def folder(self) -> Path:
        return self.settings.home

    def prediction(self, arm: str = "full", fold: int = 0) -> ArtefactRow:
        """The first prediction of a cell."""
        with self.store.reading() as session:
            row = session.scalars(
                select(Artefact)
                .where(Artefact.cell_id == self.cells[arm, fold], Artefact.kind == "predictions")
                .order_by(Artefact.path)
            ).first()
            assert row is not None
            return ArtefactRow(
                path=row.path, kind=row.kind, recording=row.recording, sha256=row.sha256, size_bytes=row.size_bytes
            )

    def forge(self, kept: ArtefactRow, change: Callable[[dict[str, npt.NDArray[Any]]], None]) -> None:
        """Change the arrays of a prediction and let the store believe that the file was always so."""
        path = self.folder / kept.path
        arrays = load_file(path)
        metadata = json.loads(path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")])[
            "__metadata__"
        ]
        change(arrays)
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path, metadata=metadata)
        self.believe(kept)

    def believe(self, kept: ArtefactRow) -> None:
        """Let the store record a file as it is now."""
        path = self.folder / kept.path
        with self.store.session() as session:
            session.execute(
                update(Artefact)
                .where(Artefact.path == kept.path)
                .values(sha256=file_sha256(path), size_bytes=path.stat().st_size)
            )


def stages_of(person: int, n_epochs: int = 80) -> npt.NDArray[np.int8]:
    """A night with every stage, some epochs unscored, different for every person."""
    random = np.random.default_rng(person)
    stages = np.repeat(random.permutation(np.tile(np.arange(5), n_epochs // 10)), 2).astype(np.int8)
    stages[5:7] = -1
    return stages


def judged_home(
    folder: Path,
    *,
    simulated: bool = True,
    change_plan: Change | None = None,
    arms: tuple[str, ...] = ("full", "no-csja"),
    names: Mapping[int, str] | None = None,
    copies: Mapping[int, int] | None = None,
    split_seed: int = 0,
) -> Home:
    """Make it in milliseconds.

    Args:
        change_plan: applied to every plan before its id is made of it.
        names: names of some people's recordings.
        copies: person to another, whose stages and file checksums they have.
        split_seed: seed of the division of people.
    """
    settings = load_settings(home=folder, db=f"sqlite:///{folder / 'tusp.db'}", environment={})
    store = open_store(settings.db)
    nights = [
        _night(settings.prepared / CORPUS, (names or {}).get(n, f"R{n}"), n, (copies or {}).get(n, n), simulated)
        for n in range(PEOPLE)
    ]
    _register(store, folder, nights, copies or {}, simulated=simulated)
    request = Request(ablation="csja", recipe=recipe_called("smoke"), folds=2, split_seed=split_seed)
    plan = make_plan(request, [CorpusNights(name=CORPUS, simulated=simulated, recordings=nights)])
    tasks = [task for task in plan.tasks if task.cell.arm in arms]
    if change_plan is not None:
        tasks = [_changed(task, change_plan) for task in tasks]
    create_submission(
        store,
        id="first",
        request={"ablation": "csja", "arms": {arm: {} for arm in arms}, "split_seed": split_seed},
        environment={"packages": {"tusp": "0.1.0"}, "python": "3.11.0"},
        simulated=simulated,
        refused=[],
        process=processes.this_process(),
    )
    add_cells(store, "first", [task.cell for task in tasks])
    by_name = {night.name: night for night in nights}
    for task in tasks:
        _record(store, folder, task, by_name)
    finish_submission(store, "first", "done")
    return Home(settings, store, {(task.cell.arm, task.cell.fold): task.cell.id for task in tasks})


def _changed(task: CellTask, change: Change) -> CellTask:
    plan = json.loads(json.dumps(task.cell.plan))
    change(plan)
    return replace(task, cell=replace(task.cell, plan=plan, id=fingerprint(plan)))


def _night(root: Path, name: str, person: int, stages_from: int, simulated: bool) -> PreparedRecording:
    stages = stages_of(stages_from)
    channels = [
        PreparedChannel(
            name=name_, group=group, sampling_rate_hz=128.0, unit="uV", median=0.0, iqr=1.0, clipped_share=0.0
        )
        for name_, group in (("C3", "EEG"), ("E1", "EOG"))
    ]
    return write_prepared(
        root,
        identity={"corpus": CORPUS, "recording": name, "person": person},
        corpus=CORPUS,
        name=name,
        subject=f"P{person}",
        simulated=simulated,
        channels=channels,
        signals=np.zeros((2, stages.size * SAMPLES_PER_EPOCH), np.float16),
        stages=stages,
    )


def _register(
    store: Store, root: Path, nights: list[PreparedRecording], copies: Mapping[int, int], *, simulated: bool
) -> None:
    card = {
        "title": "Toy nights",
        "version": "1",
        "licence": "none",
        "access": "private",
        "citation": "A. Author, 2026",
    }
    corpus = Corpus(name=CORPUS, adapter=CORPUS, root=str(root), simulated=simulated, card={**card, "url": ""})
    for place, night in enumerate(nights):
        digest = hashlib.sha256(f"night {copies.get(place, place)}".encode()).hexdigest()
        source = {"path": f"{night.name}.edf", "role": "signals", "size": 1, "mtime_ns": 0, "sha256": digest}
        audit = {
            "problems": [], "channels": [], "epochs": {"W": 20, "N2": 58}, "signal_epochs": 80, "content": {},
            "stages": None, "signal_hours": 0.7, "label_hours": 0.7, "unscored_share": 0.025,
        }  # fmt: skip
        corpus.recordings.append(
            Recording(name=night.name, subject=night.subject, usable=True, audit=audit, sources=[source])
        )
    corpus.recordings.append(
        Recording(
            name="R<9>", subject="P9", usable=False, reason="no hypnogram & no <b>signal</b>", audit={}, sources=[]
        )
    )
    with store.session() as session:
        session.add(corpus)


def _record(store: Store, home: Path, task: CellTask, nights: Mapping[str, PreparedRecording]) -> None:
    cell = task.cell
    claimant = Claimant.of_this_process("first")
    obtained = claim(store, cell.id, claimant)
    assert obtained.attempt_number is not None
    folder = Path("cells") / cell.id[:2] / cell.id
    counts, artefacts = [], []

    def kept(path: Path, kind: str, recording: str | None = None) -> ArtefactRow:
        return ArtefactRow(
            path=path.as_posix(), kind=kind, recording=recording, sha256=file_sha256(home / path),
            size_bytes=(home / path).stat().st_size,
        )  # fmt: skip

    (entry,) = cell.plan["corpora"]
    for name in sorted(entry["test"]):
        night = nights[name]
        true = night.stages()
        random = np.random.default_rng([cell.fold, *name.encode()])
        predicted = np.where(random.random(true.size) < 0.8, np.maximum(true, 0), random.integers(0, 5, true.size))
        probabilities = np.full((true.size, 5), 0.1, np.float32)
        probabilities[np.arange(true.size), predicted] = 0.6
        path = folder / "predictions" / CORPUS / f"{fingerprint(name)[:8]}.safetensors"
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        save_file(
            {"true": true, "predicted": predicted.astype(np.int8), "probabilities": probabilities},
            home / path,
            metadata={
                "cell": cell.id, "corpus": CORPUS, "recording": name, "subject": night.subject, "first_epoch": "0",
                "simulated": json.dumps(night.simulated),
            },
        )  # fmt: skip
        artefacts.append(kept(path, "predictions", f"{CORPUS}/{name}"))
        for rule in RULES:
            mask = rule_mask(true, rule)
            matrix = tuple(map(tuple, confusion(true[mask], predicted[mask]).tolist()))
            counts.append(CountRow(corpus=CORPUS, recording=name, subject=night.subject, rule=rule, matrix=matrix))
    curve = [
        CurveRow(
            pass_number=n, train_loss=1 / n, learning_rate=0.001, validation_loss=1.1 / n, validation_accuracy=0.7,
            validation_macro_f1=0.8 - 0.3 / n, seconds=1.0,
        )
        for n in (1, 2, 3)
    ]  # fmt: skip
    write_json_atomic(home / folder / "history.json", [vars(point) for point in curve])
    artefacts.append(kept(folder / "history.json", "history"))
    trained = np.concatenate([nights[name].stages() for name in entry["train"]])
    record_done(
        store,
        CellOutcome(
            cell_id=cell.id,
            token=claimant.token,
            attempt=obtained.attempt_number,
            result={
                "n_parameters": 1000, "n_trainable": 990, "training_seconds": 2.0, "best_pass": 3,
                "validation_macro_f1": curve[2].validation_macro_f1,
                "train_stage_counts": np.bincount(trained[trained >= 0], minlength=5).tolist(),
            },
            counts=counts,
            curve=curve,
            artefacts=artefacts,
            environment={},
        ),
    )  # fmt: skip
