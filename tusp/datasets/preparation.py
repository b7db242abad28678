"""From a registered corpus to its prepared nights, in parallel, resumable, and at once when all is there.

One recording is one job; jobs share nothing but the disk, so running them in parallel gives the same bytes as
running them one after another.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tusp.datasets.prepared import PreparedRecording, open_prepared, prepared_folder, sweep
from tusp.datasets.recording import Adapter, RecordingFiles, plug_in_failure
from tusp.datasets.recording_preparation import (
    PreparationSettings,
    Source,
    note_settings,
    preparation_identity,
    prepare_recording,
)
from tusp.platform.errors import DataError, UserError
from tusp.platform.files import disk_errors_named
from tusp.platform.identity import fingerprint

if TYPE_CHECKING:
    from tusp.platform.settings import Settings
    from tusp.platform.store.session import Store

__all__ = ["PreparationSettings", "PreparedCorpus", "Source", "prepare_corpus", "prepare_recordings"]

Progress = Callable[[int, int, str], None]
"""Called as ``progress(done, total, label)``."""


@dataclass(frozen=True, kw_only=True)
class PreparedCorpus:
    """What ``prepare_corpus`` found or made."""

    name: str
    simulated: bool
    recordings: list[PreparedRecording]
    """Sorted by name."""
    refused: dict[str, str]
    """Recording to the reason why it cannot be used: those of the audit and those found while preparing."""
    made: tuple[str, ...] = field(default=(), compare=False)
    """Recordings that were prepared just now; the others were there already."""
    repaired: dict[str, str] = field(default_factory=dict)
    """Recordings that were in the store but torn, and what was wrong; they were prepared again."""

    @property
    def by_subject(self) -> dict[str, tuple[str, ...]]:
        """Subject to the sorted names of the prepared recordings: what a split is made of."""
        people: dict[str, list[str]] = {}
        for recording in self.recordings:
            people.setdefault(recording.subject, []).append(recording.name)
        return {subject: tuple(sorted(people[subject])) for subject in sorted(people)}


@dataclass(frozen=True, kw_only=True)
class _Job:
    adapter: Adapter
    files: RecordingFiles
    corpus: str
    root: Path
    identity: dict[str, Any]
    preparation: PreparationSettings
    sources: tuple[Source, ...]

    def run(self) -> PreparedRecording | str:
        """The prepared night, or why it is refused."""
        try:
            return prepare_recording(
                self.adapter,
                self.files,
                corpus=self.corpus,
                destination_root=self.root,
                identity=self.identity,
                preparation=self.preparation,
                sources=self.sources,
            )
        except DataError as error:
            return str(error)
        except (UserError, OSError):
            raise  # a full disk, say, which is no night's fault
        except Exception as error:
            reason = plug_in_failure(self.adapter, self.files, error)
            if reason is None:
                raise
            return reason


def _end_with_parent() -> None:
    """Let a worker die with the process that started it, so that a killed command leaves nobody waiting."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _run_jobs(
    jobs: Sequence[_Job], *, workers: int, corpus: str, report: Callable[[str, PreparedRecording | str], None]
) -> None:
    """Run the jobs and report each the moment it ends."""
    if workers == 1 or len(jobs) <= 1:
        for job in jobs:
            report(job.files.name, job.run())
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tusp.datasets.conditioning", type(jobs[0].adapter).__module__])
    with ProcessPoolExecutor(min(workers, len(jobs)), context, _end_with_parent) as pool:
        futures: dict[Future[PreparedRecording | str], str] = {pool.submit(job.run): job.files.name for job in jobs}
        try:
            for future in as_completed(futures):
                report(futures[future], future.result())
        except BrokenProcessPool as error:
            raise UserError(
                f"prepare {corpus}: a worker process was killed (often: not enough memory); "
                "run again, with fewer workers"
            ) from error
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def prepare_recordings(
    adapter: Adapter,
    nights: Sequence[tuple[RecordingFiles, Sequence[Source]]],
    *,
    corpus: str,
    root: Path,
    preparation: PreparationSettings | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> PreparedCorpus:
    """Prepare nights without the SQL store.

    Args:
        adapter: reads the corpus; has to be picklable when ``workers`` is not 1.
        nights: each with its raw files as hashed; all simulated or none.
        corpus: name under which the corpus is registered.
        root: its folder in the prepared store.
        preparation: choices.
        workers: processes (default: the processor cores this process may use).
        progress: called as each night is there.

    Raises:
        UserError: the disk is full or does not allow writing, or a worker was killed.
    """
    chosen = preparation or PreparationSettings()
    jobs = {
        files.name: _Job(
            adapter=adapter,
            files=files,
            corpus=corpus,
            root=root,
            identity=preparation_identity(
                adapter,
                recording=files.name,
                subject=files.subject,
                simulated=files.simulated,
                source_sha256s=[source.sha256 for source in sources],
                preparation=chosen,
            ),
            preparation=chosen,
            sources=tuple(sources),
        )
        for files, sources in nights
    }
    simulated = {files.simulated for files, _ in nights}
    assert len(simulated) <= 1, "simulated and real nights in one corpus"
    return _find_or_make(
        {name: job.identity for name, job in jobs.items()},
        lambda names: [jobs[name] for name in names],
        corpus=corpus,
        simulated=simulated == {True},
        root=root,
        workers=workers,
        progress=progress,
    )


def prepare_corpus(
    store: Store,
    settings: Settings,
    corpus_name: str,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    preparation: PreparationSettings | None = None,
) -> PreparedCorpus:
    """Have every usable night of a registered corpus in the prepared store.

    Files that changed since the last audit are noticed first; a changed night has another fingerprint and is
    prepared anew beside the old one. Nights that are there already are opened without reading a signal.

    Args:
        store: where the corpus is registered.
        settings: say where the prepared store is.
        corpus_name: a registered corpus.
        workers: processes (default: the processor cores this process may use).
        progress: called as each night is there.
        preparation: choices; part of the fingerprints.

    Raises:
        UserError: the corpus is not registered, the disk cannot be written, or a worker was killed.
    """
    from tusp.datasets import catalog

    catalog.refresh_corpus(store, corpus_name, workers=workers)
    corpus = catalog.get_corpus(store, corpus_name)
    rows = {row.name: row for row in catalog.recordings(store, corpus_name)}
    adapter = catalog.adapter_for(corpus)
    chosen = preparation or PreparationSettings()
    root = settings.prepared / corpus_name
    identities = {
        name: preparation_identity(
            adapter,
            recording=name,
            subject=row.subject,
            simulated=corpus.simulated,
            source_sha256s=[source["sha256"] for source in row.sources],
            preparation=chosen,
        )
        for name, row in rows.items()
        if row.usable
    }

    def make_jobs(names: Sequence[str]) -> list[_Job]:
        return [
            _Job(
                adapter=adapter,
                files=catalog.recording_files(corpus, rows[name]),
                corpus=corpus_name,
                root=root,
                identity=identities[name],
                preparation=chosen,
                sources=tuple(
                    Source(
                        path=Path(corpus.root) / source["path"],
                        size=source["size"],
                        mtime_ns=source["mtime_ns"],
                        sha256=source["sha256"],
                    )
                    for source in rows[name].sources
                ),
            )
            for name in names
        ]

    with disk_errors_named(f"prepare {corpus_name}", root):
        note_settings(root, chosen)
    prepared = _find_or_make(
        identities,
        make_jobs,
        corpus=corpus_name,
        simulated=corpus.simulated,
        root=root,
        workers=workers,
        progress=progress,
    )
    unusable = {name: row.reason or "refused by the audit" for name, row in rows.items() if not row.usable}
    return replace(prepared, refused=dict(sorted({**unusable, **prepared.refused}.items())))


def _find_or_make(
    identities: Mapping[str, dict[str, Any]],
    make_jobs: Callable[[Sequence[str]], list[_Job]],
    *,
    corpus: str,
    simulated: bool,
    root: Path,
    workers: int | None,
    progress: Progress | None,
) -> PreparedCorpus:
    """Open the nights that are there and make the others."""
    found: list[PreparedRecording] = []
    refused: dict[str, str] = {}
    repaired: dict[str, str] = {}
    missing: list[str] = []
    made: list[str] = []
    for name, identity in identities.items():
        folder = prepared_folder(root, fingerprint(identity))
        if not folder.exists():
            missing.append(name)
            continue
        try:
            found.append(open_prepared(folder))
        except DataError as error:
            repaired[name] = str(error)
            missing.append(name)

    def report(name: str, outcome: PreparedRecording | str) -> None:
        if isinstance(outcome, str):
            refused[name] = outcome
        else:
            found.append(outcome)
            made.append(name)
        if progress:
            progress(len(found) + len(refused), len(identities), name)

    if progress:
        progress(len(found), len(identities), corpus)
    if missing:
        with disk_errors_named(f"prepare {corpus}", root):
            try:
                root.mkdir(parents=True, exist_ok=True)
            except (NotADirectoryError, FileExistsError):
                raise UserError(f"prepare {corpus}: {root} or a part of it is a file, not a folder") from None
            sweep(root)
        _run_jobs(make_jobs(missing), workers=workers or len(os.sched_getaffinity(0)), corpus=corpus, report=report)
    return PreparedCorpus(
        name=corpus,
        simulated=simulated,
        recordings=sorted(found, key=lambda recording: recording.name),
        refused=dict(sorted(refused.items())),
        made=tuple(sorted(made)),
        repaired=repaired,
    )
