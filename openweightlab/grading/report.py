"""`owl report`: a module's marks, what they say about its questions, and what to look at by hand."""

import argparse
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from . import exports, reportpage, similarity
from .course import CourseError, find_course
from .findings import Findings, histogram, work_out
from .records import audit as audit_of
from .records import write_whole
from .results import Answer, ClassResults, Result, gather
from .similarity import Pair

WIDTH = 100
BAR = 40  # characters of the longest bar
BINS = 10


def main(args: argparse.Namespace) -> int:
    """Exit status: 0, or 2 when there is nothing to report on or a file can't be written."""
    try:
        submissions = Path(args.submissions).resolve() if args.submissions else None
        places = {"submissions": submissions, "roster": Path(args.roster).resolve() if args.roster else None}
        found = gather(find_course(), args.module, url=args.gradebook, **places)
        if args.student:
            print(audit(found, args.student))
            return 0
        findings = work_out(found)
        print(text(findings))
        _write(findings, args)
    except CourseError as error:
        print(f"owl report: {error}", file=sys.stderr)
        return 2
    return 0


def _write(findings: Findings, args: argparse.Namespace) -> None:
    """The files that were asked for; raises CourseError when one can't be written."""
    try:
        if args.html:
            write_whole(Path(args.html), reportpage.page(findings))
        if args.csv:
            exports.write(findings.found, Path(args.csv), args.format, args.all, args.column)
    except OSError as error:
        raise CourseError(f"{error.filename} can't be written: {error.strerror}") from error
    if args.csv:
        print(f"\n{_exported(findings.found, args)}")


def _exported(found: ClassResults, args: argparse.Namespace) -> str:
    """What went into the file, and what the platform may miss in it."""
    told = [f"{len(found.results)} students in {args.csv}."]
    open_ = sum(not result.final for result in found.results)
    if args.format != "plain" and open_ and not args.all:
        told.append(f"{open_} marks that are not final were left empty (--all writes them, too).")
    strangers = sum(not exports.number_for(result, args.format) for result in found.results)
    if args.format != "plain" and strangers:
        told.append(f"{strangers} students have no number of {args.format.capitalize()}'s: give --roster.")
    return " ".join(told)


def text(findings: Findings) -> str:
    """The report for a terminal."""
    found = findings.found
    states = ", ".join(f"{count} {state}" for state, count in findings.states.items())
    head = [f"{found.module}: {len(found.results)} students ({states}), {found.most:g} points"]
    parts = [
        [*head, *_marks(findings.marks, found.most)],
        _section("Questions", _items(findings)),
        _section("Probably our fault: most who answered fail the same case", _failures(findings)),
        _section("To look at by hand", [f"{_name(who)}: {why}" for who, why in findings.look]),
        _section("Alike", _pairs(findings)),
        _section("How it was graded", _ways(findings)),
    ]
    return "\n\n".join("\n".join(map(shown, part)) for part in parts if part)


def shown(line: str) -> str:
    """A line fit for terminals: names and reasons may hold control characters.

    >>> shown("ada\\x1b[2J")
    'ada?[2J'
    """
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def _name(student: str) -> str:
    return student or "the class"


def _section(title: str, lines: Iterable[str]) -> list[str]:
    wrapped = [
        part
        for line in lines
        for part in textwrap.wrap(line, WIDTH, initial_indent="  ", subsequent_indent="      ") or [""]
    ]
    return [title, *wrapped] if wrapped else []


def _marks(marks: np.ndarray, most: float) -> Iterator[str]:
    """Summary and distribution of the final marks."""
    if not len(marks):
        yield "No mark is final yet."
        return
    low, middle, high = np.percentile(marks, [25, 50, 75])
    yield (
        f"{len(marks)} final marks: mean {marks.mean():.1f}, median {middle:.1f}, "
        f"middle half {low:.1f} to {high:.1f}, lowest {marks.min():g}, highest {marks.max():g}"
    )
    counts, edges = histogram(marks, most, BINS)
    for count, start, end in zip(counts, edges, edges[1:], strict=False):
        yield f"{start:5g} to {end:3g}  {'█' * round(BAR * count / counts.max())} {count}"


def _items(findings: Findings) -> Iterator[str]:
    yield f"{'':<8}{'points':>6}{'students':>10}{'difficulty':>12}{'discrimination':>16}"
    for item in findings.items:
        figures = f"{item.most:>6g}{item.students:>10}{_figure(item.difficulty):>12}"
        line = f"{item.id:<8}{figures}{_figure(item.discrimination):>16}"
        yield f"{line}  {item.title}{f' ({item.remark})' if item.remark else ''}"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _failures(findings: Findings) -> Iterator[str]:
    for failure in findings.failures:
        often = f"{failure.failed} of {failure.answered} ({failure.share:.0%})"
        yield f"{failure.id}: {often} fail “{failure.case}”; most often: {failure.message}"


def _ways(findings: Findings) -> Iterator[str]:
    for way in findings.ways:
        cost = f"{way.seconds:.1f} s in the median, {way.mib:.0f} MiB at most"
        yield f"{way.students} students: sandbox {way.sandbox}, {way.versions}; {cost}"
    if len(findings.ways) > 1:
        yield "Not all marks were made in the same way. To make them so, call `owl grade` again."


def _pairs(findings: Findings) -> Iterator[str]:
    likeness = findings.likeness
    if not likeness.pairs:
        return
    yield similarity.NO_PROOF
    yield (
        f"Of {likeness.compared} pairs half are under {likeness.quantile(0.5):.2f}, "
        f"99 in 100 under {likeness.quantile(0.99):.2f}; 1 means the same code, names aside."
    )
    yield from map(pair_in_words, likeness.pairs)
    if likeness.left_out:
        yield f"{likeness.left_out} more pairs are as alike."


def pair_in_words(pair: Pair) -> str:
    """One close pair in a line."""
    same = f", letter for letter in {', '.join(pair.verbatim)}" if pair.verbatim else ""
    where = f"{', '.join(pair.questions)}{same}; next nearest {pair.next:.2f}"
    return f"{pair.likeness:.2f}  {pair.first} and {pair.second}: {where}"


def audit(found: ClassResults, student: str) -> str:
    """Everything that one student's mark rests on.

    Raises:
        CourseError: nobody of that name.
    """
    result = next((result for result in found.results if result.student == student), None)
    if result is None:
        raise CourseError(f"There is no student {student!r} in {found.module}")
    lines = [f"{result.student}: {result.state}, {result.points:g} of {found.most:g} points"]
    lines += [f"  {title:<10}{told}" for title, told in _facts(result) if told]
    for id, item in found.items.items():
        lines += _answer(id, item.title, result.answers.get(id, Answer(0.0, item.most)))
    return "\n".join(map(shown, lines))


def _facts(result: Result) -> Iterator[tuple[str, str]]:
    """Title and text of each line about a submission and its record."""
    late = f", {result.late_penalty:g} points off for that" if result.late_penalty else ""
    yield "handed in", f"{result.handed_in} UTC{late}" if result.handed_in else ""
    yield "doubt", result.doubt
    yield "pending", f"{result.pending:g} points wait for a mark by hand" if result.pending else ""
    yield "status", result.status
    yield "reason", result.reason
    yield "flags", ", ".join(result.flags)
    yield "record", str(result.path or "none")
    yield "key", result.key
    if result.record:
        yield "seed", str(result.record.seed)
        yield "sandbox", result.record.sandbox
        yield "took", f"{result.record.seconds:g} s, at most {result.record.peak_mib:g} MiB of memory"
        yield "versions", ", ".join(f"{name} {number}" for name, number in result.record.versions.items())
    about = audit_of(result.path) if result.path else {}
    yield "machine", f"{about.get('machine', '')} (process {about.get('pid', '?')})" if about else ""
    yield "from, to", f"{about.get('started', '?')}, {about.get('ended', '?')}" if about else ""
    yield from (("lost try", str(trouble)) for trouble in about.get("troubles", ()))
    yield from (("log", line) for line in str(about.get("log", "")).splitlines())
    parts = about.get("parts", {})
    yield from (("hash of", f"{part}: {parts[part]}") for part in sorted(parts.keys() - {"seed", "versions"}))


def _answer(id: str, title: str, answer: Answer) -> Iterator[str]:
    """One question's lines: points, and each case in the judge's words."""
    by = "waits for a person" if answer.pending else "by hand" if answer.by_hand else "by the judge"
    yield f"  {id:<8}{answer.points:g} of {answer.most:g} {by}  {title}"
    yield from [f"      {answer.error}"] if answer.error else []
    for case in answer.cases:
        message = f": {case.get('message')}" if case.get("message") and not case["ok"] else ""
        yield f"      {'✓' if case['ok'] else '✗'} {case['label']}{message}"
    yield from [f"      comment: {answer.comment}"] if answer.comment else []
