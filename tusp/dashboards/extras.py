"""What a report's page shows besides the boards: how training went, and who made the corpora."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, TypeAlias

from sqlalchemy import select

from tusp.dashboards.asked import Asked, Known, known
from tusp.dashboards.frames import BoardKey
from tusp.dashboards.kept import Kept, hash_of
from tusp.dashboards.report import MOST_REPORTS, Report, selected
from tusp.datasets.splits import corpus_of
from tusp.platform.store.models import Corpus
from tusp.platform.store.queries import BriefCell, curve_scores
from tusp.platform.store.session import Store

Group: TypeAlias = tuple[Any, ...]
"""What is trained alike: kind of nights, experiment, corpora, protocol, folds, recipe, split."""

EXTRAS: Final = "extras"
"""Folder of what a page shows besides whole reports, among what is kept."""

CURVES: Final = "curves"
"""Folder of training curves among what is kept."""


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
    kept_as: str | None = None
    """Hash of the report beside which they are kept; None where they are not."""


def read_extras(store: Store, report: Report, *, kept: Path | None = None, before: Known | None = None) -> Extras:
    """Training curves of the report's done cells and facts about its corpora; the store is only read.

    Args:
        kept: folder of what was read before; None reads all.
        before: by what the report is known, where that was asked.
    """
    if kept is None or report.kept_as is None:
        return _read(store, report, kept, None)
    extras = Kept(kept / EXTRAS, Extras)
    found = extras.find(report.kept_as)
    if found is None:
        if before is None or before.name != report.kept_as:
            before = known(store, asked_for(report))
        found = _read(store, report, kept, before)
        # Only where the store is still what the report was made of.
        if before is not None and before.name == report.kept_as and before.still_holds(store):
            found = extras.keep(report.kept_as, replace(found, kept_as=report.kept_as))
            extras.forget_old(at_most=MOST_REPORTS)
    return found


def asked_for(report: Report) -> Asked:
    """What the report was an answer to."""
    one = None if report.everything or not report.submissions else report.submissions[0].id
    return Asked(
        submission=one,
        everything=report.everything,
        rule=report.rule,
        corpus=report.corpus,
        bootstrap=report.bootstrap,
        seed=report.seed,
    )


def _read(store: Store, report: Report, kept: Path | None, before: Known | None) -> Extras:
    cells = report.cells
    if cells is None:
        state = None if before is None else before.state
        selection = selected(store, asked_for(report), home=None, counted=False, state=state)
        cells = tuple(cell.summary for cell in selection.cells)
    return Extras(training=_training(store, report, cells, kept), corpora=corpus_facts(store, corpora_of(report)))


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
    lacking = set(names) - found.keys()
    if lacking:
        from tusp.datasets.adapters import BUILT_IN, adapters

        for name in lacking & BUILT_IN.keys():
            found[name] = _facts(name, asdict(adapters()[name]().card), simulated=False)
    return tuple(found[name] for name in sorted(found))


def _facts(name: str, card: Mapping[str, Any], *, simulated: bool) -> CorpusFacts:
    said = {field: str(card.get(field) or "") for field in ("title", "version", "licence", "access", "citation", "url")}
    return CorpusFacts(name=name, simulated=simulated, **said)


def _training(store: Store, report: Report, cells: Sequence[BriefCell], kept: Path | None) -> tuple[TrainingGroup, ...]:
    groups = trained_alike(cells, {board.key for board in report.boards})
    if kept is None:
        found = training_groups(store, groups)
    else:
        before = Kept(kept / CURVES, TrainingGroup)
        names = {group: curves_hash(store, cells) for group, cells in groups.items()}
        found = {group: there for group in groups if (there := before.find(names[group])) is not None}
        made = training_groups(store, {group: cells for group, cells in groups.items() if group not in found})
        found |= {group: before.keep(names[group], curves) for group, curves in made.items()}
        if made:
            before.forget_old()
    return tuple(found[group] for group in groups if found[group].curves)


def trained_alike(cells: Iterable[BriefCell], boards: Collection[BoardKey]) -> dict[Group, list[BriefCell]]:
    """Done cells by what was trained alike, as far as a board shows it; the latest of several that did the same stands
    for them, as on the boards."""
    shown = {_group(key) for key in boards}
    latest: dict[Group, dict[tuple[str, str, int, int], BriefCell]] = {}
    for cell in sorted((cell for cell in cells if cell.done_at), key=attrgetter("done_at", "id")):
        group = _group(cell)
        if group in shown and cell.state == "done":
            latest.setdefault(group, {})[cell.arm, cell.settings[:12], cell.seed, cell.fold] = cell
    return {group: [latest[group][place] for place in sorted(latest[group])] for group in sorted(latest)}


def curves_hash(store: Store, cells: Sequence[BriefCell]) -> str:
    """Name under which curves are kept. That of a done cell never changes: if it is done again, it is done later."""
    return hash_of((store.address, [(cell.id, cell.done_at, cell.result) for cell in cells]))


def training_groups(store: Store, groups: Mapping[Group, Sequence[BriefCell]]) -> dict[Group, TrainingGroup]:
    """The curves of some cells from the store."""
    points = curve_scores(store, [cell.id for cells in groups.values() for cell in cells])
    return {group: _training_group(group, cells, points) for group, cells in groups.items()}


def _training_group(
    group: Group,
    cells: Sequence[BriefCell],
    points: Mapping[str, tuple[tuple[int, ...], tuple[float, ...]]],
) -> TrainingGroup:
    curves = [
        TrainingCurve(
            arm=cell.arm,
            settings=cell.settings[:12],
            fold=cell.fold,
            seed=cell.seed,
            passes=points[cell.id][0],
            macro_f1=points[cell.id][1],
            best_pass=(cell.result or {}).get("best_pass"),
        )
        for cell in cells
        if cell.id in points
    ]
    names = ("simulated", "experiment", "trained_on", "protocol", "folds", "recipe", "split_hash")
    return TrainingGroup(**dict(zip(names, group, strict=True)), curves=tuple(curves))


def _group(of: BoardKey | BriefCell) -> Group:
    """What is trained alike."""
    trained_on = of.trained_on if isinstance(of, BoardKey) else of.corpus
    return of.simulated, of.experiment, trained_on, of.protocol, of.folds, of.recipe, of.split_hash
