"""The page of every corpus says what its adapter says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tusp.datasets.catalog import BUILT_IN, adapters
from tusp.datasets.corpus_pages import page
from tusp.platform.stages import STAGE_NAMES

PAGES = Path(__file__).resolve().parent.parent / "docs" / "corpora"


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_page_is_made_from_the_adapters_metadata(name: str) -> None:
    assert (PAGES / f"{name}.md").read_text(encoding="utf-8") == page(adapters()[name]().card), "run `make docs`"


def test_there_is_no_page_of_anything_else() -> None:
    assert {path.stem for path in PAGES.glob("*.md")} == set(BUILT_IN)


@pytest.mark.parametrize("name", BUILT_IN)
def test_an_adapter_says_everything_a_reader_needs(name: str) -> None:
    card = adapters()[name]().card
    assert card.name == name
    for field in ("title", "version", "licence", "citation", "url", "subject_rule", "obtain"):
        assert getattr(card, field), field
    assert card.access in ("open", "agreement")
    assert card.nights and card.people and card.nights >= card.people
    for sentences in (card.layout, card.reads, card.refuses):
        assert sentences
    assert all(sentence.endswith(".") for sentence in (*card.reads, *card.refuses))
    assert set(card.label_map.values()) >= set(range(len(STAGE_NAMES)))
    assert set(card.channel_groups) == {"EEG", "EOG"}
    assert card.hold_out == (name in ("dod-h", "dod-o"))
