"""Hypnograms in the two XML formats of the National Sleep Research Resource.

NSRR: ``PSGAnnotation/ScoredEvents/ScoredEvent`` with EventType, EventConcept, Start and Duration, one event a run of
equal stages. Profusion (Compumedics): ``CMPStudyConfig/SleepStages/SleepStage``, one integer an epoch, and
``CMPStudyConfig/EpochLength`` in seconds.

The parser is defusedxml's, with document type declarations, entities and external references refused. It feeds a
target that keeps the wanted fields only, so that memory does not grow with the file.
"""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol
from xml.etree.ElementTree import ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from tusp.datasets.formats.edf import LONGEST_SECONDS, unreadable
from tusp.datasets.formats.hypnograms import Run
from tusp.platform.errors import DataError
from tusp.platform.stages import EPOCH_SECONDS

MOST_XML_BYTES: Final = 64 * 2**20
MOST_ELEMENTS: Final = 500_000
"""Elements and attributes together; a night has some 10,000."""
LONGEST_TAG_BYTES: Final = 2**20
MOST_RUNS: Final = 200_000
DEEPEST: Final = 64
LONGEST_TEXT: Final = 1000
"""Characters of a field that is read."""
LONGEST_EPOCH_SECONDS: Final = 600.0
NSRR_STAGES: Final = "stages|stages"
_NSRR_FIELDS: Final = ("EventType", "EventConcept", "Start", "Duration")
_BLOCK_BYTES: Final = 2**16


class _Target(Protocol):
    def opened(self, path: tuple[str, ...]) -> None: ...
    def closed(self, path: tuple[str, ...], text: str) -> None: ...


class _Stream:
    """What the parser calls: keeps the path of open elements and the text of the innermost one, within bounds."""

    def __init__(self, file: Path, target: _Target) -> None:
        self.file, self.target = file, target
        self.path: tuple[str, ...] = ()
        self.text: list[str] = []
        self.length = self.elements = 0
        self.seen = False
        """Whether the parser called since this was last set to False."""

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self.seen = True
        self.elements += 1 + len(attributes)
        self.path = (*self.path, tag.rpartition("}")[2])
        if len(self.path) > DEEPEST or self.elements > MOST_ELEMENTS:
            raise DataError(f"{self.file}: too many elements or attributes, or too deep, for a hypnogram")
        self.text, self.length = [], 0
        self.target.opened(self.path)

    def data(self, text: str) -> None:
        self.seen = True
        if self.length < LONGEST_TEXT:
            self.text.append(text)
            self.length += len(text)

    def end(self, tag: str) -> None:
        self.seen = True
        self.target.closed(self.path, "".join(self.text).strip()[:LONGEST_TEXT])
        self.path = self.path[:-1]
        self.text, self.length = [], 0

    def close(self) -> None: ...


def _parse(path: Path, target: _Target) -> None:
    """Feed a file to a target.

    Raises:
        DataError: unreadable, too large, not well-formed, or with a document type declaration.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path}: not a regular file")
        if status.st_size > MOST_XML_BYTES:
            raise DataError(f"{path}: {status.st_size} bytes are too many for a hypnogram (at most {MOST_XML_BYTES})")
        if status.st_size == 0:
            raise DataError(f"{path}: empty file (0 bytes)")
        calls = _Stream(path, target)
        parser = DefusedXMLParser(target=calls, forbid_dtd=True, forbid_entities=True, forbid_external=True)
        waiting = 0
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK_BYTES):
                calls.seen = False
                parser.feed(block)
                # A tag is kept whole in memory, and looked through again with every block, until it ends.
                waiting = 0 if calls.seen else waiting + len(block)
                if waiting > LONGEST_TAG_BYTES:
                    raise DataError(f"{path}: a tag or comment of more than {LONGEST_TAG_BYTES} bytes")
        parser.close()
    except OSError as error:
        raise unreadable(path, error) from error
    except DefusedXmlException as error:
        raise DataError(
            f"{path}: has a document type declaration or entities, which no hypnogram needs ({type(error).__name__})"
        ) from error
    except ParseError as error:
        raise DataError(f"{path}: not well-formed XML ({error})") from error
    except (LookupError, ValueError) as error:  # an encoding that Python or the parser does not know
        raise DataError(f"{path}: cannot be decoded as XML ({' '.join(str(error).split())[:100]})") from error


def _shown(text: str) -> str:
    return repr(text[:40])


def _seconds(path: Path, text: str | None, what: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not 0 <= value <= LONGEST_SECONDS:
        raise DataError(f"{path}: {what} is {_shown(text) if text else 'missing'}; wanted seconds from 0 on")
    return value


def _expect_root(path: Path, found: str, wanted: str, kind: str) -> None:
    if found != wanted:
        raise DataError(f"{path}: not {kind} annotations (root element {_shown(found)}, wanted {wanted!r})")


def _not_plain(path: Path, what: str, inner: str) -> DataError:
    """A field is text; of one with an element inside it is not clear which part of the text is meant."""
    return DataError(f"{path}: {what} holds an element {_shown(inner)}; wanted text alone")


class _Nsrr:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.fields: dict[str, str] = {}
        self.runs: list[Run] = []
        self.events = 0

    def opened(self, path: tuple[str, ...]) -> None:
        if len(path) == 1:
            _expect_root(self.path, path[0], "PSGAnnotation", "NSRR")
        elif path[1:] == ("ScoredEvents", "ScoredEvent"):
            self.fields = {}
            self.events += 1
        elif path[1:3] == ("ScoredEvents", "ScoredEvent") and len(path) > 4 and path[3] in _NSRR_FIELDS:
            raise _not_plain(self.path, f"event {self.events}: {path[3]}", path[-1])

    def closed(self, path: tuple[str, ...], text: str) -> None:
        if path[1:3] != ("ScoredEvents", "ScoredEvent"):
            return
        if len(path) == 4:
            if path[3] in self.fields:
                raise DataError(f"{self.path}: event {self.events} has two elements {_shown(path[3])}")
            if path[3] in _NSRR_FIELDS:
                self.fields[path[3]] = text
        elif len(path) == 3 and "".join(self.fields.get("EventType", "").split()).casefold() == NSRR_STAGES:
            self._add()

    def _add(self) -> None:
        where = f"event {self.events}"
        label = self.fields.get("EventConcept", "")
        if not label:
            raise DataError(f"{self.path}: {where} is a stage without an EventConcept")
        if len(self.runs) >= MOST_RUNS:
            raise DataError(f"{self.path}: more than {MOST_RUNS} stages")
        self.runs.append(
            Run(
                onset=_seconds(self.path, self.fields.get("Start"), f"{where}: Start"),
                duration=_seconds(self.path, self.fields.get("Duration"), f"{where}: Duration"),
                label=label,
            )
        )


class _Profusion:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.stages: list[str] = []
        self.lists = 0
        self.epoch_seconds: float | None = None

    def opened(self, path: tuple[str, ...]) -> None:
        if len(path) == 1:
            _expect_root(self.path, path[0], "CMPStudyConfig", "Profusion")
        elif path[1:] == ("SleepStages",):
            self.lists += 1
            if self.lists > 1:
                raise DataError(f"{self.path}: holds two lists of sleep stages; which is right?")
        elif path[1:-1] in (("SleepStages", "SleepStage"), ("EpochLength",)):
            raise _not_plain(self.path, path[-2], path[-1])

    def closed(self, path: tuple[str, ...], text: str) -> None:
        if path[1:] == ("SleepStages", "SleepStage"):
            number = len(self.stages) + 1
            if number > MOST_RUNS:
                raise DataError(f"{self.path}: more than {MOST_RUNS} stages")
            if not re.fullmatch(r"[-+]?\d{1,6}", text, re.ASCII):
                raise DataError(f"{self.path}: sleep stage {number} is {_shown(text)}, not a whole number")
            self.stages.append(str(int(text)))
        elif path[1:] == ("EpochLength",):
            if self.epoch_seconds is not None:
                raise DataError(f"{self.path}: states two epoch lengths")
            self.epoch_seconds = _seconds(self.path, text, "EpochLength")
            if not 1 <= self.epoch_seconds <= LONGEST_EPOCH_SECONDS:
                raise DataError(f"{self.path}: epochs of {text} s; wanted 1 to {LONGEST_EPOCH_SECONDS:g}")


def runs_from_nsrr(path: Path) -> list[Run]:
    """Stages of an NSRR annotation file, in file order; the label is the EventConcept (``Stage 1 sleep|1``).

    Raises:
        DataError: unreadable, hostile, not NSRR annotations, without stages, or with a stage that is not what it
            should be.
    """
    target = _Nsrr(path)
    _parse(path, target)
    if not target.runs:
        raise DataError(f"{path}: holds no sleep stages among its {target.events} events")
    return target.runs


def runs_from_profusion(path: Path) -> list[Run]:
    """Stages of a Profusion annotation file, one run an epoch; the label is the integer as text (``5``).

    The length of an epoch is the file's EpochLength, 30 s where it states none.

    Raises:
        DataError: unreadable, hostile, not Profusion annotations, without stages, or with a stage that is no integer.
    """
    target = _Profusion(path)
    _parse(path, target)
    if not target.stages:
        raise DataError(f"{path}: holds no sleep stages")
    length = target.epoch_seconds or float(EPOCH_SECONDS)
    if length * len(target.stages) > LONGEST_SECONDS:
        raise DataError(f"{path}: {len(target.stages)} epochs of {length:g} s are more than a night")
    return [Run(onset=index * length, duration=length, label=label) for index, label in enumerate(target.stages)]
