"""`owl grade`: a folder of submissions, through nbgrader, into its gradebook and a JSON file with a row each.

Submissions are run by an executor (pool.py), several at a time; this process alone keeps the records, one at
a time brings them into the gradebook, and writes the file. Resumable: "done" means that a record is there, so
a second call, also after a kill, runs only what is new or changed.
"""

import argparse
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from nbgrader.apps import NbGrader
from nbgrader.converters.base import NbGraderException
from tqdm import tqdm

from . import records
from .autograde import CourseAutograde
from .course import Course, CourseError, find_course
from .gradebook import Mark
from .pool import Done, Executor, LocalPool, Order
from .preprocessor import Judge
from .run import Record
from .settings import in_course

Row = dict[str, Any]
PATIENCE_SECONDS = 30.0  # for another program to let go of the gradebook
SHARE = 0.05  # of the time may go into writing the file anew
GOES_ON = "What is graded is kept, and the same call goes on."
T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """What `owl grade` was asked to do."""

    course: Course
    module: str
    submissions: Path
    file: Path
    gradebook: str | None = None
    sandbox: bool = True
    fresh: bool = False
    jobs: int = 1
    scheduler: str | None = None


def main(args: argparse.Namespace) -> int:
    """Exit status: 0 when every submission has a row, 2 when grading was impossible, 130 when interrupted."""
    try:
        call = _call(args)
        counts = grade(call)
    except CourseError as error:
        print(f"owl grade: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nowl grade: interrupted. {GOES_ON}", file=sys.stderr)
        return 130
    _say(_summary(counts, call.file))
    return 0


def _call(args: argparse.Namespace) -> Call:
    """The arguments, checked and absolute, since grading works from the course's folder."""
    course = find_course()
    course.release(args.module)
    submissions, file = Path(args.submissions).resolve(), Path(args.json).resolve()
    if not submissions.is_dir():
        raise CourseError(
            f"There is no folder {args.submissions}; it should hold one folder for each student"
        )
    if not file.parent.is_dir() or file.is_dir():
        raise CourseError(f"{args.json} can't be written: give the name of a file in a folder that exists")
    if args.jobs < 1:
        raise CourseError(f"--jobs {args.jobs} is not possible: at least one submission is run at a time")
    places = course, args.module, submissions, file, args.gradebook
    return Call(*places, not args.no_sandbox, args.force, args.jobs, args.scheduler)


def grade(call: Call) -> Counter[str]:
    """Grade every student's folder and write the file; how many have which status.

    Raises:
        CourseError: no submission at all, no sandbox, a gradebook or a file that can't be used, another call
            for the same module under way.
        KeyboardInterrupt: by Ctrl-C or SIGTERM; the file has the rows that were done.
    """
    names = sorted(path.name for path in call.submissions.glob("[!.]*") if path.is_dir())
    if not names:
        layout = f"<student>/{call.module}/{call.module}.ipynb"
        raise CourseError(f"No submissions in {call.submissions}: expected {layout} in there")
    with (
        _Interrupts() as interrupts,
        _alone(call),
        _app(call) as app,
        _executor(call, app, names) as executor,
    ):
        grading = _Grading(call, app, interrupts)
        grading.grade(names, executor)
    return grading.sheet.counts


@contextmanager
def _app(call: Call) -> Iterator[NbGrader]:
    with in_course(call.course, call.module, submissions=call.submissions, url=call.gradebook) as app:
        if not call.sandbox:
            app.config.Judge.sandbox = "none"
        yield app


@contextmanager
def _alone(call: Call) -> Iterator[None]:
    """Hold the module's lock, which the system takes back however this process ends."""
    try:
        import fcntl
    except ImportError:
        raise CourseError("Grading needs Linux or macOS; on Windows, use it inside WSL") from None
    path = call.course.store / f"{call.module}.lock"
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = open(path, "w")  # noqa: SIM115  (closed below)
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CourseError(
                f"Another `owl grade {call.module}` is at work in {call.course.root}; wait for its end"
            ) from None
        yield


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Say in a CourseError why a file can't be written."""
    try:
        yield
    except OSError as error:
        raise CourseError(f"{path} can't be written: {error.strerror}. {GOES_ON}") from error


class _Interrupts:
    """Ctrl-C and SIGTERM raise KeyboardInterrupt, yet not amid work that is to be done whole."""

    def __init__(self) -> None:
        self._held = self._came = False

    def __enter__(self) -> Self:
        signals = signal.SIGINT, signal.SIGTERM
        self._before = {number: signal.signal(number, self._take) for number in signals}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, *_: object) -> None:
        self._came = True
        if not self._held:
            raise KeyboardInterrupt

    def check(self) -> None:
        """Raise KeyboardInterrupt if it is due."""
        if self._came:
            raise KeyboardInterrupt

    @contextmanager
    def held(self) -> Iterator[None]:
        """What is done in here is done to its end first."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        self.check()


def _executor(call: Call, app: NbGrader, names: list[str]) -> Executor:
    """Who runs the submissions: the scheduler's machines, or this one, at once if somebody is surely new."""
    if call.scheduler:
        from .cluster import DaskCluster  # raises CourseError where the extra is missing

        return DaskCluster(call.scheduler)
    judge = Judge(parent=app)
    judge.check()
    known = (records.folder_of(call.course, call.module, name).is_dir() for name in names)
    if all(known) and not call.fresh:
        return LocalPool(call.jobs)
    return LocalPool(call.jobs, records.setting(call.course, call.module, judge.sandbox))


class _Sheet:
    """FILE: a row for each student, in order of names, written whole now and then."""

    def __init__(self, call: Call) -> None:
        marks = (cell.metadata.get("nbgrader", {}) for cell in call.course.release(call.module).cells)
        self._most = sum(float(mark["points"]) for mark in marks if mark.get("grade"))
        self._call = call
        self._rows: dict[str, str] = {}
        self._next = 0.0  # when to write again
        self.counts: Counter[str] = Counter()

    def add(self, row: Row) -> None:
        """Take a row in; write the file if enough time has passed, so that writing never takes much of it."""
        self._rows[row["student"]] = json.dumps(row)
        again = "infrastructure" in row["flags"]
        self.counts["to be run again (the machine failed)" if again else row["status"]] += 1
        if time.monotonic() > self._next:
            started = time.monotonic()
            self.write()
            self._next = time.monotonic() + (time.monotonic() - started) / SHARE

    def write(self) -> None:
        """Write the file with the rows that are there; without any it stays as an earlier call left it."""
        if not self._rows:
            return
        about = json.dumps({"module": self._call.module, "max_points": self._most})
        rows = ",\n".join(self._rows[name] for name in sorted(self._rows))
        with _writing(self._call.file):
            records.write_whole(self._call.file, f'{about[:-1]}, "submissions": [\n{rows}\n]}}\n')


class _Grading:
    """One call at work: reads submissions for the executor, keeps what comes back, and brings it in."""

    def __init__(self, call: Call, app: NbGrader, interrupts: _Interrupts) -> None:
        self.call, self.interrupts = call, interrupts
        self.sheet = _Sheet(call)
        self._converter = CourseAutograde(coursedir=app.coursedir, parent=app)
        self._under_way: dict[str, records.Task] = {}  # by student: as many as the executor has taken

    def grade(self, names: list[str], executor: Executor) -> None:
        """Grade all of them; what is done by the time of an interrupt or of trouble is still kept."""
        self._bar = tqdm(
            total=len(names), desc=self.call.module, unit="student", file=sys.stderr, disable=None
        )
        with self._bar, ExitStack() as stack:
            for line in self._patiently(lambda: stack.enter_context(self._converter.opened())):
                _say(line)
            stack.callback(self.sheet.write)
            try:
                for done in executor.run(self._orders(names)):
                    with self.interrupts.held():
                        self._keep(done)
            except KeyboardInterrupt:
                for done in executor.close():
                    self._keep(done)
                raise
            except CourseError:  # of the gradebook, say
                for done in executor.close():
                    self._write_down(self._under_way.pop(done.order["student"]), done)
                raise

    def _orders(self, names: list[str]) -> Iterator[Order]:
        """An order for each submission that is new or changed; the others are brought in on the way."""
        for name in names:
            task = self._converter.task(name)
            record = None if self.call.fresh else records.kept(task)
            if task.submission.status and not record:
                record = self._write_down(task, Done(task.order, records.ungraded(task), {}))
            if record:
                with self.interrupts.held():
                    self._bring_in(task, record)
            else:
                self._under_way[name] = task
                yield task.order

    def _keep(self, done: Done) -> None:
        task = self._under_way.pop(done.order["student"])
        self._bring_in(task, self._write_down(task, done))

    def _write_down(self, task: records.Task, done: Done) -> Record:
        with _writing(task.path):
            return records.keep(task, done)

    def _bring_in(self, task: records.Task, record: Record) -> None:
        """A record into autograded/ and the gradebook, and the student's row into the file."""
        try:
            marks = self._patiently(lambda: self._converter.take_in(task, record))
        except NbGraderException as error:
            reason = f"nbgrader did not take the record: {error}"
            record, marks = records.ungraded(task, "crashed", reason, ("infrastructure",)), {}
        row = _row(task, record, marks)
        self.sheet.add(row)
        _say(_line(row))
        self._bar.update()

    def _patiently(self, work: Callable[[], T]) -> T:
        """Do it, in the end; while another program locks the gradebook, try again for a while."""
        until, told = time.monotonic() + PATIENCE_SECONDS, False
        while True:
            try:
                return work()
            except CourseError as error:
                if "database is locked" not in str(error) or time.monotonic() > until:
                    raise
            if not told:
                _say(f"The gradebook is another program's just now: waiting {PATIENCE_SECONDS:g} s for it")
                told = True
            self.interrupts.check()
            time.sleep(0.5)


def _row(task: records.Task, record: Record, marks: dict[str, Mark]) -> Row:
    """A student's entry in the file, with the gradebook's marks: a person's go before the judge's."""
    pending, questions = 0.0, {}
    for cell in task.submission.notebook.cells:
        about = cell.metadata.get("nbgrader", {})
        if about.get("grade"):
            id, most = about["grade_id"], float(about["points"])
            mark = marks.get(id, Mark(0.0, False))
            pending += most if mark.waits and about.get("solution") else 0.0
            error = record.questions.get(id, {}).get("error")
            questions[id] = {"points": mark.points, "max_points": most, "error": error}
    return {
        "student": task.student,
        "status": record.status,
        "points": sum(question["points"] for question in questions.values()),
        "manual_pending": pending,
        "seconds": record.seconds,
        "peak_mib": record.peak_mib,
        "flags": sorted({*task.submission.flags, *record.flags}),
        "reason": record.reason,
        "sandbox": record.sandbox,
        "questions": questions,
    }


def _line(row: Row) -> str:
    flags = f"  [{', '.join(row['flags'])}]" if row["flags"] else ""
    reason = f"  {row['reason']}" if row["reason"] else ""
    told = f"{row['student']:<16} {row['status']:<10} {row['points']:>6g}  {row['seconds']:>5.1f} s"
    return told + flags + reason


def _summary(counts: Counter[str], file: Path) -> str:
    told = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    return f"{counts.total()} submissions: {told}. Rows in {file}"


def _say(line: str) -> None:
    tqdm.write(line.encode("utf-8", "replace").decode(), file=sys.stdout)
