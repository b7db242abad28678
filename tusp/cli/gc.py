"""``tusp datasets gc``: room on the disk, from prepared nights that nothing uses any more."""

from __future__ import annotations

from typing import Annotated

import typer


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed; remove nothing.")] = False,
    keep_days: Annotated[
        float, typer.Option(metavar="D", help="Leave alone what was prepared in the last D days.")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Remove prepared nights that no registered corpus and no planned cell uses.

    Raw files, scores and predictions are never touched. What another process is writing stays.

    Example: tusp datasets gc --dry-run
    """
    from tusp.cli.context import current_settings
    from tusp.cli.output import console, errors, print_json
    from tusp.datasets.disposal import dispose
    from tusp.platform.store.session import open_store

    settings = current_settings()
    disposal = dispose(open_store(settings.db), settings, dry_run=dry_run, keep_days=keep_days)
    for corpus, reason in disposal.untouched.items():
        errors.print(f"left all of {corpus} alone: {reason}", markup=False, soft_wrap=True)
    for folder in disposal.busy:
        errors.print(f"left {folder} alone: another process holds it", markup=False, soft_wrap=True)
    if as_json:
        print_json(
            {
                "dry_run": dry_run,
                "bytes": disposal.size,
                "removed": [
                    {
                        "corpus": night.corpus,
                        "recording": night.recording,
                        "folder": str(night.folder),
                        "reason": night.reason,
                        "bytes": night.size,
                    }
                    for night in disposal.removed
                ],
                "kept": disposal.kept,
                "busy": [str(folder) for folder in disposal.busy],
                "untouched": disposal.untouched,
            }
        )
        return
    for night in disposal.removed:
        name = f"{night.corpus}/{night.recording or night.folder.name}"
        console.print(f"{name}: {night.reason} ({_readable(night.size)})", markup=False, soft_wrap=True)
    done = "would be removed" if dry_run else "removed"
    nights = "1 prepared night" if len(disposal.removed) == 1 else f"{len(disposal.removed)} prepared nights"
    console.print(
        f"{nights} {done} ({_readable(disposal.size)}), {disposal.kept} kept in {settings.prepared}",
        markup=False,
        soft_wrap=True,
    )


def _readable(size: int) -> str:
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000  # type: ignore[assignment]
    return f"{size:.1f} GB"
