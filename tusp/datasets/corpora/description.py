"""The description of a corpus by its owner: what the TOML may say, and what is wrong with it (docs/describe.md)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from tusp.datasets.formats.edf import HIGHEST_RATE_HZ, microvolts_per
from tusp.datasets.formats.hypnograms import plain_label
from tusp.datasets.formats.label_tables import Columns
from tusp.platform.errors import UserError
from tusp.platform.stages import EPOCH_SECONDS, STAGE_CODES, STAGE_NAMES, UNSCORED

GROUPS: Final = ("EEG", "EOG")
ACCESS: Final = ("open", "agreement", "private")
ALIGNMENTS: Final = ("signal-start", "clock")
SIGNAL_FORMATS: Final = ("edf", "mne", "wfdb", "hdf5")
LABEL_FORMATS: Final = ("csv", "edf+", "nsrr-xml", "profusion-xml", "list")
LONGEST_EPOCH_SECONDS: Final = 300
LONGEST_SHOWN: Final = 300
"""Characters of a value in a message."""
MOST_DOTS: Final = 200
"""In one line of a description."""

_SIGNAL_FORMAT_OF: Final = {
    **dict.fromkeys(
        (".bdf", ".gdf", ".vhdr", ".ahdr", ".fif", ".set", ".cnt", ".eeg", ".nedf", ".lay", ".cdt", ".data", ".ns3",
         ".nxe"),
        "mne",
    ),
    ".hea": "wfdb",
    **dict.fromkeys((".h5", ".hdf5", ".hdf", ".mat"), "hdf5"),
}  # fmt: skip
"""Format by the ending of the files; any other ending is EDF."""
_LABEL_FORMAT_OF: Final = {".csv": "csv", ".tsv": "csv", ".edf": "edf+", ".json": "list", ".npy": "list"}

_SECTIONS: Final = {
    "corpus": {"title", "version", "licence", "access", "citation", "url", "simulated"},
    "signals": {"files", "format", "name", "rate_attribute"},
    "labels": {"files", "format", "alignment", "columns", "dataset", "epoch_seconds", "stages"},
    "subject": {"pattern"},
    "recordings": {"include", "exclude"},
}
_CHANNEL_KEYS: Final = {"names", "group", "rate_hz", "unit"}
_COLUMN_KEYS: Final = {"onset", "duration", "stage"}


@dataclass(frozen=True, kw_only=True)
class DescribedChannel:
    """One canonical channel: the labels it may have in a file, its group, and a unit and a rate to believe."""

    name: str
    labels: tuple[str, ...]
    group: str
    unit: str | None
    rate_hz: float | None = None


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
    label_files: str | None
    """None where the labels are inside the signal file."""
    label_format: str
    alignment: str
    stages: tuple[tuple[str, int], ...]
    subject_pattern: str
    channels: tuple[DescribedChannel, ...]
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    signal_format: str = "edf"
    rate_attribute: str | None = None
    label_dataset: str | None = None
    epoch_seconds: float = EPOCH_SECONDS
    columns: Columns | None = None


def _shown(value: object) -> str:
    """A value of the TOML for a message."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of thousands of digits
        text = "a number of thousands of digits"
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 3]}..."


class _Table:
    """One table of the TOML; every complaint names the file, the key and what would be right."""

    def __init__(self, source: str, name: str, content: Any, known: set[str]) -> None:
        if not isinstance(content, dict):
            raise UserError(f"{source}: {name} must be a table ([{name}])")
        self.source, self.name, self.content = source, name, content
        for key in content:
            if key not in known:
                where = f"[{name}]" if name else "the description"
                raise UserError(f"{source}: unknown key {_shown(key)} in {where}; known are {', '.join(sorted(known))}")

    def bad(self, key: str, reason: str) -> UserError:
        return UserError(f"{self.source}: {self.name}.{key}: {reason}")

    def text(self, key: str, default: str | None = None, *, among: Sequence[str] = ()) -> str:
        value = self.content.get(key, default)
        if value is None:
            raise self.bad(key, "is missing" + (f"; one of {', '.join(among)}" if among else ""))
        if not isinstance(value, str) or not value.strip():
            raise self.bad(key, f"{_shown(value)} must be a text")
        if among and value not in among:
            raise self.bad(key, f"{_shown(value)} is not one of {', '.join(among)}")
        return value

    def truth(self, key: str) -> bool:
        value = self.content.get(key, False)
        if not isinstance(value, bool):
            raise self.bad(key, f"{_shown(value)} must be true or false")
        return value

    def number(self, key: str, largest: float) -> float | None:
        """A number above 0, or None where the key is not there."""
        value = self.content.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= largest:
            raise self.bad(key, f"{_shown(value)} must be a number above 0, at most {largest:g}")
        return float(value)

    def texts(self, key: str, *, needed: bool = False) -> tuple[str, ...]:
        value = self.content.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise self.bad(key, f"{_shown(value)} must be a list of texts")
        if needed and not value:
            raise self.bad(key, "is missing or empty; give a list of texts")
        return tuple(value)

    def pattern(self, key: str, group: str, *, needed: bool) -> str | None:
        if key not in self.content and not needed:
            return None
        value = self.text(key)
        try:
            compiled = re.compile(value)
        except (re.error, RecursionError, OverflowError) as error:
            raise self.bad(key, f"{_shown(value)} is not a regular expression ({error})") from error
        if group not in compiled.groupindex:
            raise self.bad(key, f"{_shown(value)} has no group named {group}: (?P<{group}>...)")
        return value

    def files(self, key: str, placeholders: Sequence[str]) -> str:
        value = self.text(key)
        path = PurePosixPath(value)
        if path.is_absolute() or ".." in path.parts:
            raise self.bad(key, f"{_shown(value)} must stay inside the corpus's folder")
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
        if not isinstance(stage, str) or (stage != "unscored" and stage not in STAGE_CODES):
            raise table.bad(f"stages.{label}", f"{_shown(stage)} is not one of {', '.join(STAGE_NAMES)}, unscored")
        code = UNSCORED if stage == "unscored" else STAGE_CODES[stage]
        if stages.setdefault(plain_label(label), (label, code))[1] != code:
            raise table.bad(f"stages.{label}", "differs only in case from another label with another stage")
    if all(code == UNSCORED for _, code in stages.values()):
        raise table.bad("stages", "maps no label to a stage")
    return tuple(stages.values())


def _channels(signals: _Table, signal_format: str, content: Any) -> tuple[DescribedChannel, ...]:
    source = signals.source
    if not isinstance(content, dict) or not content:
        raise UserError(f'{source}: channels is missing; describe each one: [channels."C3-A2"] names, group')
    channels = []
    for name, keys in content.items():
        table = _Table(source, f"channels.{name}", keys, _CHANNEL_KEYS)
        unit = table.text("unit") if "unit" in table.content else None
        if unit is not None and microvolts_per(unit) is None:
            raise table.bad("unit", f"{unit!r} is not one of nV, uV, mV, V")
        rate_hz = table.number("rate_hz", HIGHEST_RATE_HZ)
        if signal_format == "hdf5":
            if unit is None:
                raise table.bad("unit", "is missing; HDF5 states no unit, give nV, uV, mV or V")
            if rate_hz is None and "rate_attribute" not in signals.content:
                raise table.bad("rate_hz", "is missing; give it, or the name of an attribute in signals.rate_attribute")
        elif rate_hz is not None:
            raise table.bad("rate_hz", f"is for HDF5 signals; {signal_format} files state their own")
        channels.append(
            DescribedChannel(
                name=name,
                labels=table.texts("names", needed=True),
                group=table.text("group", among=GROUPS),
                unit=unit,
                rate_hz=rate_hz,
            )
        )
    if not any(channel.group == "EEG" for channel in channels):
        raise UserError(f"{source}: channels: none has group EEG; at least one EEG channel is needed")
    return tuple(channels)


def _suffix(pattern: str) -> str:
    return PurePosixPath(pattern).suffix.lower()


def _signal_format(signals: _Table, files: str) -> str:
    suffix = _suffix(files)
    chosen = signals.text("format", _SIGNAL_FORMAT_OF.get(suffix, "edf"), among=SIGNAL_FORMATS)
    if chosen == "mne" and suffix == ".edf":
        raise signals.bad("format", "'mne' is not for EDF, which has a reader of its own; write 'edf'")
    if chosen == "wfdb" and suffix != ".hea":
        raise signals.bad("files", f"{files!r} must name the headers of the records (*.hea)")
    if "rate_attribute" in signals.content and chosen != "hdf5":
        raise signals.bad("rate_attribute", f"is for HDF5 signals; {chosen} files state their own rates")
    return chosen


def _columns(labels: _Table) -> Columns | None:
    content = labels.content.get("columns")
    if content is None:
        return None
    table = _Table(labels.source, f"{labels.name}.columns", content, _COLUMN_KEYS)
    duration = table.text("duration") if "duration" in table.content else None
    return Columns(onset=table.text("onset"), duration=duration, stage=table.text("stage"))


def _labels(labels: _Table, signal_format: str) -> dict[str, Any]:
    """Everything in [labels] but the stages."""
    dataset = labels.text("dataset").strip("/") if "dataset" in labels.content else None
    inside = dataset is not None and "files" not in labels.content
    if inside and signal_format != "hdf5":
        raise labels.bad("files", f"is missing; only HDF5 signals can hold their own labels, not {signal_format}")
    files = None if inside else labels.files("files", ("name", "stem", "folder"))
    default = "list" if dataset is not None else _LABEL_FORMAT_OF.get(_suffix(files or ""))
    chosen = labels.text("format", default, among=LABEL_FORMATS)
    if dataset is not None and chosen != "list":
        raise labels.bad("dataset", f"is for a list in an HDF5 file, not for format {chosen!r}")
    for key, wanted in (("epoch_seconds", "list"), ("columns", "csv")):
        if key in labels.content and chosen != wanted:
            raise labels.bad(key, f"is for labels of format {wanted!r}, not {chosen!r}")
    alignment = labels.text("alignment", "signal-start", among=ALIGNMENTS)
    if alignment == "clock" and chosen != "edf+":
        raise labels.bad("alignment", "'clock' needs EDF+ labels, whose header states the time")
    if alignment == "clock" and signal_format == "hdf5":
        raise labels.bad("alignment", "'clock' needs signals whose header states the time, which HDF5 does not")
    return {
        "label_files": files,
        "label_format": chosen,
        "label_dataset": dataset,
        "alignment": alignment,
        "epoch_seconds": labels.number("epoch_seconds", LONGEST_EPOCH_SECONDS) or float(EPOCH_SECONDS),
        "columns": _columns(labels),
    }


def parse_description(text: str, source: str) -> Description:
    """Read and check a description.

    Args:
        text: the TOML.
        source: name of the file, for messages.

    Raises:
        UserError: one line with the first thing that is wrong and what would be right.
    """
    for number, line in enumerate(text.splitlines(), start=1):
        if line.count(".") > MOST_DOTS:  # a dotted key of such a length takes tomllib gigabytes
            raise UserError(f"{source}: line {number} has more than {MOST_DOTS} dots; not a description")
    try:
        content = tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, or a number of thousands of digits
        raise UserError(f"{source}: not valid TOML ({error})") from error
    except RecursionError as error:
        raise UserError(f"{source}: not a description (nested too deeply)") from error
    _Table(source, "", content, {*_SECTIONS, "channels"})
    tables = {name: _Table(source, name, content.get(name, {}), known) for name, known in _SECTIONS.items()}
    corpus, signals, labels = tables["corpus"], tables["signals"], tables["labels"]
    owner: dict[str, Any] = {
        "title": corpus.text("title"),
        "version": corpus.text("version", "1"),
        "licence": corpus.text("licence"),
        "access": corpus.text("access", among=ACCESS),
        "citation": corpus.text("citation", "none given"),
        "url": corpus.text("url", "none given"),
    }
    signal_files = signals.files("files", ())
    signal_format = _signal_format(signals, signal_files)
    told = _labels(labels, signal_format)
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
        signal_format=signal_format,
        rate_attribute=signals.text("rate_attribute") if "rate_attribute" in signals.content else None,
        **told,
        stages=_stages(labels),
        subject_pattern=subject_pattern,
        channels=_channels(signals, signal_format, content.get("channels")),
        include=include,
        exclude=exclude,
    )
