"""Results as a submission leaves them in a store, with outcomes that a test chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy.orm import Session

from tusp.platform.store.models import COUNT_COLUMNS, Cell, Count, Submission, SubmissionCell
from tusp.platform.store.session import Store, open_store

MODELS: Mapping[str, Mapping[str, Any]] = {
    "full": {"csja": True, "se_bottom": True, "se_classifier": True, "kernel_size": 5},
    "no-csja": {"csja": False, "se_bottom": True, "se_classifier": True, "kernel_size": 5},
    "no-se": {"csja": True, "se_bottom": False, "se_classifier": False, "kernel_size": 5},
    "plain": {"csja": False, "se_bottom": False, "se_classifier": False, "kernel_size": 5},
}
START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
Matrix = npt.NDArray[np.int64]


def new_store(folder: Path) -> Store:
    """An empty SQLite store."""
    return open_store(f"sqlite:///{folder / 'tusp.db'}")


def add_submission(
    session: Session,
    name: str,
    *,
    arms: Sequence[str] = ("full", "no-csja"),
    corpora: Sequence[str] = ("sedf-sc",),
    simulated: bool = False,
    refused: Sequence[Mapping[str, str]] = (),
    minutes: int = 0,
    split_seed: int = 0,
) -> str:
    """A submission that asks for an ablation."""
    session.add(
        Submission(
            id=name,
            created_at=START + timedelta(minutes=minutes),
            state="done",
            request={
                "ablation": "csja",
                "arms": {arm: dict(MODELS[arm]) for arm in arms},
                "corpora": list(corpora),
                "split_seed": split_seed,
            },
            environment={"python": "3.11"},
            simulated=simulated,
            refused=[dict(item) for item in refused],
            process={"host": "here", "pid": 1, "started": "0"},
        )
    )
    session.flush()
    return name


def add_cell(
    session: Session,
    submission: str,
    nights: Mapping[tuple[str, str], npt.ArrayLike] | None,
    *,
    arm: str = "full",
    corpus: str = "sedf-sc",
    judged_on: str | None = None,
    fold: int = 0,
    folds: int = 5,
    seed: int = 0,
    simulated: bool = False,
    recipe: str = "quick",
    state: str = "done",
    error: str | None = None,
    train_stage_counts: Sequence[int] | None = (100, 10, 300, 90, 100),
    planned_test: Sequence[str] | None = None,
    minutes: int = 0,
    rule: str = "trim30",
    split_hash: str = "5" * 64,
    model: Mapping[str, Any] | None = None,
    experiment: str = "within",
) -> str:
    """A cell with counts of its test nights, ``{(subject, recording): 5 x 5}``; None where it is not done."""
    where = judged_on or corpus
    cell_id = f"{submission}-{corpus}-{where}-{arm}-{recipe}-{simulated:d}-{seed}-{fold}"
    cell_id += "" if experiment == "within" else f"-{experiment}"
    tested = planned_test if planned_test is not None else [night for _, night in nights or {}]
    plan = {
        "model": dict(model or MODELS[arm]),
        "recipe": {"name": recipe},
        "judged_on": [where],
        "corpora": [{"name": where, "test": dict.fromkeys(tested, "0" * 64)}],
    }
    done = state == "done"
    session.add(
        Cell(
            id=cell_id, plan=plan, experiment=experiment, corpus=corpus, protocol="kfold", arm=arm, fold=fold,
            folds=folds, seed=seed, recipe=recipe, split_hash=split_hash, simulated=simulated, state=state,
            error=error, done_at=START + timedelta(minutes=minutes) if done else None,
            result=result_of(arm, train_stage_counts) if done else None,
        )
    )  # fmt: skip
    session.flush()
    session.add(SubmissionCell(submission_id=submission, cell_id=cell_id, reused=False))
    for (subject, recording), matrix in (nights or {}).items():
        values = dict(zip(COUNT_COLUMNS, np.asarray(matrix, dtype=int).ravel().tolist(), strict=True))
        session.add(
            Count(
                cell_id=cell_id,
                corpus=where,
                recording=recording,
                rule=rule,
                channels="vote",
                subject=subject,
                **values,
            )
        )
    return cell_id


def result_of(arm: str, train_stage_counts: Sequence[int] | None) -> dict[str, Any]:
    """What a done cell says of itself."""
    parameters = {"full": 2_405_740, "no-csja": 2_405_669, "no-se": 2_371_600, "plain": 2_371_529}[arm]
    result: dict[str, Any] = {"n_parameters": parameters, "n_trainable": parameters - 4828, "training_seconds": 21.5}
    if train_stage_counts is not None:
        result["train_stage_counts"] = list(train_stage_counts)
    return result


def night(generator: np.random.Generator, *, quality: float) -> Matrix:
    """Plausible counts of one night: stage shares of an adult, confusions where they usually are."""
    totals = generator.multinomial(900, generator.dirichlet(np.array([18, 6, 40, 14, 22]) * 6))
    confusions = np.array(
        [[0, 6, 2, 0.2, 2], [5, 0, 9, 0.1, 5], [1, 3, 0, 4, 2], [0.2, 0.1, 7, 0, 0.1], [1.5, 4, 3, 0.1, 0]]
    )
    hit = np.array([0.92, 0.5, 0.86, 0.84, 0.87]) * quality
    shares = confusions / confusions.sum(1, keepdims=True) * (1 - hit[:, None]) + np.diag(hit)
    return np.stack([generator.multinomial(n, share) for n, share in zip(totals, shares, strict=True)])


def plausible_results(
    session: Session,
    submission: str,
    *,
    arms: Sequence[str] = ("full", "no-csja"),
    corpus: str = "sedf-sc",
    simulated: bool = False,
    people: int = 20,
    seeds: Sequence[int] = (0,),
    folds: int = 5,
) -> None:
    """All cells of an ablation, two nights a person, with arms that differ a little."""
    for seed in seeds:
        for fold in range(folds):
            for place, arm in enumerate(arms):
                generator = np.random.default_rng([seed, fold])
                quality = generator.normal(0.98, 0.03, size=people)
                nights = {
                    (f"P{person:02d}", f"{corpus[-2:].upper()}4{person:02d}{number}"): night(
                        generator, quality=min(1.08, quality[person] - 0.012 * place)
                    )
                    for person in range(fold, people, folds)
                    for number in (1, 2)
                }
                add_cell(
                    session, submission, nights, arm=arm, corpus=corpus, fold=fold, folds=folds, seed=seed,
                    simulated=simulated,
                )  # fmt: skip
