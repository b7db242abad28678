"""What is missing on a machine, and how to get it. Takes seconds and changes nothing."""

from __future__ import annotations

import json
import platform
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlparse

from tusp.platform import environment
from tusp.platform.errors import TuspError
from tusp.platform.settings import Settings

State = Literal["ok", "warning", "problem"]

GIB: Final = 2**30
FREE_NEEDED_GIB: Final = 1.0
FREE_WANTED_GIB: Final = 10.0
MEMORY_WANTED_GIB: Final = 4.0
SHARED_MEMORY_WANTED_GIB: Final = 0.5
NETWORK_FILE_SYSTEMS: Final = frozenset(
    ("nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "fuse.sshfs", "fuse.glusterfs", "9p")
)
_GPU_SECONDS: Final = 20.0


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    name: str
    state: State
    """``ok``, ``warning`` (works, with a drawback) or ``problem`` (tusp cannot work)."""
    says: str
    remedy: str | None = None
    """What to do about it."""


def examine(settings: Settings) -> list[Finding]:
    """Look at everything tusp needs on this machine, under these settings."""
    return [
        _python(),
        *_packages(settings),
        _cpu(),
        _memory(),
        _gpu(),
        _blocks(),
        _home(settings),
        _home_disk(settings),
        *_store(settings),
        _mirror(settings),
        *_ray(settings),
        _temporary(),
    ]


def _python() -> Finding:
    from packaging.specifiers import SpecifierSet

    needed = metadata("tusp")["Requires-Python"]
    found = platform.python_version()
    if SpecifierSet(needed).contains(found, prereleases=True):
        return Finding(name="python", state="ok", says=f"{found} ({sys.executable})")
    return Finding(
        name="python",
        state="problem",
        says=f"{found}, but tusp needs {needed}",
        remedy="install tusp with a newer Python",
    )


def _packages(settings: Settings) -> Iterator[Finding]:
    """One finding for each package that is missing or of a wrong version, else one for all."""
    from packaging.requirements import Requirement

    extras = {"postgres"} if settings.db.startswith("postgresql") else set()
    found: dict[str, str] = {}
    faults: list[Finding] = []
    for requirement in map(Requirement, requires("tusp") or ()):
        wanted = [{"extra": ""}, *({"extra": extra} for extra in extras)]
        if requirement.marker is not None and not any(requirement.marker.evaluate(context) for context in wanted):
            continue
        needed = f"{requirement.name}{requirement.specifier}"
        requirement.marker = None
        remedy = f"{sys.executable} -m pip install '{requirement}'"
        try:
            found[requirement.name] = version(requirement.name)
        except PackageNotFoundError:
            faults.append(Finding(name="package", state="problem", says=f"{needed} is not installed", remedy=remedy))
            continue
        if not requirement.specifier.contains(found[requirement.name], prereleases=True):
            says = f"{requirement.name} {found[requirement.name]} is installed, but tusp needs {needed}"
            faults.append(Finding(name="package", state="problem", says=says, remedy=remedy))
    shown = ", ".join(f"{name} {found[name]}" for name in sorted(found))
    yield from faults or [Finding(name="packages", state="ok", says=shown)]


def _cpu() -> Finding:
    cores, flags = environment.usable_cores(), environment.cpu_flags()
    says = f"{cores} usable cores, {environment.cpu_model() or 'unknown model'} ({', '.join(flags) or 'no AVX2'})"
    has_bf16 = environment.computes_bf16(flags)
    auto = "bf16 (float32 in compiled blocks)" if has_bf16 else "float32 (no bf16 here)"
    if cores < 2:
        return Finding(
            name="cpu",
            state="warning",
            says=f"{says}; precision auto is {auto}",
            remedy="two cores or more let cells run side by side",
        )
    return Finding(name="cpu", state="ok", says=f"{says}; precision auto is {auto}")


def _memory() -> Finding:
    found = environment.capture_environment()["usable_memory_bytes"]
    if found is None:
        return Finding(name="memory", state="warning", says="this system does not tell how much there is")
    says = f"{found / GIB:.1f} GiB"
    if found < MEMORY_WANTED_GIB * GIB:
        return Finding(
            name="memory",
            state="warning",
            says=says,
            remedy=f"{MEMORY_WANTED_GIB:g} GiB or more are needed for full nights",
        )
    return Finding(name="memory", state="ok", says=says)


def _gpu() -> Finding:
    tool = shutil.which("nvidia-smi")
    asked = [tool or "", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    listed = _output(asked, timeout=5.0) if tool else None
    if not listed:
        return Finding(name="gpu", state="ok", says="none: training runs on the CPU")
    names = "; ".join(line.strip() for line in listed.splitlines())
    code = (
        "import torch, json; usable = torch.cuda.is_available(); "
        "print(json.dumps([usable, torch.version.cuda, usable and torch.cuda.get_device_capability()]))"
    )
    answer = _output([sys.executable, "-c", code], timeout=_GPU_SECONDS)
    usable, built_for, capability = json.loads(answer) if answer else (False, None, ())
    if usable:
        auto = "bf16" if tuple(capability) >= environment.BF16_CAPABILITY else "float32 (no bf16 here)"
        return Finding(name="gpu", state="ok", says=f"{names} (CUDA {built_for}); precision auto is {auto}")
    if built_for is None:
        remedy = "install the CUDA build of torch"
        return Finding(
            name="gpu", state="warning", says=f"{names}, but the installed torch is without CUDA", remedy=remedy
        )
    remedy = f"install a driver for CUDA {built_for} or newer"
    return Finding(name="gpu", state="warning", says=f"{names}, but torch cannot use it", remedy=remedy)


def _blocks() -> Finding:
    """Whether the network's blocks are compiled for this processor. Asked of a process, which alone loads torch."""
    said = _output([sys.executable, "-c", "from tusp.models import native; print(native.status())"], timeout=120.0)
    if said and said.startswith("on"):
        return Finding(name="blocks", state="ok", says=f"compiled for this processor {said[3:]}")
    return Finding(
        name="blocks",
        state="warning",
        says=f"not compiled {said[4:] if said else '(no answer)'}: training on the CPU takes several times as long",
        remedy="install a C++ compiler (g++), which tusp finds by itself",
    )


def _output(command: Sequence[str], *, timeout: float) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=timeout).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None  # the caller says what it means that there is no answer


def _existing(path: Path) -> Path:
    return next((folder for folder in (path, *path.parents) if folder.exists()), Path("/"))


def _home(settings: Settings) -> Finding:
    folder = _existing(settings.home)
    remedy = "allow this user to write there, or name another folder with --home or TUSP_HOME"
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".tusp-doctor-"):
            pass
    except OSError as error:
        says = f"{settings.home}: cannot be written ({error.strerror})"
        return Finding(name="home", state="problem", says=says, remedy=remedy)
    made = "" if settings.home.exists() else " (made at first use)"
    return Finding(name="home", state="ok", says=f"{settings.home}{made}")


def _home_disk(settings: Settings) -> Finding:
    folder = _existing(settings.home)
    free = shutil.disk_usage(folder).free / GIB
    kind = file_system(folder)
    says = f"{free:.1f} GiB free{f', {kind}' if kind else ''}"
    name = "home disk"
    if free < FREE_NEEDED_GIB:
        remedy = f"free at least {FREE_NEEDED_GIB:g} GiB, or move the home with --home or TUSP_HOME"
        return Finding(name=name, state="problem", says=says, remedy=remedy)
    if kind in NETWORK_FILE_SYSTEMS and settings.db.startswith("sqlite"):
        remedy = "SQLite needs a local disk: name one with --db or TUSP_DB, or use PostgreSQL"
        return Finding(name=name, state="warning", says=f"{says} (over the network)", remedy=remedy)
    if free < FREE_WANTED_GIB:
        remedy = f"prepared corpora need room: {FREE_WANTED_GIB:g} GiB or more for hundreds of nights"
        return Finding(name=name, state="warning", says=says, remedy=remedy)
    return Finding(name=name, state="ok", says=says)


def file_system(folder: Path, *, mounts: Path = Path("/proc/self/mountinfo")) -> str | None:
    """Type of the file system that holds ``folder`` (``ext4``, ``nfs4``), or None where the kernel does not say."""
    try:
        lines = mounts.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    best: tuple[int, str | None] = (-1, None)
    target = folder.resolve()
    for line in lines:
        before, _, after = line.partition(" - ")
        point = Path(before.split()[4].replace("\\040", " "))
        if target.is_relative_to(point) and len(point.parts) >= best[0]:
            best = (len(point.parts), after.split()[0])
    return best[1]


def _store(settings: Settings) -> Iterator[Finding]:
    """The store, and the registered corpora it knows."""
    try:
        file = settings.db.removeprefix("sqlite:///")
        if file not in {settings.db, ""} and not Path(file).exists():
            yield Finding(name="store", state="ok", says=f"{file} (made at first use)")
            return
        from sqlalchemy import select

        from tusp.platform.store.models import Corpus
        from tusp.platform.store.session import HEAD_REVISION, open_store

        store = open_store(settings.db, upgrade=False, lock_wait_s=1.0)
        with store.reading() as session:
            corpora = list(session.scalars(select(Corpus).order_by(Corpus.name)))
    except ImportError as error:
        yield Finding(name="store", state="problem", says=f"not looked at: {error.name} is missing")
        return
    except TuspError as error:
        yield Finding(name="store", state="problem", says=str(error), remedy=_remedy_in(str(error)))
        return
    yield Finding(name="store", state="ok", says=f"{store.name} (revision {HEAD_REVISION})")
    gone = [corpus for corpus in corpora if not Path(corpus.root).is_dir()]
    for corpus in gone:
        remedy = f"bring the folder back, or: tusp datasets remove {corpus.name}"
        yield Finding(name="corpus", state="warning", says=f"{corpus.name}: {corpus.root} is not there", remedy=remedy)
    if not corpora:
        remedy = "tusp datasets add CORPUS PATH; without one, tusp submit uses the embedded simulated corpora"
        yield Finding(name="corpora", state="ok", says="none registered", remedy=remedy)
    elif not gone:
        yield Finding(name="corpora", state="ok", says=", ".join(corpus.name for corpus in corpora))


def _remedy_in(message: str) -> str | None:
    return "tusp db upgrade" if "tusp db upgrade" in message else None


def _mirror(settings: Settings) -> Finding:
    database = settings.mlflow_artefacts.parent / "mlflow.db"
    if not database.exists():
        return Finding(name="mlflow", state="ok", says=f"{database} (made at first use)")
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=1)) as connection:
            runs = connection.execute("SELECT count(*) FROM runs WHERE lifecycle_stage = 'active'").fetchone()[0]
    except sqlite3.Error as error:
        says = f"{database}: cannot be read ({error})"
        return Finding(name="mlflow", state="warning", says=says, remedy="tusp mlflow --rebuild")
    return Finding(name="mlflow", state="ok", says=f"{database} ({runs} runs)")


def _ray(settings: Settings) -> Iterator[Finding]:
    if settings.address == "local":
        try:
            with socket.create_server(("127.0.0.1", 0)):
                yield Finding(name="ray", state="ok", says="started by tusp on this machine")
        except OSError as error:
            says = f"no port can be opened on 127.0.0.1 ({error.strerror})"
            yield Finding(
                name="ray", state="problem", says=says, remedy="allow this user to listen on the loopback address"
            )
    elif settings.address == "auto":
        yield Finding(name="ray", state="ok", says="the cluster that runs on this machine (auto)")
    else:
        yield _ray_address(settings.address)
    shared = Path("/dev/shm")
    if shared.is_dir():
        free = shutil.disk_usage(shared).free / GIB
        if free < SHARED_MEMORY_WANTED_GIB:
            remedy = "give the container more: docker run --shm-size=2g"
            yield Finding(name="shared memory", state="warning", says=f"{free:.2f} GiB free", remedy=remedy)
        else:
            yield Finding(name="shared memory", state="ok", says=f"{free:.1f} GiB free")


def _ray_address(address: str) -> Finding:
    place = urlparse(address if "://" in address else f"//{address}")
    remedy = "start the cluster, or give another --address (local starts a Ray of one's own)"
    try:
        host, port = place.hostname, place.port or (10001 if place.scheme == "ray" else 6379)
        with socket.create_connection((host or "", port), timeout=2.0):
            return Finding(name="ray", state="ok", says=f"a server answers at {address}")
    except (OSError, ValueError) as error:
        return Finding(name="ray", state="problem", says=f"{address}: no answer ({error})", remedy=remedy)


def _temporary() -> Finding:
    folder = Path(tempfile.gettempdir())
    usage = shutil.disk_usage(folder)
    says = f"{folder}: {usage.free / GIB:.1f} GiB free"
    if usage.free < FREE_NEEDED_GIB * GIB or usage.free < 0.05 * usage.total:
        remedy = "free some, or set TMPDIR (Ray keeps its session there and stops at 95 % full)"
        return Finding(name="temporary files", state="warning", says=says, remedy=remedy)
    return Finding(name="temporary files", state="ok", says=says)


def usable(findings: Sequence[Finding]) -> bool:
    """Whether tusp can work here."""
    return all(finding.state != "problem" for finding in findings)


def as_json(findings: Sequence[Finding]) -> Mapping[str, object]:
    """``{"usable": bool, "findings": [{"name", "state", "says", "remedy"}, ...]}``."""
    return {
        "usable": usable(findings),
        "findings": [
            {"name": found.name, "state": found.state, "says": found.says, "remedy": found.remedy} for found in findings
        ],
    }
