"""What a report's page shows besides the boards: how training went, and who made the corpora."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import select

from tusp.dashboards.frames import BoardKey
from tusp.dashboards.report import Report
from tusp.datasets.splits import corpus_of
from tusp.platform.identity import fingerprint
from tusp.platform.store.models import Cell, Corpus, Curve, SubmissionCell
from tusp.platform.store.session import Store

_BATCH: Final = 500


@dataclass(frozen=True, kw_only=True)
class TrainingCurve:
    """Validation macro-F1 of one cell over the passes of its training."""

    arm: str
    settings: str
    """Beginning of the hash of model and recipe, as in :class:`tusp.dashboards.leaderboard.Row`."""
    fold: int
    seed: int
    passes: tuple[int, ...]
    macro_f1: tuple[float, ...]
    """NaN where a pass was not validated."""
    best_pass: int | None


@dataclass(frozen=True, kw_only=True)
class TrainingGroup:
    """Everything that was trained alike: the curves of the boards that share corpora, split and recipe."""

    simulated: bool
    experiment: str
    trained_on: str
    protocol: str
    folds: int
    recipe: str
    split_hash: str
    curves: tuple[TrainingCurve, ...]
    """By arm, seed and fold."""

    def has(self, key: BoardKey) -> bool:
        """Whether a board shows what was trained here."""
        return (key.simulated, key.experiment, key.trained_on, key.protocol, key.folds, key.recipe, key.split_hash) == (
            self.simulated,
            self.experiment,
            self.trained_on,
            self.protocol,
            self.folds,
            self.recipe,
            self.split_hash,
        )


@dataclass(frozen=True, kw_only=True)
class CorpusFacts:
    """A registered corpus: what to cite, and under which terms it may be used."""

    name: str
    title: str
    version: str
    licence: str
    access: str
    citation: str
    url: str
    simulated: bool


@dataclass(frozen=True, kw_only=True)
class Extras:
    """What the store knows beyond the report."""

    training: tuple[TrainingGroup, ...] = ()
    corpora: tuple[CorpusFacts, ...] = ()


def read_extras(store: Store, report: Report) -> Extras:
    """Training curves of the report's done cells and facts about its corpora; the store is only read."""
    return Extras(training=_training(store, report), corpora=corpus_facts(store, corpora_of(report)))


def corpora_of(report: Report) -> list[str]:
    """Registered corpora behind the boards, by name; a subset's is the corpus it belongs to."""
    labels = {name for board in report.boards for name in (board.key.judged_on, *board.key.trained_on.split("+"))}
    return sorted({corpus_of(label) for label in labels})


def corpus_facts(store: Store, names: Sequence[str]) -> tuple[CorpusFacts, ...]:
    """Facts about corpora as their registration says; those that are not registered are left out."""
    with store.reading() as session:
        rows = session.scalars(select(Corpus).where(Corpus.name.in_(names)).order_by(Corpus.name))
        return tuple(_facts(row.name, row.card, simulated=row.simulated) for row in rows)


def _facts(name: str, card: Mapping[str, Any], *, simulated: bool) -> CorpusFacts:
    said = {field: str(card.get(field) or "") for field in ("title", "version", "licence", "access", "citation", "url")}
    return CorpusFacts(name=name, simulated=simulated, **said)


def _training(store: Store, report: Report) -> tuple[TrainingGroup, ...]:
    ids = [note.id for note in report.submissions]
    boards = {(*_group(board.key),) for board in report.boards}
    columns = (
        Cell.id, Cell.simulated, Cell.experiment, Cell.corpus, Cell.protocol, Cell.folds, Cell.recipe, Cell.split_hash,
        Cell.arm, Cell.seed, Cell.fold, Cell.result, Cell.plan["model"], Cell.plan["recipe"],
    )  # fmt: skip
    asked = select(SubmissionCell.cell_id).where(SubmissionCell.submission_id.in_(ids))
    # The latest of several cells that did the same stands for them, as on the boards.
    wanted = select(*columns).where(Cell.state == "done", Cell.id.in_(asked)).order_by(Cell.done_at, Cell.id)
    latest: dict[tuple[Any, ...], tuple[str, Mapping[str, Any]]] = {}
    with store.reading() as session:
        for cell_id, *place, result, model, recipe in session.execute(wanted):
            group, (arm, seed, fold) = tuple(place[:7]), place[7:]
            if group in boards:
                settings = fingerprint({"model": model or {}, "recipe": recipe or {}})[:12]
                latest[(group, arm, settings, seed, fold)] = (cell_id, result or {})
        points: dict[str, list[tuple[int, float]]] = {}
        cells = [cell_id for cell_id, _ in latest.values()]
        for start in range(0, len(cells), _BATCH):
            for cell_id, number, score in session.execute(
                select(Curve.cell_id, Curve.pass_number, Curve.validation_macro_f1)
                .where(Curve.cell_id.in_(cells[start : start + _BATCH]))
                .order_by(Curve.cell_id, Curve.pass_number)
            ):
                points.setdefault(cell_id, []).append((number, float("nan") if score is None else score))
    groups: dict[tuple[Any, ...], list[TrainingCurve]] = {}
    for (group, arm, settings, seed, fold), (cell_id, result) in sorted(latest.items()):
        if cell_id in points:
            passes, scores = zip(*points[cell_id], strict=True)
            curve = TrainingCurve(
                arm=arm, settings=settings, fold=fold, seed=seed, passes=passes, macro_f1=scores,
                best_pass=result.get("best_pass"),
            )  # fmt: skip
            groups.setdefault(group, []).append(curve)
    names = ("simulated", "experiment", "trained_on", "protocol", "folds", "recipe", "split_hash")
    return tuple(
        TrainingGroup(**dict(zip(names, group, strict=True)), curves=tuple(curves)) for group, curves in groups.items()
    )


def _group(key: BoardKey) -> tuple[Any, ...]:
    return (key.simulated, key.experiment, key.trained_on, key.protocol, key.folds, key.recipe, key.split_hash)
