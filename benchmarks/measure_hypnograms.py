"""Measure real hypnograms and write the simulation's statistics.json (numbers, no data).

Example:
    python benchmarks/measure_hypnograms.py ../shared/data

The folder holds three others. ``sleep-edf``: hypnograms-rle.json ({record: [[code, run length], ...]}), the subject
tables SC-subjects.xls and ST-subjects.xls (reading them needs xlrd; without them the committed entries of Sleep-EDF
are kept), and some original hypnograms in hypnograms-edf/ (for times around sleep and the split of N3 into stages 3
and 4). ``cinc2018``: hypnograms-rle.json. ``dod-h``: scorers.json ({scorer: {record: [code, ...]}}).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import edfio
import numpy as np
import pandas as pd

from tusp.datasets.simulation import statistics
from tusp.datasets.simulation.statistics import Codes, measure_chain
from tusp.platform.scoring.consensus import best_four
from tusp.platform.stages import REM

TARGET = Path(__file__).parent.parent / "tusp/datasets/simulation/statistics.json"
FIRST_EPOCH = dict.fromkeys(("5bf0f969-304c-581e-949c-50c108f62846", "b5d5785d-87ee-5078-b9b9-aac6abd4d8de"), 60)
LAST_EPOCH = {"3e842aa8-bcd9-521e-93a2-72124233fe2c": 620}
"""Light was on in these epochs of DOD-H."""
AGE_GROUPS = {"sedf-sc": ((0, 45), (46, 70), (71, 120)), "sedf-st": ((0, 120),)}


def real_nights(folder: Path) -> dict[str, Codes]:
    """Stage codes of every record of hypnograms-rle.json."""
    runs = json.loads((folder / "hypnograms-rle.json").read_text())
    return {
        name: np.repeat([code for code, _ in run], [n for _, n in run]).astype(np.int8) for name, run in runs.items()
    }


def people(folder: Path) -> dict[str, tuple[float, bool]]:
    """Age and "is a woman" by the first five characters of a record's name."""
    cassette = pd.read_excel(folder / "SC-subjects.xls")
    found = {
        f"SC4{int(row.iloc[0]):02d}": (float(row.iloc[2]), int(row.iloc[3]) == 1) for _, row in cassette.iterrows()
    }
    telemetry = pd.read_excel(folder / "ST-subjects.xls", header=1)
    for _, row in telemetry.iterrows():
        found[f"ST7{int(row.iloc[0]):02d}"] = (float(row.iloc[1]), int(row.iloc[2]) == 2)
    return found


def quantiles(values: list[float]) -> list[float]:
    return np.round(np.quantile(values, statistics.QUANTILES), 1).tolist()


def spread_of_groups(
    nights: dict[str, Codes], *, person: Callable[[str], str], size: int = 20, draws: int = 400
) -> dict[str, Any]:
    """5th and 95th percentile of the summary over random groups of nights, whole people at a time."""
    random = np.random.default_rng(0)
    by_person: dict[str, list[Codes]] = {}
    for name, night in nights.items():
        by_person.setdefault(person(name), []).append(night)
    people_nights = list(by_person.values())
    found = []
    for _ in range(draws):
        group: list[Codes] = []
        while len(group) < size:
            group.extend(people_nights[int(random.integers(len(people_nights)))])
        found.append(statistics.summary(group))
    return {
        key: [np.round(np.quantile([one[key] for one in found], q, axis=0), 4).tolist() for q in (0.05, 0.95)]
        for key in found[0]
    }


def original_runs(folder: Path) -> list[list[tuple[str, int]]]:
    """(stage name, epochs) runs of the original EDF+ hypnograms."""
    nights = []
    for path in sorted((folder / "hypnograms-edf").glob("*.edf")):
        annotations = edfio.read_edf(path).annotations
        nights.append([(a.text.removeprefix("Sleep stage "), int((a.duration or 0) // 30)) for a in annotations])
    return nights


def measure_sleep_edf(folder: Path) -> dict[str, Any]:
    """The entries of the two corpora of Sleep-EDF."""
    nights, ages = real_nights(folder), people(folder)
    originals = original_runs(folder)
    steps: Counter[str] = Counter()
    before, recording = [], []
    for runs in originals:
        names = [name for name, n in runs for _ in range(n)]
        steps.update(a + b for a, b in pairwise(names) if {a, b} <= {"3", "4"})
        asleep = [i for i, name in enumerate(names) if name in set("1234R")]
        before.append(asleep[0])
        recording.append(len(names) - (runs[-1][1] if runs[-1][0] == "?" else 0))
    result: dict[str, Any] = {}
    for corpus, prefix in (("sedf-sc", "SC"), ("sedf-st", "ST")):
        own = {name: night for name, night in nights.items() if name.startswith(prefix)}
        groups = []
        for youngest, oldest in AGE_GROUPS[corpus]:
            members = [night for name, night in own.items() if youngest <= ages[name[:5]][0] <= oldest]
            groups.append({"ages": [youngest, oldest], "nights": len(members), **measure_chain(members)})
        periods, moved, pre, post = [], 0, [], []
        mains, naps, gaps, early, late = [], [], [], 0, 0
        for night in own.values():
            asleep = np.flatnonzero(night > 0)
            inside = night[asleep[0] : asleep[-1]] == -1
            edges = np.diff(np.r_[0, inside.astype(int), 0])
            moved += int((edges == 1).sum())
            periods.append(int(asleep[-1] - asleep[0] + 1))
            pre.append(int(asleep[0]))
            period = statistics.sleep_period(night)
            start, stop = statistics.main_sleep(period)
            mains.append(stop - start)
            early, late = early + (start > 0), late + (stop < len(period))
            for outside, nearest in ((period[:start], -1), (period[stop:], 0)):
                if len(outside):
                    wakes = [bout for bout in statistics.bouts(np.r_[1, outside, 1]) if bout.stage == 0]
                    naps.append(float(np.count_nonzero(outside)))
                    gaps.append(float([wake.length for wake in wakes][nearest]))
            post.append(len(night) - 1 - int(asleep[-1]))
        persons = {name[:5] for name in own}
        cassette = corpus == "sedf-sc"
        result[corpus] = {
            "nights": len(own),
            "persons": len(persons),
            "female_share": round(float(np.mean([ages[person][1] for person in persons])), 3),
            "rem_share": round(float(np.mean([statistics.stage_shares(night)[REM] for night in own.values()])), 3),
            "nap_before": round(early / len(own), 3),
            "nap_after": round(late / len(own), 3),
            "movement_per_hour": round(moved / (sum(periods) / 120), 4),
            "deep_from_3": round(steps["34"] / (steps["34"] + steps["33"]), 3),
            "shallow_from_4": round(steps["43"] / (steps["43"] + steps["44"]), 3),
            "quantiles": {
                "age": quantiles([ages[person][0] for person in persons]),
                "main_sleep": quantiles([float(n) for n in mains]),
                "nap": quantiles(naps or [0.0]),
                "nap_gap": quantiles(gaps or [0.0]),
                # the run-length file keeps 60 epochs of wake at most: cassette times come from the originals
                "wake_before": quantiles([float(n) for n in (before if cassette else pre)]),
                "recording": quantiles([float(n) for n in (recording if cassette else map(len, own.values()))]),
                "wake_after": quantiles([float(n) for n in post]),
            },
            "spread": spread_of_groups(own, person=lambda name: name[:5]),
            "groups": groups,
        }
    return result


def dod_h_nights(folder: Path) -> dict[str, Codes]:
    """Consensus of the four best scorers of every night of scorers.json, on the cut and trimmed span."""
    lists = json.loads((folder / "scorers.json").read_text())
    return {record: best_four(dod_h_votes(lists, record)) for record in lists[min(lists)]}


def dod_h_votes(lists: dict[str, dict[str, list[int]]], record: str) -> Codes:
    """What every scorer gave the epochs that count, [scorer, epoch]."""
    votes = np.array([lists[scorer][record] for scorer in sorted(lists)], dtype=np.int8)
    scored = votes >= 0
    first = int(scored.argmax(axis=1).max())
    end = votes.shape[1] - int(scored[:, ::-1].argmax(axis=1).max())
    return votes[:, max(first, FIRST_EPOCH.get(record, 0)) : min(end, LAST_EPOCH.get(record, end))]


def measure_clinic(nights: dict[str, Codes]) -> dict[str, Any]:
    """The entry of a corpus of single nights without day recordings, one of each person."""
    scored = {name: night[int(np.argmax(night >= 0)) :] for name, night in nights.items()}
    asleep = {name: np.flatnonzero(night > 0) for name, night in scored.items()}
    return {
        "nights": len(nights),
        "persons": len(nights),
        "rem_share": round(float(np.mean([statistics.stage_shares(night)[REM] for night in nights.values()])), 3),
        "nap_before": 0.0,
        "nap_after": 0.0,
        "movement_per_hour": 0.0,
        "deep_from_3": 0.0,
        "shallow_from_4": 0.0,
        "quantiles": {
            "main_sleep": quantiles([float(spots[-1] - spots[0] + 1) for spots in asleep.values()]),
            "wake_before": quantiles([float(spots[0]) for spots in asleep.values()]),
            "wake_after": quantiles([float(len(scored[name]) - 1 - spots[-1]) for name, spots in asleep.items()]),
            "lead_in": quantiles([float(len(nights[name]) - len(night)) for name, night in scored.items()]),
        },
        "spread": spread_of_groups(nights, person=lambda name: name),
        "groups": [
            {
                "ages": [0, 120],
                "nights": len(nights),
                **measure_chain(
                    list(nights.values()), whole=True, prior_bouts=min(statistics.PRIOR_BOUTS, len(nights) / 10)
                ),
            }
        ],
    }


def _compact(value: Any, indent: int = 0) -> str:
    """JSON with one line per innermost list."""
    pad = " " * indent
    if isinstance(value, dict):
        inner = ",\n".join(f"{pad} {json.dumps(key)}: {_compact(item, indent + 1)}" for key, item in value.items())
        return "{\n" + inner + "\n" + pad + "}"
    if isinstance(value, list) and value and isinstance(value[0], list | dict):
        return "[\n" + ",\n".join(pad + " " + _compact(item, indent + 1) for item in value) + "\n" + pad + "]"
    return json.dumps(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, default=TARGET)
    arguments = parser.parse_args()
    if importlib.util.find_spec("xlrd"):
        sleep_edf = measure_sleep_edf(arguments.folder / "sleep-edf")
    else:
        print("no xlrd: Sleep-EDF is not measured again")
        committed = json.loads(TARGET.read_text(encoding="utf-8"))["corpora"]
        sleep_edf = {name: committed[name] for name in ("sedf-sc", "sedf-st")}
    content = {
        "source": "Sleep-EDF Expanded 1.0.0 and PhysioNet/CinC Challenge 2018 (ODC-By), Dreem Open Datasets (MIT): "
        "statistics of their hypnograms, no recordings",
        "hour_edges": statistics.HOUR_EDGES,
        "rem_clock_edges_minutes": statistics.REM_CLOCK_EDGES,
        "first_rem_edges_minutes": statistics.FIRST_REM_EDGES,
        "bout_edges_epochs": statistics.BOUT_EDGES,
        "quantiles_at": statistics.QUANTILES,
        "corpora": {
            **sleep_edf,
            "cinc2018": measure_clinic(real_nights(arguments.folder / "cinc2018")),
            "dod-h": measure_clinic(dod_h_nights(arguments.folder / "dod-h")),
        },
    }
    content = json.loads(json.dumps(content))
    arguments.output.write_text(_compact(content) + "\n", encoding="utf-8")
    print(f"{arguments.output}: {arguments.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
