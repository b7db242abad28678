"""``tusp datasets splits``: who trains, validates and tests."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tusp.cli.context import current_settings
from tusp.cli.output import console, errors, print_json, print_table
from tusp.platform.errors import UserError

if TYPE_CHECKING:
    from tusp.datasets.splits import Split

app = typer.Typer(help="Fold manifests and the leakage check.", no_args_is_help=True)


class ProtocolChoice(StrEnum):
    """How people are divided."""

    kfold = "kfold"
    paper = "paper"


Corpus = Annotated[
    str, typer.Argument(help="A registered corpus or a subset of it (sedf-sc:sedf-20).", metavar="CORPUS")
]
ProtocolOption = Annotated[ProtocolChoice, typer.Option("--protocol", help="How people are divided.")]
Folds = Annotated[int, typer.Option("--folds", min=1, help="Number of test sets.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the drawing.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _people(corpus: str) -> dict[str, tuple[str, ...]]:
    from tusp.datasets.subsets import people_of
    from tusp.platform.store.session import open_store

    return people_of(open_store(current_settings().db), corpus)


def _split(corpus: str, protocol: ProtocolChoice, folds: int, seed: int) -> Split:
    from tusp.datasets.splits import make_split

    return make_split(corpus, _people(corpus), protocol=protocol.value, folds=folds, seed=seed)


@app.command()
def show(
    corpus: Corpus,
    protocol: ProtocolOption = ProtocolChoice.kfold,
    folds: Folds = 5,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Show people and recordings of every fold, with the hash of the split.

    Example: tusp datasets splits show sedf-sc --protocol paper
    """
    from tusp.datasets.splits import PARTS, to_json

    split = _split(corpus, protocol, folds, seed)
    if as_json:
        import json

        print_json(json.loads(to_json(split)))
        return
    rows: list[list[object]] = []
    for index, fold in enumerate(split.folds):
        row: list[object] = [index]
        for part in PARTS:
            subjects: tuple[str, ...] = getattr(fold, part)
            row += [len(subjects), len(split.recordings_of(subjects))]
        rows.append([*row, " ".join(fold.test)])
    heads = [f"{part} {unit}" for part in PARTS for unit in ("people", "nights")]
    print_table(
        ["fold", *heads, "tested"],
        rows,
        title=f"{corpus}: {protocol.value}, {len(split.folds)} folds, seed {seed}",
        caption=f"{len(split.recordings)} people, {len(split.recordings_of(split.recordings))} recordings. "
        f"Hash {split.hash}",
    )


@app.command()
def export(
    corpus: Corpus,
    file: Annotated[Path, typer.Argument(help="Where the manifest is written.", dir_okay=False)],
    protocol: ProtocolOption = ProtocolChoice.kfold,
    folds: Folds = 5,
    seed: Seed = 0,
) -> None:
    """Write the manifest of a split as JSON, sealed by its hash.

    Example: tusp datasets splits export sedf-sc sedf-sc-kfold5.json
    """
    from tusp.datasets.splits import to_json
    from tusp.platform.files import disk_errors_named, write_text_atomic

    split = _split(corpus, protocol, folds, seed)
    try:
        with disk_errors_named("export the split", file):
            write_text_atomic(file, to_json(split))
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error.strerror}); choose another file") from None
    console.print(f"{file}: {len(split.folds)} folds, hash {split.hash}", markup=False, soft_wrap=True)


@app.command()
def verify(
    corpus: Corpus,
    file: Annotated[Path, typer.Argument(help="A manifest written by export.", dir_okay=False)],
    as_json: AsJson = False,
) -> None:
    """Check a manifest against the corpus: leaks, overlaps, people missing or unknown. Exit status 2 if any.

    Example: tusp datasets splits verify sedf-sc sedf-sc-kfold5.json
    """
    from tusp.datasets.splits import parse_manifest, verify_split

    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UserError(f"{file}: not readable ({reason})") from None
    split, claimed = parse_manifest(text, where=str(file))
    problems = []
    if split.hash != claimed:
        problems.append(f"changed after it was written: its hash is {split.hash[:12]}, it claims {claimed[:12]}")
    if split.corpus != corpus:
        problems.append(f"is a split of corpus {split.corpus}, not of {corpus}")
    problems += verify_split(split, _people(corpus))
    if as_json:
        print_json({"file": str(file), "corpus": corpus, "hash": split.hash, "problems": problems})
    else:
        for problem in problems:
            errors.print(f"tusp: {file}: {problem}", markup=False, soft_wrap=True)
    if problems:
        raise typer.Exit(2)
    if not as_json:
        people = len(split.recordings)
        console.print(f"{file}: {len(split.folds)} folds of {people} people, nobody leaks", markup=False)
