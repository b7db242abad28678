"""Make a packaged checksum list from a published one.

Usage: python -m tusp.datasets.fetching.make_lists PUBLISHED.txt LIST.txt "SOURCE, LICENCE"
"""

from __future__ import annotations

import sys
from pathlib import Path

from tusp.datasets.fetching.items import parse_list
from tusp.platform.files import write_text_atomic


def make_list(published: Path, destination: Path, source: str) -> int:
    """Write the list sorted by path under a line that states its source; returns the number of files.

    Raises:
        DataError: a line of ``published`` is not a SHA-256 and a path.
    """
    listed = sorted(parse_list(published.read_text(encoding="utf-8"), source=str(published)), key=lambda row: row.path)
    lines = [f"{row.sha256}  {row.path}" + (f"  {row.size}" if row.size is not None else "") for row in listed]
    write_text_atomic(destination, "\n".join([f"# {source}", *lines]) + "\n")
    return len(listed)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    make_list(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
