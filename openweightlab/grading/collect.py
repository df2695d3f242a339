"""`owl collect`: what a learning platform packed, put into the layout that grading reads, a folder a student.

Canvas, Moodle and Blackboard zips, folders of them, folders of Colab and VS Code downloads. nbgrader's
metadata is repaired where a notebook lost it. A file that can't be placed never stops the others: it is
listed with the reason, and where it is safe a copy is kept in `.unplaced`, which grading leaves alone.
"""

import argparse
import hashlib
import json
import logging
import re
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from .course import CourseError, find_course
from .place import Piece, Row, Target, known, place, safe_name, write_whole
from .roster import People, Person, clues, moment, plain, read_list
from .unpack import Budget, Entry, Refused, opened, read, shown, unfolded
from .whose import Origin, Submission, sort_out


@dataclass(frozen=True)
class Call:
    """What `owl collect` was asked to do."""

    archive: Path
    target: Target
    modules: list[str]
    roster: People | None = None
    times: People | None = None
    timezone: str | None = None


@dataclass
class Report:
    """What came of a call: a row for each student, a row for each file that could not be placed."""

    platform: str = ""
    wrapper: str = ""
    students: list[Row] = field(default_factory=list)
    unplaced: list[Row] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def main(args: argparse.Namespace) -> int:
    """Exit status: 0, 1 if any file could not be placed, 2 if nothing could be done, 130 when interrupted."""
    try:
        call = _call(args)
        report = collect(call)
        if args.json:
            write_whole(Path(args.json).resolve(), _as_json(call, report), Path(args.json).resolve().parent)
    except CourseError as error:
        print(f"owl collect: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"owl collect: {error}; what is placed is whole, the same call goes on", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nowl collect: interrupted; what is placed is whole, the same call goes on", file=sys.stderr)
        return 130
    print("\n".join(_told(call, report)))
    return 1 if report.unplaced else 0


def _call(args: argparse.Namespace) -> Call:
    """The arguments, checked and absolute."""
    course = find_course()
    release = course.release(args.module)
    archive, into = Path(args.archive).resolve(), Path(args.into).resolve()
    if not archive.exists():
        raise CourseError(f"There is no {args.archive}; give the platform's zip or a folder of downloads")
    if into.exists() and (not into.is_dir() or into == archive):
        raise CourseError(f"{args.into} can't hold the submissions; give a folder of its own")
    if args.json and not Path(args.json).resolve().parent.is_dir():
        raise CourseError(f"{args.json} can't be written: give the name of a file in a folder that exists")
    roster = People(read_list(Path(args.roster))) if args.roster else None
    times = People(_timed(Path(args.late_from), args.timezone)) if args.late_from else None
    target = Target(into, args.module, release)
    return Call(archive, target, course.modules(), roster, times, args.timezone)


def _timed(path: Path, timezone: str | None) -> list[Person]:
    """The people of a list with the time of each as nbgrader reads it."""
    people = [replace(person, when=moment(person.when, timezone)) for person in read_list(path)]
    if not any(person.when for person in people):
        raise CourseError(f"{path} has no time of handing in; its column should be called submitted_at")
    return people


def collect(call: Call) -> Report:
    """Place every student's files, one student after another.

    Raises:
        CourseError: a time that can't be read. OSError: the target folder can't be written.
    """
    report, budget = Report(), Budget()
    call.target.state.mkdir(parents=True, exist_ok=True)
    try:
        with opened(call.archive, call.target.into) as entries:
            _collect_all(call, entries, report, budget)
    except Refused as error:
        report.unplaced.append({"file": call.archive.name, "reason": str(error)})
    for part in call.target.state.glob(".part-*"):
        part.unlink(missing_ok=True)  # of a call that was killed
    return report


def _collect_all(call: Call, entries: list[Entry], report: Report, budget: Budget) -> None:
    report.left_out = [entry.name for entry in entries if entry.junk]
    wanted = [entry for entry in entries if not entry.junk]
    good_names = [entry for entry in wanted if not _bad(entry)]
    taken = {plain(path.name): path.name for path in call.target.into.iterdir()}
    found = sort_out(good_names, call.target.module, call.modules, call.roster, taken)
    report.platform, report.wrapper = found.platform, found.wrapper
    for entry, reason in [*((entry, entry.refused) for entry in wanted if _bad(entry)), *found.homeless]:
        budget.next_student()
        _keep(call, report, entry, reason, budget)
    before = known(call.target)
    for submission in found.submissions:
        budget.next_student()
        student = submission.student
        names = [before.get(submission.origin.key, student), taken.get(plain(student), student)]
        try:
            _collect_one(call, submission, _trouble(call.target, student, *names), report, budget)
        except (OSError, CourseError):
            raise
        except Exception as error:  # whatever one student's files do, the next student's turn comes
            logging.getLogger(__name__).exception("%s could not be collected", student)
            reason = f"could not be understood ({type(error).__name__}); place it by hand"
            for _, entry in submission.files:
                _list(call, report, Piece(entry.name, entry.parts, None, reason), student)


def _bad(entry: Entry) -> bool:
    """Whether it is its name that is refused: then the name says nothing of whose it is either."""
    return bool(entry.refused) and entry.open is not None


def _keep(call: Call, report: Report, entry: Entry, reason: str, budget: Budget) -> None:
    """List a file that can't be placed, and keep a copy of it if it can be read."""
    try:
        content = read(entry, budget) if entry.open else None
    except Refused as error:
        content, reason = None, f"{reason}; it {error}"
    _list(call, report, Piece(entry.name, entry.parts, content, reason))


def _list(call: Call, report: Report, piece: Piece, student: str = "") -> None:
    row = {"file": piece.source, "reason": piece.reason} | ({"student": student} if student else {})
    if piece.content is not None:
        mark = hashlib.sha256(piece.source.encode() + piece.content).hexdigest()[:8]
        copy = call.target.unplaced / f"{mark}-{safe_name(piece.path[-1] if piece.path else 'file')}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        write_whole(copy, piece.content, call.target.state)
        row["copy"] = str(copy)
    report.unplaced.append(row)


def _collect_one(call: Call, submission: Submission, trouble: str, report: Report, budget: Budget) -> None:
    """Place one student's files, unless the very same were placed before, or none can be."""
    student = submission.student
    files, notes = _latest(submission.files)
    origin = max(files, key=lambda file: file[0].upload)[0]
    pieces = _pieces(call, files, report, budget)
    for piece in pieces:
        piece.reason = trouble or piece.reason
        if piece.reason:
            _list(call, report, piece, student)
    if pieces and not trouble:
        when = _when(call, origin, student)
        row = place(call.target, student, origin.key, pieces, when)
        row = {"student": student, "name": origin.name, "late": _late(files), **row}
        report.students.append(row | {"timestamp": when or None, "notes": notes})


def _pieces(call: Call, files: list[tuple[Origin, Entry]], report: Report, budget: Budget) -> list[Piece]:
    """A student's files, also out of zips; those in other modules' folders are left out."""
    others = set(call.modules) - {call.target.module}
    pieces = []
    for origin, entry in files:
        for one, content in unfolded(entry, budget):
            path = origin.rest + one.parts[len(entry.parts) :]
            if others & set(path[:-1]):
                report.left_out.append(one.name)
            else:
                pieces.append(Piece(one.name, path, content, one.refused))
    return sorted(pieces, key=lambda piece: (piece.path, piece.source))


def _latest(files: list[tuple[Origin, Entry]]) -> tuple[list[tuple[Origin, Entry]], list[str]]:
    """The files without those that the platform says were replaced, and a note on each of these.

    Canvas calls what is uploaded again work-1, work-2; of Blackboard's attempts the last counts.
    """
    families: dict[str, list[tuple[int, int, str]]] = {}
    for origin, entry in files:
        base, number = _family(origin)
        families.setdefault(base, []).append((number, origin.upload, entry.name))
    old = set()
    for members in families.values():
        members.sort()
        uploads = [upload for _, upload, _ in members]
        if members[0][0] == 0 and uploads == sorted(uploads):
            old |= {name for _, upload, name in members if upload < uploads[-1]}
    kept = [(origin, entry) for origin, entry in files if entry.name not in old]
    return kept, [f"{name} was replaced by a later upload" for name in sorted(old)]


def _family(origin: Origin) -> tuple[str, int]:
    """What was uploaded again and which time: work-2.ipynb is ("work.ipynb", 2)."""
    if origin.when or not origin.upload:
        return "", 0
    found = re.fullmatch(r"(.+?)(?:-(\d{1,2}))?((?:\.\w+)*)", plain(origin.rest[-1]), re.DOTALL)
    return (found[1] + found[3], int(found[2] or 0)) if found else (origin.rest[-1], 0)


def _trouble(target: Target, student: str, before: str, alike: str) -> str:
    """Why nothing may be written for a student, or ""; the others are what their folder is called already."""
    folder = target.into / student
    if before != student:
        return f"can't be placed: {student} was collected as {before} before; rename or remove that folder"
    if alike != student:
        return f"can't be placed: is {student} the student whose folder {alike} is there? Rename one"
    if any(path.is_symlink() for path in (folder, folder / target.module)):
        return f"can't be placed: {folder} is a link"
    if any(path.exists() and not path.is_dir() for path in (folder, folder / target.module)):
        return f"can't be placed: {folder} is a file"
    return ""


def _late(files: list[tuple[Origin, Entry]]) -> bool | None:
    told = [origin.late for origin, _ in files if origin.late is not None]
    return any(told) if told else None


def _when(call: Call, origin: Origin, student: str) -> str:
    """The platform's time of handing in, from --late-from, else from the file's name if its zone is known."""
    if call.times:
        person = call.times.find([*clues(origin.person()), f"id {plain(student)}", f"email {plain(student)}"])
        return person.when if person else ""
    return moment(origin.when, call.timezone) if origin.when and call.timezone else ""


def _counts(report: Report) -> dict[str, int]:
    states = Counter(row["state"] for row in report.students)
    return {state: states[state] for state in ("new", "changed", "same")} | {"unplaced": len(report.unplaced)}


def _as_json(call: Call, report: Report) -> bytes:
    rows = {"students": report.students, "unplaced": report.unplaced, "left_out": report.left_out}
    told = {
        "module": call.target.module,
        "platform": report.platform,
        "wrapper": report.wrapper,
        "counts": _counts(report),
    } | rows
    return (json.dumps(told, indent=1, ensure_ascii=False) + "\n").encode()


def _told(call: Call, report: Report) -> list[str]:
    """The report as text: a line for all that is worth a look, and the sum."""
    lines = []
    for row in report.students:
        files = row["files"].values()
        details = [f"{one['from']}: {one['problem']}" for one in files if "problem" in one]
        details += [f"{one['from']}: metadata repaired" for one in files if one.get("repaired")]
        details += row["notes"] + (["late, says the platform"] if row["late"] else [])
        lines += [f"{row['student']}: {shown(detail)}" for detail in details]
    for row in report.unplaced:
        lines.append(f"NOT PLACED {row['file']} {row['reason']}")
    counts = _counts(report)
    if report.wrapper and report.platform == "folders":
        lines.append(f"The folder {shown(report.wrapper)} was taken for a wrapper around all students' files")
    if call.roster is None and _only_here(report):
        lines.append("These students' names are this assignment's only; --roster gives them the course's ids")
    lines.append(
        f"{len(report.students)} students in {call.target.into}: {counts['new']} new, "
        f"{counts['changed']} changed, {counts['same']} same; {counts['unplaced']} files not placed"
    )
    if any("copy" in row for row in report.unplaced):
        lines.append(f"Copies of what was not placed are in {call.target.unplaced}")
    return lines


def _only_here(report: Report) -> bool:
    """Whether ids are others in the next module: Moodle's numbers and Canvas's anonymous codes are."""
    anonymous = any(row["student"].startswith("anon_") for row in report.students)
    return report.platform == "moodle" or (report.platform == "canvas" and anonymous)
