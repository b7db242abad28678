"""The documentation page of a corpus, made from what its adapter says of itself.

``python -m tusp.datasets.corpus_pages docs/corpora`` writes a page for every built-in adapter; a test holds the pages
against this.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tusp.datasets.catalog import BUILT_IN, adapters
from tusp.datasets.prepared import SAMPLING_RATE_HZ
from tusp.datasets.recording import CorpusCard
from tusp.datasets.recording_preparation import PreparationSettings
from tusp.platform.stages import STAGE_NAMES, UNSCORED

ACCESS_WORDS: Final = {
    "open": "open to everybody",
    "agreement": "after signing a data-use agreement",
    "private": "private",
}
_UNKNOWN: Final = "not stated"


def _bullets(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _facts(card: CorpusCard) -> str:
    size = f"{card.nights or _UNKNOWN} nights of {card.people or _UNKNOWN} people"
    rows = [
        ("name in tusp", f"`{card.name}`"),
        ("version", card.version),
        ("size", size),
        ("access", ACCESS_WORDS[card.access]),
        ("licence", card.licence),
        ("where", f"<{card.url}>"),
        ("citation", card.citation),
        ("used as", "judged on, never trained on with others (hold-out)" if card.hold_out else "trained and judged on"),
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _labels(card: CorpusCard) -> str:
    by_stage: dict[int, list[str]] = {}
    for label, stage in card.label_map.items():
        by_stage.setdefault(stage, []).append(f"`{label}`")
    rows = [
        f"| {STAGE_NAMES[stage] if stage != UNSCORED else 'unscored'} | {', '.join(by_stage[stage])} |"
        for stage in (*range(len(STAGE_NAMES)), UNSCORED)
        if stage in by_stage
    ]
    return "\n".join(["| stage | in the files |", "|---|---|", *rows])


def _preparation(card: CorpusCard) -> str:
    chosen = PreparationSettings()
    channels = "; ".join(f"{group}: {', '.join(names)}" for group, names in card.channel_groups.items())
    return (
        f"Channels kept: {channels}. Each is resampled from its own rate to {SAMPLING_RATE_HZ} Hz, cut to whole"
        f" epochs from the first to the last scored one, clipped at {chosen.clip_iqr:g} inter-quartile ranges from its"
        " median, and scaled to median 0 and inter-quartile range 1. Nothing is fitted across recordings."
        " [Preparation](../preparation.md) has the details."
    )


def page(card: CorpusCard) -> str:
    """The page of a corpus in Markdown."""
    parts = [
        f"# {card.name}: {card.title}",
        "<!-- made by `make docs` from the adapter's own metadata; change that instead -->",
        _facts(card),
        "## Where to get it",
        card.obtain,
        "## Files",
        "\n".join(["```", *card.layout, "```"]),
        f"Found in this layout or loose in any folder. Whose night it is: {card.subject_rule}.",
        f"    tusp datasets add {card.name} PATH",
        "## Labels",
        _labels(card),
        "## What tusp reads",
        _bullets(card.reads),
        "## What tusp refuses",
        "A refused recording is named with the reason, stored, and shown in every report. Refused are files that"
        " cannot be read or do not belong together, nights without a scored epoch or without a usable channel of a"
        " group, and:",
        _bullets(card.refuses),
        "## How it is prepared",
        _preparation(card),
    ]
    if card.subsets:
        parts += [
            "## Subsets",
            _bullets(
                f"`{name}`: {len(subjects)} people ({subjects[0]} to {subjects[-1]}). The same people as in the corpus,"
                f" never a corpus of their own: `tusp submit --corpus {name}`."
                for name, subjects in card.subsets.items()
            ),
        ]
    return "\n\n".join(parts) + "\n"


def main(folder: str) -> None:
    """Write the pages of all built-in adapters."""
    for name in BUILT_IN:
        (Path(folder) / f"{name}.md").write_text(page(adapters()[name]().card), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
