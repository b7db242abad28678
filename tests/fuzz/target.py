"""What the harness knows of a format: how to make sound files of it, break them, and judge what tusp makes of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from fuzz.mutation import Mutant, Rng

LONGEST_MESSAGE = 1500


class Finding(Exception):  # noqa: N818 - what it is called everywhere in the harness
    """tusp did something that it must not do."""


class Target(ABC):
    """One format. Everything is drawn from the generator given, so a case is made again by its number."""

    name: ClassVar[str]

    def __init__(self, workspace: Path) -> None:
        """Make the sound files below ``workspace``, an empty folder of its own."""
        self.workspace = workspace

    @abstractmethod
    def mutant(self, rng: Rng) -> Mutant:
        """A broken version of the sound files."""

    @abstractmethod
    def check(self, root: Path, mutant: Mutant) -> str:
        """Let tusp read the mutant's files in the folder ``root``: ``refused``, ``equal`` or ``different``.

        Raises:
            Finding: with what is wrong; any other exception is a finding as well.
        """


def say(text: str, *names: str) -> None:
    """Hold a message against the rules: one printable line that names one of ``names``."""
    if not text.isprintable():
        raise Finding(f"message is not one printable line: {text[:300]!r}")
    if len(text) > LONGEST_MESSAGE:
        raise Finding(f"message of {len(text)} characters: {text[:300]!r}")
    if names and not any(name in text for name in names):
        raise Finding(f"message names none of {', '.join(names)}: {text[:300]!r}")


def judged(outcome: str, mutant: Mutant, detail: str = "") -> str:
    """The outcome, unless only a refusal would have been right."""
    if mutant.must_refuse and outcome != "refused":
        raise Finding(f"accepted ({outcome}) what must be refused {detail}".strip())
    return outcome
