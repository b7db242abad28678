"""What an adapter says about a corpus and its nights. Nothing here reads a file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from tusp.platform.errors import one_line

Stages = npt.NDArray[np.int8]
"""Stage codes of consecutive 30-s epochs, -1 where unscored (tusp.platform.stages)."""


@dataclass(frozen=True, kw_only=True)
class CorpusCard:
    """Who made a corpus, under which terms it may be used, and how tusp reads it."""

    name: str
    title: str
    version: str
    licence: str
    access: str
    """``open``, ``agreement`` or ``private``."""
    citation: str
    url: str
    channel_groups: Mapping[str, Sequence[str]]
    """Group (``EEG``, ``EOG``) to the canonical names of its channels, in order of preference."""
    label_map: Mapping[str, int]
    """The corpus's own stage names to codes."""
    subject_rule: str
    """In words: how a subject is told from a file name."""
    nights: int | None = None
    """Recordings in the published corpus."""
    people: int | None = None
    """People in the published corpus."""
    obtain: str = ""
    """In words: where to get it, and what must be agreed to."""
    layout: Sequence[str] = ()
    """File names of the published layout, with what stands for the night in capitals; flat folders work too."""
    reads: Sequence[str] = ()
    """What tusp reads and what it makes of the corpus's quirks, a sentence each."""
    refuses: Sequence[str] = ()
    """What tusp refuses besides unreadable files, a sentence each."""
    subsets: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Named subsets of the people (``sedf-20``) to their subjects: the same people, never a corpus of its own."""
    hold_out: bool = False
    """Published to be judged on, never trained on, where several corpora are trained together."""


@dataclass(frozen=True, kw_only=True)
class Channel:
    """One signal of a recording as its header states it."""

    name: str
    sampling_rate_hz: float
    unit: str
    n_samples: int
    limits: tuple[float, float] | None = None
    """Lowest and highest value the recorder could store, in the unit of :meth:`Adapter.read`; None where unknown."""


@dataclass(frozen=True, kw_only=True)
class RecordingFiles:
    """One night found on disk: its identity and its files. ``labels`` is None where no hypnogram was found."""

    name: str
    subject: str
    signals: Path
    labels: Path | None
    others: Mapping[str, Path] = field(default_factory=dict)
    """What else the night is read from, by role (``header``, ``scorer_2``): hashed and watched like the first two."""
    simulated: bool = False

    @property
    def files(self) -> dict[str, Path]:
        """All files by role, ``signals`` first; a file that has two roles (labels inside the signal file) once."""
        roles = {"signals": self.signals, **({"labels": self.labels} if self.labels else {}), **self.others}
        found: dict[str, Path] = {}
        for role, path in roles.items():
            if path not in found.values():
                found[role] = path
        return found


@dataclass(frozen=True, kw_only=True)
class Hypnogram:
    """Expert labels on the recording's own 30-s grid: epoch ``i`` covers seconds ``[30 i, 30 i + 30)`` of the signal.

    ``stages`` is already clipped to the signal's whole epochs; gaps and unknown labels are -1.
    """

    stages: Stages
    problems: Sequence[str] = ()
    """What a person should know (gap filled, surplus clipped), each in one line."""
    label_seconds: float | None = None
    """Seconds from the first label's start to the last label's end as the file has them, before clipping."""
    lights: tuple[int, int] | None = None
    """First epoch with lights off, and first with lights on again, where the labels say both."""


@dataclass(frozen=True, kw_only=True)
class Discovery:
    """What an adapter found below a folder: nights, and what it cannot use (name to reason)."""

    recordings: Sequence[RecordingFiles]
    refused: Mapping[str, str] = field(default_factory=dict)
    excluded: Sequence[str] = ()
    """Nights that the corpus's owner asked to leave out: reported, but no problem."""


class Adapter(ABC):
    """Reads one corpus in its original format. Stateless: everything it needs to know is in its fields."""

    code_version: ClassVar[int] = 1
    """Part of every prepared fingerprint: raise it when the adapter reads something differently."""

    @property
    @abstractmethod
    def card(self) -> CorpusCard:
        """The corpus's metadata."""

    @abstractmethod
    def discover(self, root: Path) -> Discovery:
        """Find the nights below ``root``. Reads names and headers only.

        Raises:
            UserError: ``root`` is not a readable folder or holds nothing of this corpus.
        """

    @abstractmethod
    def channels(self, recording: RecordingFiles) -> list[Channel]:
        """All signals of the night, under canonical names where the corpus has aliases.

        Raises:
            DataError: the file is not readable as this format; one line with file and reason.
        """

    @abstractmethod
    def hypnogram(self, recording: RecordingFiles) -> Hypnogram:
        """Expert labels clipped to the signal.

        Raises:
            DataError: the labels cannot be read, or do not belong to this signal.
        """

    @abstractmethod
    def read(self, recording: RecordingFiles, name: str) -> npt.NDArray[np.float32]:
        """The samples of one channel in microvolts (other signals: the file's own unit), at its own rate.

        Raises:
            DataError: the channel is missing or unreadable.
        """

    def scorers(self, recording: RecordingFiles) -> Mapping[str, Stages]:
        """Each scorer's own stages where several scored the night: on the grid of :meth:`hypnogram`, one length.

        Empty where one person scored.

        Raises:
            DataError: the labels cannot be read, or do not belong to this signal.
        """
        return {}

    def problems(self, recording: RecordingFiles) -> Sequence[str]:
        """What is odd about the signal file but does not make it unusable, each in one line.

        Raises:
            DataError: the file is not readable as this format.
        """
        return ()

    def settings(self) -> Mapping[str, object]:
        """What besides the code decides how a night is read (a description's maps); part of the fingerprint."""
        return {}


def plug_in_failure(adapter: Adapter, recording: RecordingFiles, error: Exception) -> str | None:
    """Why a night is refused on which an adapter of another package failed in a way it should not, in one line.

    None for an adapter of tusp itself: what it raises beside the errors it names is a defect, to be seen.
    """
    package = type(adapter).__module__.partition(".")[0]
    if package == __name__.partition(".")[0]:
        return None
    said = " ".join(str(error).split())
    return one_line(
        f"{recording.signals}: adapter {adapter.card.name!r} of {package} failed with"
        f" {type(error).__name__}{f': {said}' if said else ''}"
    )
