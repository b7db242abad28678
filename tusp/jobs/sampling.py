"""Class-balanced sampling of training windows, planned a pass at a time and reproducible from (seed, pass) alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tusp.datasets.prepared import PreparedRecording
from tusp.datasets.windows import WindowReader
from tusp.platform.errors import CellError
from tusp.platform.stages import N_STAGES, UNSCORED


def channel_choices(recording: PreparedRecording, groups: Sequence[str]) -> list[tuple[int, ...]]:
    """All choices of one channel from each group, in the order of the network's inputs.

    Args:
        groups: ``("EEG", "EOG")`` gives every pair of both, ``("EEG",)`` each EEG alone, ``("EEG", "EEG")`` every pair
            of two different EEG channels (each pair once, in the order of the channels).

    Raises:
        CellError: the recording lacks a channel that the network needs.
    """
    for group in set(groups):
        there, needed = len(recording.groups.get(group, ())), groups.count(group)
        if there < needed:
            raise CellError(
                f"{recording.corpus}/{recording.name}: {there or 'no'} {group} channel was prepared"
                + (f", but the network takes {needed}" if needed > 1 else "")
            )
    choices: list[tuple[int, ...]] = [()]
    for group in groups:
        choices = [(*choice, channel) for choice in choices for channel in recording.groups[group]]
    if len(set(groups)) == len(groups):
        return choices
    once = {frozenset(choice): choice for choice in reversed(choices) if len(set(choice)) == len(choice)}
    return [choice for choice in choices if once.get(frozenset(choice)) == choice]


@dataclass(frozen=True, kw_only=True)
class WindowPlan:
    """Windows of one pass: for window i the recording's index, first epoch and channels. All [n] or [n, channels]."""

    recording: npt.NDArray[np.int64]
    start: npt.NDArray[np.int64]
    channels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.recording)

    def part(self, windows: slice) -> WindowPlan:
        """Some of the windows."""
        return WindowPlan(recording=self.recording[windows], start=self.start[windows], channels=self.channels[windows])


class BalancedSampler:
    """Draws windows: corpus, then stage, then a night holding it, then one epoch of it, then a window around it.

    A corpus is drawn with probability half proportional to its recordings, half uniform; a stage uniformly among those
    the corpus has; a night uniformly among those holding the stage; an epoch uniformly; the window's place around the
    epoch uniformly, as far as the night reaches; one channel of each group uniformly.

    All windows of a pass are drawn at once, one level after the other. Each level is a table: its entries lie one
    after the other in an array, and what is above it holds the place of its first entry and their number.
    """

    def __init__(self, recordings: Sequence[PreparedRecording], *, window_epochs: int, channels: Sequence[str]) -> None:
        if not recordings:
            raise CellError("no recordings to train on")
        self.recordings = list(recordings)
        self.window_epochs = window_epochs
        self.n_epochs = np.array([recording.n_epochs for recording in recordings])
        corpora = sorted({recording.corpus for recording in recordings})
        sizes = np.array([sum(recording.corpus == corpus for recording in recordings) for corpus in corpora])
        self.corpus_probability = 0.5 * sizes / sizes.sum() + 0.5 / len(corpora)
        nights = [recording.stages() for recording in recordings]
        self.stage_counts = np.bincount(
            np.concatenate([stages[stages >= 0] for stages in nights]), minlength=N_STAGES
        ).astype(np.int64)
        # Every night's stages in one array, and an unscored epoch at the end for what lies beyond a night.
        self._night_begins = _begins([len(stages) for stages in nights])
        self._stages = np.concatenate([*nights, [np.int8(UNSCORED)]])
        self._epochs = _Table()
        self._holders = _Table()
        self._by_stage = _Table()
        for corpus in corpora:
            members = [index for index, recording in enumerate(recordings) if recording.corpus == corpus]
            of_corpus = []
            for stage in range(N_STAGES):
                holders = []
                for index in members:
                    positions = np.flatnonzero(nights[index] == stage)
                    if len(positions):
                        holders.append((index, self._epochs.add(positions)))
                if holders:
                    of_corpus.append(self._holders.add(np.array(holders)))
            if not of_corpus:
                raise CellError(f"{corpus}: no scored epoch to train on")
            self._by_stage.add(np.array(of_corpus))
        self._reader = WindowReader(recordings, window_epochs=window_epochs)
        self._choices = _Table()
        for recording in recordings:
            self._choices.add(np.array(channel_choices(recording, channels)))

    @property
    def n_scored(self) -> int:
        """Scored epochs there are to train on."""
        return int(self.stage_counts.sum())

    def plan(self, *, seed: int, pass_number: int, windows: int) -> WindowPlan:
        """The windows of one pass; the same for the same arguments, whatever was drawn before."""
        random = np.random.default_rng(np.random.SeedSequence([seed, pass_number, 0x5A]))
        corpus = random.choice(len(self.corpus_probability), size=windows, p=self.corpus_probability)
        of_stage = self._by_stage.draw(random, corpus)
        recording, of_night = self._holders.draw(random, of_stage).T
        epoch = self._epochs.draw(random, of_night)
        start = epoch - random.integers(self.window_epochs, size=windows)
        start = np.clip(start, 0, np.maximum(0, self.n_epochs[recording] - self.window_epochs))
        return WindowPlan(recording=recording, start=start, channels=self._choices.draw(random, recording))

    def stages(self, plan: WindowPlan) -> npt.NDArray[np.int64]:
        """Stages [n, T] of the windows of a plan; -1 where unscored and beyond the end of a night."""
        epoch = plan.start[:, None] + np.arange(self.window_epochs)
        at = np.where(epoch < self.n_epochs[plan.recording, None], self._night_begins[plan.recording, None] + epoch, -1)
        found: npt.NDArray[np.int64] = self._stages[at].astype(np.int64)
        return found

    def gather(self, plan: WindowPlan, windows: slice) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Signals [n, channels, T * 3840] and stages [n, T] of some windows of a plan.

        A night shorter than a window is padded with zeros that are unscored.
        """
        import torch  # numpy converts one value after the other, torch with vector instructions

        part = plan.part(windows)
        halves = self._reader.signals(part.recording, part.start, part.channels)
        return torch.from_numpy(halves).to(torch.float32).numpy(), self.stages(part)


class _Table:
    """Groups of rows, one after the other."""

    def __init__(self) -> None:
        self._groups: list[npt.NDArray[np.int64]] = []
        self._rows: npt.NDArray[np.int64] | None = None

    def add(self, rows: npt.NDArray[np.int64]) -> int:
        """Append a group, which is not empty; returns its number."""
        self._groups.append(rows)
        return len(self._groups) - 1

    def draw(self, random: np.random.Generator, groups: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """One row, uniformly, of each of these groups."""
        if self._rows is None:
            self._rows = np.concatenate(self._groups).astype(np.int64)
            self._sizes = np.array([len(group) for group in self._groups])
            self._first = _begins(self._sizes)
            self._groups = []
        drawn: npt.NDArray[np.int64] = self._rows[self._first[groups] + random.integers(self._sizes[groups])]
        return drawn


def _begins(sizes: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Where each of several pieces begins when they lie one after the other."""
    ends = np.cumsum(sizes)
    return np.concatenate([[0], ends[:-1]]).astype(np.int64)
