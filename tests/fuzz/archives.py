# ruff: noqa: E501 - tables of hostile values read better with one case a line
"""Zip and tar archives of a corpus, unpacked as ``tusp datasets fetch --archive`` does."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np

from fuzz.mutation import BYTE_MUTATORS, HOSTILE_BYTES, Mutant, Rng, pick
from fuzz.target import Finding, Target, judged, say
from tusp.datasets.fetching.archives import open_zip, unpack_listed, unpack_member, zip_members
from tusp.datasets.fetching.client import Client, Patience
from tusp.datasets.fetching.items import Digest, Item
from tusp.datasets.fetching.transfer import Part
from tusp.platform.errors import DataError, UserError

EVIL_NAMES = (
    "../evil", "../../evil", "../../../evil", "night/../../evil", "/tmp/tusp-fuzz-evil", "..\\evil", "night\\..\\..\\evil",
    "C:\\evil", "C:evil", "//server/evil", "..", "night/..", "\\evil", "night/../../../../../../tmp/tusp-fuzz-evil",
)  # fmt: skip
ODD_NAMES = (
    "", ".", "./night/a.bin", "night//a.bin", "night/a.bin/", "NIGHT/A.BIN", "night/a.bin ", "x" * 300, "a/" * 500 + "x",
    "\u202eevil", "\x1b[2J", "night/b.txt", "night/a.bin", "con", "~/x", "$HOME/x", "%2e%2e/x", "ä", ".tusp-fetch/verified.jsonl",
)  # fmt: skip
ESCAPED = Path("/tmp/tusp-fuzz-evil")


def sound_files() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    return {
        "night/a.bin": rng.bytes(5000),
        "night/b.txt": b"0,30,W\n30,30,N1\n" * 500,
        "other/c.bin": rng.bytes(70_000),
    }


class ArchiveTarget(Target):
    """What zip and tar share: the wanted files, and the look at the disk afterwards."""

    archive: str

    def __init__(self, workspace: Path) -> None:
        super().__init__(workspace)
        self.sound = sound_files()
        self.client = Client(patience=Patience(), secrets=())
        self.bombs: dict[str, bytes] = {}
        """Made when first wanted: packing them takes a while."""
        self.seeds = self.build()

    def build(self) -> list[bytes]:
        raise NotImplementedError

    def hostile(self, rng: Rng) -> tuple[bytes, str, bool]:
        """An archive made to be bad: content, what is bad, whether it must be refused as a whole."""
        raise NotImplementedError

    def fields(self, raw: bytes, rng: Rng) -> tuple[bytes, str]:
        """Another value in a field of the format."""
        raise NotImplementedError

    def mutant(self, rng: Rng) -> Mutant:
        if rng.random() < 0.4:
            content, said, must = self.hostile(rng)
            return Mutant(files={self.archive: content}, what=[said], must_refuse=must)
        content, what = self.seeds[pick(rng, self.seeds)], []
        for _ in range(1 if rng.random() < 0.7 else 2):
            if rng.random() < 0.5:
                content, said = self.fields(content, rng)
            else:
                content, said = BYTE_MUTATORS[pick(rng, BYTE_MUTATORS)](content, rng)
            what.append(said)
        return Mutant(files={self.archive: content}, what=what)

    def check(self, root: Path, mutant: Mutant) -> str:
        home = root / "one" / "two"
        destination, control = home / "destination", home / "control"
        destination.mkdir(parents=True)
        archive = root / self.archive
        archive.write_bytes(mutant.files[self.archive])  # type: ignore[arg-type]
        wanted = {
            name: Item(
                path=name,
                url=str(archive),
                recording="night",
                size=len(content) if name != "night/b.txt" else None,
                digest=Digest(algorithm="sha256", value=hashlib.sha256(content).hexdigest()),
            )
            for name, content in self.sound.items()
        }

        def place(item: Item) -> tuple[Part, Path]:
            return Part(control / f"{item.path}.part"), destination / item.path

        refused = False
        try:
            for item, error in unpack_listed(self.client, archive, dict(wanted), place, lambda count: None):
                if error is not None:
                    say(str(error), self.archive)
                elif (destination / item.path).read_bytes() != self.sound[item.path]:
                    raise Finding(f"{item.path} is said to be right and is not")
        except UserError as error:
            say(str(error), self.archive)
            refused = True
        there = self._look(root, archive, destination, control, set(wanted))
        refused = self.members(root, archive) or refused
        if refused or not there:
            return judged("refused", mutant)
        return judged("equal" if there == set(wanted) else "different", mutant)

    def members(self, root: Path, archive: Path) -> bool:
        """Another way in, where there is one; whether it refused."""
        return False

    def _look(self, root: Path, archive: Path, destination: Path, control: Path, wanted: set[str]) -> set[str]:
        """Wanted files that are there; everything else on the disk is an escape."""
        there = set()
        for folder, folders, files in os.walk(root):
            for name in (*folders, *files):
                path = Path(folder) / name
                if path.is_symlink():
                    raise Finding(f"a link was unpacked: {path}")
            for name in files:
                path = Path(folder) / name
                if path.is_relative_to(destination) and path.relative_to(destination).as_posix() in wanted:
                    there.add(path.relative_to(destination).as_posix())
                elif path != archive and not path.is_relative_to(control) and not path.is_relative_to(root / "members"):
                    raise Finding(f"a file that nobody wanted: {path}")
        for name in there:
            if (destination / name).read_bytes() != self.sound[name]:
                raise Finding(f"{name} is at its place and is not right")
        if ESCAPED.exists():
            ESCAPED.unlink()
            raise Finding(f"{ESCAPED} was written")
        return there


BOMB = bytes(2**26)
BOMB_NAMES = ("night/a.bin", "bomb", "x/other/c.bin")


class ZipTarget(ArchiveTarget):
    """Zip."""

    name = "zip"
    archive = "corpus.zip"

    def build(self) -> list[bytes]:
        return [self._zip(zipfile.ZIP_DEFLATED), self._zip(zipfile.ZIP_STORED), self._zip(zipfile.ZIP_LZMA)]

    def _zip(self, method: int, more: dict[str, bytes] | None = None, infos: tuple[zipfile.ZipInfo, ...] = ()) -> bytes:
        held = io.BytesIO()
        with zipfile.ZipFile(held, "w", method) as made:
            for name, content in {**self.sound, **(more or {})}.items():
                made.writestr(name, content)
            for info in infos:
                made.writestr(info, b"../../evil")
        return held.getvalue()

    def hostile(self, rng: Rng) -> tuple[bytes, str, bool]:
        kind = int(rng.integers(8))
        if kind <= 1:
            name = EVIL_NAMES[pick(rng, EVIL_NAMES)]
            return self._zip(zipfile.ZIP_DEFLATED, {name: b"evil"}), f"holds {name!r}", True
        if kind == 2:
            name = ODD_NAMES[pick(rng, ODD_NAMES)]
            info = zipfile.ZipInfo("placeholder")
            info.filename = name
            return self._zip(zipfile.ZIP_DEFLATED, None, (info,)), f"holds {name[:30]!r}", False
        if kind == 3:
            info = zipfile.ZipInfo(("night/a.bin", "link")[int(rng.integers(2))])
            mode = (0o120777, 0o010644, 0o020644, 0o060644, 0o140755, 0o040755)[int(rng.integers(6))]
            info.external_attr = mode << 16
            return self._zip(zipfile.ZIP_DEFLATED, None, (info,)), f"{info.filename} is of mode {mode:o}", False
        if kind == 4:
            name = BOMB_NAMES[pick(rng, BOMB_NAMES)]
            return self._bomb(name), f"{name} is 64 MiB of zeros", True
        if kind == 5:  # many entries of one packed file, as overlapping bombs have
            raw = bytearray(self._zip(zipfile.ZIP_DEFLATED))
            end = raw.rfind(b"PK\5\6")
            start = struct.unpack("<I", raw[end + 16 : end + 20])[0]
            count = int(2 ** rng.uniform(1, 11))
            table = bytes(raw[start:end]) * count
            tail = struct.pack(
                "<4s4H2IH", b"PK\5\6", 0, 0, 3 * count % 65536, 3 * count % 65536, len(table) % 2**32, start, 0
            )
            return bytes(raw[:start]) + table + tail, f"{3 * count} entries of the same files", False
        if kind == 6:  # sizes that are not so
            raw = bytearray(self._zip(zipfile.ZIP_DEFLATED))
            places = [i for i in range(len(raw)) if raw[i : i + 4] == b"PK\1\2"]
            at = places[pick(rng, places)]
            size = int(rng.choice([0, 1, 2**20, 2**31 - 1, 2**32 - 2]))
            offset = int(rng.choice([20, 24]))
            raw[at + offset : at + offset + 4] = struct.pack("<I", size)
            return bytes(raw), f"entry states {size} bytes", False
        held = io.BytesIO()
        with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as made:
            for index in range(int(10 ** rng.uniform(1, 3))):
                made.writestr(f"{index}/night/a.bin", b"x")
        return held.getvalue(), "many small files", False

    def _bomb(self, name: str) -> bytes:
        if name not in self.bombs:
            self.bombs[name] = self._zip(zipfile.ZIP_DEFLATED, {name: BOMB})
        return self.bombs[name]

    def fields(self, raw: bytes, rng: Rng) -> tuple[bytes, str]:
        marks = (b"PK\1\2", b"PK\3\4", b"PK\5\6")
        mark = marks[pick(rng, marks)]
        places = [i for i in range(len(raw)) if raw[i : i + 4] == mark]
        if not places:
            return raw[: len(raw) // 2], "cut in half"
        at = places[pick(rng, places)] + int(rng.integers(4, 46))
        width = int(rng.choice([1, 2, 4]))
        values = (0, 1, 8, 9, 12, 99, 2**8 - 1, 2**15, 2**16 - 1, 2**31, 2**32 - 1)
        value = values[pick(rng, values)] % 2 ** (8 * width)
        return raw[:at] + value.to_bytes(width, "little") + raw[at + width :], f"{value} at byte {at}"

    def members(self, root: Path, archive: Path) -> bool:
        """As for the Dreem corpora: every member by the zip's own table."""
        folder = root / "members"
        try:
            with open_zip(self.client, str(archive)) as opened:
                members = zip_members(opened, str(archive))
            for index, member in enumerate(members[:20]):
                if not member.name.endswith((".bin", ".txt")):
                    continue
                digest = Digest(algorithm="crc32", value=member.crc32) if member.crc32 else None
                item = Item(
                    path=f"{index}",
                    url=str(archive),
                    recording="n",
                    size=member.size,
                    digest=digest,
                    member=member.name,
                )
                target = folder / str(index)
                unpack_member(self.client, item, Part(folder / f"{index}.part"), target, lambda count: None)
                content = target.read_bytes()
                if len(content) != member.size or (member.crc32 and f"{zlib.crc32(content):08x}" != member.crc32):
                    raise Finding(f"{member.name} is not what the table says")
        except DataError as error:
            say(str(error), self.archive, *map(str, range(20)))
            return True
        return False


class TarTarget(ArchiveTarget):
    """Tar, plain and packed."""

    name = "tar"
    archive = "corpus.tar"

    def build(self) -> list[bytes]:
        plain = [self._tar(form) for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)]
        return [*plain, *plain, gzip.compress(plain[0], mtime=0), lzma.compress(plain[0])]

    def _tar(self, form: int = tarfile.PAX_FORMAT, first: tuple[tuple[tarfile.TarInfo, bytes], ...] = ()) -> bytes:
        held = io.BytesIO()
        with tarfile.open(fileobj=held, mode="w", format=form) as made:
            for info, content in first:
                made.addfile(info, io.BytesIO(content))
            for name, content in self.sound.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                made.addfile(info, io.BytesIO(content))
        return held.getvalue()

    def hostile(self, rng: Rng) -> tuple[bytes, str, bool]:
        kind = int(rng.integers(7))
        info = tarfile.TarInfo("night/a.bin")
        if kind <= 1:
            info.name = EVIL_NAMES[pick(rng, EVIL_NAMES)]
            info.size = 4
            made = self._tar(first=((info, b"evil"),))
            return (gzip.compress(made) if rng.random() < 0.3 else made), f"holds {info.name!r}", True
        if kind == 2:
            info.name = ODD_NAMES[pick(rng, ODD_NAMES)]
            info.size = 4
            form = (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)[int(rng.integers(2))]
            return self._tar(form, ((info, b"evil"),)), f"holds {info.name[:30]!r}", False
        if kind == 3:
            types = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE,
                     tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE, b"Z", tarfile.XHDTYPE, tarfile.XGLTYPE)  # fmt: skip
            info.type = types[pick(rng, types)]
            info.linkname = ("../../evil", "/etc/passwd", "night/a.bin", "night/b.txt")[int(rng.integers(4))]
            names = ("night/a.bin", "night", "link")
            info.name = names[pick(rng, names)]
            return self._tar(tarfile.GNU_FORMAT, ((info, b""),)), f"{info.name} is of type {info.type!r}", False
        if kind == 4:
            return self._bomb("gzip" if rng.random() < 0.5 else "lzma"), "64 MiB of zeros, packed", True
        if kind == 5:
            keys = ("size", "path", "linkpath", "GNU.sparse.map", "GNU.sparse.size", "GNU.sparse.realsize", "GNU.sparse.name",
                    "GNU.sparse.major", "mtime", "uid", "hdrcharset", "comment")  # fmt: skip
            values = ("-1", "9" * 300, "1e9", "", "../../evil", "/tmp/tusp-fuzz-evil", "0,10,999999999999,10", "1", "\x1b[2J",
                      "x" * 100_000, "BINARY", "nan", "4")  # fmt: skip
            info.pax_headers = {
                keys[pick(rng, keys)]: values[pick(rng, values)] for _ in range(int(rng.integers(1, 4)))
            }
            info.size = 4
            said = str({key: value[:20] for key, value in info.pax_headers.items()})
            return self._tar(first=((info, b"evil"),)), f"headers {said}", False
        raw = bytearray(self._tar(tarfile.GNU_FORMAT))
        sizes = (b"77777777777\0", b"\xff" * 12, b"\x80" + b"\0" * 3 + b"\xff" * 8, b"\x80" + b"\0" * 10 + b"\xff", b"-0000000001\0",
                 b"           \0", b"1e9\0\0\0\0\0\0\0\0\0")  # fmt: skip
        size = sizes[pick(rng, sizes)]
        raw[124:136] = size
        raw[148:156] = b" " * 8
        raw[148:156] = b"%06o\0 " % sum(raw[:512])
        return bytes(raw), f"size field {size!r}", False

    def _bomb(self, packing: str) -> bytes:
        if packing not in self.bombs:
            info = tarfile.TarInfo("night/a.bin")
            info.size = len(BOMB)
            held = self._tar(first=((info, BOMB),))
            self.bombs[packing] = gzip.compress(held, 6) if packing == "gzip" else lzma.compress(held, preset=0)
        return self.bombs[packing]

    def fields(self, raw: bytes, rng: Rng) -> tuple[bytes, str]:
        """Another byte in a header block, with the checksum that fits it."""
        changed = bytearray(raw)
        blocks = [i for i in range(0, len(raw) - 511, 512) if raw[i + 257 : i + 262] == b"ustar"]
        if not blocks:
            return raw[: len(raw) // 2], "cut in half"
        at = blocks[pick(rng, blocks)]
        place = int(rng.integers(512))
        changed[at + place] = HOSTILE_BYTES[pick(rng, HOSTILE_BYTES)]
        if rng.random() < 0.8 and at + 512 <= len(changed):
            changed[at + 148 : at + 156] = b" " * 8
            changed[at + 148 : at + 156] = b"%06o\0 " % sum(changed[at : at + 512])
        return bytes(changed), f"byte {place} of the header at {at}"
