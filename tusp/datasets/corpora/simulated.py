"""How a file says of itself that it is simulated, and why such files never stand beside real ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tusp.platform.errors import UserError

SIMULATED_TOKEN: Final = "tusp-simulated"
"""Stands in every file that tusp simulated: in the recording identification of an EDF file, in a comment line of a
WFDB header, as an attribute of the root of an HDF5 file, in a comment of an XML file."""


def says_simulated(text: str) -> bool:
    """Whether a free text of a file holds the token."""
    return SIMULATED_TOKEN in text.casefold()


def refuse_mixture(root: Path, flags: Mapping[str, bool]) -> None:
    """Refuse a folder in which simulated and real nights (name to flag) stand side by side.

    Raises:
        UserError: both kinds are there.
    """
    simulated = sorted(name for name, flag in flags.items() if flag)
    real = sorted(name for name, flag in flags.items() if not flag)
    if simulated and real:
        raise UserError(
            f"{root}: mixes simulated nights ({len(simulated)}, such as {simulated[0]}) and real ones"
            f" ({len(real)}, such as {real[0]}); keep them in folders of their own"
        )
