# ruff: noqa: E501 - tables of hostile values read better with one case a line
"""Hypnograms in the NSRR's and in Profusion's XML, beside the EDF signals of shhs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import edf_files
import edfio
import numpy as np

from fuzz.edf import edf_truth
from fuzz.mutation import TEXT_MUTATORS, Content, Rng, hostile_number, nested, pick
from fuzz.nights import AnyMutator, Files, NightTarget, Read, stages_at_middles
from tusp.datasets.corpora.shhs import NSRR_MAP, PROFUSION_MAP, Shhs
from tusp.datasets.recording import Adapter

SIGNALS = (("EEG", 125), ("EEG(sec)", 125), ("EOG(L)", 50), ("EOG(R)", 50))
ALIASES = {
    "C4-A1": ("EEG", "C4-A1"),
    "C3-A2": ("EEG(sec)", "EEG2", "EEG 2", "EEG_SEC", "EEG sec", "C3-A2"),
    "EOG(L)": ("EOG(L)",),
    "EOG(R)": ("EOG(R)",),
}
CONCEPTS = ("Wake|0", "Stage 1 sleep|1", "Stage 2 sleep|2", "Stage 3 sleep|3", "REM sleep|5", "Stage 4 sleep|4")
NUMBERS = ("0", "1", "2", "3", "5", "4")
ENCODINGS = (
    "utf-16",
    "utf-7",
    "utf-32",
    "latin-1",
    "ascii",
    "idna",
    "punycode",
    "unicode_escape",
    "rot13",
    "zlib",
    "cp037",
    "x",
    "",
)


def write_edf(path: Path, *, seconds: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    signals = [
        edfio.EdfSignal(
            np.clip(rng.normal(0, 40, seconds * rate), -120, 120),
            rate,
            label=label,
            physical_dimension="uV",
            physical_range=(-125, 125),
            digital_range=(-128, 127),
        )
        for label, rate in SIGNALS
    ]
    edfio.Edf(signals, starttime=edf_files.START.time(), data_record_duration=30).write(path)


def nsrr(n_epochs: int) -> str:
    events = ["<ScoredEvent><EventType/><EventConcept>Recording Start Time</EventConcept><Start>0</Start>"
              f"<Duration>{30.0 * n_epochs}</Duration><ClockTime>00.00.00 22.00.00</ClockTime></ScoredEvent>",
              "<ScoredEvent><EventType>Respiratory|Respiratory</EventType><EventConcept>Hypopnea|Hypopnea</EventConcept>"
              "<Start>31.5</Start><Duration>12.1</Duration><SignalLocation>AIRFLOW</SignalLocation></ScoredEvent>"]  # fmt: skip
    events += [
        f"<ScoredEvent><EventType>Stages|Stages</EventType><EventConcept>{CONCEPTS[epoch]}</EventConcept>"
        f"<Start>{30 * epoch}.0</Start><Duration>30.0</Duration></ScoredEvent>"
        for epoch in range(n_epochs)
    ]
    return (
        '<?xml version="1.0" encoding="UTF-8" standalone="no"?>\n<PSGAnnotation><SoftwareVersion>Compumedics'
        "</SoftwareVersion><EpochLength>30</EpochLength><ScoredEvents>\n" + "\n".join(events) + "\n</ScoredEvents>"
        "</PSGAnnotation>\n"
    )


def profusion(n_epochs: int) -> str:
    stages = "".join(f"<SleepStage>{NUMBERS[epoch]}</SleepStage>" for epoch in range(n_epochs))
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<CMPStudyConfig><EpochLength>30</EpochLength><ScoredEvents><ScoredEvent>'
        "<Name>Hypopnea</Name><Start>31.5</Start><Duration>12</Duration></ScoredEvent></ScoredEvents><SleepStages>"
        f"{stages}</SleepStages></CMPStudyConfig>\n"
    )


def _after_prolog(raw: bytes, more: bytes) -> bytes:
    end = raw.find(b"?>") + 2
    return raw[:end] + more + raw[end:]


def entities(raw: bytes, rng: Rng) -> tuple[bytes, str, bool]:
    """Declarations that make a parser fetch or grow."""
    laughs = b'<!ENTITY a0 "ha">' + b"".join(b'<!ENTITY a%d "%s">' % (i, b"&a%d;" % (i - 1) * 10) for i in range(1, 12))
    kinds = {
        "billion laughs": b"<!DOCTYPE x [" + laughs + b"]>",
        "long entity": b'<!DOCTYPE x [<!ENTITY a11 "' + b"z" * 200_000 + b'">]>',
        "external file": b'<!DOCTYPE x [<!ENTITY a11 SYSTEM "file:///etc/passwd">]>',
        "external device": b'<!DOCTYPE x [<!ENTITY a11 SYSTEM "file:///dev/zero">]>',
        "parameter entity": b'<!DOCTYPE x [<!ENTITY % p "<!ENTITY a11 \'0\'>"> %p;]>',
        "external type": b'<!DOCTYPE x SYSTEM "file:///etc/hosts"><!-- &a11; -->',
        "itself": b'<!DOCTYPE x [<!ENTITY a11 "&a11;">]>',
    }  # fmt: skip
    kind = list(kinds)[pick(rng, list(kinds))]
    changed = _after_prolog(raw, kinds[kind])
    for place in (b"<Start>", b"<SleepStage>"):
        if place in changed and kind != "external type":
            changed = changed.replace(place, place + b"&a11;" * int(2 ** rng.uniform(0, 8)), 1)
            break
    return changed, kind, True


def declared(raw: bytes, rng: Rng) -> tuple[bytes, str]:
    """Another encoding or version than the bytes have."""
    encoding = ENCODINGS[pick(rng, ENCODINGS)]
    version = ("1.0", "1.1", "9", "")[int(rng.integers(4))] if rng.random() < 0.3 else "1.0"
    prolog = f'<?xml version="{version}" encoding="{encoding}"?>'.encode()
    body = raw[raw.find(b"?>") + 2 :]
    if rng.random() < 0.4:
        try:
            return (prolog + body).decode().encode(encoding), f"encoded as {encoding}"
        except (LookupError, UnicodeError, TypeError, AttributeError):
            pass
    return prolog + body, f"declared version {version} {encoding}"


def structure(raw: bytes, rng: Rng) -> tuple[bytes, str]:
    """Elements gone, doubled, renamed, moved, emptied, or with another text."""
    try:
        return _restructured(ElementTree.fromstring(raw), rng)
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError):  # an earlier change broke it
        return raw[: len(raw) // 2], "cut in half"


def _restructured(root: ElementTree.Element, rng: Rng) -> tuple[bytes, str]:
    nodes = list(root.iter())
    parents = {child: parent for parent in nodes for child in parent}
    node, other = nodes[pick(rng, nodes)], nodes[pick(rng, nodes)]
    kind = int(rng.integers(8))
    parent = parents.get(node)
    said = f"{node.tag}: {('gone', 'doubled', 'renamed', 'moved', 'number', 'text', 'child', 'space')[kind]}"
    if kind == 0 and parent is not None:
        parent.remove(node)
    elif kind == 1 and parent is not None:
        parent.insert(int(rng.integers(len(parent) + 1)), copy.deepcopy(node))
    elif kind == 2:
        node.tag = other.tag
    elif kind == 3 and parent is not None and other not in set(node.iter()):
        parent.remove(node)
        other.append(node)
    elif kind == 4:
        text = hostile_number(rng).decode().replace("\0", "")
        with_numbers = [n for n in nodes if n.tag in ("Start", "Duration", "EpochLength", "SleepStage")]
        (with_numbers[pick(rng, with_numbers)] if with_numbers else node).text = text
        said = f"number {text[:20]!r}"
    elif kind == 5:
        texts = [n.text for n in nodes if n.text] + [
            "Wake|0",
            "REM sleep|5",
            "Stages|Stages",
            "7",
            "9",
            "Stage 2 sleep",
        ]
        node.text = texts[pick(rng, texts)]
        said = f"{node.tag} is {str(node.text)[:20]!r}"
    elif kind == 6:
        ElementTree.SubElement(node, other.tag).text = other.text
    else:
        node.tag = f"{{urn:x}}{node.tag}"
    return b'<?xml version="1.0" encoding="utf-8"?>' + ElementTree.tostring(root), said


def bulk(raw: bytes, rng: Rng) -> tuple[bytes, str]:
    """Deep, long, or full of what does not count."""
    size = int(10 ** rng.uniform(2, 5.5))
    kinds = {
        "deep": _after_prolog(raw, b"")[:-20] + nested(b"<a>", b"</a>", size, closed=rng.random() < 0.5),
        "deep root": nested(b"<PSGAnnotation>", b"</PSGAnnotation>", size),
        "attributes": raw.replace(b"<ScoredEvents>", b"<ScoredEvents " + b" ".join(b'a%d="1"' % i for i in range(size // 10)) + b">"),
        "long attribute": raw.replace(b"<ScoredEvents>", b'<ScoredEvents a="' + b"x" * size + b'">'),
        "comments": raw.replace(b"<Start>", b"<!-- x -->" * (size // 100) + b"<Start>"),
        "comment inside": raw.replace(b"<Start>", b"<Start><!-- x -->").replace(b"<SleepStage>", b"<SleepStage><!-- x -->"),
        "data sections": raw.replace(b"<Start>30.0", b"<Start><![CDATA[30.0]]>").replace(b"<SleepStage>2", b"<SleepStage><![CDATA[2]]>"),
        "instructions": raw.replace(b"<Start>", b"<?php x ?><Start>"),
        "characters": raw.replace(b"<Start>30.0", b"<Start>&#51;&#48;").replace(b"<SleepStage>2", b"<SleepStage>&#50;"),
        "no such character": raw.replace(b"<Start>", b"<Start>&#0;").replace(b"<SleepStage>", b"<SleepStage>&#xD800;"),
        "long text": raw.replace(b"<Start>", b"<Start>" + b"0" * size).replace(b"<SleepStage>", b"<SleepStage>" + b"0" * size),
        "long name": raw.replace(b"<ScoredEvents>", b"<" + b"x" * size + b"/><ScoredEvents>"),
        "many": raw.replace(b"</ScoredEvents>", b"<ScoredEvent/>" * size + b"</ScoredEvents>"),
        "many stages": raw.replace(b"</SleepStages>", b"<SleepStage>2</SleepStage>" * size + b"</SleepStages>"),
        "two documents": raw + raw[raw.find(b"?>") + 2 :],
    }  # fmt: skip
    kind = list(kinds)[pick(rng, list(kinds))]
    return kinds[kind], f"{kind} ({size})"


def _runs(path: Path) -> tuple[list[tuple[float, float | None, str]], Mapping[str, int]]:
    """Runs and map of either XML format by the parser of the standard library."""
    raw = path.read_bytes()
    if b"<!DOCTYPE" in raw or b"<!ENTITY" in raw:
        raise ValueError("a document type declaration")
    root = ElementTree.fromstring(raw)
    for node in root.iter():
        node.tag = node.tag.rpartition("}")[2]
    if root.tag == "CMPStudyConfig":
        length = float(root.findtext("EpochLength") or 30)
        stages = ["".join(stage.itertext()).strip() for stage in root.findall("SleepStages/SleepStage")]
        return [(i * length, length, str(int(stage))) for i, stage in enumerate(stages)], PROFUSION_MAP
    runs: list[tuple[float, float | None, str]] = []
    for event in root.findall("ScoredEvents/ScoredEvent"):
        fields = {child.tag: "".join(child.itertext()).strip() for child in event}
        if "".join(fields.get("EventType", "").split()).casefold() == "stages|stages":
            runs.append((float(fields["Start"]), float(fields["Duration"]), fields["EventConcept"]))
    return runs, NSRR_MAP


class NsrrTarget(NightTarget):
    """The NSRR's XML, alone and beside Profusion's."""

    name = "nsrr-xml"
    ending = "-nsrr.xml"
    alone: str = "nsrr"

    def make_adapter(self) -> Adapter:
        return Shhs()

    def writers(self) -> Sequence[Callable[[Path], None]]:
        def night(folder: Path, kinds: Sequence[str]) -> None:
            write_edf(folder / "shhs1-200001.edf", seconds=150, seed=1)
            for kind in kinds:
                text = nsrr(5) if kind == "nsrr" else profusion(5)
                (folder / f"shhs1-200001-{kind}.xml").write_text(text)

        return [lambda folder: night(folder, [self.alone]), lambda folder: night(folder, ["nsrr", "profusion"])]

    def write_beside(self, folder: Path) -> None:
        write_edf(folder / "shhs2-200002.edf", seconds=60, seed=2)
        (folder / "shhs2-200002-nsrr.xml").write_text(nsrr(2))

    def victims(self, files: Files) -> Sequence[str]:
        return [name for name in files if name.endswith(self.ending)]

    def mutators(self, name: str) -> Sequence[AnyMutator]:
        return (entities, entities, declared, *[structure] * 4, bulk, bulk, *TEXT_MUTATORS)

    def truth(self, root: Path, baseline: Read, files: Mapping[str, Content]) -> Read:
        n_epochs, samples = edf_truth((root / "shhs1-200001.edf").read_bytes(), ALIASES)
        names = ("shhs1-200001-nsrr.xml", "shhs1-200001-profusion.xml")
        labels = next(root / name for name in names if name in files and (root / name).exists())
        runs, codes = _runs(labels)
        return Read(stages=stages_at_middles(runs, codes, n_epochs), samples=samples)


class ProfusionTarget(NsrrTarget):
    """Profusion's XML, alone and beside the NSRR's."""

    name = "profusion-xml"
    ending = "-profusion.xml"
    alone = "profusion"
