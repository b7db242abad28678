"""``tusp datasets``: the registry of corpora."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tusp.cli import splits
from tusp.cli.context import current_settings
from tusp.cli.fetch import fetch
from tusp.cli.gc import gc
from tusp.cli.output import console, errors, print_json, print_table
from tusp.cli.prepare import prepare
from tusp.cli.simulate import simulate

if TYPE_CHECKING:
    from tusp.datasets.audit import Progress, RecordingAudit
    from tusp.datasets.catalog import CorpusAudit
    from tusp.platform.store.session import Store

app = typer.Typer(help="The registry of corpora.", no_args_is_help=True)
app.add_typer(splits.app, name="splits")
app.command("simulate")(simulate)
app.command("fetch")(fetch)
app.command("prepare")(prepare)
app.command("gc")(gc)

Registered = Annotated[str, typer.Argument(help="Name of a registered corpus.", metavar="CORPUS")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _store() -> Store:
    from tusp.platform.store.session import open_store

    return open_store(current_settings().db)


@contextmanager
def _progress(what: str) -> Iterator[Progress]:
    """A progress bar on stderr while recordings are audited."""
    from rich.progress import Progress as Bar

    with Bar(console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task(what, total=None)

        def told(done: int, total: int, name: str) -> None:
            bar.update(task, completed=done, total=total)

        yield told


def _print_refused(refused: Mapping[str, str]) -> None:
    for name, reason in refused.items():
        errors.print(f"refused {name}: {reason}", markup=False, soft_wrap=True)


def _people(rows: Sequence[RecordingAudit]) -> str:
    subjects = len({row.subject for row in rows})
    nights = "1 recording" if len(rows) == 1 else f"{len(rows)} recordings"
    return f"{nights} of {'1 person' if subjects == 1 else f'{subjects} people'}"


def _hours(value: float) -> str | None:
    return None if value != value else f"{value:.1f}"


def _share(value: float) -> str | None:
    return None if value != value else f"{value:.1%}"


def _channels(row: RecordingAudit) -> str:
    return ", ".join(f"{c.name} {c.sampling_rate_hz:g} Hz {c.unit}".rstrip() for c in row.channels)


def _say(text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)


@app.command()
def add(
    corpus: Annotated[
        str,
        typer.Argument(
            help="sedf-sc, sedf-st, dcsm, cinc2018, shhs, dod-h, dod-o, a plug-in's; with --describe any name."
        ),
    ],
    path: Annotated[Path, typer.Argument(help="Folder of its files; only ever read.", readable=False)],
    describe: Annotated[
        Path | None,
        typer.Option(metavar="FILE.toml", readable=False, help="Description of your own nights (docs/describe.md)."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Register under this name instead.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of a registration.")] = False,
    allow_refused: Annotated[
        bool, typer.Option("--allow-refused", help="Exit with status 0 although recordings were refused.")
    ] = False,
) -> None:
    """Register a folder of nights and audit every one; those that cannot be used are refused by name.

    Example: tusp datasets add sedf-sc ~/sleep-edf/sleep-cassette

    Example: tusp datasets add my-nights ~/nights --describe my-nights.toml
    """
    from tusp.datasets import catalog
    from tusp.datasets.audit import stage_totals

    store = _store()
    try:
        with _progress("auditing") as progress:
            audit = catalog.add_corpus(
                store,
                name=name or corpus,
                adapter=None if describe else corpus,
                root=path,
                describe=describe,
                replace=replace,
                progress=progress,
            )
    except catalog.NothingUsable as error:
        _print_refused(error.refused)
        raise
    _print_refused(audit.refused)
    kind = "simulated" if audit.simulated else "real"
    hours = sum(row.signal_hours for row in audit.usable)
    refused = f", {len(audit.refused)} refused" if audit.refused else ""
    excluded = f", {len(audit.excluded)} excluded" if audit.excluded else ""
    stages = ", ".join(f"{stage} {count}" for stage, count in stage_totals(audit.recordings).items())
    _say(f"{audit.name}: {kind}, {_people(audit.usable)}, {hours:.1f} h{refused}{excluded}; epochs {stages}")
    for line in audit.shared:
        _say(line)
    odd = sum(bool(row.remarks) for row in audit.usable)
    if odd:
        _say(f"{odd} of the usable recordings have something to know about: tusp datasets audit {audit.name}")
    if audit.refused and not allow_refused:
        raise typer.Exit(2)


@app.command("list")
def list_(
    known: Annotated[
        bool, typer.Option("--known", help="List the corpora that tusp can read instead, those of plug-ins too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the registered corpora.

    Example: tusp datasets list

    Example: tusp datasets list --known
    """
    from dataclasses import asdict

    from tusp.datasets import catalog

    if known:
        _list_known(as_json)
        return
    summaries = catalog.list_corpora(_store())
    if as_json:
        print_json([{**asdict(s), "root": str(s.root), "added_at": s.added_at.isoformat()} for s in summaries])
        return
    if not summaries:
        names = ", ".join(sorted(catalog.adapters()))
        _say(f"No corpus is registered; tusp datasets add CORPUS PATH (corpora known: {names})")
        return
    print_table(
        ["corpus", "kind", "recordings", "refused", "people", "hours", "access", "licence"],
        [
            [
                s.name,
                "simulated" if s.simulated else "real",
                s.recordings,
                s.refused,
                s.people,
                round(s.hours, 1),
                s.access,
                _plain(s.licence),
            ]
            for s in summaries
        ],
    )
    for s in summaries:
        _say(f"{s.name}: {s.title}, in {s.root}")


def _list_known(as_json: bool) -> None:
    """What is known of every corpus that tusp has an adapter for."""
    from tusp.datasets.adapters import cards as adapter_cards

    cards = adapter_cards()
    if as_json:
        fields = ("title", "version", "access", "licence", "nights", "people", "url", "hold_out")
        print_json([{"name": name, **{key: getattr(card, key) for key in fields}} for name, card in cards.items()])
        return
    print_table(
        ["corpus", "access", "licence", "nights", "people"],
        [[_plain(name), _plain(c.access), _plain(c.licence), c.nights, c.people] for name, c in cards.items()],
    )
    for name, card in cards.items():
        _say(f"{name}: {card.title}, {card.url}")


def _plain(value: object) -> str:
    """Text of a file or a person, in which a square bracket is no markup."""
    from rich.markup import escape

    return escape(str(value))


def _audit_table(audit: CorpusAudit) -> None:
    # Lighter than the other tables, so that a row fits into 80 columns.
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from tusp.platform.stages import STAGE_NAMES

    kind = "simulated" if audit.simulated else "real"
    table = Table(
        title=f"{audit.name} ({kind}): {_people(audit.usable)}, {len(audit.refused)} refused",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=0,
    )
    longest = max((len(row.name) for row in audit.recordings), default=0)
    table.add_column("recording", overflow="fold", min_width=min(longest, 24))
    for column in ("signal h", "labels h", *STAGE_NAMES, "un-scored", "flat", "clipped"):
        table.add_column(column.replace(" ", "\n").replace("-", "-\n"), justify="right")
    table.add_column("state")
    for row in audit.recordings:
        state = "refused" if not row.usable else "look" if row.remarks else "ok"
        cells = [
            _plain(row.name),
            _hours(row.signal_hours),
            _hours(row.label_hours),
            *(row.epochs.get(stage) for stage in STAGE_NAMES),
            _share(row.unscored_share),
            _share(row.flat_share),
            _share(row.clipped_share),
            state,
        ]
        table.add_row(*("–" if cell is None else str(cell) for cell in cells))
    console.print(table)
    layouts: dict[str, list[str]] = {}
    for row in audit.recordings:
        if row.channels:
            layouts.setdefault(_channels(row), []).append(row.name)
    for layout, names in layouts.items():
        whose = "all" if len(layouts) == 1 else f"{len(names)} ({names[0]}{', ...' if len(names) > 1 else ''})"
        _say(f"channels of {whose}: {layout}")
    for row in audit.recordings:
        for remark in row.remarks:
            _say(f"{row.name}: {remark}")
    for line in audit.shared:
        _say(line)
    if audit.excluded:
        _say(f"left out, as the description or the corpus says: {', '.join(audit.excluded)}")


def _audit_json(audit: CorpusAudit, changes: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    return {
        "corpus": audit.name,
        "adapter": audit.adapter,
        "title": audit.title,
        "folder": str(audit.root),
        "simulated": audit.simulated,
        "excluded": list(audit.excluded),
        "shared": list(audit.shared),
        **{key: list(names) for key, names in changes.items()},
        "recordings": [
            {
                "recording": row.name,
                "subject": row.subject,
                "usable": row.usable,
                "reason": row.reason,
                **row.to_json(),
                "sources": [dict(source) for source in row.sources],
            }
            for row in audit.recordings
        ],
    }


@app.command()
def audit(corpus: Registered, as_json: AsJson = False) -> None:
    """Show what is in each recording and what is wrong with it; files changed since are audited again.

    Exit status 2 when a recording is refused.

    Example: tusp datasets audit sedf-sc
    """
    from tusp.datasets import catalog

    with _progress("auditing") as progress:
        refresh = catalog.refresh_corpus(_store(), corpus, progress=progress)
    changes = {"added": refresh.added, "changed": refresh.changed, "vanished": refresh.vanished}
    if as_json:
        print_json(_audit_json(refresh.audit, changes))
    else:
        _audit_table(refresh.audit)
        for what, names in changes.items():
            if names:
                _say(f"{what} since the last audit: {', '.join(names)}")
    _print_refused(refresh.audit.refused)
    if refresh.audit.refused:
        raise typer.Exit(2)


@app.command()
def remove(
    corpus: Registered,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    prepared: Annotated[bool, typer.Option("--prepared", help="Delete its prepared data too.")] = False,
) -> None:
    """Forget a corpus. Its raw files are never touched; recorded results stay.

    Example: tusp datasets remove sedf-sc
    """
    from tusp.datasets import catalog

    store = _store()
    registered = catalog.get_corpus(store, corpus)
    folder = current_settings().prepared / registered.name
    if not yes:
        also = f" and delete {folder}" if prepared else ""
        typer.confirm(f"Forget {registered.name} ({registered.root}){also}?", abort=True)
    catalog.remove_corpus(store, registered.name)
    _say(f"forgot {registered.name}; its files in {registered.root} are as they were")
    if prepared and folder.is_dir():
        import shutil

        from tusp.platform.files import disk_errors_named

        with disk_errors_named("deleting prepared data", folder):
            shutil.rmtree(folder)
        _say(f"deleted {folder}")
