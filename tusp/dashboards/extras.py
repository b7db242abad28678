"""What a report's page shows besides the boards: how training went, and who made the corpora."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import select

from tusp.dashboards.frames import BoardKey
from tusp.dashboards.report import Report
from tusp.datasets.adapters import BUILT_IN, adapters
from tusp.datasets.splits import corpus_of
from tusp.platform.store.models import Corpus
from tusp.platform.store.queries import BriefCell, brief_cells, curve_scores
from tusp.platform.store.session import Store


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
    """Facts about corpora as their registration says, by name.

    Where labels lie apart (``tusp score --truth``) the corpus need not be registered: of one that tusp knows the facts
    are those of its adapter. Others are left out.
    """
    with store.reading() as session:
        rows = session.scalars(select(Corpus).where(Corpus.name.in_(names)))
        found = {row.name: _facts(row.name, row.card, simulated=row.simulated) for row in rows}
    for name in set(names) & BUILT_IN.keys() - found.keys():
        found[name] = _facts(name, asdict(adapters()[name]().card), simulated=False)
    return tuple(found[name] for name in sorted(found))


def _facts(name: str, card: Mapping[str, Any], *, simulated: bool) -> CorpusFacts:
    said = {field: str(card.get(field) or "") for field in ("title", "version", "licence", "access", "citation", "url")}
    return CorpusFacts(name=name, simulated=simulated, **said)


def _training(store: Store, report: Report) -> tuple[TrainingGroup, ...]:
    boards = {_group(board.key) for board in report.boards}
    cells, _ = brief_cells(store, [note.id for note in report.submissions])
    done = [cell for cell in cells if cell.state == "done" and _group(cell) in boards]
    # The latest of several cells that did the same stands for them, as on the boards.
    done.sort(key=lambda cell: (cell.done_at.isoformat() if cell.done_at else "", cell.id))
    latest = {(_group(cell), cell.arm, cell.settings[:12], cell.seed, cell.fold): cell for cell in done}
    points = curve_scores(store, [cell.id for cell in latest.values()])
    groups: dict[tuple[Any, ...], list[TrainingCurve]] = {}
    for (group, arm, settings, seed, fold), cell in sorted(latest.items(), key=lambda item: item[0]):
        if cell.id in points:
            passes, scores = points[cell.id]
            curve = TrainingCurve(
                arm=arm, settings=settings, fold=fold, seed=seed, passes=passes, macro_f1=scores,
                best_pass=(cell.result or {}).get("best_pass"),
            )  # fmt: skip
            groups.setdefault(group, []).append(curve)
    names = ("simulated", "experiment", "trained_on", "protocol", "folds", "recipe", "split_hash")
    return tuple(
        TrainingGroup(**dict(zip(names, group, strict=True)), curves=tuple(curves)) for group, curves in groups.items()
    )


def _group(of: BoardKey | BriefCell) -> tuple[Any, ...]:
    """What is trained alike."""
    trained_on = of.trained_on if isinstance(of, BoardKey) else of.corpus
    return of.simulated, of.experiment, trained_on, of.protocol, of.folds, of.recipe, of.split_hash
