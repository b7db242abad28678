"""How long reports take with 10,000 done cells x 100 recordings in the store, on SQLite and on PostgreSQL.

    python benchmarks/store.py build DIR [--postgres URL]
    python benchmarks/store.py time DIR [--postgres URL] [--rounds 3] [--only WORD] [--json FILE]

``build`` makes a home in DIR with a store as a benchmark of months would leave it (SIMULATED: every count is drawn):
five corpora of 1,000 nights, ten folds, ablations within each corpus, one joint and one transfer, each of 1,000 cells
with whole plans (who is trained, validated and tested, by name and fingerprint), counts of 100 recordings under both
rules, curves, artefacts and attempts; and a small submission whose kept predictions are there. ``--postgres`` fills a
database too; whatever tables of tusp it holds are dropped first, so give it one of its own:

    export TUSP_TEST_POSTGRES="$(tests/postgres.sh start)"

``time`` runs every kind of report as a command of its own, from the start of the process to its end, and prints
wall and CPU seconds (median and least of the rounds) beside what the report covered: when nothing changed since the
same was asked for (its text is told again); when another format was (the report is there, its text written anew); when
something changed (a row of the store does, boards are there); from another home that keeps nothing yet, where the
store lends what the submissions left ready; and with every board made anew (``--fresh``). Before and after it times a
loop of plain Python, which says how much of a core there was. Before all that it leaves the reports of all submissions
ready, as each of them would have.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import select

from tusp.dashboards.ready import make_ready
from tusp.platform.identity import canonical_json, file_sha256, fingerprint
from tusp.platform.scoring.rules import rule_mask
from tusp.platform.store.models import COUNT_COLUMNS, Base, Corpus
from tusp.platform.store.packed import collected, judged_parts, packed, settings_hash
from tusp.platform.store.queries import list_submissions
from tusp.platform.store.session import open_store, upgrade_store

FOLDS, RECORDINGS, PASSES = 10, 100, 30
CORPORA = {"sedf-sc-sim": 2, "sedf-st-sim": 2, "dcsm-sim": 1, "cinc2018-sim": 1, "shhs-sim": 2}
"""Corpora and nights of each person."""
NIGHTS = 1000
KEPT = "kept-sim"
"""Corpus of the small submission whose predictions are there."""
START = datetime(2026, 1, 5, 9, tzinfo=UTC)
HIT = np.array([0.92, 0.5, 0.86, 0.84, 0.87])
CONFUSED = np.array([[0, 6, 2, 0.2, 2], [5, 0, 9, 0.1, 5], [1, 3, 0, 4, 2], [0.2, 0.1, 7, 0, 0.1], [1.5, 4, 3, 0.1, 0]])
CSJA = {"full": (True, True), "no-csja": (False, True), "no-se": (True, False), "plain": (False, False)}
Matrix = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """One submission of the world."""

    id: str
    name: str
    arms: Sequence[str]
    recipe: str = "standard"
    experiment: str = "within"
    split_seed: int = 0
    seeds: int = 5
    corpora: Sequence[str] = tuple(CORPORA)
    folds: int = FOLDS


ABLATIONS = (
    Ablation(id="s01-csja", name="csja", arms=tuple(CSJA)),
    *(
        Ablation(id=f"s{place:02d}-{name}", name=name, arms=("full", *(f"{name}-{n}" for n in range(1, 5))))
        for place, name in enumerate(("loss", "augmentation", "context", "networks"), start=2)
    ),
    Ablation(id="s06-paper", name="csja", arms=tuple(CSJA), recipe="paper"),
    Ablation(id="s07-quick", name="csja", arms=tuple(CSJA), recipe="quick"),
    Ablation(id="s08-split", name="csja", arms=tuple(CSJA), split_seed=1),
    Ablation(id="s09-transfer", name="csja", arms=tuple(CSJA), experiment="transfer"),
    Ablation(id="s10-joint", name="csja", arms=tuple(CSJA), experiment="joint", seeds=25),
    Ablation(id="s11-kept", name="csja", arms=("full", "no-csja"), seeds=1, corpora=(KEPT,), folds=5),
)


@dataclass(kw_only=True)
class Nights:
    """The people and the truth of one corpus, [n, 5] epochs of each stage under either rule."""

    names: list[str]
    subjects: list[str]
    full: Matrix
    trim30: Matrix
    quality: npt.NDArray[np.float64]


@dataclass(kw_only=True)
class World:
    """Everything that was drawn once."""

    home: Path
    nights: dict[str, Nights] = field(default_factory=dict)


def draw_nights(place: int, corpus: str, per_person: int, n_nights: int) -> Nights:
    random = np.random.default_rng(place)
    shares = random.dirichlet(np.array([8, 6, 44, 16, 26]) * 4.0, size=n_nights)
    asleep = random.multinomial(840, shares)
    before = random.integers(60, 240, size=n_nights)
    full, trim30 = asleep.copy(), asleep.copy()
    full[:, 0] += before
    trim30[:, 0] += 60
    people = [f"{corpus[:4].upper()}{night // per_person:05d}" for night in range(n_nights)]
    names = [f"{corpus[:2].upper()}{night // per_person:05d}N{night % per_person + 1}" for night in range(n_nights)]
    return Nights(
        names=names, subjects=people, full=full, trim30=trim30, quality=random.normal(0.97, 0.05, size=n_nights)
    )


def outcomes(random: np.random.Generator, nights: Nights, chosen: Sequence[int], gain: float) -> dict[str, Matrix]:
    """Counts [n, 5, 5] of some nights under each rule; the longer rule holds the shorter."""
    hit = np.clip(HIT * (nights.quality[chosen] + gain)[:, None], 0.05, 0.99)
    shares = CONFUSED / CONFUSED.sum(1, keepdims=True) * (1 - hit[..., None]) + np.eye(5) * hit[..., None]
    shares /= shares.sum(-1, keepdims=True)
    trim30 = random.multinomial(nights.trim30[chosen], shares)
    full = trim30.copy()
    full[:, 0] += random.multinomial(nights.full[chosen, 0] - nights.trim30[chosen, 0], shares[:, 0])
    return {"full": full, "trim30": trim30}


def parts_of(world: World, ablation: Ablation, trained: Sequence[str], fold: int) -> list[dict[str, Any]]:
    """The corpora of a plan: by person into ten test sets, a tenth of the rest for validation."""
    shared = len(trained) > 1 or ablation.experiment == "transfer"
    others = [name for name in ablation.corpora if name not in trained] if ablation.experiment == "transfer" else []
    parts = []
    for corpus in (*trained, *others):
        nights = world.nights[corpus]
        n_nights = len(nights.names) // 5 if shared else len(nights.names)
        people = list(dict.fromkeys(nights.subjects[:n_nights]))
        order = np.random.default_rng(ablation.split_seed).permutation(len(people))
        fold_of = {people[person]: int(place) % ablation.folds for place, person in enumerate(order)}
        roles: dict[str, dict[str, str]] = {"train": {}, "validation": {}, "test": {}}
        if corpus in others:
            roles["test"] = dict.fromkeys(nights.names[:20], "0" * 64)
        else:
            for night, subject in zip(nights.names[:n_nights], nights.subjects, strict=False):
                away = (fold_of[subject] - fold) % ablation.folds
                roles["test" if away == 0 else "validation" if away == 1 else "train"][night] = fingerprint(night)
        parts.append(
            {
                "name": corpus,
                "simulated": True,
                "protocol": "kfold",
                "split": fingerprint([corpus, ablation.split_seed]),
                "fold": fold,
                "folds": ablation.folds,
                **roles,
            }
        )
    return parts


def plans(world: World, ablation: Ablation) -> Iterator[tuple[str, int, str, int, dict[str, Any], str]]:
    """(corpora trained on, fold, arm, seed, plan, its canonical text) of every cell."""
    groups = [tuple(ablation.corpora)] if ablation.experiment == "joint" else [(name,) for name in ablation.corpora]
    for trained in groups:
        for fold in range(ablation.folds):
            parts = parts_of(world, ablation, trained, fold)
            text = canonical_json(parts)
            for arm in ablation.arms:
                csja, se = CSJA.get(arm, (True, True))
                recipe = {"name": ablation.recipe, "learning_rate": 0.001, "batch_size": 64, "loss": "focal+dice"}
                plan: dict[str, Any] = {
                    "schema": 1,
                    "training": 1,
                    "experiment": ablation.experiment,
                    "corpora": [],
                    "model": {"family": "tinyustaging", "csja": csja, "se_bottom": se, "se_classifier": se},
                    "channels": ["EEG", "EOG"],
                    "recipe": recipe if arm in CSJA else recipe | {"what": arm},
                    "seed": 0,
                }
                for seed in range(ablation.seeds):
                    plan["seed"] = seed
                    whole = canonical_json(plan).replace('"corpora":[]', f'"corpora":{text}', 1)
                    yield "+".join(trained), fold, arm, seed, {**plan, "corpora": parts}, whole


Rows = dict[str, list[tuple[Any, ...]]]


def cells_of(world: World, ablation: Ablation, known: set[str], place: int) -> Iterator[Rows]:
    """Rows by table, cell by cell; a cell that an earlier submission has is a member only."""
    random = np.random.default_rng([7, place])
    gains = {arm: -0.006 * number for number, arm in enumerate(ablation.arms)}
    for label, fold, arm, seed, plan, text in plans(world, ablation):
        cell_id = fingerprint_of(text)
        rows: Rows = {"submission_cells": [(ablation.id, cell_id, cell_id in known)]}
        if cell_id not in known:
            known.add(cell_id)
            rows |= new_cell(world, ablation, random, cell_id, label, fold, arm, seed, plan, text, gains[arm])
        yield rows


def fingerprint_of(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()


def new_cell(
    world: World,
    ablation: Ablation,
    random: np.random.Generator,
    cell_id: str,
    label: str,
    fold: int,
    arm: str,
    seed: int,
    plan: dict[str, Any],
    text: str,
    gain: float,
) -> Rows:
    done_at = START + timedelta(minutes=int(random.integers(60, 100_000)))
    parameters = 2_405_740 - 500 * list(ablation.arms).index(arm)
    result = {
        "n_parameters": parameters, "n_trainable": parameters - 4828, "training_seconds": float(random.normal(900, 40)),
        "prediction_seconds": 31.5, "passes": PASSES, "best_pass": PASSES - 4, "validation_macro_f1": 0.79,
        "validation_accuracy": 0.85, "train_stage_counts": [90_000, 20_000, 210_000, 70_000, 110_000], "device": "cuda",
        "threads": 2,
    }  # fmt: skip
    splits = [part["split"] for part in plan["corpora"]]
    split = splits[0] if len(splits) == 1 else fingerprint(splits)
    folder = f"cells/{cell_id[:2]}/{cell_id}"
    cell = {
        "id": cell_id, "plan": text, "experiment": ablation.experiment, "corpus": label, "protocol": "kfold",
        "arm": arm, "fold": fold, "folds": ablation.folds, "seed": seed, "recipe": ablation.recipe, "split_hash": split,
        "simulated": True, "state": "done", "error": None, "claim": None, "claim_token": None, "heartbeat_at": None,
        "done_at": done_at, "result": json.dumps(result), "settings": settings_hash(plan),
        "judged": json.dumps(judged_parts(plan, label)),
    }  # fmt: skip
    counts, artefacts = [], []
    noise = float(random.normal(0, 0.004))
    for part in plan["corpora"]:
        corpus, names = part["name"], list(part["test"])
        nights = world.nights[corpus]
        place = {name: at for at, name in enumerate(nights.names)}
        chosen = [place[name] for name in names]
        drawn = outcomes(random, nights, chosen, gain + noise)
        if corpus == KEPT:
            drawn, kept = keep_predictions(world, random, cell_id, names, chosen, folder)
            artefacts += kept
        else:
            artefacts += [
                (cell_id, f"{folder}/predictions/{corpus}/{name}-{cell_id[:8]}.safetensors", "predictions",
                 f"{corpus}/{name}", cell_id, 21_000)
                for name in names
            ]  # fmt: skip
        for rule, matrices in drawn.items():
            counts += [
                (cell_id, corpus, name, rule, "vote", nights.subjects[at], *matrix)
                for name, at, matrix in zip(names, chosen, matrices.reshape(-1, 25).tolist(), strict=True)
            ]
    artefacts.append((cell_id, f"{folder}/weights.safetensors", "weights", None, cell_id, 9_700_000))
    passes = np.arange(1, PASSES + 1)
    scores = 0.79 - 0.4 / passes + random.normal(0, 0.01, PASSES)
    rows: Rows = {
        "cells": [tuple(cell.values())],
        "counts": counts,
        "artefacts": artefacts,
        "attempts": [
            (None, cell_id, 1, ablation.id, "done", done_at, done_at, None, None, json.dumps({"host": "here"}))
        ],
        "curves": [
            (cell_id, int(n), 1.0 / n, 0.001, 1.1 / n, 0.8, float(score), 30.0)
            for n, score in zip(passes.tolist(), scores.tolist(), strict=True)
        ],
    }
    return rows | summaries(cell_id, counts)


def summaries(cell_id: str, counts: list[tuple[Any, ...]]) -> Rows:
    """What the store keeps besides, so that reports need not read single counts."""
    sets, arrays = [], []
    for (_, corpus, rule, channels), counted in collected(counts).items():
        nights = [list(pair) for pair in zip(counted.nights.recordings, counted.nights.subjects, strict=True)]
        sets.append((counted.nights.id, json.dumps(nights)))
        matrices = packed(counted.counts)
        digest = hashlib.sha256(matrices).hexdigest()
        arrays.append((cell_id, corpus, rule, channels, counted.nights.id, digest, matrices))
    return {"night_sets": list(dict.fromkeys(sets)), "packed_counts": arrays}


def keep_predictions(
    world: World, random: np.random.Generator, cell_id: str, names: list[str], chosen: list[int], folder: str
) -> tuple[dict[str, Matrix], list[tuple[Any, ...]]]:
    """Real files of predictions, and the counts that follow from them."""
    from safetensors.numpy import save_file

    from tusp.platform.scoring.counts import confusion

    nights = world.nights[KEPT]
    drawn: dict[str, list[Matrix]] = {"full": [], "trim30": []}
    rows: list[tuple[Any, ...]] = []
    (world.home / folder / "predictions").mkdir(parents=True, exist_ok=True)
    for name, at in zip(names, chosen, strict=True):
        before = int(nights.full[at, 0] - nights.trim30[at, 0]) + 60
        asleep = nights.trim30[at].copy()
        asleep[0] -= 60
        sleep = random.permutation(np.repeat(np.arange(5), asleep))
        true = np.concatenate([np.zeros(before, np.int8), [2], sleep[sleep != 2], np.full(asleep[2] - 1, 2)]).astype(
            np.int8
        )
        predicted = np.where(random.random(true.size) < 0.82, true, random.integers(0, 5, true.size)).astype(np.int8)
        probabilities = np.full((true.size, 5), 0.1, np.float32)
        probabilities[np.arange(true.size), predicted] = 0.6
        path = f"{folder}/predictions/{name}.safetensors"
        if not (world.home / path).exists():  # the same for the second store
            save_file({"true": true, "predicted": predicted, "probabilities": probabilities}, world.home / path)
        rows.append(
            (cell_id, path, "predictions", f"{KEPT}/{name}", file_sha256(world.home / path),
             (world.home / path).stat().st_size)
        )  # fmt: skip
        for rule, matrices in drawn.items():
            mask = rule_mask(true, rule)
            matrices.append(confusion(true[mask], predicted[mask]))
    return {rule: np.stack(matrices) for rule, matrices in drawn.items()}, rows


def head_rows(world: World) -> Rows:
    """Corpora with their audits, and submissions."""
    corpora, recordings = [], []
    for corpus, nights in world.nights.items():
        card = {
            "title": f"{corpus} (drawn)",
            "version": "1",
            "licence": "none",
            "access": "open",
            "citation": "",
            "url": "",
        }
        corpora.append((corpus, "sedf-sc", str(world.home), True, False, None, json.dumps(card), START))
        channel = {"name": "EEG Fpz-Cz", "unit": "uV", "rate": 100.0, "iqr": 21.5, "clipped": 0.0002, "flat": 0.0}
        for name, subject, epochs in zip(nights.names, nights.subjects, nights.full.tolist(), strict=True):
            audit = {
                "problems": ["hypnogram is 12 epochs longer than the signal"] if name.endswith("7N1") else [],
                "channels": [channel] * 3, "epochs": dict(zip(("W", "N1", "N2", "N3", "REM"), epochs, strict=True)),
                "signal_epochs": sum(epochs), "signal_hours": 8.1, "label_hours": 8.1, "duplicates": [],
            }  # fmt: skip
            sources = [{"path": f"{name}-PSG.edf", "size": 50_000_000, "mtime_ns": 1, "sha256": "0" * 64}]
            recordings.append((corpus, name, subject, True, None, json.dumps(audit), json.dumps(sources)))
    submissions = [
        (
            ablation.id, START + timedelta(days=place), START + timedelta(days=place, hours=9), "done",
            json.dumps({
                "ablation": ablation.name, "arms": {arm: {} for arm in ablation.arms},
                "corpora": list(ablation.corpora), "split_seed": ablation.split_seed, "recipe": ablation.recipe,
            }),
            json.dumps({"packages": {"tusp": "0.1.0"}, "python": "3.11.0"}), True, json.dumps([]),
            json.dumps({"host": "elsewhere", "pid": 1, "started": "0"}),
        )
        for place, ablation in enumerate(ABLATIONS)
    ]  # fmt: skip
    return {"corpora": corpora, "recordings": recordings, "submissions": submissions}


COLUMNS = {
    "recordings": ("corpus_name", "name", "subject", "usable", "reason", "audit", "sources"),
    "counts": ("cell_id", "corpus", "recording", "rule", "channels", "subject", *COUNT_COLUMNS),
    "attempts": (
        "cell_id", "number", "submission_id", "state", "started_at", "finished_at", "error", "resumed_from_pass",
        "environment",
    ),
}  # fmt: skip


def columns_of(table: str) -> tuple[str, ...]:
    return COLUMNS.get(table) or tuple(column.name for column in Base.metadata.tables[table].columns)


def fill_sqlite(path: Path, batches: Iterable[Rows]) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA synchronous = OFF")
    moment = lambda value: value.strftime("%Y-%m-%d %H:%M:%S.%f") if isinstance(value, datetime) else value  # noqa: E731
    for rows in batches:
        for table, values in rows.items():
            names = columns_of(table)
            if table == "attempts":
                values = [row[1:] for row in values]
            if table not in {"counts", "artefacts", "curves", "submission_cells"}:
                values = [tuple(map(moment, row)) for row in values]
            said = "OR IGNORE " if table == "night_sets" else ""
            connection.executemany(
                f"INSERT {said}INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})", values
            )
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def fill_postgres(url: str, batches: Iterable[Rows]) -> None:
    import psycopg

    seen: set[Any] = set()
    with psycopg.connect(url.replace("+psycopg", "")) as connection, connection.cursor() as cursor:
        for part in grouped(batches, 50):
            for table, values in part.items():
                names = columns_of(table)
                if table == "attempts":
                    values = [row[1:] for row in values]
                if table == "night_sets":
                    values = [row for row in dict.fromkeys(values) if row[0] not in seen and not seen.add(row[0])]  # type: ignore[func-returns-value]
                with cursor.copy(f"COPY {table} ({', '.join(names)}) FROM STDIN") as copy:
                    for row in values:
                        copy.write_row(row)
        connection.commit()
        connection.autocommit = True
        cursor.execute("VACUUM ANALYZE")


def grouped(batches: Iterable[Rows], size: int) -> Iterator[Rows]:
    """Several cells at once, tables in an order that foreign keys allow."""
    order = (
        "corpora", "recordings", "submissions", "cells", "night_sets", "packed_counts", "submission_cells", "attempts",
        "counts", "curves", "artefacts",
    )  # fmt: skip
    together: dict[str, list[tuple[Any, ...]]] = {}
    for place, rows in enumerate(batches, start=1):
        for table, values in rows.items():
            together.setdefault(table, []).extend(values)
        if place % size == 0:
            yield {table: together[table] for table in order if table in together}
            together = {}
    yield {table: together[table] for table in order if table in together}


def everything(world: World) -> Iterator[Rows]:
    known: set[str] = set()
    yield head_rows(world)
    for place, ablation in enumerate(ABLATIONS):
        yield from cells_of(world, ablation, known, place)
        print(f"  {ablation.id}: {len(known):,} cells so far", flush=True)


def build(folder: Path, postgres: str | None) -> None:
    world = World(home=folder)
    for place, (corpus, per_person) in enumerate(CORPORA.items()):
        world.nights[corpus] = draw_nights(place, corpus, per_person, NIGHTS)
    world.nights[KEPT] = draw_nights(99, KEPT, 1, 500)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    file = folder / "tusp.db"
    open_store(f"sqlite:///{file}").close()
    began = time.perf_counter()
    fill_sqlite(file, everything(world))
    print(f"SQLite: {file.stat().st_size / 1e9:.2f} GB, made in {time.perf_counter() - began:.0f} s")
    if postgres is not None:
        empty_postgres(postgres)
        began = time.perf_counter()
        fill_postgres(postgres, everything(world))
        print(f"PostgreSQL: made in {time.perf_counter() - began:.0f} s")


def empty_postgres(url: str) -> None:
    from sqlalchemy import MetaData, create_engine

    engine = create_engine(url)
    tables = MetaData()
    tables.reflect(engine)
    tables.drop_all(engine)
    engine.dispose()
    upgrade_store(url)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One command that is timed."""

    words: Sequence[str]
    covers: str


ONE = "submission of 1,000 cells: 5 boards, 100,000 nights"
WIDE = "submission of 1,250 cells: 5 boards of 5 arms, 125,000 nights"
ALL = "all 10,010 cells: every board, 1,001,000 nights"
KEPT_ONES = "submission of 10 cells whose 1,000 predictions are kept"
HERE = ("report", "--submission", "s01-csja")
RUNS = (
    *(Run(words=(*HERE, "--format", each), covers=ONE) for each in ("table", "md", "csv", "json", "latex", "html")),
    Run(words=(*HERE, "--cards", "CARDS"), covers=ONE),
    Run(words=(*HERE, "--suite", "tusp-7"), covers=ONE),
    Run(words=(*HERE, "--rule", "full", "--format", "html"), covers=ONE),
    Run(words=(*HERE, "--corpus", "dcsm-sim"), covers="the same submission, one of its corpora"),
    Run(words=("report", "--submission", "s02-loss", "--format", "html"), covers=WIDE),
    Run(words=("report", "--submission", "s09-transfer", "--format", "html"), covers="transfer: 25 boards, matrices"),
    Run(words=("report", "--submission", "s10-joint", "--format", "html"), covers="joint: 5 boards, 25 seeds"),
    Run(words=("report", "--submission", "s11-kept", "--sleep"), covers=KEPT_ONES),
    Run(words=("report", "--submission", "s11-kept", "--rule", "trim60"), covers=KEPT_ONES),
    Run(words=("report", "--all", "--corpus", "dcsm-sim"), covers="every submission, judged on one corpus"),
    *(Run(words=("report", "--all", "--format", each), covers=ALL) for each in ("table", "json", "html")),
    Run(words=("status",), covers="every submission"),
    Run(words=("status", "s01-csja"), covers="1,000 cells"),
    Run(words=("status", "s01-csja", "--json"), covers="1,000 cells"),
)


def seconds(words: Sequence[str], home: Path, db: str, cwd: Path | None = None) -> tuple[float, float, int]:
    """Wall and CPU seconds of one command, and the bytes it wrote to standard output."""
    words = [str(home / "cards") if word == "CARDS" else word for word in words]
    environment = {**os.environ, "TUSP_HOME": str(home), "TUSP_DB": db}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # with it every command would compile tusp anew
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    program = "import sys; from tusp.cli.main import run; sys.exit(run())"
    done = subprocess.run(
        [sys.executable, "-c", program, *words], env=environment, cwd=cwd, capture_output=True, check=False
    )
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"tusp {' '.join(words)}: {done.stderr.decode()[-2000:]}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, len(done.stdout)


CHANGED = "something changed"

KEPT_BEFORE = {
    "told again": (),
    "written anew": ("texts",),
    CHANGED: (),
    "another home": ("across", "boards", "curves", "extras", "reports", "texts"),
    "--fresh": (),
}
"""What is removed, before every timed command, of what an earlier report of the same kept."""

SHOWN = ("wall", "least_wall", "cpu", "least_cpu")


def loop_seconds() -> float:
    """CPU seconds of three million additions: about half a second when nobody shares the core."""
    began, total = time.process_time(), 0
    for number in range(3_000_000):
        total += number * number
    return time.process_time() - began


def leave_ready(folder: Path, url: str) -> float:
    """Wall seconds of making the reports of every submission, and of all of them, and lending them."""
    began, store = time.perf_counter(), open_store(url)
    names = [record.id for record in list_submissions(store)]
    make_ready(store, kept=folder / "kept", look=None, submissions=names)
    store.close()
    return time.perf_counter() - began


def change(url: str, note: str | None) -> None:
    """A corpus is registered with other words; None takes them back."""
    store = open_store(url)
    with store.session() as session:
        corpus = session.scalars(select(Corpus).order_by(Corpus.name)).first()
        assert corpus is not None
        card = {name: value for name, value in corpus.card.items() if name != "note"}
        corpus.card = card if note is None else card | {"note": note}
    store.close()


def measure(
    folder: Path, postgres: str | None, *, rounds: int, only: str | None, json_file: Path | None, cwd: Path | None
) -> None:
    stores = {"SQLite": f"sqlite:///{folder / 'tusp.db'}"} | ({"PostgreSQL": postgres} if postgres else {})
    print(f"load average {os.getloadavg()[0]:.1f}, a loop of plain Python {loop_seconds():.2f} s")
    print(f"{'command':62} " + " ".join(f"{name:>10} wall   least    CPU  least" for name in stores) + "  covers")
    for name, url in stores.items():
        print(f"{name}: every report made and left ready in {leave_ready(folder, url):.1f} s", flush=True)
    found = []
    for run in RUNS:
        if only is not None and only not in " ".join(run.words):
            continue
        for how, removed in KEPT_BEFORE.items() if run.words[0] == "report" else (("", ()),):
            words = (*run.words, "--fresh") if how == "--fresh" else run.words
            row: dict[str, Any] = {"command": " ".join(run.words), "how": how, "covers": run.covers}
            texts = []
            for name, url in stores.items():
                if how != "--fresh":
                    seconds(words, folder, url, cwd)  # keeps what the timed ones find
                times = []
                for number in range(rounds):
                    if how == CHANGED:
                        change(url, f"{number} {time.time()}")
                    for part in removed:
                        shutil.rmtree(folder / "kept" / part, ignore_errors=True)
                    times.append(seconds(words, folder, url, cwd))
                if how == CHANGED:
                    change(url, None)
                walls, cpus = [taken[0] for taken in times], [taken[1] for taken in times]
                row[name] = {"wall": statistics.median(walls), "least_wall": min(walls), "cpu": statistics.median(cpus)}
                row[name]["least_cpu"], row["bytes"] = min(cpus), times[0][2]
                texts.append(" ".join(f"{row[name][what]:{15 if what == 'wall' else 7}.2f}" for what in SHOWN))
            found.append(row)
            title = " ".join(run.words) + (f" ({how})" if how else "")
            print(f"{title:62} {' '.join(texts)}  {run.covers}", flush=True)
    print(f"load average {os.getloadavg()[0]:.1f}, a loop of plain Python {loop_seconds():.2f} s")
    if json_file is not None:
        json_file.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("what", choices=("build", "time"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--postgres")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--code", type=Path, help="checkout whose tusp is timed; this one unless told otherwise")
    given = parser.parse_args()
    if given.what == "build":
        build(given.folder.resolve(), given.postgres)
    else:
        measure(
            given.folder.resolve(),
            given.postgres,
            rounds=given.rounds,
            only=given.only,
            json_file=given.json,
            cwd=given.code,
        )


if __name__ == "__main__":
    main()
