"""Read what a learning platform or a student packed, and trust nothing in it: no name, size, kind or count.

Nothing is unpacked to disk: files are read one at a time, within limits that hold whatever a header says.
"""

import io
import os
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import IO

from .course import CourseError
from .handin import NOT_HANDED_IN

MIB = 2**20
MAX_FILE = 64 * MIB  # of one file, unpacked
MAX_STUDENT = 256 * MIB  # of one student's files together
MAX_TOTAL = 64 * 1024 * MIB  # read in one call
MAX_ENTRIES = 200_000  # of the platform's archive or of a folder
MAX_INNER = 1000  # of a zip that a student handed in
MAX_DEPTH = 2  # zips in zips that a student handed in
MAX_RATIO, RATIO_FROM = 200, 8 * MIB  # notebooks are packed to a tenth or a fiftieth
CHUNK = MIB // 4
DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError)
JUNK = NOT_HANDED_IN | {".DS_Store", "Thumbs.db", "desktop.ini"}


class Refused(Exception):
    """Why a file is not taken, in words that follow its name."""


@dataclass(frozen=True)
class Entry:
    """One file of an archive or a folder.

    name: as it stands there, made printable. parts: its path, NFC. open: None if it can't be read safely.
    packed: its size in bytes inside a zip, as far as the header is right. refused: why it is not taken.
    """

    name: str
    parts: tuple[str, ...]
    open: Callable[[], IO[bytes]] | None
    packed: int = 0
    refused: str = ""

    @property
    def junk(self) -> bool:
        """Whether it is a by-product of an operating system or a notebook server."""
        return any(part in JUNK or part.startswith("._") for part in self.parts)


@dataclass
class Budget:
    """How many bytes may still be read for one student, and in the whole call."""

    total: int = MAX_TOTAL
    student: int = MAX_STUDENT

    def next_student(self) -> None:
        self.student = MAX_STUDENT

    def spend(self, size: int) -> None:
        self.total, self.student = self.total - size, self.student - size
        if self.student < 0:
            raise Refused(f"is too much: one student's files may have {MAX_STUDENT // MIB} MiB together")
        if self.total < 0:
            raise CourseError(f"That is over {MAX_TOTAL // MIB} MiB in one call; collect it in parts")


@contextmanager
def opened(archive: Path, leave_out: Path) -> Iterator[list[Entry]]:
    """The files of a zip or a folder, without what lies in `leave_out`; they can be read inside the `with`.

    Raises:
        Refused: no zip, damaged as a whole, or too many files.
    """
    if archive.is_dir():
        yield _told_apart(_in_folder(archive, leave_out))
        return
    with archive.open("rb") as file, _zip(file) as packed:
        if len(packed.infolist()) > MAX_ENTRIES:
            raise Refused(f"has more than {MAX_ENTRIES} files")
        yield _told_apart(_in_zip(packed))


def read(entry: Entry, budget: Budget) -> bytes:
    """A file's bytes.

    Raises:
        Refused: damaged, encrypted, a bomb, or over a limit. CourseError: over the limit of a whole call.
    """
    if entry.open is None:
        raise Refused(entry.refused)
    content = bytearray()
    try:
        with entry.open() as source:
            while chunk := source.read(CHUNK):
                content += chunk
                budget.spend(len(chunk))
                if len(content) > MAX_FILE:
                    raise Refused(f"has more than {MAX_FILE // MIB} MiB")
                if entry.packed and len(content) > max(RATIO_FROM, MAX_RATIO * entry.packed):
                    raise Refused(f"unpacks to over {MAX_RATIO} times its size, like a zip bomb")
    except DAMAGED as error:
        raise Refused(f"can't be read, it is damaged or packed in an unusual way ({_short(error)})") from None
    return bytes(content)


def unfolded(entry: Entry, budget: Budget, depth: int = 0) -> Iterator[tuple[Entry, bytes | None]]:
    """A student's file with its content; in place of a zip what is in it."""
    content = None
    try:
        content = read(entry, budget) if entry.open else None
        if content is None or entry.refused or not _is_zip(entry, content):
            yield entry, content
            return
        if depth == MAX_DEPTH:
            raise Refused(f"is a zip in {MAX_DEPTH} others")
        if content.count(b"PK\x01\x02") > MAX_INNER:  # before the library makes an object of each
            raise Refused(f"has more than {MAX_INNER} files")
        with _zip(io.BytesIO(content)) as packed:
            inner = [item for item in _told_apart(_in_zip(packed)) if not item.junk]
            for item in inner:
                within = f"{entry.name}/{item.name}"
                parts = (*entry.parts, *item.parts)
                yield from unfolded(
                    Entry(within, parts, item.open, item.packed, item.refused), budget, depth + 1
                )
        if not inner:
            raise Refused("is a zip without files")
    except Refused as error:
        yield replace(entry, open=None, refused=entry.refused or str(error)), content


def _is_zip(entry: Entry, content: bytes) -> bool:
    """By its name, or a notebook by its name that is really a zip; an office document is a zip, too."""
    name = entry.parts[-1].lower()
    return name.endswith(".zip") or (".ipynb" in name and content.startswith(b"PK\x03\x04"))


def _zip(file: IO[bytes]) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except (*DAMAGED, NotImplementedError, OverflowError) as error:
        raise Refused(f"is no zip archive, or damaged or cut off ({_short(error)})") from None


def _told_apart(entries: Iterator[Entry]) -> list[Entry]:
    """The entries; those that are called as an earlier one have a number in the report."""
    seen: dict[str, int] = {}
    apart = []
    for entry in entries:
        seen[entry.name] = seen.get(entry.name, 0) + 1
        again = f"{entry.name} [{seen[entry.name]}]" if seen[entry.name] > 1 else entry.name
        apart.append(replace(entry, name=again))
    return apart


def _in_zip(packed: zipfile.ZipFile) -> Iterator[Entry]:
    overlapping = _overlapping(packed.infolist())
    for info in packed.infolist():
        name = _name(info)
        if name.endswith(("/", "\\")):
            continue
        unreadable = _unreadable(info, info.header_offset in overlapping)
        open_it = None if unreadable else partial(packed.open, info)
        yield Entry(shown(name), _parts(name), open_it, info.compress_size, unreadable or bad_name(name))


def _name(info: zipfile.ZipInfo) -> str:
    """The name as it was meant: without the UTF-8 mark the library reads UTF-8 as an old DOS code page."""
    name = info.orig_filename
    if not info.flag_bits & 0x800:
        with suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return name


def _unreadable(info: zipfile.ZipInfo, overlaps: bool) -> str:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if info.flag_bits & 0x41:
        return "is encrypted"
    if kind == stat.S_IFLNK:
        return "is a link"
    if kind not in (0, stat.S_IFREG):
        return "is not a plain file"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is packed in an unusual way; zip it again with your system's own program"
    return "shares its bytes with another entry, like a zip bomb" if overlaps else ""


def _overlapping(infos: list[zipfile.ZipInfo]) -> set[int]:
    """Where entries begin that reach into the next one, and where those begin that they reach into."""
    order = sorted(infos, key=lambda info: info.header_offset)
    pairs = [
        (one.header_offset, two.header_offset)
        for one, two in pairwise(order)
        if one.header_offset + 30 + one.compress_size > two.header_offset
    ]
    return {offset for pair in pairs for offset in pair}


def _in_folder(folder: Path, leave_out: Path) -> Iterator[Entry]:
    seen = 0
    for here, folders, files in os.walk(folder, followlinks=False):
        links = [name for name in folders if (Path(here) / name).is_symlink()]
        folders[:] = sorted(
            name for name in folders if name not in links and Path(here, name).resolve() != leave_out
        )
        for name in sorted(files + links):
            seen += 1
            if seen > MAX_ENTRIES:
                raise Refused(f"has more than {MAX_ENTRIES} files")
            yield _in_place(Path(here) / name, folder)


def _in_place(path: Path, folder: Path) -> Entry:
    name = str(path.relative_to(folder))
    kind = path.lstat().st_mode
    why = "is a link" if stat.S_ISLNK(kind) else "" if stat.S_ISREG(kind) else "is not a plain file"
    return Entry(
        shown(name), _parts(name), None if why else partial(_open_plain, path), 0, why or bad_name(name)
    )


def _open_plain(path: Path) -> IO[bytes]:
    """Open a file that may have become a link or a pipe since it was looked at."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError("not a plain file")
    return os.fdopen(handle, "rb")


def bad_name(name: str) -> str:
    """Why a path inside an archive is refused, or "".

    >>> bad_name("anna/work.ipynb"), bad_name("../../etc/passwd"), bad_name("C:\\\\work.ipynb")
    ('', 'has .. in its path', 'has an absolute path')
    """
    steps = re.split(r"[/\\]", name)
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name):
        return "has an absolute path"
    if ".." in steps:
        return "has .. in its path"
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name):
        return "has control characters in its name"
    if len(name) > 1000 or any(len(step.encode("utf-8", "replace")) > 255 for step in steps):
        return "has too long a name"
    return "" if name.strip("/\\. ") else "has no name"


def _parts(name: str) -> tuple[str, ...]:
    steps = re.split(r"[/\\]", unicodedata.normalize("NFC", name))
    return tuple(step for step in steps if step not in ("", ".", ".."))


def shown(text: str) -> str:
    """A name fit for terminals and tables."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:300]


def _short(error: Exception) -> str:
    return shown(str(error).split("\n")[0] or type(error).__name__)[:120]
