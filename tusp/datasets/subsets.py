"""Named subsets of a corpus's people, such as ``sedf-20``: a label ``CORPUS:SUBSET`` wherever a corpus is named.

The people of a subset are people of the corpus, so both are registered once and share their prepared nights; only the
splits, and with them the results, are the subset's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tusp.datasets import catalog
from tusp.datasets.splits import SUBSET_SEPARATOR as SEPARATOR
from tusp.datasets.splits import usable_by_subject
from tusp.platform.errors import UserError
from tusp.platform.store.session import Store


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A registered corpus, or a subset of its people."""

    corpus: str
    subset: str | None = None
    subjects: frozenset[str] | None = None
    """Who belongs to the subset; None for everybody."""

    @property
    def label(self) -> str:
        """Name in splits, cells and reports: ``sedf-sc`` or ``sedf-sc:sedf-20``."""
        return self.corpus if self.subset is None else f"{self.corpus}{SEPARATOR}{self.subset}"

    def has(self, subject: str) -> bool:
        """Whether a person belongs to what was chosen."""
        return self.subjects is None or subject in self.subjects


def subsets_of(store: Store, corpus: str) -> Mapping[str, Sequence[str]]:
    """Named subsets of a registered corpus, with their subjects.

    Raises:
        UserError: it is not registered.
    """
    return catalog.adapter_for(catalog.get_corpus(store, corpus)).card.subsets


def choose(store: Store, label: str) -> Chosen:
    """What a label means: a registered corpus, ``CORPUS:SUBSET``, or a subset's name where one corpus has it.

    Raises:
        UserError: no such corpus or subset, or several registered corpora have the subset.
    """
    registered = [summary.name for summary in catalog.list_corpora(store)]
    if label in registered:
        return Chosen(corpus=label)
    corpus, _, subset = label.partition(SEPARATOR)
    if subset:
        known = subsets_of(store, corpus)
        if subset not in known:
            raise UserError(f"corpus {corpus!r} has no subset {subset!r}; it has {', '.join(known) or 'none'}")
        return Chosen(corpus=corpus, subset=subset, subjects=frozenset(known[subset]))
    having = [name for name in registered if label in subsets_of(store, name)]
    if len(having) > 1:
        meant = " or ".join(f"{name}{SEPARATOR}{label}" for name in having)
        raise UserError(f"{label!r} is a subset of {len(having)} registered corpora; say {meant}")
    if having:
        return choose(store, f"{having[0]}{SEPARATOR}{label}")
    raise UserError(
        f"corpus {label!r} is not registered; "
        f"registered: {', '.join(registered) or 'none'} (tusp datasets add {label} PATH)"
    )


def people_of(store: Store, label: str) -> dict[str, tuple[str, ...]]:
    """Usable recordings by person of a corpus or subset.

    Raises:
        UserError: no such corpus or subset.
    """
    chosen = choose(store, label)
    rows = [row for row in catalog.recordings(store, chosen.corpus) if chosen.has(row.subject)]
    return usable_by_subject(rows)
