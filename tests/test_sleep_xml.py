"""Hypnograms in the NSRR's and Profusion's XML: real files, every label, and hostile ones."""

from __future__ import annotations

import re
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tusp.datasets.formats import sleep_xml
from tusp.datasets.formats.hypnograms import Run
from tusp.datasets.formats.sleep_xml import runs_from_nsrr, runs_from_profusion
from tusp.platform.errors import DataError

READERS = (runs_from_nsrr, runs_from_profusion)

NSRR = """<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<PSGAnnotation>
<SoftwareVersion>Compumedics</SoftwareVersion>
<EpochLength>30</EpochLength>
<ScoredEvents>
<ScoredEvent><EventType/><EventConcept>Recording Start Time</EventConcept><Start>0</Start><Duration>300.0</Duration>
<ClockTime>00.00.00 22.00.00</ClockTime></ScoredEvent>
<ScoredEvent><EventType>Respiratory|Respiratory</EventType><EventConcept>SpO2 artifact|SpO2 artifact</EventConcept>
<Start>14</Start><Duration>3.5</Duration><SignalLocation>SaO2</SignalLocation></ScoredEvent>
<ScoredEvent><EventType>Stages|Stages</EventType><EventConcept>Wake|0</EventConcept>
<Start>0.0</Start><Duration>120.0</Duration></ScoredEvent>
<ScoredEvent><EventType>Stages|Stages</EventType><EventConcept>Stage 2 sleep|2</EventConcept>
<Start>120.0</Start><Duration>180.0</Duration></ScoredEvent>
</ScoredEvents>
</PSGAnnotation>
"""
PROFUSION = """<?xml version="1.0" encoding="utf-8"?>
<CMPStudyConfig><EpochLength>30</EpochLength><ScoredEvents><ScoredEvent><Name>Hypopnea</Name><Start>14</Start>
<Duration>10</Duration></ScoredEvent></ScoredEvents>
<SleepStages><SleepStage>0</SleepStage><SleepStage>9</SleepStage><SleepStage>05</SleepStage></SleepStages>
</CMPStudyConfig>
"""

BILLION = '<?xml version="1.0"?>\n<!DOCTYPE lolz [<!ENTITY lol "lol">' + "".join(
    f'<!ENTITY lol{i} "{f"&lol{i - 1 or str()};" * 10}">' for i in range(1, 10)
)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("learn-nsrr01.xml", {"0": 477, "1": 109, "2": 523, "3": 16, "4": 1, "5": 238}),
        ("learn-nsrr02.xml", {"0": 480, "1": 11, "2": 399, "3": 185, "5": 120}),
    ],
)
def test_the_real_files_read_to_their_stage_counts(shared_data: Path, name: str, published: dict[str, int]) -> None:
    """Counted beforehand with grep, and once more here without an XML parser."""
    path = shared_data / "shhs" / name
    runs = runs_from_profusion(path)
    texts = re.findall(r"<SleepStage>(\d+)</SleepStage>", path.read_text())
    assert [run.label for run in runs] == texts
    assert Counter(run.label for run in runs) == published
    assert {run.duration for run in runs} == {30}
    np.testing.assert_array_equal([run.onset for run in runs], np.arange(len(runs)) * 30)


def test_nsrr(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text(NSRR)
    assert runs_from_nsrr(path) == [
        Run(onset=0, duration=120, label="Wake|0"),
        Run(onset=120, duration=180, label="Stage 2 sleep|2"),
    ]


def test_profusion(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text(PROFUSION)
    assert [(run.onset, run.label) for run in runs_from_profusion(path)] == [(0, "0"), (30, "9"), (60, "5")]
    path.write_text(PROFUSION.replace("<EpochLength>30</EpochLength>", ""))
    assert {run.duration for run in runs_from_profusion(path)} == {30}
    path.write_text(PROFUSION.replace(">30<", ">20<"))
    assert [run.onset for run in runs_from_profusion(path)] == [0, 20, 40]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_encodings_and_namespaces(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.xml"
    declared = {"utf-8-sig": "utf-8", "utf-16": "utf-16", "latin-1": "iso-8859-1"}[encoding]
    text = PROFUSION.replace('"utf-8"', f'"{declared}"').replace("Hypopnea", "Apnée")
    path.write_bytes(text.replace("<CMPStudyConfig>", '<CMPStudyConfig xmlns="urn:x">').encode(encoding))
    assert len(runs_from_profusion(path)) == 3


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("<PSGAnnotation>", "<CMPStudyConfig>", "root element 'CMPStudyConfig', wanted 'PSGAnnotation'"),
        ("</PSGAnnotation>", "", "not well-formed XML"),
        ("Stages|Stages", "Phases", "no sleep stages among its 4 events"),
        ("<Start>120.0</Start>", "", "event 4: Start is missing"),
        ("<Start>120.0</Start>", "<Start>-5</Start>", "event 4: Start is '-5'"),
        ("<Start>120.0</Start>", "<Start>nan</Start>", "Start is 'nan'"),
        ("<Start>120.0</Start>", "<Start>1e300</Start>", "Start is '1e300'"),
        ("<Start>120.0</Start>", "<Start>1</Start><Start>2</Start>", "two elements 'Start'"),
        ("Stages|Stages</", "Stages|Stages<x/></", "event 3: EventType holds an element 'x'; wanted text alone"),
        ("120.0</Start>", "1<b>2</b>0</Start>", "event 4: Start holds an element 'b'"),
        (">120.0</Duration>", ">two minutes</Duration>", "event 3: Duration is 'two minutes'"),
        (">120.0</Duration>", "></Duration>", "event 3: Duration is missing"),
        ("Wake|0", "", "without an EventConcept"),
    ],
)
def test_nsrr_that_cannot_be(tmp_path: Path, old: str, new: str, reason: str) -> None:
    path = tmp_path / "a.xml"
    assert old in NSRR
    path.write_text(NSRR.replace(old, new))
    with pytest.raises(DataError, match=re.escape(reason)) as raised:
        runs_from_nsrr(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("CMPStudyConfig", "PSGAnnotation", "root element 'PSGAnnotation', wanted 'CMPStudyConfig'"),
        ("<SleepStage>9", "<SleepStage>two", "sleep stage 2 is 'two', not a whole number"),
        ("<SleepStage>9", "<SleepStage>", "sleep stage 2 is '', not a whole number"),
        ("<SleepStage>9", "<SleepStage>" + "9" * 5000, "sleep stage 2 is '9999"),
        ("SleepStages>", "Other>", "holds no sleep stages"),
        ("</SleepStages>", "</SleepStages><SleepStages/>", "two lists of sleep stages"),
        (">30<", ">0<", "epochs of 0 s"),
        (">30<", ">100000<", "epochs of 100000 s"),
        (">30<", ">inf<", "EpochLength is 'inf'"),
        (">30</EpochLength>", ">30</EpochLength><EpochLength>20</EpochLength>", "two epoch lengths"),
        (">30</EpochLength>", ">3<x/>30</EpochLength>", "EpochLength holds an element 'x'"),
        (">9</SleepStage>", ">1<x/>2</SleepStage>", "SleepStage holds an element 'x'; wanted text alone"),
    ],
)
def test_profusion_that_cannot_be(tmp_path: Path, old: str, new: str, reason: str) -> None:
    path = tmp_path / "a.xml"
    assert old in PROFUSION
    path.write_text(PROFUSION.replace(old, new))
    with pytest.raises(DataError, match=re.escape(reason)) as raised:
        runs_from_profusion(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BILLION + "]>\n<PSGAnnotation>&lol9;</PSGAnnotation>", "document type declaration"),
        (f'<!DOCTYPE a [<!ENTITY a "{"a" * 50000}">]><a>{"&a;" * 50000}</a>', "document type declaration"),
        ('<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]><a>&a;</a>', "document type declaration"),
        ('<!DOCTYPE a SYSTEM "http://localhost:1/x.dtd"><a/>', "document type declaration"),
        ('<!DOCTYPE a [<!ENTITY % p SYSTEM "file:///etc/passwd"> %p;]><a/>', "document type declaration"),
        ("<a>&undefined;</a>", "not "),
        ('<?xml version="1.0" encoding="klingon"?><a/>', "."),
        ('<?xml version="1.0" encoding="utf-7"?><a/>', "."),
        ("", "empty file"),
        ("not xml", "not well-formed"),
        ("<!DOCTYPE html><html><body>Sign in</body></html>", "document type declaration"),
        ("<html><body>Sign in</body></html>", "root element 'html'"),
        ("\0" * 100, "not well-formed"),
    ],
    ids=range(13),
)
def test_hostile_xml(tmp_path: Path, reader: object, text: str, reason: str) -> None:
    path = tmp_path / "a.xml"
    path.write_text(text)
    started = time.monotonic()
    with pytest.raises(DataError, match=reason) as raised:
        reader(path)  # type: ignore[operator]
    assert time.monotonic() - started < 2
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "root:" not in str(raised.value)


@pytest.mark.parametrize("reader", READERS)
def test_size_is_bounded_before_anything_is_read(tmp_path: Path, reader: object) -> None:
    path = tmp_path / "a.xml"
    with path.open("wb") as stream:
        stream.truncate(sleep_xml.MOST_XML_BYTES + 1)
    with pytest.raises(DataError, match="too many for a hypnogram"):
        reader(path)  # type: ignore[operator]
    with pytest.raises(DataError, match="not a regular file"):
        reader(tmp_path)  # type: ignore[operator]
    with pytest.raises(DataError, match="no such file"):
        reader(tmp_path / "none.xml")  # type: ignore[operator]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("<a/>" * 100_001, "too many elements"),
        ("<a>" * 100_000, "too many elements"),
        ("<a " + " ".join(f"b{i}='>'" for i in range(100_000)) + "/>", "too many elements"),
        ("<a " + " ".join(f"b{i}='>'" for i in range(500_000)) + "/>", "a tag or comment of more than"),
        ("<!--" + "x>" * 2_000_000 + "-->", "a tag or comment of more than"),
        ("<a>" + "x" * 8_000_000 + "</a>", "no sleep stages"),
    ],
    ids=["wide", "deep", "attributes", "long tag", "long comment", "long text"],
)
def test_large_documents_take_little_time_and_memory(
    tmp_path: Path, body: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sleep_xml, "MOST_ELEMENTS", 100_000)
    path = tmp_path / "a.xml"
    path.write_text(f"<CMPStudyConfig>{body}</CMPStudyConfig>")
    tracemalloc.start()
    started = time.monotonic()
    with pytest.raises(DataError, match=reason):
        runs_from_profusion(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.monotonic() - started < 10
    assert peak < 60e6


def test_mutated_files_end_in_a_refusal_or_in_stages(shared_data: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "a.xml"
    refused = 0
    for whole, read in ((NSRR.encode(), runs_from_nsrr), (PROFUSION.encode(), runs_from_profusion)):
        for _ in range(200):
            raw = bytearray(whole[: int(rng.integers(1, len(whole) + 1))] if rng.random() < 0.3 else whole)
            for place in rng.integers(0, len(raw), int(rng.integers(1, 5))):
                raw[place] = rng.integers(0, 256)
            path.write_bytes(raw)
            try:
                assert read(path)
            except DataError as error:
                assert str(path) in str(error)
                assert "\n" not in str(error)
                refused += 1
    assert refused > 100
