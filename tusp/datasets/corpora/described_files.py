"""Which files below a folder a description means, and which labels belong to which signals. Reads names only."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from tusp.datasets.corpora.description import Description
from tusp.platform.errors import UserError

LONGEST_NAME: Final = 100
_QUOTED: Final = {"*": "\x01", "?": "\x02"}


def glob(pattern: str) -> re.Pattern[str]:
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


def stated_name(description: Description, file: Path) -> str | None:
    """The recording's name before it is made safe; None when signals.name finds none.

    Args:
        file: the signals, relative to the corpus's folder.
    """
    path = file.with_suffix("")
    if description.name_pattern is None:
        return path.name
    match = re.search(description.name_pattern, path.as_posix())
    return match["name"] if match else None


def by_file_name(files: Iterable[Path]) -> dict[str, list[Path]]:
    """Files by their name in small letters, for :func:`label_files`."""
    found: dict[str, list[Path]] = {}
    for file in files:
        found.setdefault(file.name.casefold(), []).append(file)
    return found


def label_files(description: Description, file: Path, names: Mapping[str, Sequence[Path]]) -> list[Path]:
    """Files that labels.files can mean for these signals; none where the labels are inside the signals' file."""
    pattern = description.label_files
    if pattern is None:
        return []
    values = {
        "name": stated_name(description, file) or "",
        "stem": file.stem,
        "folder": file.parent.as_posix(),
    }
    for key, value in values.items():
        pattern = pattern.replace(f"{{{key}}}", _quoted(value))
    wanted = glob(pattern)
    last = pattern.rsplit("/", 1)[-1]
    if "*" in last or "?" in last:
        candidates = [path for paths in names.values() for path in paths]
    else:
        for sign, mark in _QUOTED.items():
            last = last.replace(mark, sign)
        candidates = list(names.get(last.casefold(), ()))
    return [path for path in candidates if path != file and wanted.fullmatch(path.as_posix())]


def check_lists(description: Description, root: Path, named: Mapping[str, Sequence[Path]]) -> None:
    """Recordings to leave out or to keep have to be there.

    Raises:
        UserError: one of them is not.
    """
    for key, names in (("include", description.include), ("exclude", description.exclude)):
        for name in names:
            if name not in named:
                raise UserError(
                    f"recordings.{key}: {root} holds no recording {name!r}"
                    f" (it has {', '.join(sorted(named)[:5])}{', ...' if len(named) > 5 else ''})"
                )
