"""Command line of the harness."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fuzz.formats import FORMATS
from fuzz.harness import Harness


def main() -> int:
    """Run what the arguments ask for; exit status 1 when there are findings."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Break files and read them.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--format", action="append", choices=sorted(FORMATS), help="a format; may be given again")
    what.add_argument("--all", action="store_true", help="every format")
    what.add_argument("--replay", type=Path, metavar="FOLDER", help="a kept case (its folder, or its case.json)")
    parser.add_argument("--count", type=int, default=2000, help="cases a format (default 2000)")
    parser.add_argument("--first", type=int, default=0, help="number of the first case (default 0)")
    parser.add_argument("--seed", type=int, default=1, help="seed of all cases (default 1)")
    parser.add_argument("--keep", type=Path, help="folder for the cases with findings")
    given = parser.parse_args()
    out = sys.stdout
    with Harness(keep=given.keep.resolve() if given.keep else None) as harness:
        if given.replay:
            folder = given.replay.parent if given.replay.is_file() else given.replay
            answer = harness.replay(folder.resolve())
            out.write("\n".join(f"{key}: {value}" for key, value in answer.items()) + "\n")
            return answer["outcome"] == "finding"
        findings = 0
        for name in FORMATS if given.all else given.format:
            tally = harness.run(name, count=given.count, seed=given.seed, first=given.first)
            out.write(tally.line() + "\n")
            kinds: dict[str, list[str]] = {}
            for found in tally.findings:
                alike = re.sub(r"[0-9]+|/\S+|'[^']*'", "", found.detail.splitlines()[-1])[:60]
                kinds.setdefault(alike, []).append(str(found))
            for alike in kinds.values():
                out.write(f"  {len(alike)} like this: {alike[0]}\n")
            out.flush()
            findings += len(tally.findings)
    return findings > 0


if __name__ == "__main__":
    sys.exit(main())
