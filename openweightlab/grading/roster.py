"""A class's list: who a platform's names and numbers mean, and when each handed in; from a CSV file."""

import csv
import hashlib
import io
import re
import unicodedata
import zoneinfo
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dateutil import parser as dates

from .course import CourseError
from .unpack import shown

# Column titles, lower case, the first that is there and filled counts: the course's own lists and nbgrader's,
# Moodle's grading worksheet and participants list, Canvas's gradebook (whose "ID" is a number of Canvas's).
STUDENT_ID = ("student_id", "student id", "id", "username", "id number", "email address", "email")
NUMBER = ("identifier", "lms_user_id", "user_id")
CANVAS_ID, CANVAS_NUMBER = ("sis login id", "sis user id", "id"), ("id",)
NAME = ("name", "full name", "student name", "student")
EMAIL = ("email", "email address")
TIME = ("last modified (submission)", "submitted_at", "submitted at", "timestamp")
WINDOWS = {"con", "prn", "aux", "nul", *(f"{name}{n}" for name in ("com", "lpt") for n in range(1, 10))}


@dataclass(frozen=True)
class Person:
    """One line of a list: the course's id, the platform's number, name, e-mail, and when it was handed in."""

    id: str
    number: str = ""
    name: str = ""
    email: str = ""
    when: str = ""


@dataclass
class People:
    """A list that can be asked who a number, an id, an e-mail or a name means."""

    people: list[Person]
    by: dict[str, list[Person]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for person in self.people:
            for clue in clues(person):
                self.by.setdefault(clue, []).append(person)

    @property
    def numbered(self) -> bool:
        return any(person.number for person in self.people)

    def find(self, wanted: Iterable[str]) -> Person | None:
        """The one person that the first clue known here means; None if there is none, or more than one."""
        known = next((self.by[clue] for clue in wanted if clue in self.by), [])
        return known[0] if len(known) == 1 else None


def clues(person: Person) -> list[str]:
    """What a person can be recognised by, the surest first.

    >>> clues(Person("s1", "17", "Lopez, Ana"))
    ['number 17', 'id s1', 'name lopezana', 'name analopez', 'names ana lopez']
    """
    sure = [("number", person.number), ("id", plain(person.id)), ("email", plain(person.email))]
    return [f"{kind} {value}" for kind, value in sure if value] + name_clues(person.name)


def name_clues(name: str) -> list[str]:
    """Ways to write one name: Canvas runs the sorting name together, Moodle writes the names in full."""
    words = re.findall(r"\w+", plain(name).replace("_", " "))
    if not words:
        return []
    joined = ["".join(words), "".join([*words[1:], words[0]]), "".join([words[-1], *words[:-1]])]
    return [f"name {text}" for text in dict.fromkeys(joined)] + ["names " + " ".join(sorted(words))]


def plain(text: str) -> str:
    """A text without what two spellings of one name differ in: case, composed letters, outer blanks."""
    return unicodedata.normalize("NFKC", text).casefold().strip()


def safe_id(text: str) -> str:
    """A name that can be a folder on every system; what had to be changed has a mark of the original.

    >>> safe_id("ana.lopez@uni.example"), safe_id("Ana Lopez"), safe_id("../x")
    ('ana.lopez@uni.example', 'Ana Lopez', 'x-d6b96a')
    """
    text = unicodedata.normalize("NFC", text)
    clean = re.sub(r"[^\w.@+ -]+", "-", text).lstrip(" .-").rstrip(" .")
    while len(clean.encode()) > 120:
        clean = clean[:-1].rstrip(" .")
    if clean.split(".")[0].lower() in WINDOWS:
        clean = clean.replace(".", "-") + "-"
    if clean and clean == text:
        return clean
    mark = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    return f"{clean.rstrip('-')}-{mark}".lstrip("-")


def read_list(path: Path) -> list[Person]:
    """The people of a CSV file with a line of column titles.

    Raises:
        CourseError: it can't be read, has no column that says who is meant, or names somebody twice.
    """
    people = [person for person in map(_person, _rows(path)) if person]
    if not people:
        raise CourseError(
            f"{path} names nobody: it needs a line of column titles such as id,name,email, or to be an "
            "export of Canvas's gradebook or Moodle's grading worksheet with English titles"
        )
    for kind in ("number", "id"):
        seen: set[str] = set()
        for person in people:
            value = getattr(person, kind)
            if value and plain(value) in seen:
                raise CourseError(
                    f"{path} has the {kind} {shown(value)!r} twice; every student needs their own"
                )
            seen.add(plain(value))
    return people


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        text = path.read_text("utf-8-sig")
        titles = text.split("\n", 1)[0]
        mark = max(",;\t", key=titles.count)
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=mark))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CourseError(f"{path} can't be read as CSV in UTF-8: {error}") from None
    head = [title.strip().lower() for title in rows[0]] if rows else []
    return [dict(zip(head, (cell.strip() for cell in row), strict=False)) for row in rows[1:]]


def _person(row: dict[str, str]) -> Person | None:
    canvas = "sis login id" in row or "sis user id" in row
    name = _first(row, NAME) or " ".join(
        filter(
            None,
            [
                row.get("first name", row.get("first_name", "")),
                _first(row, ("last name", "surname", "last_name")),
            ],
        )
    )
    if canvas and name.startswith("Points Possible"):
        return None
    number = _first(row, CANVAS_NUMBER if canvas else NUMBER)
    person = Person(
        _first(row, CANVAS_ID if canvas else STUDENT_ID),
        re.sub(r"^\D+(?=\d+$)", "", number),  # Moodle writes "Participant 17"
        name,
        _first(row, EMAIL),
        _first(row, TIME),
    )
    return person if person.id or person.number else None


def _first(row: dict[str, str], titles: Iterable[str]) -> str:
    return next((row[title] for title in titles if row.get(title)), "")


def moment(text: str, zone: str | None) -> str:
    """A platform's time as nbgrader reads it, in UTC; "" where none is given.

    >>> moment("Wednesday, 10 June 2026, 2:14 PM", "Europe/Madrid")
    '2026-06-10 12:14:00.000000 UTC'

    Raises:
        CourseError: it is no complete time, or has no time zone and none is given.
    """
    if not text.strip(" -"):
        return ""
    try:
        when = _parsed(text)
        if when.tzinfo is None and zone:
            when = when.replace(tzinfo=zoneinfo.ZoneInfo(zone))
    except (ValueError, OverflowError, zoneinfo.ZoneInfoNotFoundError) as error:
        raise CourseError(f"{shown(text)!r} can't be read as a time ({shown(str(error))})") from None
    if when.tzinfo is None:
        raise CourseError(
            f"The time {shown(text)!r} has no time zone; say which one with --timezone, as in Europe/Madrid"
        )
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f UTC")


def _parsed(text: str) -> datetime:
    """A complete time with a four-digit year, whose month is a word or stands where ISO 8601 has it."""
    if re.match(r"\d{4}-\d\d-\d\d", text):
        return datetime.fromisoformat(text.replace(" UTC", "+00:00"))
    base = datetime(2000, 1, 1)
    tries = {
        dates.parse(text, default=base + shift)
        for shift in (timedelta(0), timedelta(days=427, hours=5, minutes=7))
    }
    if len(tries) != 1 or not re.search(r"[^\W\d_]{3}", text):
        raise ValueError("day, month, year and time are not all clear")
    return tries.pop()
