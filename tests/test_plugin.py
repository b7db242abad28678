"""A corpus of another package: installed for real, found by its entry point, and used like a built-in one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PACKAGE = Path(__file__).with_name("plugin_corpus")
TUSP = str(Path(sys.executable).with_name("tusp"))
PREPARE = """
import sys
from pathlib import Path
from tusp.datasets.preparation import prepare_corpus
from tusp.platform.settings import Settings
from tusp.platform.store.session import open_store
settings = Settings(home=Path(sys.argv[1]), db=f"sqlite:///{sys.argv[1]}/tusp.db", address="local")
prepared = prepare_corpus(open_store(settings.db), settings, "npz-nights", workers=2)
for night in prepared.recordings:
    print(night.name, night.subject, night.n_epochs, ",".join(night.channels))
print(sorted(prepared.refused))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder into which pip built and installed the package, without a network."""
    folder = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(PACKAGE, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet", "--no-index"]
    done = subprocess.run(
        [*pip, "--no-build-isolation", "--no-deps", "--no-compile", "--target", str(folder / "site"), str(source)],
        capture_output=True,
        text=True,
        env={**os.environ, "PIP_CONFIG_FILE": os.devnull},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "site"


def write_night(path: Path, seed: int, *, channels: tuple[str, ...] = ("C3-A2", "C4-A1", "EOG")) -> None:
    rng = np.random.default_rng(seed)
    signals = {name: rng.normal(0, 30, 20 * 30 * 100).astype(np.float32) for name in channels}
    stages = rng.choice(["wake", "light", "deep", "rem"], 20)
    path.parent.mkdir(exist_ok=True)
    np.savez(path, rate_hz=100, stages=stages, **signals)  # type: ignore[arg-type]


def test_a_corpus_of_another_package_is_used_like_a_built_in_one(installed: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    for seed, name in enumerate(("p1_n1", "p1_n2", "p2_n1", "p3_n1")):
        write_night(raw / f"{name}.npz", seed)
    write_night(raw / "p3_n1.npz", 9, channels=("C4-A1", "EOG"))
    (raw / "p4_n1.npz").write_bytes(b"PK\x03\x04 nothing")
    np.savez(raw / "p5_n1.npz", rate_hz=100, stages=3, **{"C3-A2": np.ones(9000), "EOG": np.ones(9000)})
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TUSP_")}
    environment |= {"PYTHONPATH": str(installed), "TUSP_HOME": str(tmp_path / "home")}

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(argument) for argument in arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
            check=False,
        )

    known = {corpus["name"]: corpus for corpus in json.loads(run(TUSP, "datasets", "list", "--known", "--json").stdout)}
    assert (known["npz-nights"]["licence"], known["npz-nights"]["nights"]) == ("CC0", 4)
    added = run(TUSP, "datasets", "add", "npz-nights", raw)
    assert added.returncode == 2
    assert added.stderr.splitlines() == [
        f"refused p4_n1: {raw}/p4_n1.npz: not a NumPy archive (File is not a zip file)",
        f"refused p5_n1: {raw}/p5_n1.npz: adapter 'npz-nights' of npz_nights failed with TypeError:"
        " iteration over a 0-d array",
    ]
    assert "npz-nights: real, 4 recordings of 3 people" in added.stdout

    (listed,) = json.loads(run(TUSP, "datasets", "list", "--json").stdout)
    assert (listed["adapter"], listed["recordings"], listed["refused"], listed["people"]) == ("npz-nights", 4, 2, 3)
    audit = json.loads(run(TUSP, "datasets", "audit", "npz-nights", "--json").stdout)
    assert (audit["added"], audit["changed"], audit["vanished"]) == ([], [], [])
    rows = {row["recording"]: row for row in audit["recordings"]}
    assert rows["p3_n1"]["problems"] == ["C3-A2 (EEG): is not in the file; not used"]
    (source,) = rows["p1_n1"]["sources"]
    assert (source["role"], source["also"]) == ("signals", ["labels"]), "the labels are inside the signal file"

    prepared = run(sys.executable, "-c", PREPARE, tmp_path / "home")
    assert prepared.stdout.splitlines() == [
        "p1_n1 p1 20 C3-A2,C4-A1,EOG",
        "p1_n2 p1 20 C3-A2,C4-A1,EOG",
        "p2_n1 p2 20 C3-A2,C4-A1,EOG",
        "p3_n1 p3 20 C4-A1,EOG",
        "['p4_n1', 'p5_n1']",
    ], prepared.stderr

    # without the package the registration is still there, and says what is lacking
    del environment["PYTHONPATH"]
    gone = run(TUSP, "datasets", "audit", "npz-nights")
    assert gone.returncode == 2
    assert gone.stderr.startswith("tusp: no corpus 'npz-nights'; known are cinc2018")
    assert len(gone.stderr.strip().splitlines()) == 1
