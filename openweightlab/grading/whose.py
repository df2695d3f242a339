"""Whose a file is, by the name that a learning platform gave it, or by its folder.

Canvas (its lib/content_zipper.rb): name_LATE_user_file_original, anonymous anon_code_file_original, texts
name_user_text.html. Moodle (its mod/assign/classes/downloader.php): a folder or a prefix
Name_number_assignsubmission_file_. Blackboard: assignment_user_attempt_time_original. Else a folder for each
student, or the student's name around the module's in the file's own.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from .roster import People, Person, clues, name_clues, plain, safe_id
from .unpack import Entry

Steps = tuple[str, ...]  # of a path
MOODLE = re.compile(r"^([^_]+?)(?:_(\d+))?_assignsubmission_([a-z]+)(?:_(.*))?$", re.DOTALL)
BLACKBOARD = re.compile(r"^.+?_([^_]+)_attempt_(\d{4}(?:-\d\d){5})(?:_(.+)|\.txt)$", re.DOTALL)
CANVAS_TEXT = re.compile(r"^(?:(.+?)_)?(LATE_)?(\d+|anon_[^_]+)_((?:text|link)\.html)$")
COPIES = r"copy of|kopie von|kopie van|copie de|copia de|cópia de|copia di|kopia|kopi av|kopi af|копия"
COPY = re.compile(
    rf"(?<![^\W_])(?:{COPIES})(?![^\W_])|[のを的]?\s*(?:コピー|副本)|(?<= )copy$|\(\d+\)".replace(
        " ", "[ _+]"
    ),
    re.IGNORECASE,
)  # Colab writes "Copy_of_work.ipynb" where Drive shows "Copy of work.ipynb"
ODD = re.compile(r"\d{5,}_|(?:text|link)\.html$")  # may be Canvas's, where a student's file name should be


@dataclass(frozen=True)
class Origin:
    """What a file's place says: who handed it in, and what only the platform knows of it.

    key: one student, in this archive. id: the student's id if there is no roster. late: None if not told.
    when: the platform's time, if it is in the name. upload: counts up with the platform's uploads.
    """

    key: str
    id: str
    rest: Steps
    name: str = ""
    number: str = ""
    late: bool | None = None
    when: str = ""
    upload: int = 0

    def person(self) -> Person:
        return Person("" if self.number else self.id, self.number, self.name)


@dataclass
class Submission:
    """One student's files with their origins."""

    student: str
    origin: Origin
    files: list[tuple[Origin, Entry]] = field(default_factory=list)


def canvas(path: Steps, module: str) -> list[Origin]:
    """The ways to read a Canvas name: a student's name or file name may hold more numbers.

    >>> [(one.number, one.rest) for one in canvas(("lopezana_17_4711_2_work.ipynb",), "00_workbench")]
    [('17', ('2_work.ipynb',)), ('4711', ('work.ipynb',))]
    """
    if len(path) > 1:
        return []
    words = path[0].split("_")
    anonymous = words[1:] if words[0] == "LATE" else words
    if anonymous[0] == "anon" and len(anonymous) > 3 and anonymous[2].isdecimal():
        late, file = words[0] == "LATE", int(anonymous[2])
        return [_canvas("", f"anon_{anonymous[1]}", late, file, "_".join(anonymous[3:]))]
    found = []
    for n in range(1, len(words) - 2):
        ours = "_".join(words[n + 1 :]).lower().startswith(module.lower())  # no number of Canvas's
        if words[n].isdecimal() and words[n + 1].isdecimal() and "_".join(words[n + 2 :]) and not ours:
            late = words[n - 1] == "LATE"
            name = "_".join(words[: n - late])
            found.append(_canvas(name, words[n], late, int(words[n + 1]), "_".join(words[n + 2 :])))
    if text := CANVAS_TEXT.match(path[0]):
        found.append(_canvas(text[1] or "", text[3], bool(text[2]), 0, text[4]))
    return found


def _canvas(name: str, number: str, late: bool, upload: int, rest: str) -> Origin:
    return Origin(f"canvas {number}", number, (rest,), name, number, late, "", upload)


def moodle(path: Steps, module: str) -> list[Origin]:
    """Moodle's folder or prefix; its number belongs to one assignment, not to the student.

    >>> moodle(("Ana Lopez_17_assignsubmission_file_", "work.ipynb"), "00_workbench")[0].rest
    ('work.ipynb',)
    """
    if not (found := MOODLE.match(path[0])):
        return []
    name, number, plugin, flat = found[1], found[2] or "", found[3], found[4]
    rest = (*([flat] if flat else []), *path[1:])
    if not rest:
        return []
    rest = rest if plugin == "file" else (plugin, *rest)
    who = f"{name}_{number}" if number else name
    return [Origin(f"moodle {who}", who, rest, name, number)]


def blackboard(path: Steps, module: str) -> list[Origin]:
    """Blackboard's names, for which nbgrader's zip_collect was made."""
    found = BLACKBOARD.match(path[0]) if len(path) == 1 else None
    if not found:
        return []
    day, clock = found[2][:10], found[2][11:].replace("-", ":")
    upload = int(found[2].replace("-", ""))
    rest = (found[3] or "submission.txt",)
    return [Origin(f"user {found[1]}", found[1], rest, found[1], when=f"{day}T{clock}", upload=upload)]


def by_folder(path: Steps, module: str) -> list[Origin]:
    """A student's folder, or what a file's name has beside the module's.

    >>> by_folder(("Copy of 00_workbench_ana (1).ipynb",), "00_workbench")[0].id
    'ana'
    """
    if len(path) > 1:
        return [Origin(f"folder {path[0]}", path[0], path[1:], path[0])]
    stem, _, end = path[0].partition(".ipynb") if ".ipynb" in path[0] else path[0].rpartition(".")
    if ".ipynb" not in path[0] and end.lower() != "zip":
        return []
    name = COPY.sub(" ", stem)
    name = re.sub(re.escape(module).replace("_", "[ _+-]"), " ", name, flags=re.IGNORECASE)
    name = re.sub(r"\s+", " ", name).strip(" _-.,")
    if not name or re.fullmatch(r"untitled\d*|notebook|submission", name, re.IGNORECASE):
        return []
    return [Origin(f"folder {name}", name, path, name)]


PLATFORMS = {"canvas": canvas, "moodle": moodle, "blackboard": blackboard}


def platform(paths: Sequence[Steps], module: str) -> str:
    """Whose way of naming most of the files follow: a platform's, or "folders"."""
    hits = {name: sum(bool(read(path, module)) for path in paths) for name, read in PLATFORMS.items()}
    best = max(hits, key=lambda name: hits[name])
    return best if hits[best] * 2 > len(paths) else "folders"


def unwrapped(
    paths: Sequence[Steps], module: str, modules: list[str], known: Callable[[str], bool]
) -> Sequence[Steps]:
    """The paths without outer folders that are only a wrapper around all that was downloaded.

    A lone folder is a wrapper if a platform's names are in it, or if all the notebooks in it name their
    owners and these are several; but not if a student is known who is called like it.
    """
    found = paths
    while paths and all(len(path) > 1 for path in paths) and len({path[0] for path in paths}) == 1:
        outer, inner = paths[0][0], [path[1:] for path in paths]
        if outer in modules or known(outer) or platform(paths, module) != "folders":
            break
        work = [path for path in inner if re.search(r"\.ipynb|\.zip$", path[-1], re.IGNORECASE)]
        owners = [{one.id for one in by_folder(path, module)} - set(modules) for path in work]
        several = all(owners) and len(set().union(*owners)) > 1
        if several or platform(inner, module) != "folders":
            found = inner
        paths = inner
    return found


@dataclass
class Sorted:
    """An archive's files by student, those of nobody with the reason, and an outer folder that was passed."""

    platform: str
    wrapper: str
    submissions: list[Submission]
    homeless: list[tuple[Entry, str]]


def sort_out(
    entries: list[Entry], module: str, modules: list[str], people: People | None, there: Iterable[str] = ()
) -> Sorted:
    """Give every file to its student; two students never share one, in doubt a file is nobody's.

    there: students who have a folder already.
    """
    known = {*map(plain, there)}

    def is_student(name: str) -> bool:
        return plain(name) in known or bool(people and people.find(clues(Person(name, name=name))))

    paths = unwrapped([entry.parts for entry in entries], module, modules, is_student)
    kind = platform(paths, module)
    wrapper = entries[0].parts[: len(entries[0].parts) - len(paths[0])] if paths else ()
    found, homeless = _by_origin(entries, paths, kind, module, people)
    submissions = []
    for files in found:
        student, why = _student(files[0][0], people)
        if student:
            submissions.append(Submission(student, files[0][0], files))
        else:
            homeless += [(entry, why) for _, entry in files]
    return Sorted(kind, "/".join(wrapper), _apart(submissions, homeless), homeless)


def _by_origin(
    entries: list[Entry], paths: Sequence[Steps], kind: str, module: str, people: People | None
) -> tuple[list[list[tuple[Origin, Entry]]], list[tuple[Entry, str]]]:
    """The files of each student of the platform's, and those of nobody."""
    homeless: list[tuple[Entry, str]] = []
    found: dict[str, list[tuple[Origin, Entry]]] = defaultdict(list)
    for entry, path in zip(entries, paths, strict=True):
        ways = PLATFORMS.get(kind, by_folder)(path, module)
        origin = _meant(ways, people)
        if origin:
            found[origin.key].append((origin, entry))
        else:
            homeless.append((entry, entry.refused or _whose_not(kind, ways)))
    if kind == "canvas" and not (people and people.numbered):
        homeless += _disputed(found)
    return [files for files in found.values() if files], homeless


def _meant(ways: list[Origin], people: People | None) -> Origin | None:
    """The reading that is right: the first, or the one whose student is on the list; None in doubt."""
    if len(ways) < 2 or not (people and people.numbered):
        return ways[0] if ways else None
    found = [(way, people.find([f"number {way.number}"])) for way in ways]
    known = [(way, person) for way, person in found if person]
    if len(known) > 1 and not ODD.match(ways[0].rest[0]):  # a small number may be one by chance
        known = [(way, person) for way, person in known if set(name_clues(way.name)) & set(clues(person))]
    if not known and not any(person for _, person in found):
        return ways[0]
    return known[0][0] if len(known) == 1 else None


def _whose_not(kind: str, ways: list[Origin]) -> str:
    if ways:
        return "can be read as two students' name; put it into the right folder by hand"
    if kind == "folders":
        return (
            "does not say whose it is; name it STUDENT_MODULE.ipynb, or put it into a folder of its student"
        )
    return f"is not named the way {kind.capitalize()} names what students hand in"


def _disputed(found: dict[str, list[tuple[Origin, Entry]]]) -> list[tuple[Entry, str]]:
    """Take out of the groups what may be somebody else's: Canvas gives one number one name.

    A student who is called ana_17 there could otherwise slip a file to the student with the number 17.
    """
    out = []
    for key, files in list(found.items()):
        odd = [file for file in files if ODD.match(file[0].rest[0]) and file[0].upload]
        odd = odd if len(odd) < len(files) else []
        kept = [file for file in files if file not in odd]
        if len({origin.name for origin, _ in kept}) > 1:
            odd, kept = files, []
        out += [(entry, _whose_not("canvas", [origin]) + ", or give --roster") for origin, entry in odd]
        found[key] = kept
    return out


def _student(origin: Origin, people: People | None) -> tuple[str, str]:
    """The student's id, or why there is none."""
    if people is None:
        return safe_id(origin.id), ""
    wanted = clues(origin.person())
    if origin.number and people.numbered:
        wanted = wanted[:1]  # numbers tell; names could be two people's
    wanted += [f"id {plain(origin.id)}", f"email {plain(origin.id)}"] if not origin.number else []
    person = people.find(wanted)
    if person and person.id:
        return safe_id(person.id), ""
    who = " ".join(filter(None, [origin.name, origin.number]))
    return "", f"is of {who}, whom the roster does not name, or names more than once"


def _apart(submissions: list[Submission], homeless: list[tuple[Entry, str]]) -> list[Submission]:
    """Those with an id of their own, also where a file system takes Ana and ana for one."""
    same: dict[str, list[Submission]] = defaultdict(list)
    for submission in submissions:
        same[plain(submission.student)].append(submission)
    for group in same.values():
        if len(group) > 1:
            names = " and ".join(sorted(one.origin.id for one in group))
            why = f"is of {names}, who would share the folder {group[0].student}; give them ids in --roster"
            homeless += [(entry, why) for one in group for _, entry in one.files]
    return [group[0] for _, group in sorted(same.items()) if len(group) == 1]
