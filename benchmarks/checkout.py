"""Imported first: makes `tusp` importable from this checkout where it is not installed, in child processes too."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

if find_spec("tusp") is None:
    root = str(Path(__file__).resolve().parents[1])
    sys.path.insert(0, root)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
