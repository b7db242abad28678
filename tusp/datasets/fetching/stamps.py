"""Which files were verified: by size and time of change, so that a look at them is enough the next time."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from tusp.datasets.fetching.items import Item


class Stamps:
    """One JSON line a file, appended as soon as it is verified; a line cut off by a kill is passed over."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._known: dict[str, dict[str, Any]] = {}
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            return
        for line in text.splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and isinstance(row.get("path"), str):
                self._known[row["path"]] = row

    def _now(self, item: Item, target: Path) -> dict[str, Any]:
        status = target.stat()
        return {
            "path": item.path,
            "size": status.st_size,
            "mtime_ns": status.st_mtime_ns,
            "digest": None if item.digest is None else str(item.digest),
        }

    def holds(self, item: Item, target: Path) -> bool:
        """Whether the file was verified as this item and has not changed since."""
        try:
            return self._known.get(item.path) == self._now(item, target)
        except FileNotFoundError:
            return False

    def add(self, item: Item, target: Path) -> None:
        """Record that the file was verified."""
        row = self._now(item, target)
        with self._lock:
            self._known[item.path] = row
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # The blank line ends what a kill may have cut off.
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(("" if self._ends_whole() else "\n") + json.dumps(row, sort_keys=True) + "\n")

    def _ends_whole(self) -> bool:
        if not self._path.exists() or not self._path.stat().st_size:
            return True
        with self._path.open("rb") as stream:
            stream.seek(-1, 2)
            return stream.read(1) == b"\n"
