"""Walking a corpus's folder without losing anything in silence."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from tusp.platform.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Walk:
    """Files below a folder, as sorted paths relative to it, and sub-folders that could not be read."""

    files: list[Path] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)


def walk(root: Path) -> Walk:
    """List all files below ``root``; links to folders are followed once.

    Raises:
        UserError: ``root`` is missing, not a folder, or not readable.
    """
    found = Walk()
    seen: set[tuple[int, int]] = set()

    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                for entry in entries:
                    path = Path(entry.path)
                    try:
                        is_folder = entry.is_dir()
                    except OSError as error:  # a link in a circle or into a closed folder
                        is_folder = False
                        if isinstance(error, PermissionError):
                            found.unreadable[path.relative_to(root).as_posix()] = f"{path}: {_reason(error)}"
                    if is_folder:
                        waiting.append(path)
                    else:
                        found.files.append(path.relative_to(root))
        except OSError as error:
            if folder == root:
                what = "not a folder" if isinstance(error, NotADirectoryError) else _reason(error)
                raise UserError(f"{root}: {what}; give the folder that holds the corpus") from error
            found.unreadable[f"{folder.relative_to(root)}/"] = f"{folder}: {_reason(error)}"
    found.files.sort()
    return found


def _reason(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "no permission to read this folder"
    if isinstance(error, FileNotFoundError):
        return "no such folder"
    return (error.strerror or str(error)).lower()
