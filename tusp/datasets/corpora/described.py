"""Anybody's own nights: EDF signals with CSV or EDF+ labels, as a TOML description says (docs/describe.md)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final

from tusp.datasets.corpora.edf_nights import EdfNights, is_simulated
from tusp.datasets.corpora.folders import walk
from tusp.datasets.corpora.simulated import refuse_mixture
from tusp.datasets.formats.edf import microvolts_per, read_header
from tusp.datasets.formats.hypnograms import plain_label, runs_from_csv, runs_from_edf, to_epochs
from tusp.datasets.recording import CorpusCard, Discovery, Hypnogram, RecordingFiles
from tusp.platform.errors import DataError, UserError
from tusp.platform.stages import STAGE_CODES, STAGE_NAMES, UNSCORED

GROUPS: Final = ("EEG", "EOG")
ACCESS: Final = ("open", "agreement", "private")
ALIGNMENTS: Final = ("signal-start", "clock")
FORMATS: Final = ("csv", "edf+")
LONGEST_NAME: Final = 100
_QUOTED: Final = {"*": "\x01", "?": "\x02"}

_SECTIONS: Final = {
    "corpus": {"title", "version", "licence", "access", "citation", "url", "simulated"},
    "signals": {"files", "name"},
    "labels": {"files", "format", "alignment", "stages"},
    "subject": {"pattern"},
    "recordings": {"include", "exclude"},
}
_CHANNEL_KEYS: Final = {"names", "group", "unit"}


@dataclass(frozen=True, kw_only=True)
class DescribedChannel:
    """One canonical channel: the labels it may have in a file, its group, and a unit to believe."""

    name: str
    labels: tuple[str, ...]
    group: str
    unit: str | None


@dataclass(frozen=True, kw_only=True)
class Description:
    """A validated description of a corpus."""

    title: str
    version: str
    licence: str
    access: str
    citation: str
    url: str
    simulated: bool
    signal_files: str
    name_pattern: str | None
    label_files: str
    label_format: str
    alignment: str
    stages: tuple[tuple[str, int], ...]
    subject_pattern: str
    channels: tuple[DescribedChannel, ...]
    include: tuple[str, ...]
    exclude: tuple[str, ...]


class _Table:
    """One table of the TOML; every complaint names the file, the key and what would be right."""

    def __init__(self, source: str, name: str, content: Any, known: set[str]) -> None:
        if not isinstance(content, dict):
            raise UserError(f"{source}: {name} must be a table ([{name}])")
        self.source, self.name, self.content = source, name, content
        for key in content:
            if key not in known:
                where = f"[{name}]" if name else "the description"
                raise UserError(f"{source}: unknown key {key!r} in {where}; known are {', '.join(sorted(known))}")

    def bad(self, key: str, reason: str) -> UserError:
        return UserError(f"{self.source}: {self.name}.{key}: {reason}")

    def text(self, key: str, default: str | None = None, *, among: Sequence[str] = ()) -> str:
        value = self.content.get(key, default)
        if value is None:
            raise self.bad(key, "is missing" + (f"; one of {', '.join(among)}" if among else ""))
        if not isinstance(value, str) or not value.strip():
            raise self.bad(key, f"{value!r} must be a text")
        if among and value not in among:
            raise self.bad(key, f"{value!r} is not one of {', '.join(among)}")
        return value

    def truth(self, key: str) -> bool:
        value = self.content.get(key, False)
        if not isinstance(value, bool):
            raise self.bad(key, f"{value!r} must be true or false")
        return value

    def texts(self, key: str, *, needed: bool = False) -> tuple[str, ...]:
        value = self.content.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise self.bad(key, f"{value!r} must be a list of texts")
        if needed and not value:
            raise self.bad(key, "is missing or empty; give a list of texts")
        return tuple(value)

    def pattern(self, key: str, group: str, *, needed: bool) -> str | None:
        if key not in self.content and not needed:
            return None
        value = self.text(key)
        try:
            compiled = re.compile(value)
        except re.error as error:
            raise self.bad(key, f"{value!r} is not a regular expression ({error})") from error
        if group not in compiled.groupindex:
            raise self.bad(key, f"{value!r} has no group named {group}: (?P<{group}>...)")
        return value

    def files(self, key: str, placeholders: Sequence[str]) -> str:
        value = self.text(key)
        path = PurePosixPath(value)
        if path.is_absolute() or ".." in path.parts:
            raise self.bad(key, f"{value!r} must stay inside the corpus's folder")
        for name in re.findall(r"\{(.*?)\}", value):
            if name not in placeholders:
                known = ", ".join(f"{{{item}}}" for item in placeholders) or "none"
                raise self.bad(key, f"unknown placeholder {{{name}}}; known: {known}")
        return value


def _stages(table: _Table) -> tuple[tuple[str, int], ...]:
    value = table.content.get("stages")
    if not isinstance(value, dict) or not value:
        raise table.bad("stages", f"is missing; map each label of the files to {', '.join(STAGE_NAMES)} or unscored")
    stages: dict[str, tuple[str, int]] = {}
    for label, stage in value.items():
        if stage != "unscored" and stage not in STAGE_CODES:
            raise table.bad(f"stages.{label}", f"{stage!r} is not one of {', '.join(STAGE_NAMES)}, unscored")
        code = UNSCORED if stage == "unscored" else STAGE_CODES[stage]
        if stages.setdefault(plain_label(label), (label, code))[1] != code:
            raise table.bad(f"stages.{label}", "differs only in case from another label with another stage")
    if all(code == UNSCORED for _, code in stages.values()):
        raise table.bad("stages", "maps no label to a stage")
    return tuple(stages.values())


def _channels(source: str, content: Any) -> tuple[DescribedChannel, ...]:
    if not isinstance(content, dict) or not content:
        raise UserError(f'{source}: channels is missing; describe each one: [channels."C3-A2"] names, group')
    channels = []
    for name, keys in content.items():
        table = _Table(source, f"channels.{name}", keys, _CHANNEL_KEYS)
        unit = table.text("unit") if "unit" in table.content else None
        if unit is not None and microvolts_per(unit) is None:
            raise table.bad("unit", f"{unit!r} is not one of nV, uV, mV, V")
        channels.append(
            DescribedChannel(
                name=name,
                labels=table.texts("names", needed=True),
                group=table.text("group", among=GROUPS),
                unit=unit,
            )
        )
    if not any(channel.group == "EEG" for channel in channels):
        raise UserError(f"{source}: channels: none has group EEG; at least one EEG channel is needed")
    return tuple(channels)


def parse_description(text: str, source: str) -> Description:
    """Read and check a description.

    Args:
        text: the TOML.
        source: name of the file, for messages.

    Raises:
        UserError: one line with the first thing that is wrong and what would be right.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{source}: not valid TOML ({error})") from error
    _Table(source, "", content, {*_SECTIONS, "channels"})
    tables = {name: _Table(source, name, content.get(name, {}), known) for name, known in _SECTIONS.items()}
    corpus, signals, labels = tables["corpus"], tables["signals"], tables["labels"]
    owner = {
        "title": corpus.text("title"),
        "version": corpus.text("version", "1"),
        "licence": corpus.text("licence"),
        "access": corpus.text("access", among=ACCESS),
        "citation": corpus.text("citation", "none given"),
        "url": corpus.text("url", "none given"),
    }
    signal_files = signals.files("files", ())
    label_files = labels.files("files", ("name", "stem", "folder"))
    suffix = PurePosixPath(label_files).suffix.lower()
    default_format = {".csv": "csv", ".edf": "edf+"}.get(suffix)
    label_format = labels.text("format", default_format, among=FORMATS)
    alignment = labels.text("alignment", "signal-start", among=ALIGNMENTS)
    if alignment == "clock" and label_format == "csv":
        raise labels.bad("alignment", "'clock' needs EDF+ labels, whose header states the time")
    subject_pattern = tables["subject"].pattern("pattern", "subject", needed=True)
    assert subject_pattern is not None
    include, exclude = (tables["recordings"].texts(key) for key in ("include", "exclude"))
    if include and exclude:
        raise tables["recordings"].bad("include", "stands beside exclude; give one of them")
    return Description(
        **owner,
        simulated=corpus.truth("simulated"),
        signal_files=signal_files,
        name_pattern=signals.pattern("name", "name", needed=False),
        label_files=label_files,
        label_format=label_format,
        alignment=alignment,
        stages=_stages(labels),
        subject_pattern=subject_pattern,
        channels=_channels(source, content.get("channels")),
        include=include,
        exclude=exclude,
    )


def _glob(pattern: str) -> re.Pattern[str]:
    """A glob over paths with forward slashes: ``*`` and ``?`` stay inside a folder, ``**/`` is any folders.

    Without a slash it is compared with the file's name in any folder. What a file's own name contributes is quoted
    beforehand, so that a star in it stands for itself.
    """
    parts = re.split(r"(\*\*/|\*|\?)", pattern.removeprefix("./") if "/" in pattern else f"**/{pattern}")
    meaning = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    translated = "".join(meaning.get(part, re.escape(part)) for part in parts)
    for sign, mark in _QUOTED.items():
        translated = translated.replace(re.escape(mark), re.escape(sign))
    return re.compile(translated, re.IGNORECASE)


def _quoted(text: str) -> str:
    for sign, mark in _QUOTED.items():
        text = text.replace(sign, mark)
    return text


def safe_name(name: str) -> str:
    """A recording's name as it may stand in file names: letters, digits, dot, plus, minus, underscore."""
    return re.sub(r"[^\w.+-]+", "_", name).strip("._")[:LONGEST_NAME]


@dataclass(frozen=True, kw_only=True)
class Described(EdfNights):
    """Adapter of a corpus that its owner described."""

    name: str
    description: Description

    @property
    def card(self) -> CorpusCard:
        said = self.description
        groups: dict[str, tuple[str, ...]] = {}
        for channel in said.channels:
            groups[channel.group] = (*groups.get(channel.group, ()), channel.name)
        return CorpusCard(
            name=self.name,
            title=said.title,
            version=said.version,
            licence=said.licence,
            access=said.access,
            citation=said.citation,
            url=said.url,
            channel_groups={group: groups[group] for group in GROUPS if group in groups},
            label_map=dict(said.stages),
            subject_rule=f"group 'subject' of {said.subject_pattern}",
        )

    @property
    def aliases(self) -> Mapping[str, Sequence[str]]:
        return {channel.name: channel.labels for channel in self.description.channels}

    @property
    def units(self) -> Mapping[str, str]:
        return {channel.name: channel.unit for channel in self.description.channels if channel.unit is not None}

    def settings(self) -> Mapping[str, object]:
        said = self.description
        return {
            "channels": [
                {"name": c.name, "labels": list(c.labels), "group": c.group, "unit": c.unit} for c in said.channels
            ],
            "stages": dict(said.stages),
            "label_format": said.label_format,
            "alignment": said.alignment,
        }

    def discover(self, root: Path) -> Discovery:
        said = self.description
        found = walk(root)
        wanted = _glob(said.signal_files)
        files = [file for file in found.files if wanted.fullmatch(file.as_posix())]
        if not files and not found.unreadable:
            raise UserError(f"{root}: no file matches signals.files = {said.signal_files!r}")
        refused = dict(found.unreadable)
        named: dict[str, list[Path]] = {}
        for file in files:
            name = safe_name(self._stated_name(file) or "")
            if name:
                named.setdefault(name, []).append(file)
            else:
                refused[file.name] = f"{root / file}: signals.name finds no name for the recording"
        self._check_lists(root, named)
        excluded = [n for n in named if n in said.exclude or (said.include and n not in said.include)]
        recordings: list[RecordingFiles] = []
        by_file_name: dict[str, list[Path]] = {}
        for file in found.files:
            by_file_name.setdefault(file.name.casefold(), []).append(file)
        label_owners: dict[Path, list[str]] = {}
        flags: dict[str, bool] = {}
        for name, same in sorted(named.items()):
            if name in excluded:
                continue
            night = self._night(root, name, same, by_file_name)
            if isinstance(night, str):
                refused[name] = night
                continue
            recordings.append(night)
            flags[name] = night.simulated
            assert night.labels is not None
            label_owners.setdefault(night.labels, []).append(name)
        shared = {name: path for path, names in label_owners.items() if len(names) > 1 for name in names}
        for name, path in shared.items():
            refused[name] = f"{path}: labels of more than one night ({', '.join(label_owners[path])})"
        refuse_mixture(root, flags)
        usable = [recording for recording in recordings if recording.name not in shared]
        return Discovery(recordings=usable, refused=refused, excluded=tuple(excluded))

    def _check_lists(self, root: Path, named: Mapping[str, Sequence[Path]]) -> None:
        for key, names in (("include", self.description.include), ("exclude", self.description.exclude)):
            for name in names:
                if name not in named:
                    raise UserError(
                        f"recordings.{key}: {root} holds no recording {name!r}"
                        f" (it has {', '.join(sorted(named)[:5])}{', ...' if len(named) > 5 else ''})"
                    )

    def _stated_name(self, file: Path) -> str | None:
        """The recording's name before it is made safe; None when signals.name finds none."""
        pattern = self.description.name_pattern
        if pattern is None:
            return file.stem
        match = re.search(pattern, file.with_suffix("").as_posix())
        return match["name"] if match else None

    def _labels(self, file: Path, by_file_name: Mapping[str, Sequence[Path]]) -> list[Path]:
        """Files that labels.files can mean for these signals."""
        pattern = self.description.label_files
        values = {"name": self._stated_name(file) or "", "stem": file.stem, "folder": file.parent.as_posix()}
        for key, value in values.items():
            pattern = pattern.replace(f"{{{key}}}", _quoted(value))
        wanted = _glob(pattern)
        last = pattern.rsplit("/", 1)[-1]
        if "*" in last or "?" in last:
            candidates = [path for paths in by_file_name.values() for path in paths]
        else:
            for sign, mark in _QUOTED.items():
                last = last.replace(mark, sign)
            candidates = list(by_file_name.get(last.casefold(), ()))
        return [path for path in candidates if path != file and wanted.fullmatch(path.as_posix())]

    def _night(
        self, root: Path, name: str, same: Sequence[Path], by_file_name: Mapping[str, Sequence[Path]]
    ) -> RecordingFiles | str:
        """The night's files, or why it is refused."""
        said = self.description
        if len(same) > 1:
            return f"{root}: {len(same)} files would have this name: {', '.join(map(str, same))}; set signals.name"
        file = same[0]
        subject = re.search(said.subject_pattern, name)
        if subject is None or not subject["subject"]:
            return f"{root / file}: subject.pattern does not match the name {name!r}"
        labels = self._labels(file, by_file_name)
        if not labels:
            return f"{root / file}: no hypnogram beside these signals (looked for {said.label_files})"
        if len(labels) > 1:
            return f"{root / file}: {len(labels)} files could be its hypnogram: {', '.join(map(str, labels[:3]))}"
        try:
            simulated = said.simulated or is_simulated(read_header(root / file))
            if said.label_format == "edf+":
                simulated = simulated or is_simulated(read_header(root / labels[0]))
        except DataError as error:
            return str(error)
        return RecordingFiles(
            name=name,
            subject=subject["subject"],
            signals=root / file,
            labels=root / labels[0],
            simulated=simulated,
        )

    def hypnogram(self, recording: RecordingFiles) -> Hypnogram:
        if recording.labels is None:
            raise DataError(f"{recording.signals}: no hypnogram beside these signals")
        said = self.description
        signals = read_header(recording.signals)
        if said.label_format == "csv":
            runs = runs_from_csv(recording.labels)
            return to_epochs(runs, dict(said.stages), signal_seconds=signals.seconds)
        labels = read_header(recording.labels)
        runs = runs_from_edf(labels)
        shift = 0.0
        problems: tuple[str, ...] = ()
        if said.alignment == "clock":
            if signals.start is None or labels.start is None:
                raise DataError(f"{recording.labels}: a header has no readable start; no clock to align by")
            shift = (labels.start - signals.start).total_seconds()
            if abs(shift) > 86400:
                raise DataError(
                    f"{recording.labels}: labels start {labels.start:%Y-%m-%d %H:%M:%S}, signals"
                    f" {signals.start:%Y-%m-%d %H:%M:%S}; they are not of one night"
                )
        elif signals.start != labels.start:
            problems = ("headers of signals and labels state different starts; aligned by signal-start",)
        hypnogram = to_epochs(runs, dict(said.stages), signal_seconds=signals.seconds, shift_seconds=shift)
        return replace(hypnogram, problems=(*problems, *hypnogram.problems))
