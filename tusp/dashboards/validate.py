"""``tusp validate``: all that results rest on is derived again from what is on disk; what does not hold is said.

Checked of every done cell: its id is the hash of its plan; nobody is trained on and tested; its split can be made
again; no night is there twice; simulated and real are told apart everywhere; its files have their checksums; its
predictions have the right length, codes, people and true stages; the counts in the store are those of the predictions,
and what reports read is those counts; the curve is that of its history. Of imported and human entries: their kept files
and counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from sqlalchemy import select

from tusp.dashboards.file_checks import check_files
from tusp.dashboards.kept_checks import check_kept
from tusp.dashboards.lent import borrow
from tusp.dashboards.plan_checks import (
    Nights,
    check_columns,
    check_duplicates,
    check_entry,
    check_simulated,
    check_training_stages,
)
from tusp.platform.errors import UserError
from tusp.platform.identity import fingerprint
from tusp.platform.settings import Settings
from tusp.platform.store.entries import EntryRecord, list_entries, verify_entries
from tusp.platform.store.models import SubmissionCell
from tusp.platform.store.packed import derived_problems
from tusp.platform.store.queries import (
    CellRecord,
    CellSummary,
    SubmissionRecord,
    cell_records,
    get_submission,
    list_submissions,
    submission_cells,
)
from tusp.platform.store.session import Store

BATCH: Final = 20
"""Cells read at a time."""

NAMED_CELLS: Final = 3
"""So many cells are named by their id when one line is about several."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What was looked at, and what was found."""

    submissions: tuple[str, ...]
    cells: int
    """Done cells looked at."""
    predictions: int
    """Predictions looked at."""
    nights: int
    """Prepared nights looked at."""
    entries: int
    """Imported and human entries looked at."""
    kept: int
    """Boards, curves and summaries that reports keep, looked at."""
    deep: bool
    problems: tuple[str, ...]
    """What does not hold, one line each."""
    not_done: tuple[str, ...]
    """Cells that have no result, one line each."""
    not_checked: tuple[str, ...]
    """What could not be compared, and why; no problem of the results."""

    @property
    def status(self) -> int:
        """Exit status: 2 when something does not hold, else 1 when cells are not done, else 0."""
        return 2 if self.problems else 1 if self.not_done else 0


def validate(
    store: Store,
    settings: Settings,
    *,
    submission: str | None = None,
    everything: bool = False,
    deep: bool = False,
    progress: Progress | None = None,
) -> Validation:
    """Derive the results of the latest submission, a named one, or all, again from their artefacts.

    What reports keep (:mod:`tusp.dashboards.kept`) is made again too.

    Args:
        store: only read.
        settings: say where artefacts and prepared nights are.
        submission: id of a submission or its unique beginning.
        everything: all submissions.
        deep: hash the signals of the prepared nights too (about 1 s per GB).
        progress: told after every batch of cells.

    Raises:
        UserError: both a submission and everything, or nothing was submitted or imported yet.
        StoreError: no such submission.
    """
    chosen = _chosen(store, submission, everything=everything)
    cells: dict[str, CellSummary] = {}
    for record in chosen:
        cells.update((cell.id, cell) for cell in submission_cells(store, record.id))
    entries = list_entries(store)
    if not chosen and not entries:
        raise UserError("nothing was submitted or imported yet, so there is nothing to validate")
    nights = Nights(store=store, prepared_root=settings.prepared, deep=deep)
    checks = _Checks(store=store, settings=settings, nights=nights, submissions=_owners(store, list(cells)))
    done = [cell.id for cell in cells.values() if cell.state == "done"]
    for start in range(0, len(done), BATCH):
        batch = done[start : start + BATCH]
        for cell in cell_records(store, batch):
            checks.cell(cell)
        with store.reading() as session:
            checks.also(derived_problems(session, batch))
        if progress:
            progress(min(start + BATCH, len(done)), len(done))
    problems = [
        *checks.lines(),
        *nights.problems,
        *verify_entries(store, settings.home),
        *_entries_of_other_kind(entries, nights),
    ]
    kept = 0
    if not problems:  # from what does not hold nothing follows
        ids = [record.id for record in chosen]
        borrow(store, settings.kept)
        kept, problems = check_kept(store, settings.kept, submissions=ids, everything=everything)
    return Validation(
        submissions=tuple(record.id for record in chosen),
        cells=len(done),
        predictions=checks.predictions,
        nights=nights.opened,
        entries=len(entries),
        kept=kept,
        deep=deep,
        problems=tuple(problems),
        not_done=tuple(_not_done(cell) for cell in cells.values() if cell.state != "done"),
        not_checked=_not_checked(nights),
    )


class _Checks:
    """Runs the checks of cells; what several cells have in common is checked once and said once."""

    def __init__(
        self, *, store: Store, settings: Settings, nights: Nights, submissions: dict[str, list[SubmissionRecord]]
    ) -> None:
        self._home = settings.home
        self._nights = nights
        self._submissions = submissions
        self._found: dict[str, list[str]] = {}
        self._known: dict[str, list[str]] = {}
        self.predictions = 0

    def cell(self, cell: CellRecord) -> None:
        """Check one done cell."""
        self.predictions += sum(kept.kind == "predictions" for kept in cell.artefacts)
        plan_holds = fingerprint(cell.plan) == cell.id
        lines = self._plan(cell) if plan_holds else ["its id is not the hash of its plan: one of them was changed"]
        lines += check_files(cell, self._home, self._nights, plan_holds=plan_holds)
        for line in lines:
            self._found.setdefault(line, []).append(cell.id)

    def also(self, found: Mapping[str, Sequence[str]]) -> None:
        """Add what was found elsewhere, by cell; of one whose own rows do not hold, nothing follows."""
        wrong = {cell for cells in self._found.values() for cell in cells}
        for cell in found.keys() - wrong:
            for line in found[cell]:
                self._found.setdefault(line, []).append(cell)

    def _plan(self, cell: CellRecord) -> list[str]:
        owners = self._submissions.get(cell.id, [])
        seeds = sorted({int(owner.request.get("split_seed", 0)) for owner in owners}) or [0]
        entries = cell.plan["corpora"]
        lines = check_columns(cell)
        lines += check_simulated(cell, self._nights, submissions={owner.id: owner.simulated for owner in owners})
        for entry in entries:
            lines += self._once([entry, seeds], partial(check_entry, entry, self._nights, split_seeds=seeds))
        lines += self._once(entries, partial(check_duplicates, entries, self._nights))
        return lines + check_training_stages(cell, self._nights)

    def _once(self, what: object, check: Callable[[], list[str]]) -> list[str]:
        """The lines of a check whose outcome depends on ``what`` alone."""
        key = fingerprint(what)
        if key not in self._known:
            self._known[key] = check()
        return self._known[key]

    def lines(self) -> list[str]:
        """What was found, each line once with the cells it is about."""
        return [f"{_cells(cells)}: {line}" for line, cells in self._found.items()]


def _chosen(store: Store, submission: str | None, *, everything: bool) -> list[SubmissionRecord]:
    if submission is not None and everything:
        raise UserError("--submission and --all exclude each other: one submission, or all of them")
    if submission is not None:
        return [get_submission(store, submission)]
    return list_submissions(store, limit=None if everything else 1)[::-1]


def _owners(store: Store, cells: Sequence[str]) -> dict[str, list[SubmissionRecord]]:
    """Every submission that asked for each of these cells, also those that are not validated now."""
    records = {record.id: record for record in list_submissions(store)}
    wanted = set(cells)
    owners: dict[str, list[SubmissionRecord]] = {}
    with store.reading() as session:
        for submission_id, cell_id in session.execute(select(SubmissionCell.submission_id, SubmissionCell.cell_id)):
            if cell_id in wanted:
                owners.setdefault(cell_id, []).append(records[submission_id])
    return owners


def _entries_of_other_kind(entries: Sequence[EntryRecord], nights: Nights) -> list[str]:
    """Entries judged on a registered corpus whose nights are said to be of the other kind."""
    lines = []
    for entry in entries:
        registered = nights.registered_as_simulated(entry.corpus) if entry.truth_kind == "corpus" else None
        if registered is not None and registered != entry.simulated:
            said, now = ("simulated", "real") if entry.simulated else ("real", "simulated")
            lines.append(
                f"entry {entry.name!r} of {entry.corpus} ({entry.kind}): says its nights are {said}, the corpus is "
                f"registered as {now}"
            )
    return lines


def _cells(ids: Sequence[str]) -> str:
    named = ", ".join(cell[:12] for cell in ids[:NAMED_CELLS])
    more = f" and {len(ids) - NAMED_CELLS} more" if len(ids) > NAMED_CELLS else ""
    return f"cell{'s' if len(ids) > 1 else ''} {named}{more}"


def _not_done(cell: CellSummary) -> str:
    reason = f" ({cell.error})" if cell.error else ""
    return f"cell {cell.id[:12]} ({cell.corpus}, {cell.arm}, fold {cell.fold}, seed {cell.seed}): {cell.state}{reason}"


def _not_checked(nights: Nights) -> tuple[str, ...]:
    if not nights.missing:
        return ()
    names = sorted(nights.missing)
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return (
        f"true stages of {len(names)} nights could not be compared, since these are not prepared any more: "
        f"{', '.join(names[:5])}{more}",
    )
