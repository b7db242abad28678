"""Where tusp keeps things. Flags beat ``TUSP_*`` variables, those beat ``tusp.toml``, and that the defaults."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tusp.platform.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Resolved settings of one command."""

    home: Path
    """Folder for everything tusp writes (``TUSP_HOME``, default ``~/.tusp``)."""

    db: str
    """URL of the SQL store (``TUSP_DB``, default SQLite in the home)."""

    address: str
    """Ray address (``TUSP_ADDRESS``); ``local`` starts a Ray of one's own."""

    @property
    def prepared(self) -> Path:
        """Folder of the prepared stores."""
        return self.home / "prepared"

    @property
    def cells(self) -> Path:
        """Folder of checkpoints and predictions, one folder a cell."""
        return self.home / "cells"

    @property
    def kept(self) -> Path:
        """Folder of what reports derived before; it may be deleted at any time."""
        return self.home / "kept"

    @property
    def simulated(self) -> Path:
        """Folder of the embedded simulated corpora."""
        return self.home / "simulated"

    @property
    def mlflow_uri(self) -> str:
        """Tracking URI of the MLflow mirror (a database of its own)."""
        return f"sqlite:///{self.home / 'mlflow' / 'mlflow.db'}"

    @property
    def mlflow_artefacts(self) -> Path:
        """Folder of the pictures in the MLflow mirror."""
        return self.home / "mlflow" / "artifacts"


def _from_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            content = tomllib.load(stream)
    except FileNotFoundError:
        return {}
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: not valid TOML ({error})") from error
    known = {field.name for field in fields(Settings)}
    unknown = sorted(set(content) - known)
    if unknown:
        raise UserError(f"{path}: unknown setting {unknown[0]!r}; known are {', '.join(sorted(known))}")
    for name, value in content.items():
        if not isinstance(value, str):
            raise UserError(f"{path}: {name} = {value!r} must be a string")
    return content


def load_settings(
    *,
    home: Path | None = None,
    db: str | None = None,
    address: str | None = None,
    environment: Mapping[str, str] = os.environ,
    working_directory: Path | None = None,
) -> Settings:
    """Resolve the settings of this command.

    Args:
        home, db, address: values of flags; ``None`` where the flag was not given.
        environment: where ``TUSP_*`` variables are looked up.
        working_directory: where ``tusp.toml`` is looked for (default: the current directory).

    Raises:
        UserError: ``tusp.toml`` is not valid or names an unknown setting.
    """
    toml = _from_toml((working_directory or Path.cwd()) / "tusp.toml")

    def chosen(flag: str | None, name: str, default: str) -> str:
        return flag or environment.get(f"TUSP_{name.upper()}") or toml.get(name) or default

    resolved_home = Path(chosen(str(home) if home else None, "home", "~/.tusp")).expanduser().absolute()
    return Settings(
        home=resolved_home,
        db=chosen(db, "db", f"sqlite:///{resolved_home / 'tusp.db'}"),
        address=chosen(address, "address", "local"),
    )
