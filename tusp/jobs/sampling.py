"""Class-balanced sampling of training windows, planned a pass at a time and reproducible from (seed, pass) alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tusp.datasets.prepared import PreparedRecording
from tusp.datasets.windows import WindowReader
from tusp.platform.errors import CellError
from tusp.platform.stages import N_STAGES


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


class BalancedSampler:
    """Draws windows: corpus, then stage, then a night holding it, then one epoch of it, then a window around it.

    A corpus is drawn with probability half proportional to its recordings, half uniform; a stage uniformly among those
    the corpus has; a night uniformly among those holding the stage; an epoch uniformly; the window's place around the
    epoch uniformly, as far as the night reaches; one channel of each group uniformly.
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
        stages = [recording.stages() for recording in recordings]
        self.stage_counts = np.zeros(N_STAGES, np.int64)
        # epochs[corpus][stage] = list of (recording index, positions of the stage in it)
        self.epochs: list[dict[int, list[tuple[int, npt.NDArray[np.int64]]]]] = []
        for corpus in corpora:
            by_stage: dict[int, list[tuple[int, npt.NDArray[np.int64]]]] = {}
            for index, recording in enumerate(recordings):
                if recording.corpus != corpus:
                    continue
                for stage in range(N_STAGES):
                    positions = np.flatnonzero(stages[index] == stage)
                    if len(positions):
                        by_stage.setdefault(stage, []).append((index, positions))
                        self.stage_counts[stage] += len(positions)
            if not by_stage:
                raise CellError(f"{corpus}: no scored epoch to train on")
            self.epochs.append(dict(sorted(by_stage.items())))
        self._reader = WindowReader(recordings, window_epochs=window_epochs)
        self.choices = [np.array(channel_choices(recording, channels)) for recording in recordings]

    @property
    def n_scored(self) -> int:
        """Scored epochs there are to train on."""
        return int(self.stage_counts.sum())

    def plan(self, *, seed: int, pass_number: int, windows: int) -> WindowPlan:
        """The windows of one pass; the same for the same arguments, whatever was drawn before."""
        random = np.random.default_rng(np.random.SeedSequence([seed, pass_number, 0x5A]))
        recording = np.empty(windows, np.int64)
        start = np.empty(windows, np.int64)
        channels = np.empty((windows, self.choices[0].shape[1]), np.int64)
        corpora = random.choice(len(self.epochs), size=windows, p=self.corpus_probability)
        for window in range(windows):
            by_stage = self.epochs[corpora[window]]
            nights = by_stage[list(by_stage)[random.integers(len(by_stage))]]
            index, positions = nights[random.integers(len(nights))]
            epoch = positions[random.integers(len(positions))]
            shifted = epoch - random.integers(self.window_epochs)
            recording[window] = index
            start[window] = min(max(shifted, 0), max(0, self.n_epochs[index] - self.window_epochs))
            channels[window] = self.choices[index][random.integers(len(self.choices[index]))]
        return WindowPlan(recording=recording, start=start, channels=channels)

    def gather(self, plan: WindowPlan, windows: slice) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Signals [n, channels, T * 3840] and stages [n, T] of some windows of a plan.

        A night shorter than a window is padded with zeros that are unscored.
        """
        import torch  # numpy converts one value after the other, torch with vector instructions

        nights, starts = plan.recording[windows], plan.start[windows]
        halves = self._reader.signals(nights, starts, plan.channels[windows])
        return (
            torch.from_numpy(halves).to(torch.float32).numpy(),
            self._reader.stages(nights, starts).astype(np.int64),
        )
