"""What a description says about formats: what follows from it, what is wrong with it, what the fingerprint holds."""

from __future__ import annotations

import json
import re
from pathlib import Path

import described_nights as nights
import pytest

from tusp.datasets.corpora.described import Described, parse_description
from tusp.platform.errors import UserError

ROOT = Path(__file__).resolve().parent.parent


def adapter(kind: str, labels: str, /, **changes: str) -> Described:
    return Described(name="mine", description=parse_description(nights.describe(kind, labels, **changes), "mine.toml"))


def test_the_format_follows_from_the_ending() -> None:
    for kind, (ending, wanted, _) in nights.SIGNALS.items():
        told = f'files = "*{ending}"' + ('\nrate_attribute = "fs"' if wanted == "hdf5" else "")
        assert adapter(kind, "csv", signals=told).description.signal_format == wanted
    assert adapter("edf", "csv", signals='files = "*.rec"').description.signal_format == "edf"


def test_settings_of_edf_and_csv_are_what_they_were_before_other_formats_were_read() -> None:
    assert adapter("edf", "csv").settings() == {
        "channels": [
            {"name": "Fpz", "labels": ["Fpz"], "group": "EEG", "unit": None},
            {"name": "E1", "labels": ["EOG horizontal"], "group": "EOG", "unit": None},
        ],
        "stages": {"W": 0, "N1": 1, "N2": 2, "N3": 3, "R": 4, "?": -1},
        "label_format": "csv",
        "alignment": "signal-start",
    }


def test_everything_that_decides_how_a_night_is_read_is_in_the_settings() -> None:
    hdf5 = 'files = "p*.h5"\nrate_attribute = "fs"'
    variants = [
        adapter("edf", "csv"),
        adapter("edf", "csv", signals='files = "p*.edf"\nformat = "wfdb"'.replace(".edf", ".hea")),
        adapter("edf", "csv", labels='files = "a.csv"\ncolumns = { onset = "a", stage = "b" }'),
        adapter("edf", "csv", labels='files = "a.csv"\ncolumns = { onset = "a", duration = "c", stage = "b" }'),
        adapter("edf", "csv", labels='files = "a.txt"\nformat = "list"'),
        adapter("edf", "csv", labels='files = "a.txt"\nformat = "list"\nepoch_seconds = 20'),
        adapter("hdf5", "csv", signals=hdf5),
        adapter("hdf5", "csv", signals=hdf5.replace("fs", "rate")),
        adapter("hdf5", "csv", eeg='names = ["signals/eeg/Fpz"]\nunit = "uV"\nrate_hz = 100'),
        adapter("hdf5", "csv", labels='dataset = "h"'),
        adapter("hdf5", "csv", labels='dataset = "k"'),
    ]
    told = [json.dumps(variant.settings(), sort_keys=True) for variant in variants]
    assert len(set(told)) == len(told)


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("edf", {"signals": 'files = "*.edf"\nformat = "nwb"'}, "signals.format: 'nwb' is not one of edf, mne, wfdb"),
        ("edf", {"signals": 'files = "*.edf"\nformat = "mne"'}, "signals.format: 'mne' is not for EDF"),
        ("edf", {"signals": 'files = "*.dat"\nformat = "wfdb"'}, "signals.files: '*.dat' must name the headers"),
        ("edf", {"signals": 'files = "*.edf"\nrate_attribute = "fs"'}, "signals.rate_attribute: is for HDF5 signals"),
        ("edf", {"eeg": 'names = ["a"]\nrate_hz = 100'}, "channels.Fpz.rate_hz: is for HDF5 signals; edf files state"),
        ("hdf5", {"eeg": 'names = ["a"]'}, "channels.Fpz.unit: is missing; HDF5 states no unit, give nV, uV, mV or V"),
        ("hdf5", {"signals": 'files = "*.h5"'}, "channels.Fpz.rate_hz: is missing; give it, or the name of an attri"),
        (
            "hdf5",
            {"eeg": 'names = ["a"]\nunit = "uV"\nrate_hz = 0'},
            "channels.Fpz.rate_hz: 0 must be a number above 0",
        ),
        ("hdf5", {"eeg": 'names = ["a"]\nunit = "uV"\nrate_hz = true'}, "rate_hz: True must be a number above 0"),
        ("edf", {"labels": 'files = "a.xml"'}, "labels.format: is missing; one of csv, edf+, nsrr-xml, profusion-xml"),
        ("edf", {"labels": 'format = "list"'}, "labels.files: is missing"),
        ("edf", {"labels": 'dataset = "h"'}, "labels.files: is missing; only HDF5 signals can hold their own labels"),
        ("hdf5", {"labels": 'dataset = "h"\nformat = "csv"'}, "labels.dataset: is for a list in an HDF5 file"),
        ("edf", {"labels": 'files = "a.csv"\nepoch_seconds = 20'}, "labels.epoch_seconds: is for labels of format 'l"),
        ("edf", {"labels": 'files = "a.json"\nepoch_seconds = -1'}, "epoch_seconds: -1 must be a number above 0, at m"),
        ("edf", {"labels": 'files = "a.json"\ncolumns = {}'}, "labels.columns: is for labels of format 'csv'"),
        ("edf", {"labels": 'files = "a.csv"\ncolumns = {}'}, "labels.columns.onset: is missing"),
        ("edf", {"labels": 'files = "a.csv"\ncolumns = "a"'}, "labels.columns must be a table"),
        ("edf", {"labels": 'files = "a.csv"\ncolumns = { onset = "a", stages = "b" }'}, "unknown key 'stages'"),
        ("edf", {"labels": 'files = "a.json"\nalignment = "clock"'}, "labels.alignment: 'clock' needs EDF+ labels"),
        ("hdf5", {"labels": 'files = "a.edf"\nalignment = "clock"'}, "which HDF5 does not"),
    ],
)
def test_a_wrong_description_of_a_format_is_one_line(kind: str, changes: dict[str, str], said: str) -> None:
    with pytest.raises(UserError) as error:
        adapter(kind, "csv", **changes)
    assert str(error.value).startswith("mine.toml: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_every_description_in_the_documents_is_valid() -> None:
    blocks = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "describe.md").read_text(encoding="utf-8"), re.DOTALL)
    whole = [parse_description(block, "docs/describe.md") for block in blocks]
    assert {said.signal_format for said in whole} == {"edf", "mne", "wfdb", "hdf5"}
    assert {said.label_format for said in whole} == {"csv", "edf+", "nsrr-xml", "profusion-xml", "list"}
