"""Fetching a corpus: what is to do, whether it fits on the disk, several files at a time, and what came of each."""

from __future__ import annotations

import queue
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from tusp.datasets.adapters import adapters
from tusp.datasets.fetching.archives import unpack_listed, unpack_member
from tusp.datasets.fetching.client import Client, Patience, Stopped
from tusp.datasets.fetching.items import CONTROL_FOLDER, Item, what_is_wrong
from tusp.datasets.fetching.sources import SOURCES, Request, check_base_url, chosen
from tusp.datasets.fetching.stamps import Stamps
from tusp.datasets.fetching.transfer import Part, download, set_aside
from tusp.platform.errors import DataError, TuspError, UserError
from tusp.platform.files import disk_errors_named, file_lock

MOST_JOBS: Final = 32
_SPARE_BYTES: Final = 2**26
_NAMES: Final = {"sha256": "SHA-256", "md5": "MD5", "crc32": "CRC-32 of the archive", None: "size only"}
_GOOD_BYE_SECONDS: Final = 5.0

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one file."""

    path: str
    state: str
    """``fetched``, ``present`` (there already, verified), ``failed``, or of a dry run ``to fetch``."""
    size: int | None
    """Bytes, None where the server does not say."""
    verified: str | None
    """``sha256``, ``md5``, ``crc32``, or ``size`` where nothing else is published; None when not verified."""
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a call did, or of a dry run would do."""

    corpus: str
    folder: Path
    files: Sequence[Outcome]
    notes: Sequence[str] = ()

    @property
    def failed(self) -> list[Outcome]:
        """Files that could not be had."""
        return [outcome for outcome in self.files if outcome.state == "failed"]

    def count(self, state: str) -> int:
        """Number of files in this state."""
        return sum(outcome.state == state for outcome in self.files)

    @property
    def bytes(self) -> int:
        """Size of all files together, as far as known."""
        return sum(outcome.size or 0 for outcome in self.files)

    @property
    def how_verified(self) -> str:
        """In words: how many files were verified by what."""
        counts = Counter(outcome.verified for outcome in self.files if outcome.verified)
        names = {algorithm or "size": name for algorithm, name in _NAMES.items()}
        return ", ".join(f"{counts[name]} by {words}" for name, words in names.items() if counts[name])


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a caller hears how far it is; called from several threads."""

    begin: Callable[[int | None, int], None] = lambda total_bytes, files: None
    """Total bytes (None where unknown) and number of files, as soon as known."""
    advance: Callable[[int], None] = lambda count: None
    """Bytes more on the disk; negative when some were thrown away."""
    done: Callable[[Outcome], None] = lambda outcome: None
    """A file is finished."""


def in_parallel(
    work: Callable[[T], R], todo: Sequence[T], *, jobs: int, stop: threading.Event
) -> Iterator[tuple[T, R]]:
    """Results as they come, from ``jobs`` threads. Interrupted or failed, ``stop`` is set and no thread is waited for
    longer than a moment.

    Raises:
        Exception: what ``work`` raised.
    """
    waiting: queue.SimpleQueue[T] = queue.SimpleQueue()
    for each in todo:
        waiting.put(each)
    finished: queue.SimpleQueue[tuple[T, R | None, Exception | None]] = queue.SimpleQueue()

    def worker() -> None:
        while not stop.is_set():
            try:
                each = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                finished.put((each, work(each), None))
            except Exception as error:  # noqa: BLE001  (handed to the thread that waits for it)
                finished.put((each, None, error))
                stop.set()  # here, not where it is raised: nobody begins another file meanwhile

    # Daemons: one that hangs in a read does not keep an interrupted program alive.
    threads = [threading.Thread(target=worker, daemon=True) for _ in range(min(jobs, len(todo)))]
    for thread in threads:
        thread.start()
    try:
        for _ in todo:
            each, result, error = finished.get()
            if error is not None:
                raise error
            yield each, result  # type: ignore[misc]
    except BaseException:
        stop.set()
        raise
    finally:
        for thread in threads:
            thread.join(_GOOD_BYE_SECONDS / len(threads))


class _Fetch:
    """One call on one folder."""

    def __init__(self, *, corpus: str, dest: Path, request: Request, jobs: int, progress: Progress) -> None:
        self.corpus, self.dest, self.request, self.jobs, self.progress = corpus, dest, request, jobs, progress
        self.client = request.client
        self.stamps = Stamps(request.control / "verified.jsonl")
        self.notes: list[str] = []

    def target(self, item: Item) -> Path:
        return self.dest / item.path

    def part(self, item: Item) -> Part:
        return Part(self.request.control / "parts" / f"{item.path}.part")

    def place(self, item: Item) -> tuple[Part, Path]:
        return self.part(item), self.target(item)

    def sizes(self, items: Sequence[Item]) -> dict[str, int]:
        """Bytes of each file, as published or else as the server announces them."""
        known = {item.path: item.size for item in items if item.size is not None}
        asked = [item for item in items if item.size is None]
        for item, size in in_parallel(
            lambda item: self.client.size(item.url), asked, jobs=self.jobs, stop=self.client.stop
        ):
            if size is not None:
                known[item.path] = size
        return known

    def outcome(self, item: Item, state: str, size: int | None = None, reason: str | None = None) -> Outcome:
        target = self.target(item)
        if size is None and state in {"fetched", "present"}:
            size = target.stat().st_size
        verified = (item.digest.algorithm if item.digest else "size") if state in {"fetched", "present"} else None
        return Outcome(path=item.path, state=state, size=size, verified=verified, reason=reason)

    def check_space(self, items: Sequence[Item], sizes: dict[str, int]) -> None:
        """
        Raises:
            UserError: the files will not fit on the disk.
        """
        needed = sum(max(0, sizes.get(item.path, 0) - self.part(item).size) for item in items)
        there = next(folder for folder in (self.dest, *self.dest.absolute().parents) if folder.is_dir())
        free = shutil.disk_usage(there).free
        if needed and needed + _SPARE_BYTES > free:
            raise UserError(
                f"{self.dest}: {readable(needed)} are needed, {readable(free)} are free; free some, choose another"
                " folder, or fetch fewer with --recordings"
            )

    def there(self, item: Item) -> bool:
        """Whether the whole and right file lies at its place; a wrong one is set aside."""
        target = self.target(item)
        if not target.is_file():
            return False
        wrong = what_is_wrong(target, item, stopped=self.client.stop.is_set)
        if self.client.stop.is_set():
            raise Stopped
        if wrong is None:
            self.stamps.add(item, target)
            return True
        aside = set_aside(target, self.request.control, item)
        self.notes.append(f"{item.path}: {wrong}; set aside as {aside}")
        return False

    def one(self, item: Item) -> Outcome:
        """Fetch one file."""
        with disk_errors_named("fetching", self.dest):
            if self.there(item):
                self.progress.advance(self.target(item).stat().st_size)
                return self.outcome(item, "present")
            part, target = self.place(item)
            try:
                if item.member is not None:
                    unpack_member(self.client, item, part, target, self.progress.advance)
                else:
                    download(self.client, item, part, target, self.progress.advance)
            except (DataError, IsADirectoryError, NotADirectoryError, FileExistsError) as error:
                return self.outcome(item, "failed", reason=str(error))
            self.stamps.add(item, target)
            return self.outcome(item, "fetched")

    def from_archive(self, archive: Path, items: Sequence[Item]) -> Iterator[Outcome]:
        """Unpack the listed files from a local archive."""
        missing = []
        for item in items:
            if self.there(item):
                yield self.outcome(item, "present")
            else:
                missing.append(item)
        wanted = {item.path: item for item in missing}
        with disk_errors_named("unpacking", self.dest):
            for item, error in unpack_listed(self.client, archive, wanted, self.place, self.progress.advance):
                if wanted.pop(item.path, None) is None:
                    continue
                if error is None:
                    self.stamps.add(item, self.target(item))
                yield self.outcome(item, "fetched" if error is None else "failed", reason=str(error) if error else None)
        for item in wanted.values():
            yield self.outcome(item, "failed", reason=f"{archive}: holds no file {item.path}")

    def run(self, items: Sequence[Item], *, dry_run: bool) -> Report:
        present = [item for item in items if self.stamps.holds(item, self.target(item))]
        done = {item.path for item in present}
        todo = [item for item in items if item.path not in done]
        local = self.request.archive if self.request.archive and not any(item.member for item in items) else None
        sizes = {} if local else self.sizes(todo)
        absent = [item for item in todo if not self.target(item).is_file()]
        outcomes = [self.outcome(item, "present") for item in present]
        if dry_run:
            # Without a stamp a file is compared with its checksum first, which a dry run does not take the time for.
            outcomes += [self.outcome(item, "to fetch", size=sizes.get(item.path)) for item in todo]
            return self._report(outcomes)
        self.check_space(absent, sizes)
        total = sum(sizes.values()) if not local and len(sizes) == len(todo) else None
        self.progress.begin(total, len(todo))
        self.progress.advance(sum(self.part(item).size for item in todo))
        if local:
            finished: Iterator[Outcome] = self.from_archive(local, todo)
        else:
            pairs = in_parallel(self.one, todo, jobs=self.jobs, stop=self.client.stop)
            finished = (outcome for _, outcome in pairs)
        for outcome in finished:
            outcomes.append(outcome)
            self.progress.done(outcome)
        if not any(outcome.state == "failed" for outcome in outcomes):
            shutil.rmtree(self.request.control / "parts", ignore_errors=True)
        return self._report(outcomes)

    def _report(self, outcomes: Sequence[Outcome]) -> Report:
        files = sorted(outcomes, key=lambda outcome: outcome.path)
        return Report(corpus=self.corpus, folder=self.dest, files=files, notes=tuple(self.notes))


def readable(size: int) -> str:
    """A size for people: ``8.1 GB``."""
    value = float(size)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def _subjects(corpus: str, subset: str | None) -> Sequence[str] | None:
    if subset is None:
        return None
    subsets = adapters()[corpus]().card.subsets
    if subset not in subsets:
        known = ", ".join(sorted(subsets)) or "none"
        raise UserError(f"{corpus} has no subset {subset!r}; known: {known}")
    return subsets[subset]


@contextmanager
def _alone(dest: Path, control: Path) -> Iterator[None]:
    """No other fetch into this folder at the same time.

    Raises:
        UserError: there is one, or the folder cannot be made.
    """
    with disk_errors_named("fetching", dest):
        try:
            control.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise UserError(f"{dest}: not a folder; choose a folder for the files") from error
        with file_lock(control / "lock", blocking=False) as obtained:
            if not obtained:
                raise UserError(f"{dest}: another fetch into this folder is running; wait for it or end it")
            yield


def fetch(
    corpus: str,
    dest: Path,
    *,
    recordings: int | None = None,
    subset: str | None = None,
    jobs: int = 4,
    token: str | None = None,
    base_url: str | None = None,
    archive: Path | None = None,
    dry_run: bool = False,
    patience: Patience | None = None,
    progress: Progress | None = None,
) -> Report:
    """Fetch the published files of a corpus into ``dest``.

    A file gets its final name when it is whole and its published checksum holds; what is there and verified is not
    fetched again; an interrupted call is continued by the same call.

    Args:
        corpus: a key of :data:`tusp.datasets.fetching.sources.SOURCES`.
        dest: folder for the files, made when missing; ``.tusp-fetch`` in it belongs to this function.
        recordings: only the first N nights by name.
        subset: only the people of a named subset (``sedf-20``).
        jobs: files at the same time.
        token: NSRR token of an approved account, for ``shhs``.
        base_url: address of a mirror with the corpus's own layout.
        archive: unpack this downloaded zip or tar of the corpus instead of asking the server.
        dry_run: write nothing, say what would be fetched.
        patience: how long to wait and how often to try.
        progress: told how far it is.

    Raises:
        UserError: the request cannot be done, or the server gives nothing; a file that alone cannot be had is a
            ``failed`` :class:`Outcome` instead.
    """
    if corpus not in SOURCES:
        raise UserError(f"no way to fetch {corpus!r}; known are {', '.join(SOURCES)}")
    if recordings is not None and recordings < 1:
        raise UserError(f"--recordings {recordings} must be at least 1")
    if not 1 <= jobs <= MOST_JOBS:
        raise UserError(f"--jobs {jobs} must be from 1 to {MOST_JOBS}")
    if archive is not None and not archive.is_file():
        raise UserError(f"{archive}: no such file; give a downloaded archive of {corpus}")
    if archive is not None and corpus == "shhs":
        raise UserError("shhs is not given out as an archive; leave --archive out")
    if dest.exists() and not dest.is_dir():
        raise UserError(f"{dest}: not a folder; choose a folder for the files")
    control = dest / CONTROL_FOLDER
    client = Client(patience=patience or Patience(), secrets=(token,) if token else ())
    request = Request(
        client=client,
        control=control,
        base_url=check_base_url(base_url) if base_url else None,
        token=token,
        archive=archive,
        recordings=recordings,
        subjects=_subjects(corpus, subset),
    )
    source = SOURCES[corpus]
    work = _Fetch(corpus=corpus, dest=dest, request=request, jobs=jobs, progress=progress or Progress())
    try:
        if dry_run:
            return work.run(chosen(source, request, source.items(request)), dry_run=True)
        with _alone(dest, control):
            return work.run(chosen(source, request, source.items(request)), dry_run=False)
    except Stopped as error:  # only after a refusal or an interrupt that is already on its way up
        raise TuspError(f"{dest}: stopped; repeat the command to go on") from error


def to_json(report: Report, *, next_command: str | None) -> dict[str, Any]:
    """The report for programs."""
    return {
        "corpus": report.corpus,
        "folder": str(report.folder),
        "bytes": report.bytes,
        "files": [
            {
                "path": outcome.path,
                "state": outcome.state,
                "size": outcome.size,
                "verified": outcome.verified,
                "reason": outcome.reason,
            }
            for outcome in report.files
        ],
        "notes": list(report.notes),
        "next": next_command,
    }
