"""The formats by name. Modules are imported when their format is first asked for."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from fuzz.target import Target

FORMATS = {
    "edf": "edf:EdfTarget",
    "edf-hypnogram": "edf:EdfLabelsTarget",
    "csv": "edf:CsvTarget",
    "description": "documents:DescriptionTarget",
    "wfdb": "wfdb_nights:WfdbTarget",
    "wfdb-annotations": "wfdb_nights:AnnotationTarget",
    "cinc2018-hdf5": "wfdb_nights:OneHotTarget",
    "nsrr-xml": "xml_nights:NsrrTarget",
    "profusion-xml": "xml_nights:ProfusionTarget",
    "dcsm-hdf5": "hdf5_nights:DcsmTarget",
    "dcsm-ids": "hdf5_nights:IdsTarget",
    "dod-hdf5": "hdf5_nights:DodTarget",
    "dod-scorers": "hdf5_nights:ScorerTarget",
    "zip": "archives:ZipTarget",
    "tar": "archives:TarTarget",
    "mne-bdf": "mne_nights:BdfTarget",
    "mne-brainvision": "mne_nights:BrainVisionTarget",
    "mne-fif": "mne_nights:FifTarget",
    "split": "documents:ManifestTarget",
}
DEFECTIVE = "defective:DefectiveTarget"
"""Tries out the harness itself."""


def make_target(name: str, workspace: Path) -> Target:
    """The target of a format, with its sound files made below ``workspace``."""
    module, _, made = (DEFECTIVE if name == "defective" else FORMATS[name]).partition(":")
    target: Target = getattr(import_module(f"fuzz.{module}"), made)(workspace)
    return target
