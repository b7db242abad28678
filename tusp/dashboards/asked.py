"""Which report is asked for, and by what it is known. Nothing heavy is imported: a kept report is told at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from tusp.dashboards.kept import hash_of
from tusp.platform.rule_names import RULES
from tusp.platform.store.change_mark import Mark, change_mark
from tusp.platform.store.session import Store
from tusp.platform.store.state_hash import ReportState, report_state

FORMATS: Final = ("table", "md", "csv", "json", "latex", "html")

BOOTSTRAP: Final = 2000
"""Resamples of a report's intervals unless told otherwise."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Which report; what its fields say is said at :func:`tusp.dashboards.report.build_report`."""

    submission: str | None = None
    everything: bool = False
    rule: str = "trim30"
    corpus: str | None = None
    bootstrap: int = BOOTSTRAP
    seed: int = 0

    @property
    def can_be_kept(self) -> bool:
        """Whether ``tusp validate`` makes such reports again."""
        return self.rule in RULES and self.bootstrap == BOOTSTRAP and self.seed == 0


@dataclass(frozen=True, kw_only=True)
class Known:
    """By what a report is known, and the rows of the store that say so."""

    asked: Asked
    name: str
    """Hash of everything that the report is made of."""
    state: ReportState
    mark: Mark
    """Of the store before the rows were read."""

    def still_holds(self, store: Store) -> bool:
        """Whether the report would be known by the same name now."""
        return change_mark(store) == self.mark or report_hash(store, self.asked) == self.name


def known(store: Store, asked: Asked) -> Known | None:
    """By what a report is known; None where it cannot be kept, or there is no such report."""
    if not asked.can_be_kept or (asked.submission is not None and asked.everything):
        return None
    mark = change_mark(store)
    state = report_state(store, submission=asked.submission, everything=asked.everything, rule=asked.rule)
    if state is None:
        return None
    name = hash_of((state.digest, replace(asked, submission=None)))
    return Known(asked=asked, name=name, state=state, mark=mark)


def report_hash(store: Store, asked: Asked) -> str | None:
    """Hash of everything that a report is made of; None as for :func:`known`."""
    found = known(store, asked)
    return None if found is None else found.name
