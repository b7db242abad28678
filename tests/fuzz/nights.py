"""Judging a broken night: read with everything that tusp reads it with, held against a second reader."""

from __future__ import annotations

import json
import os
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np

from fuzz.mutation import BYTE_MUTATORS, ODD_KINDS, Content, Mutant, Odd, Rng, pick
from fuzz.target import Finding, Target, judged, say
from tusp.datasets.audit import audit_recording
from tusp.datasets.recording import Adapter, RecordingFiles
from tusp.platform.errors import DataError, UserError

Files = dict[str, bytes]
AnyMutator = Callable[[bytes, Rng], tuple[bytes, str] | tuple[bytes, str, bool]]
"""The third part says that only a refusal is right."""


@dataclass(kw_only=True)
class Read:
    """One night as tusp or a second reader reads it; None or absent where a second reader cannot say."""

    stages: np.ndarray | None = None
    scorers: dict[str, np.ndarray] = field(default_factory=dict)
    samples: dict[str, tuple[float, np.ndarray]] = field(default_factory=dict)
    """Channel to its sampling rate and samples in microvolts."""
    problems: tuple[str, ...] = ()


def place(root: Path, files: Mapping[str, Content]) -> None:
    """Write files, and the odd things in place of files."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(content, Odd):
            path.write_bytes(content)
        elif content.kind == "fifo":
            os.mkfifo(path)
        elif content.kind == "folder":
            path.mkdir()
        elif content.kind != "missing":
            path.symlink_to({"dangling": "nowhere", "loop": path.name, "zero": "/dev/zero"}[content.kind])


def stages_at_middles(
    runs: Sequence[tuple[float, float | None, str]], codes: Mapping[str, int], n_epochs: int, shift: float = 0.0
) -> np.ndarray:
    """Stage of each 30-s epoch at its middle by looking at every run, -1 where none or two that differ."""
    plain = {" ".join(label.split()).casefold(): code for label, code in codes.items()}
    known = [
        (onset, length, plain[key])
        for onset, length, label in runs
        if (key := " ".join(label.split()).casefold()) in plain
    ]
    onsets = sorted({onset for onset, _, _ in known})
    stages = np.full(n_epochs, -1, np.int8)
    found: list[set[int]] = [set() for _ in range(n_epochs)]
    for onset, length, code in known:
        later = [other for other in onsets if other > onset]
        end = onset + length if length else (later[0] if later else onset + 30)
        for epoch in range(n_epochs):
            if onset + shift <= 30 * epoch + 15 + 1e-6 and 30 * epoch + 15 < end + shift - 1e-6:
                found[epoch].add(code)
    for epoch, here in enumerate(found):
        if len(here) == 1:
            stages[epoch] = here.pop()
    return stages


class _Once:
    """An adapter whose answers about one night are kept, so that the audit does not read everything a second time."""

    def __init__(self, adapter: Adapter) -> None:
        self.card = adapter.card
        self._adapter = adapter
        self._kept: dict[tuple[str, ...], object] = {}

    def _ask(self, what: str, night: RecordingFiles, *name: str) -> object:
        if (what, *name) not in self._kept:
            self._kept[(what, *name)] = getattr(self._adapter, what)(night, *name)
        return self._kept[(what, *name)]

    def __getattr__(self, what: str) -> object:
        if what in ("channels", "problems", "hypnogram", "scorers", "read"):
            return partial(self._ask, what)
        return getattr(self._adapter, what)


class NightTarget(Target):
    """A format of night files: mutates ``victims`` of one of the sound nights, beside another night left sound."""

    without_signals_no_night = False
    """True where a folder without the signals' file holds nothing of the corpus: its other files mean nothing alone."""
    exact_length = True
    """False where channels may differ in length, so that readers may differ in how many unscored epochs follow."""

    def __init__(self, workspace: Path) -> None:
        super().__init__(workspace)
        self.adapter = self.make_adapter()
        self.seeds: list[Files] = []
        self.baselines: list[Read] = []
        self.found: list[RecordingFiles] = []
        self.beside = self._collect("beside", self.write_beside)
        for index, write in enumerate(self.writers()):
            files = self._collect(f"seed{index}", write)
            root = workspace / f"both{index}"
            place(root, {**files, **self.beside})
            discovery = self.adapter.discover(root)
            night, other = self._two(root, discovery.recordings, files, dict(discovery.refused))
            self.seeds.append(files)
            self.found.append(night)
            self.baselines.append(self._read(root, night, files)[0])
            self.other = other.name

    def _collect(self, name: str, write: Callable[[Path], None]) -> Files:
        folder = self.workspace / name
        folder.mkdir(parents=True)
        write(folder)
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

    def _two(
        self, root: Path, recordings: Sequence[RecordingFiles], files: Files, refused: dict[str, str]
    ) -> tuple[RecordingFiles, RecordingFiles]:
        ours = [r for r in recordings if r.signals.relative_to(root).as_posix() in files]
        others = [r for r in recordings if r not in ours]
        if len(ours) != 1 or len(others) != 1:
            raise Finding(f"the sound files are not two nights: {recordings}, refused {refused}")
        return ours[0], others[0]

    @abstractmethod
    def make_adapter(self) -> Adapter: ...

    @abstractmethod
    def writers(self) -> Sequence[Callable[[Path], None]]:
        """Each writes one version of the night to break."""

    @abstractmethod
    def write_beside(self, folder: Path) -> None:
        """Writes the other night."""

    @abstractmethod
    def victims(self, files: Files) -> Sequence[str]:
        """Names of the files to break."""

    @abstractmethod
    def mutators(self, name: str) -> Sequence[AnyMutator]:
        """What breaks this file knowingly."""

    def truth(self, root: Path, baseline: Read, files: Mapping[str, Content]) -> Read | None:
        """The mutated night through a second reader, None where there is none. By default only the seed is right."""
        return baseline

    def mutant(self, rng: Rng) -> Mutant:
        number = pick(rng, self.seeds)
        seed = self.seeds[number]
        victim = (names := list(self.victims(seed)))[pick(rng, names)]
        if rng.random() < 0.03:
            kind = ODD_KINDS[pick(rng, ODD_KINDS)]
            return Mutant(files={**seed, victim: Odd(kind=kind)}, what=[f"{victim}: {kind} in its place"], seed=number)
        content, what, must = seed[victim], [], False
        rounds = 1 if rng.random() < 0.6 else int(rng.integers(2, 4))
        for _ in range(rounds):
            known = self.mutators(victim)
            mutators = known if known and rng.random() < 0.65 else BYTE_MUTATORS
            content, said, *refuse = mutators[pick(rng, mutators)](content, rng)
            what.append(f"{victim}: {said}")
            must = bool(refuse and refuse[0] and rounds == 1 and content != seed[victim])
        second = [self.found[number].others.get(role) for role in ("profusion", "one_hot")]
        if any(path is not None and path.name == Path(victim).name for path in second):
            must = False  # a second label file that cannot be read is reported, and the first one used
        return Mutant(files={**seed, victim: content}, what=what, must_refuse=must, seed=number)

    def check(self, root: Path, mutant: Mutant) -> str:
        index = mutant.seed
        seed, baseline, name = self.seeds[index], self.baselines[index], self.found[index].name
        place(root, {**self.beside, **mutant.files})
        discovery = self.adapter.discover(root)
        names = [Path(file).name for file in seed]
        if not any(r.name == self.other for r in discovery.recordings):
            raise Finding(f"the sound night beside it is gone: {dict(discovery.refused)}")
        for reason in discovery.refused.values():
            say(reason, *names, *self.folders(seed))
        ours = [r for r in discovery.recordings if r.name != self.other]
        if not ours:
            odd = [isinstance(content, Odd) for content in mutant.files.values()]
            gone = all(odd) or (self.without_signals_no_night and any(odd))
            if not discovery.refused and not discovery.excluded and not gone:
                raise Finding("the night is dropped in silence")
            return "refused"
        if len(ours) > 1 or (ours[0].name, ours[0].subject) != (name, self.found[index].subject):
            raise Finding(f"another night than {name}: {ours}")
        if ours[0].simulated != self.found[index].simulated:
            raise Finding("the flag of simulation changed")
        try:
            read, accepted = self._read(root, ours[0], seed)
        except UserError as error:
            say(str(error), *names, *self.folders(seed))
            row = audit_recording(self.adapter, root, ours[0])
            if row.usable:
                raise Finding(f"the audit accepts what the adapter refuses: {error}") from error
            return "refused"
        if not accepted:
            return "refused"
        if self._same(read, baseline):
            return judged("equal", mutant)
        try:
            truth = self.truth(root, baseline, mutant.files)
        except Finding:
            raise
        except Exception as error:  # the second reader's complaint is a finding, whatever it is
            raise Finding(f"accepted what the second reader cannot read: {type(error).__name__}: {error}") from error
        if truth is not None:
            self._hold(read, truth)
        return judged("different", mutant, f"(problems: {list(read.problems)})")

    def folders(self, files: Files) -> list[str]:
        """Names of the seed's own folders, which may stand for its files in a message."""
        return sorted({Path(file).parts[0] for file in files if len(Path(file).parts) > 1})

    def _read(self, root: Path, night: RecordingFiles, files: Files) -> tuple[Read, bool]:
        """Everything that the audit reads, and whether the audit accepts the night; invariants are held here."""
        names = [Path(file).name for file in files]
        adapter = cast("Adapter", _Once(self.adapter))
        channels = {channel.name: channel for channel in adapter.channels(night)}
        problems = list(adapter.problems(night))
        hypnogram = adapter.hypnogram(night)
        scorers = {key: np.asarray(stages) for key, stages in adapter.scorers(night).items()}
        problems += hypnogram.problems
        read = Read(stages=hypnogram.stages, scorers=scorers)
        needed = [name for group in adapter.card.channel_groups.values() for name in group]
        for name in needed:
            if name not in channels:
                continue
            try:
                read.samples[name] = (channels[name].sampling_rate_hz, adapter.read(night, name))
            except DataError as error:
                say(str(error), *names)
        row = audit_recording(adapter, root, night)
        json.dumps(row.to_json(), allow_nan=False)
        if row.reason is not None:
            say(row.reason, *names, *self.folders(files))
            return read, False
        used = {channel.name for channel in row.channels if channel.used and channel.reason is None}
        if not used <= read.samples.keys():
            raise Finding(f"the audit accepts channels that the adapter does not read: {used - read.samples.keys()}")
        read.samples = {name: read.samples[name] for name in read.samples if name in used}
        read.problems = tuple(dict.fromkeys([*problems, *row.problems]))
        for problem in row.problems:
            say(problem)
        for name, (rate, samples) in read.samples.items():
            if samples.dtype != np.float32 or samples.ndim != 1 or len(samples) != channels[name].n_samples:
                raise Finding(f"{name}: {samples.dtype} {samples.shape}, header states {channels[name].n_samples}")
            if not 0 < rate < 1e6:
                raise Finding(f"{name}: rate of {rate} Hz accepted")
            if not np.isfinite(samples).all() and not any(
                word in problem.casefold() for problem in read.problems for word in ("finite", "missing", "no number")
            ):
                raise Finding(f"{name}: samples that are not finite, and no problem says so: {read.problems}")
        if not read.samples:
            raise Finding("accepted without a channel")
        shortest = min(len(samples) / rate for rate, samples in read.samples.values())
        there = [channels[name] for name in needed if name in channels and channels[name].sampling_rate_hz > 0]
        longest = max(channel.n_samples / channel.sampling_rate_hz for channel in there)
        for which, stages in (("hypnogram", hypnogram.stages), *scorers.items()):
            if stages.dtype != np.int8 or stages.ndim != 1 or not len(stages):
                raise Finding(f"{which}: {stages.dtype} {stages.shape}")
            if stages.min() < -1 or stages.max() > 4:
                raise Finding(f"{which}: stages {np.unique(stages)}")
            if len(stages) > longest / 30 + 1e-6:
                raise Finding(f"{which}: {len(stages)} epochs of labels for {longest} s of signal")
            if which == "hypnogram" and (np.flatnonzero(stages >= 0)[-1] + 1) * 30 > shortest + 1:
                raise Finding(f"{which}: scored beyond the {shortest} s of a channel that is used")
            if len(stages) != len(hypnogram.stages):
                raise Finding(f"{which}: {len(stages)} epochs beside {len(hypnogram.stages)}")
        return read, True

    @staticmethod
    def _same(one: Read, other: Read) -> bool:
        return (
            np.array_equal(one.stages, other.stages)
            and one.scorers.keys() == other.scorers.keys()
            and all(np.array_equal(one.scorers[key], other.scorers[key]) for key in one.scorers)
            and one.samples.keys() == other.samples.keys()
            and all(
                one.samples[key][0] == other.samples[key][0]
                and np.array_equal(one.samples[key][1], other.samples[key][1])
                for key in one.samples
            )
        )

    def _hold(self, read: Read, truth: Read) -> None:
        """Raise unless what tusp read is what the second reader read."""
        assert read.stages is not None
        if truth.stages is not None and not np.array_equal(read.stages, truth.stages):
            same = [np.trim_zeros(stages + 1, "b") for stages in (read.stages, truth.stages)]
            if self.exact_length or not np.array_equal(*same):
                said, says = (stages[:40].tolist() for stages in (read.stages, truth.stages))
                raise Finding(f"labels {said} but the file says {says}: {read.problems}")
        for key, stages in truth.scorers.items():
            if key not in read.scorers or not np.array_equal(read.scorers[key], stages):
                raise Finding(f"{key}: labels {read.scorers.get(key)} but the file says {stages}")
        for name, (rate, samples) in read.samples.items():
            if name not in truth.samples:
                raise Finding(f"{name}: not in the file for the second reader (it has {', '.join(truth.samples)})")
            other_rate, expected = truth.samples[name]
            if abs(rate - other_rate) > 1e-6 * rate or len(samples) != len(expected):
                raise Finding(
                    f"{name}: {len(samples)} samples at {rate} Hz but the file says {len(expected)} at {other_rate} Hz"
                )
            with np.errstate(all="ignore"):
                expected = np.asarray(expected, dtype=np.float32).astype(np.float64)  # what does not fit is infinite
                scale = float(np.abs(expected[np.isfinite(expected)]).max(initial=0.0))
                far = np.flatnonzero(~np.isclose(samples, expected, rtol=1e-4, atol=1e-5 * scale, equal_nan=True))
            if len(far):
                raise Finding(
                    f"{name}: {len(far)} samples differ from the file's, the first at {far[0]}: {samples[far[0]]}"
                    f" for {expected[far[0]]}; problems {read.problems}"
                )
