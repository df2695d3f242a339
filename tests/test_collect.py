"""`owl collect`: platforms' downloads, odd and hostile ones, put into the layout that grading reads."""

import copy
import io
import itertools
import json
import os
import random
import stat
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from class_of_submissions import MODULE, RELEASE, answered, stripped
from nbformat import NotebookNode
from nbgrader.utils import parse_utc

from openweightlab import cli
from openweightlab.grading import place, unpack
from openweightlab.grading.collect import Call, Report, _timed, collect
from openweightlab.grading.course import CourseError
from openweightlab.grading.normalise import normalise
from openweightlab.grading.place import Target, _answers
from openweightlab.grading.roster import People, moment, read_list, safe_id

NAME = f"{MODULE}.ipynb"
META = [cell.metadata["nbgrader"] for cell in RELEASE.cells if "nbgrader" in cell.metadata]
WORK = json.dumps(answered()).encode()
STUB = json.dumps(RELEASE).encode()
BARE = json.dumps(stripped()).encode()
Files = dict[str, bytes]


def zipped(files: Files) -> bytes:
    """A zip of these files."""
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return into.getvalue()


def laid_out(folder: Path, files: Files) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def gather(
    root: Path, files: Files | bytes | Path, roster: str = "", times: str = "", timezone: str | None = None
) -> Report:
    """Collect what a platform gave (a zip of files, a zip's bytes, a folder) into root/class."""
    archive, lists = files if isinstance(files, Path) else root / "download.zip", root / "list.csv"
    if not isinstance(files, Path):
        archive.write_bytes(files if isinstance(files, bytes) else zipped(files))
    people = timed = None
    if roster:
        lists.write_text(roster, "utf-8")
        people = People(read_list(lists))
    if times:
        lists.write_text(times, "utf-8")
        timed = People(_timed(lists, "Europe/Madrid"))
    target = Target(root / "class", MODULE, RELEASE)
    return collect(Call(archive, target, [MODULE, "01_moe"], people, timed, timezone))


def students(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "class").glob("[!.]*"))


def placed(root: Path, student: str) -> Files:
    folder = root / "class" / student / MODULE
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def tree(root: Path) -> Files:
    """All that is placed, as a whole."""
    files = [
        path for path in (root / "class").rglob("*") if path.is_file() and ".collected" not in path.parts
    ]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def reasons(report: Report) -> str:
    return "\n".join(f"{row['file']} {row['reason']}" for row in report.unplaced)


# Platforms' own names


PLATFORMS: dict[str, tuple[Files, list[str]]] = {
    "canvas": (
        {"lopezana_17_4711_work.ipynb": WORK, "kimben_18_4712_00_workbench.ipynb": WORK},
        ["17", "18"],
    ),
    "canvas, file name begins with a number": ({"lopezana_17_4711_2_work.ipynb": WORK}, ["17"]),
    "canvas, file name begins with a student number": (
        {"lopezana_17_4711_20260001_work.ipynb": WORK},
        ["17"],
    ),
    "canvas, late": ({"lopezana_LATE_17_4711_work.ipynb": WORK}, ["17"]),
    "canvas, anonymous": (
        {"anon_aB3x9_4711_work.ipynb": WORK, "LATE_anon_Zz01q_4712_work.ipynb": WORK},
        ["anon_Zz01q", "anon_aB3x9"],
    ),
    "canvas, letters of every kind": ({"álvarezñúria_17_4711_análisis final.ipynb": WORK}, ["17"]),
    "canvas, unpacked": ({"a b submissions/lopezana_17_4711_work.ipynb": WORK}, ["17"]),
    "canvas, text and link": (
        {"lopezana_17_text.html": b"<p>", "kimben_LATE_18_link.html": b"<p>", "leecam_19_1_w.ipynb": WORK},
        ["17", "18", "19"],
    ),
    "moodle": ({"Ana Lopez_17_assignsubmission_file_/work.ipynb": WORK}, ["Ana Lopez_17"]),
    "moodle 4": ({"Ana Lopez_17_assignsubmission_file/a/b/work.ipynb": WORK}, ["Ana Lopez_17"]),
    "moodle, flat": ({"Ana Lopez_17_assignsubmission_file_my_work_1_2.ipynb": WORK}, ["Ana Lopez_17"]),
    "moodle, one name, two students": (
        {
            "Ana Lopez_17_assignsubmission_file_/work.ipynb": WORK,
            "Ana Lopez_18_assignsubmission_file_/work.ipynb": STUB,
        },
        ["Ana Lopez_17", "Ana Lopez_18"],
    ),
    "moodle, text beside the file": (
        {
            "Ana Lopez_17_assignsubmission_file_/work.ipynb": WORK,
            "Ana Lopez_17_assignsubmission_onlinetext_/onlinetext.html": b"<p>see file",
        },
        ["Ana Lopez_17"],
    ),
    "moodle, blind": ({"Participant_4711_assignsubmission_file_/work.ipynb": WORK}, ["Participant_4711"]),
    "moodle, group": ({"Group A_3_assignsubmission_file_/work.ipynb": WORK}, ["Group A_3"]),
    "blackboard": ({"ps1_alopez_attempt_2026-01-30-15-00-00_work.ipynb": WORK}, ["alopez"]),
    "folders": (
        {"ana/Copy of 00_workbench.ipynb": WORK, "ben/x/y/00_workbench (1).ipynb": WORK},
        ["ana", "ben"],
    ),
    "folders in one": ({"class/ana/w.ipynb": WORK, "class/ben/00_workbench/w.ipynb": WORK}, ["ana", "ben"]),
    "loose files in one": ({"a/ana_00_workbench.ipynb": WORK, "a/ben.ipynb": WORK}, ["ana", "ben"]),
    "all kinds in one": ({"a/b/ana.zip": zipped({"w.ipynb": WORK}), "a/b/ben/w.ipynb": WORK}, ["ana", "ben"]),
    "one student's folder": ({"ana/00_workbench/w.ipynb": WORK, "ana/01_moe/01_moe.ipynb": WORK}, ["ana"]),
    "loose files": (
        {
            "ana_00_workbench.ipynb": WORK,
            "Kopie von 00_workbench - Ben Kim (2).ipynb": WORK,
            "cam.ipynb": WORK,
            "Copy_of_00_workbench_guy.ipynb": WORK,
            "00-Workbench hal_(1).ipynb": WORK,
            "00_workbench-dan.zip": zipped({"w.ipynb": WORK}),
            "eva_17_00_workbench.ipynb": WORK,
            "fay_17_00_workbench.ipynb": WORK,
        },
        ["Ben Kim", "ana", "cam", "dan", "eva_17", "fay_17", "guy", "hal"],
    ),
}


@pytest.mark.parametrize("case", PLATFORMS)
@pytest.mark.parametrize("how", ["zip", "folder"])
def test_every_platforms_names(tmp_path, case, how):
    files, expected = PLATFORMS[case]
    report = gather(tmp_path, files if how == "zip" else laid_out(tmp_path / "downloads", files))
    assert (students(tmp_path), report.unplaced) == (expected, [])
    handed_in = [
        content for name, content in files.items() if not name.endswith("html") and "01_moe" not in name
    ]
    notebooks = [
        content for one in expected for name, content in placed(tmp_path, one).items() if name == NAME
    ]
    assert len(notebooks) == len(handed_in) and set(notebooks) <= {WORK, STUB}


def test_marks_of_lateness_are_the_platforms(tmp_path):
    files = {
        "lopezana_LATE_17_1_w.ipynb": WORK,
        "late_18_2_LATE_18_3_w.ipynb": WORK,
        "leecam_19_4_w.ipynb": WORK,
    }
    late = {row["student"]: row["late"] for row in gather(tmp_path, files).students}
    assert late == {"17": True, "18": False, "19": False}


def test_canvas_numbers_of_later_uploads(tmp_path):
    """Of work.ipynb, work-1.ipynb uploaded in this order the last; part-1, part-2 are two files."""
    files = {
        "lopezana_17_11_work.ipynb": WORK,
        "lopezana_17_12_work-1.ipynb": STUB,
        "kimben_18_13_part-1.ipynb": WORK,
        "kimben_18_14_part-2.ipynb": STUB,
        "leecam_19_16_work.ipynb": WORK,
        "leecam_19_15_work-1.ipynb": STUB,
    }
    report = gather(tmp_path, files)
    assert placed(tmp_path, "17") == {NAME: STUB}
    assert placed(tmp_path, "18") == {NAME: WORK, "part-2.ipynb": STUB}
    assert placed(tmp_path, "19") == {NAME: WORK, "work-1.ipynb": STUB}
    assert [row["notes"] for row in report.students] == [
        ["lopezana_17_11_work.ipynb was replaced by a later upload"],
        [],
        [],
    ]


def test_of_attempts_in_blackboard_the_last_counts(tmp_path):
    files = {
        "ps_ana_attempt_2026-01-30-15-00-00_a.ipynb": WORK,
        "ps_ana_attempt_2026-02-01-09-00-00_b.ipynb": STUB,
        "ps_ana_attempt_2026-02-01-09-00-00.txt": b"Name: Ana",
    }
    report = gather(tmp_path, files, timezone="Europe/Madrid")
    assert placed(tmp_path, "ana")[NAME] == STUB
    assert report.students[0]["timestamp"] == "2026-02-01 08:00:00.000000 UTC"
    assert "a.ipynb was replaced" in report.students[0]["notes"][0]


# Students


def test_a_name_that_holds_another_students_number(tmp_path):
    """Who is called ana_17 in Canvas slips nothing to the student with the number 17."""
    files = {"lopezana_17_4711_w.ipynb": STUB, "lopezana_17_99_47123_w.ipynb": WORK}
    report = gather(tmp_path, files)
    assert placed(tmp_path, "17") == {NAME: STUB} and students(tmp_path) == ["17"]
    assert "can be read as two students' name" in reasons(report)
    for n, name in enumerate(["Lopez, Ana_17", "Else, Somebody"]):
        (root := tmp_path / str(n)).mkdir()
        roster = f'Student,ID,SIS User ID,SIS Login ID\n"Lopez, Ana",17,,ana17\n"{name}",99,,ana99\n'
        report = gather(root, files, roster)
        assert placed(root, "ana17") == {NAME: STUB} and students(root) == ["ana17"]
        assert "two students' name" in reasons(report)


def test_a_small_number_in_a_file_name_that_is_a_students_too(tmp_path):
    roster = 'Student,ID,SIS User ID,SIS Login ID\n"Lopez, Ana",17,,s17\n"Kim, Ben",18,,s18\n'
    files = {"lopezana_17_18_2_w.ipynb": WORK, "kimben_18_17_2_w.ipynb": STUB}
    assert gather(tmp_path, files, roster).unplaced == []
    assert (placed(tmp_path, "s17"), placed(tmp_path, "s18")) == ({NAME: WORK}, {NAME: STUB})


def test_a_file_called_like_anothers_text_entry(tmp_path):
    files = {"lopezana_17_4711_x_18_text.html": b"mine", "kimben_18_text.html": b"<p>"}
    files |= {
        "anon_aB3x9_4712_x_18_text.html": b"mine",
        "kimben_5_18_link.html": b"<p>",
        "leecam_5_3_w.ipynb": WORK,
    }
    report = gather(tmp_path, files)
    assert students(tmp_path) == ["17", "18", "5", "anon_aB3x9"]
    assert (placed(tmp_path, "18"), placed(tmp_path, "5")) == ({"text.html": b"<p>"}, {NAME: WORK})
    assert reasons(report).startswith("kimben_5_18_link.html can be read as two students' name")


def test_two_names_with_one_number_are_placed_for_nobody(tmp_path):
    report = gather(tmp_path, {"lopezana_17_1_w.ipynb": WORK, "kimben_17_2_w.ipynb": WORK})
    assert students(tmp_path) == [] and len(report.unplaced) == 2


ROSTERS = {
    "own list": "id,name,email\ns1,Ana Lopez,ana@uni.example\ns2,Ben Kim,ben@uni.example\n",
    "own list, semicolons, Excel": "\ufeffStudent ID;Name;E\ns1;Lopez, Ana;\ns2;Kim, Ben;\n",
    "nbgrader's": "id,first_name,last_name,email,lms_user_id\ns1,Ana,Lopez,,17\ns2,Ben,Kim,b@x.example,18\n",
    "Canvas's gradebook": (
        "Student,ID,SIS User ID,SIS Login ID,Section,Work (5)\n    Points Possible,,,,,10\n"
        '"Lopez, Ana",17,U1,s1,A,\n"Kim, Ben",18,U2,s2,A,\n'
    ),
    "Moodle's worksheet": (
        "\ufeffIdentifier,Full name,ID number,Status,Grade\n"
        "Participant 17,Ana Lopez,s1,Submitted,\nParticipant 18,Ben Kim,s2,Submitted,\n"
    ),
}
TWO = {
    "canvas": {"lopezana_17_1_w.ipynb": WORK, "kimben_18_2_w.ipynb": STUB},
    "moodle": {
        "Ana Lopez_17_assignsubmission_file_/w.ipynb": WORK,
        "Ben Kim_18_assignsubmission_file_/w.ipynb": STUB,
    },
    "names": {"Ana Lopez - 00_workbench.ipynb": WORK, "Kim, Ben/w.ipynb": STUB},
    "ids": {"s1_00_workbench.ipynb": WORK, "s2/w.ipynb": STUB},
}


@pytest.mark.parametrize("roster", ROSTERS)
@pytest.mark.parametrize("files", TWO)
def test_a_roster_gives_the_courses_ids(tmp_path, roster, files):
    report = gather(tmp_path, TWO[files], ROSTERS[roster])
    assert (students(tmp_path), reasons(report)) == (["s1", "s2"], "")
    assert placed(tmp_path, "s1") == {NAME: WORK} and placed(tmp_path, "s2") == {NAME: STUB}


def test_who_is_not_on_the_roster_or_twice_is_listed_and_kept(tmp_path):
    roster = "id,name\ns1,Ana Lopez\ns2,Ana Lopez\ns3,Cam Lee\n"
    files = {"Ana Lopez/w.ipynb": WORK, "Dan/w.ipynb": WORK, "Cam Lee/w.ipynb": WORK, "s3/w.ipynb": STUB}
    report = gather(tmp_path, files, roster)
    assert students(tmp_path) == []
    told = reasons(report)
    assert "of Ana Lopez, whom the roster does not name, or names more than once" in told
    assert "of Dan, whom" in told and "Cam Lee and s3, who would share the folder s3" in told
    assert [Path(row["copy"]).read_bytes() for row in report.unplaced].count(WORK) == 3


def test_ids_that_differ_in_case_alone(tmp_path):
    report = gather(tmp_path, {"Ana/w.ipynb": WORK, "ana/w.ipynb": STUB, "ben/w.ipynb": WORK})
    assert students(tmp_path) == ["ben"] and "Ana and ana, who would share the folder" in reasons(report)
    report = gather(tmp_path, {"BEN/w.ipynb": WORK, "cam/w.ipynb": WORK})
    assert students(tmp_path) == ["ben", "cam"] and "the student whose folder ben is there" in reasons(report)


def test_one_name_in_two_spellings_of_unicode_is_one_student(tmp_path):
    gather(tmp_path, {"Jose\u0301/a.ipynb": WORK, "Jos\u00e9/b.ipynb": STUB, "ana/w.ipynb": WORK})
    assert students(tmp_path) == ["Jos\u00e9", "ana"] and len(placed(tmp_path, "Jos\u00e9")) == 2


def test_a_known_students_folder_alone_is_no_wrapper(tmp_path):
    files = {"ana/old.ipynb": STUB, "ana/new/final.ipynb": WORK}
    for roster in ("", "id\nana\n"):
        (root := tmp_path / f"with {roster[:2]}").mkdir()
        if not roster:
            gather(root, {"ana/w.ipynb": STUB, "ben/w.ipynb": STUB})
        gather(root, files, roster)
        assert placed(root, "ana") == {NAME: WORK, "old.ipynb": STUB} and set(students(root)) <= {
            "ana",
            "ben",
        }


def test_ids_are_names_of_folders_on_every_system():
    odd = [
        "..",
        ".",
        "",
        ".hidden",
        "a/b",
        "a\\b",
        "a:b",
        "con",
        "CON.x",
        "a. ",
        "x" * 300,
        "a\nb",
        "a*b",
        "a?b",
    ]
    made = [safe_id(name) for name in odd]
    assert len({name.casefold() for name in made}) == len(odd)
    for name in made:
        assert name and name[0] not in ". -" and name[-1] not in ". " and not set(name) & set('/\\:*?"<>|\n')
        assert len(name.encode()) < 130 and name.split(".")[0].lower() not in ("con", "prn", "aux", "nul")
    assert all(safe_id(name) == name for name in ("s1", "Ana Lopez", "ana@uni.example", "anon_aB3", "李雷"))


def test_a_list_must_be_usable(tmp_path):
    for text, told in [
        ("a,b\n1,2\n", "names nobody"),
        ("id,name\ns1,Ana\nS1,Ben\n", "has the id 'S1' twice"),
        ("", "names nobody"),
    ]:
        (tmp_path / "list.csv").write_text(text)
        with pytest.raises(CourseError, match=told):
            read_list(tmp_path / "list.csv")
    with pytest.raises(CourseError, match="can't be read"):
        read_list(tmp_path / "none.csv")


# Times


def test_times_come_from_the_platforms_list_only(tmp_path):
    """Moodle's worksheet gives the time; the student's own timestamp.txt and the zip's times never do."""
    files = {
        "Ana Lopez_17_assignsubmission_file_/w.ipynb": WORK,
        "Ana Lopez_17_assignsubmission_file_/timestamp.txt": b"2020-01-01 00:00:00 UTC",
        "Ben Kim_18_assignsubmission_file_/w.ipynb": WORK,
        "Ben Kim_18_assignsubmission_file_/TimeStamp.txt": b"2020-01-01 00:00:00 UTC",
    }
    worksheet = (
        "Identifier,Full name,Last modified (submission)\n"
        'Participant 17,Ana Lopez,"Wednesday, 10 June 2026, 2:14 PM"\nParticipant 18,Ben Kim,-\n'
    )
    report = gather(tmp_path, files, times=worksheet)
    mine = placed(tmp_path, "Ana Lopez_17")
    assert str(parse_utc(mine["timestamp.txt"].decode())) == "2026-06-10 12:14:00"
    assert mine["students-timestamp.txt"] == b"2020-01-01 00:00:00 UTC"
    assert set(placed(tmp_path, "Ben Kim_18")) == {NAME, "students-TimeStamp.txt"}
    assert [row["timestamp"] for row in report.students] == ["2026-06-10 12:14:00.000000 UTC", None]


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("2026-06-10T12:14:00Z", None, "2026-06-10 12:14:00.000000 UTC"),
        ("2026-06-10 14:14:00+02:00", None, "2026-06-10 12:14:00.000000 UTC"),
        ("2026-06-10 12:14:00 UTC", "Europe/Madrid", "2026-06-10 12:14:00.000000 UTC"),
        ("Wednesday, September 23, 2020, 9:00 PM", "America/New_York", "2020-09-24 01:00:00.000000 UTC"),
        ("-", None, ""),
        ("Wednesday, 10 June 2026, 2:14 PM", None, "has no time zone"),
        ("10/06/2026 14:14", "UTC", "can't be read"),
        ("June 2026", "UTC", "can't be read"),
        ("mercredi 10 juin 2026, 14:14", "UTC", "can't be read"),
        ("2026-06-10T12:14:00", "Nowhere/City", "can't be read"),
    ],
)
def test_reading_times(text, zone, expected):
    try:
        assert moment(text, zone) == expected
    except CourseError as error:
        assert expected in str(error)


# Files


def test_a_zip_in_a_submission_is_unpacked(tmp_path):
    inner = zipped({"deep/00_workbench.ipynb": WORK, "__MACOSX/._x": b"x", "data.csv": b"1,2"})
    gather(
        tmp_path, {"ana/hand-in.zip": zipped({"more/inner.zip": inner, "report.docx": zipped({"x": b"y"})})}
    )
    assert set(placed(tmp_path, "ana")) == {NAME, "data.csv", "report.docx"}


def test_of_several_notebooks_all_are_kept_the_fullest_first(tmp_path):
    files = {"ana/00_workbench.ipynb": STUB, "ana/old/00_workbench.ipynb": STUB, "ana/x/Final.ipynb": BARE}
    gather(tmp_path, files)
    mine = placed(tmp_path, "ana")
    assert set(mine) == {NAME, "00_workbench (2).ipynb", "00_workbench (3).ipynb"}
    assert _answers(nbformat.reads(mine[NAME].decode(), as_version=4), RELEASE) == 4


def test_what_cannot_be_repaired_is_placed_as_it_is(tmp_path):
    moe = (Path(__file__).parents[1] / "exercises/01_moe/01_moe.ipynb").read_bytes()
    files = {"ana/w.ipynb": WORK[:200], "ben/w.ipynb": moe, "cam/w.ipynb": b"", "dan/report.pdf": b"%PDF-1.7"}
    report = gather(tmp_path, files)
    told = {row["student"]: next(iter(row["files"].values())).get("problem", "") for row in report.students}
    assert (
        "damaged or cut off" in told["ana"] and "another module's" in told["ben"] and "empty" in told["cam"]
    )
    assert [placed(tmp_path, one)[NAME] for one in ("ana", "ben", "cam")] == [WORK[:200], moe, b""]
    results = {
        one: normalise(tmp_path / "class" / one / MODULE, MODULE, RELEASE) for one in students(tmp_path)
    }
    assert [one.status for one in results.values()] == ["unreadable"] * 3 + ["missing"]
    assert "only report.pdf" in results["dan"].reason


def test_a_tampered_notebook_is_left_to_grading_which_says_so(tmp_path):
    notebook = answered()
    next(cell for cell in notebook.cells if "owl.check(" in cell.source).source += "\nprint('all right')"
    gather(tmp_path, {"ana/w.ipynb": json.dumps(notebook).encode()})
    assert "tampered" in normalise(tmp_path / "class/ana" / MODULE, MODULE, RELEASE).flags


def test_names_that_grading_or_a_file_system_would_take_for_others(tmp_path):
    files = {"ana/w.ipynb": WORK, "ana/A.txt": b"1", "ana/x/a.txt": b"2", "ana/NOT_COLLECTED.txt": b"3"}
    files |= {"ana/aux.txt": b"4", "ana/.bashrc": b"5"}
    gather(tmp_path, files)
    names = {name.casefold() for name in placed(tmp_path, "ana")}
    assert len(names) == 6 and {"a.txt", "a (2).txt", "students-not_collected.txt"} <= names
    assert not names & {"aux.txt", ".bashrc"}


# Hostile archives: whatever else is in there, the honest student's file is placed, and nothing lies outside


def entry(name: str, content: bytes = b"x", **fields) -> bytes:
    """A zip with an honest file and one with these fields."""
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("ana/w.ipynb", WORK)
        info = zipfile.ZipInfo(name)
        info.filename, info.compress_type = name, fields.pop("compress_type", zipfile.ZIP_DEFLATED)
        for field, value in fields.items():
            setattr(info, field, value)
        packed.writestr(info, content)
    return into.getvalue()


def patched(name: str, where: int, what: bytes, both: bool = True, content: bytes = b"x" * 100) -> bytes:
    """A zip whose second entry has other bytes at a place of its central (and local) header."""
    data = bytearray(entry(name, content))
    central = data.rindex(b"PK\x01\x02")
    data[central + where : central + where + len(what)] = what
    if both:
        local = data.rindex(b"PK\x03\x04")
        data[local + where - 2 : local + where - 2 + len(what)] = what
    return bytes(data)


def overlapping() -> bytes:
    """Twenty entries that share the bytes of one, as the quoted-overlap bombs do."""
    zeros = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = zeros.compress(bytes(10**6)) + zeros.flush()
    sums = struct.pack("<III", zlib.crc32(bytes(10**6)), len(packed), 10**6)
    files = io.BytesIO()
    with zipfile.ZipFile(files, "w") as good:
        good.writestr("ana/w.ipynb", WORK)
        start = good.start_dir
        infos = [good.getinfo("ana/w.ipynb")]
    del infos
    data = files.getvalue()
    honest, central = data[:start], data[start : data.rindex(b"PK\x05\x06")]
    name = b"ben/b00.ipynb"
    body = honest + b"PK\x03\x04" + struct.pack("<HHHHH", 20, 0, 8, 0, 0) + sums + struct.pack("<HH", 13, 0)
    body += name + packed
    for n in range(20):
        central += b"PK\x01\x02" + struct.pack("<HHHHHH", 20, 20, 0, 8, 0, 0) + sums
        central += struct.pack("<HHHHHII", 13, 0, 0, 0, 0, 0, len(honest)) + b"ben/b%02d.ipynb" % n
    return body + central + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 21, 21, len(central), len(body), 0)


def bomb(megabytes: int = 40) -> bytes:
    return zipped({"w.ipynb": bytes(megabytes * 2**20)})


def handed_in(content: bytes, name: str = "w.zip") -> bytes:
    return zipped({"ana/w.ipynb": WORK, f"ben/{name}": content})


def nested(depth: int) -> bytes:
    data = WORK
    for n in range(depth):
        data = zipped({"w.ipynb" if n == 0 else "w.zip": data})
    return data


LINK = (stat.S_IFLNK | 0o777) << 16
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "a way up": (lambda: entry("../../evil.ipynb"), "has .. in its path"),
    "a way up and down": (lambda: entry("ben/../../../evil.ipynb"), "has .. in its path"),
    "a way up with backslashes": (lambda: entry("ben\\..\\..\\evil.ipynb"), "has .. in its path"),
    "an absolute path": (lambda: entry("/tmp/evil.ipynb"), "has an absolute path"),
    "a drive": (lambda: entry("C:\\evil.ipynb"), "has an absolute path"),
    "a drive's folder": (lambda: entry("c:evil.ipynb"), "has an absolute path"),
    "a server": (lambda: entry("\\\\server\\share\\evil.ipynb"), "has an absolute path"),
    "an escape sequence": (lambda: entry("ben/\x1b[2Jevil.ipynb"), "has control characters"),
    "a line break": (lambda: entry("ben/a\nNOT PLACED b.ipynb"), "has control characters"),
    "a null": (lambda: patched("ben/evil.ipynbXtxt", 46 + 14, b"\0", False), "has control characters"),
    "a huge name": (lambda: entry("ben/" + "x" * 300 + ".ipynb"), "has too long a name"),
    "a huge path": (lambda: entry("ben/" + "x/" * 600 + "w.ipynb"), "has too long a name"),
    "no name": (lambda: entry("./."), "has no name"),
    "an empty name": (lambda: patched("ben/w.ipynb", 46, b"\0", False), "has control characters"),
    "an empty name in a zip": (
        lambda: handed_in(patched("ben/w.ipynb", 46, b"\0", False)),
        "has control characters",
    ),
    "a link": (
        lambda: entry("ben/w.ipynb", b"/etc/passwd", create_system=3, external_attr=LINK),
        "is a link",
    ),
    "a link, says DOS": (
        lambda: entry("ben/w.ipynb", b"/etc/passwd", create_system=0, external_attr=LINK),
        "is a link",
    ),
    "a pipe": (
        lambda: entry("ben/w.ipynb", create_system=3, external_attr=(stat.S_IFIFO | 0o666) << 16),
        "is not a plain file",
    ),
    "a device": (
        lambda: entry("ben/w.ipynb", create_system=3, external_attr=(stat.S_IFCHR | 0o666) << 16),
        "is not a plain file",
    ),
    "an encrypted file": (lambda: patched("ben/w.ipynb", 8, b"\x01"), "is encrypted"),
    "a wrong checksum": (lambda: patched("ben/w.ipynb", 16, b"\0\0\0\0"), "is damaged"),
    "a size too small": (lambda: patched("ben/w.ipynb", 24, b"\x05\0\0\0"), "is damaged"),
    "a place outside": (lambda: patched("ben/w.ipynb", 42, b"\xff\xff\0\0", False), "is damaged"),
    "an unusual packing": (
        lambda: entry("ben/w.ipynb", WORK, compress_type=zipfile.ZIP_LZMA),
        "packed in an unusual way",
    ),
    "an unknown packing": (lambda: patched("ben/w.ipynb", 10, b"\x63"), "packed in an unusual way"),
    "a bomb": (lambda: entry("ben/w.ipynb", bytes(40 * 2**20)), "like a zip bomb"),
    "a bomb in a zip": (lambda: handed_in(bomb()), "like a zip bomb"),
    "entries that overlap": (overlapping, "shares its bytes with another entry"),
    "too many files": (
        lambda: handed_in(zipped({f"{n}.txt": b"" for n in range(1100)})),
        "has more than 1000 files",
    ),
    "zips in zips": (lambda: handed_in(nested(5)), "is a zip in 2 others"),
    "a damaged zip": (lambda: handed_in(zipped({"w.ipynb": WORK})[:-30]), "damaged or cut off"),
    "an empty zip": (lambda: handed_in(zipped({})), "is a zip without files"),
    "no zip": (lambda: handed_in(b"Rar!\x1a"), "is no zip archive"),
    "a way up in a zip": (lambda: handed_in(zipped({"../../../evil.ipynb": WORK})), "has .. in its path"),
    "a link in a zip": (
        lambda: handed_in(entry("w.txt", b"/etc/passwd", create_system=3, external_attr=LINK)),
        "is a link",
    ),
    "a notebook that is a zip": (lambda: handed_in(bomb(), "w.ipynb"), "like a zip bomb"),
    "nobody's file": (lambda: entry("00_workbench.ipynb", WORK), "does not say whose it is"),
    "a list among the folders": (lambda: entry("marks.csv"), "does not say whose it is"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archives(tmp_path, case):
    make, reason = HOSTILE[case]
    (root := tmp_path / "a" / "b").mkdir(parents=True)
    before = set(tmp_path.rglob("*"))
    report = gather(root, make())
    assert reason in reasons(report)
    assert placed(root, "ana") == {NAME: WORK}
    assert set(students(root)) <= {"ana", "ben"}
    new = set(tmp_path.rglob("*")) - before - {root / "download.zip", root / "class"}
    assert all((root / "class") in path.parents and not path.is_symlink() for path in new)
    assert all(path.is_dir() or stat.S_ISREG(path.lstat().st_mode) for path in new)
    assert sum(path.stat().st_size for path in new if path.is_file()) < 2**20
    assert all(line.isprintable() for line in reasons(report).split("\n"))
    if "ben" in students(root):
        mine = placed(root, "ben")
        assert NAME in mine or place.NOTE in mine


@pytest.mark.parametrize("where", [20, 24])
def test_a_header_with_too_large_a_size_is_not_believed(tmp_path, where):
    """The file is read to its real end, or refused, as newer versions of zipfile do."""
    report = gather(tmp_path, patched("ben/w.txt", where, b"\0\0\0\x70"))
    assert placed(tmp_path, "ana") == {NAME: WORK}
    if report.unplaced:
        assert "is damaged" in reasons(report) and set(placed(tmp_path, "ben")) == {place.NOTE}
    else:
        assert placed(tmp_path, "ben") == {"w.txt": b"x" * 100}


def test_bytes_changed_at_random_in_a_students_zip_harm_nobody_else(tmp_path):
    chance = random.Random(4711)
    good = zipped({"x/w.ipynb": WORK[:500], "y.txt": b"hi" * 50})
    for n in range(40):
        bad = bytearray(good)
        for _ in range(chance.choice([1, 2, 8])):
            bad[chance.randrange(len(bad))] = chance.randrange(256)
        (root := tmp_path / str(n)).mkdir()
        report = gather(root, {"ana/w.ipynb": STUB, "ben/w.zip": bytes(bad)})
        assert placed(root, "ana") == {NAME: STUB} and students(root) == ["ana", "ben"]
        assert "could not be understood" not in reasons(report)


def test_our_own_failure_is_one_students(tmp_path, monkeypatch):
    def failing(name: str) -> str:
        raise ZeroDivisionError(name) if name.startswith("odd") else KeyError(name)

    monkeypatch.setattr(place, "safe_name", failing)
    files = {"ana/w.ipynb": WORK, "ben/w.ipynb": WORK, "ben/odd.txt": b"1"}
    report = gather(tmp_path, files)
    assert placed(tmp_path, "ana") == {NAME: WORK}
    assert reasons(report).count("could not be understood (ZeroDivisionError)") == 2


def test_a_damaged_archive_is_said(tmp_path):
    for data in (zipped({"ana/w.ipynb": WORK})[:-40], b"<html>log in", b""):
        report = gather(tmp_path, data)
        assert "is no zip archive, or damaged or cut off" in reasons(report) and not students(tmp_path)


def test_files_called_alike_are_both_kept(tmp_path):
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w") as packed, pytest.warns(UserWarning, match="Duplicate name"):
        for content in (STUB, WORK):
            packed.writestr("ana/w.ipynb", content)
    assert gather(tmp_path, into.getvalue()).unplaced == []
    assert placed(tmp_path, "ana") == {NAME: WORK, "w.ipynb": STUB}


def test_one_students_files_have_a_limit_together(tmp_path, monkeypatch):
    monkeypatch.setattr(unpack, "MAX_STUDENT", 4 * len(WORK))
    files = {f"ana/{n}.bin": os.urandom(len(WORK)) for n in range(6)} | {"ben/w.ipynb": WORK}
    report = gather(tmp_path, files)
    assert reasons(report).count("is too much") == 2 and placed(tmp_path, "ben") == {NAME: WORK}
    monkeypatch.setattr(unpack, "MAX_FILE", 1000)
    assert "has more than 0 MiB" in reasons(gather(tmp_path, {"cam/w.ipynb": WORK}))
    monkeypatch.setattr(unpack.Budget.__init__, "__defaults__", (1000, 10**6))
    with pytest.raises(CourseError, match="collect it in parts"):
        gather(tmp_path, {"ben/w.ipynb": STUB})
    assert placed(tmp_path, "ben") == {NAME: WORK}


def test_links_and_pipes_in_a_folder(tmp_path):
    secret = tmp_path / "secret.ipynb"
    secret.write_bytes(WORK)
    folder = laid_out(tmp_path / "downloads", {"ana/w.ipynb": WORK})
    (folder / "ben").mkdir()
    (folder / "ben" / "w.ipynb").symlink_to(secret)
    (folder / "cam").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(folder / "ben" / "pipe.ipynb")
    report = gather(tmp_path, folder)
    assert reasons(report).count("is a link") == 2 and "pipe.ipynb is not a plain file" in reasons(report)
    assert placed(tmp_path, "ana") == {NAME: WORK} and set(placed(tmp_path, "ben")) == {place.NOTE}


def test_a_target_that_leads_elsewhere_is_refused(tmp_path):
    (elsewhere := tmp_path / "elsewhere").mkdir()
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / "ana").symlink_to(elsewhere)
    (tmp_path / "class" / "ben").write_text("a file")
    report = gather(tmp_path, {"ana/w.ipynb": WORK, "ben/w.ipynb": WORK, "cam/w.ipynb": WORK})
    assert "is a link" in reasons(report) and "is a file" in reasons(report)
    assert list(elsewhere.iterdir()) == [] and placed(tmp_path, "cam") == {NAME: WORK}


def test_the_target_may_lie_in_the_folder(tmp_path):
    laid_out(tmp_path, {"ana/w.ipynb": WORK})
    gather(tmp_path, tmp_path)
    assert gather(tmp_path, tmp_path).students[0]["state"] == "same"
    assert students(tmp_path) == ["ana"]


# A second call


def states(report: Report) -> dict[str, str]:
    return {row["student"]: row["state"] for row in report.students}


def test_a_newer_archive_replaces_only_what_changed(tmp_path):
    old = {"ana/w.ipynb": WORK, "ana/data.csv": b"1", "ben/w.ipynb": WORK, "cam/w.ipynb": WORK}
    assert set(states(gather(tmp_path, old)).values()) == {"new"}
    own = laid_out(
        tmp_path / "class", {f"ana/{MODULE}/my notes.txt": b"mine", f"ben/{MODULE}/{NAME}": b"mended"}
    )
    new = {"ana/w.ipynb": STUB, "ben/w.ipynb": WORK, "dan/w.ipynb": BARE}
    assert states(gather(tmp_path, new)) == {"ana": "changed", "ben": "same", "dan": "new"}
    assert placed(tmp_path, "ana") == {NAME: STUB, "my notes.txt": b"mine"}
    assert placed(tmp_path, "ben") == {NAME: b"mended"}  # by hand, after it was collected
    assert placed(tmp_path, "cam") == {NAME: WORK}
    (own / "ben" / MODULE / NAME).unlink()
    assert states(gather(tmp_path, new))["ben"] != "same" and placed(tmp_path, "ben") == {NAME: WORK}


def test_a_student_who_gets_another_id_gets_no_second_folder(tmp_path):
    gather(tmp_path, TWO["canvas"])
    report = gather(tmp_path, TWO["canvas"], ROSTERS["own list"])
    assert students(tmp_path) == ["17", "18"] and "s1 was collected as 17 before" in reasons(report)
    (tmp_path / "class" / "17").rename(tmp_path / "class" / "s1")
    report = gather(tmp_path, TWO["canvas"], ROSTERS["own list"])
    assert students(tmp_path) == ["18", "s1"] and len(report.unplaced) == 1


def test_a_time_stays_with_its_files_and_goes_with_them(tmp_path):
    times = "id,submitted_at\nana,2026-06-10T12:14:00Z\n"
    gather(tmp_path, {"ana/w.ipynb": WORK}, times=times)
    assert states(gather(tmp_path, {"ana/w.ipynb": WORK})) == {"ana": "same"}
    assert "timestamp.txt" in placed(tmp_path, "ana")
    (tmp_path / "class" / "ana" / MODULE / NAME).write_bytes(b"mended")
    later = times.replace("12:14", "13:14")
    assert states(gather(tmp_path, {"ana/w.ipynb": WORK}, times=later)) == {"ana": "changed"}
    assert b"13:14" in placed(tmp_path, "ana")["timestamp.txt"] and placed(tmp_path, "ana")[NAME] == b"mended"
    assert states(gather(tmp_path, {"ana/w.ipynb": STUB})) == {"ana": "changed"}
    assert "timestamp.txt" not in placed(tmp_path, "ana")
    laid_out(tmp_path / "class", {f"ben/{MODULE}/{NAME}": WORK, f"ben/{MODULE}/timestamp.txt": b"nbgrader's"})
    assert states(gather(tmp_path, {"ben/w.ipynb": WORK})) == {"ben": "same"}
    assert placed(tmp_path, "ben")["timestamp.txt"] == b"nbgrader's"


def dying(after: int) -> Callable[[str, Path], None]:
    """os.replace that ends the program in place of the rename number `after`."""
    rename, count = os.replace, itertools.count()

    def replace(source: str, target: Path) -> None:
        if next(count) == after:
            raise SystemExit("killed")
        rename(source, target)

    return replace


def test_a_kill_at_any_write_leaves_whole_files_and_the_next_call_completes(tmp_path, monkeypatch):
    """Killed before each rename in turn, over an older collection: every file is the old or the new one."""
    old = {"ana/w.ipynb": WORK, "ana/a.csv": b"1", "ben/w.ipynb": WORK}
    new = {"ana/w.ipynb": BARE, "ana/b.csv": b"2", "ben/w.ipynb": STUB, "cam/w.ipynb": WORK, NAME: WORK}
    (there := tmp_path / "undisturbed").mkdir()
    gather(there, old)
    before = tree(there)
    gather(there, new)
    after = tree(there)
    for killed in range(9):  # renames: 4 notebooks and copies, 1 file, 3 memories, and none at the last
        (root := tmp_path / str(killed)).mkdir()
        gather(root, old)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", dying(killed))
            if killed == 8:
                gather(root, new)
            else:
                with pytest.raises(SystemExit):
                    gather(root, new)
        assert set(tree(root).items()) <= {*before.items(), *after.items()}
        assert all(f"class/{one}/{MODULE}/{NAME}" in tree(root) for one in ("ana", "ben"))
        gather(root, new)
        assert tree(root) == after


def test_what_a_killed_call_was_writing_goes(tmp_path):
    (state := tmp_path / "class" / ".collected" / MODULE).mkdir(parents=True)
    (state / ".part-x").write_text("half")
    gather(tmp_path, {"ana/w.ipynb": WORK})
    assert sorted(path.name for path in state.iterdir()) == ["ana.json"]


# The command, and a class from Colab and VS Code


def colab(notebook: NotebookNode) -> bytes:
    """As Colab downloads it: ids in the metadata, its own keys, an older nbformat, nothing of nbgrader's."""
    cells = []
    for n, cell in enumerate(notebook.cells):
        info = {"user": {"displayName": "Somebody", "userId": "017"}, "user_tz": -120, "timestamp": 1}
        meta = (
            {"id": f"cELL{n:08d}", "executionInfo": info}
            if cell.cell_type == "code"
            else {"id": f"tEXT{n:08d}"}
        )
        outputs = {"outputs": [], "execution_count": n} if cell.cell_type == "code" else {}
        source = cell.source.splitlines(keepends=True)
        cells.append({"cell_type": cell.cell_type, "metadata": meta, "source": source} | outputs)
    meta = {"colab": {"provenance": []}, "kernelspec": {"name": "python3", "display_name": "Python 3"}}
    return json.dumps({"nbformat": 4, "nbformat_minor": 0, "metadata": meta, "cells": cells}).encode()


def vscode(notebook: NotebookNode) -> bytes:
    """As VS Code saves it: ids of its own, a language in each cell; the checks' metadata was cut away."""
    notebook = copy.deepcopy(notebook)
    for n, cell in enumerate(notebook.cells):
        cell.id = f"{n:08x}"
        cell.metadata["vscode"] = {"languageId": "python"}
        if "owl.check(" in cell.source:
            del cell.metadata["nbgrader"]
    notebook.metadata["language_info"] = {"name": "python", "version": "3.12.1"}
    return json.dumps(notebook, indent=1).encode()


def test_a_class_from_colab_and_vs_code_comes_to_full_answers(tmp_path, capsys):
    folder = laid_out(
        tmp_path / "downloads",
        {
            "s01/Copy of 00_workbench.ipynb": colab(answered()),
            "s02_00_workbench (1).ipynb": colab(answered()),
            "s03/00_workbench.ipynb": vscode(answered()),
            "Kopie von 00_workbench - s04.ipynb": vscode(answered()),
            "s05.zip": zipped({"00_workbench/.ipynb_checkpoints/x-checkpoint.ipynb": STUB, "w.ipynb": WORK}),
        },
    )
    command = ["collect", str(folder), MODULE, "--into", str(tmp_path / "class")]
    assert cli.main([*command, "--json", str(tmp_path / "c.json")]) == 0
    assert "5 new, 0 changed, 0 same; 0 files not placed" in capsys.readouterr().out
    assert students(tmp_path) == ["s01", "s02", "s03", "s04", "s05"]
    for student in students(tmp_path):
        path = tmp_path / "class" / student / MODULE / NAME
        cells = nbformat.read(path, as_version=4).cells
        assert [cell.metadata["nbgrader"] for cell in cells if "nbgrader" in cell.metadata] == META
        result = normalise(path.parent, MODULE, RELEASE)
        assert (result.status, _answers(result.notebook, RELEASE)) == ("", 4)
        assert [cell.source for cell in result.notebook.cells] == [cell.source for cell in answered().cells]
    told = json.loads((tmp_path / "c.json").read_text())
    assert [row["files"][NAME]["repaired"] for row in told["students"]] == [True] * 4 + [False]
    assert cli.main(command) == 0
    assert "0 new, 0 changed, 5 same" in capsys.readouterr().out


def test_the_command_lists_what_is_not_placed(tmp_path):
    """From the shell: 1 if a file could not be placed, which is listed with a copy."""
    archive, file = tmp_path / "download.zip", tmp_path / "c.json"
    archive.write_bytes(zipped({"ana/w.ipynb": WORK, "00_workbench.ipynb": WORK}))
    words = ["collect", str(archive), MODULE, "--into", str(tmp_path / "class"), "--json", str(file)]
    done = subprocess.run(
        [sys.executable, "-m", "openweightlab.cli", *words], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1 and "NOT PLACED 00_workbench.ipynb does not say whose it is" in done.stdout
    row = json.loads(file.read_text())["unplaced"][0]
    assert Path(row["copy"]).read_bytes() == WORK and placed(tmp_path, "ana") == {NAME: WORK}
    assert json.loads(file.read_text())["counts"] == {"new": 1, "changed": 0, "same": 0, "unplaced": 1}


def test_wrong_calls_are_told_and_place_nothing(tmp_path, capsys):
    archive, lists = tmp_path / "download.zip", tmp_path / "list.csv"
    archive.write_bytes(zipped({"ana/w.ipynb": WORK}))
    lists.write_text("id,submitted_at\nana,2026-06-10 12:14:00\n")
    for words, why in [
        ([str(tmp_path / "none.zip"), MODULE], "There is no"),
        ([str(archive), "99_none"], "There is no module"),
        ([str(archive), MODULE, "--roster", str(archive)], "can't be read as CSV"),
        (
            [str(archive), MODULE, "--late-from", str(lists)],
            "has no time zone; say which one with --timezone",
        ),
        ([str(archive), MODULE, "--json", str(tmp_path / "none" / "c.json")], "can't be written"),
    ]:
        assert cli.main(["collect", *words, "--into", str(tmp_path / "class")]) == 2
        assert why in capsys.readouterr().err
    assert not (tmp_path / "class").exists()
    assert cli.main(["collect", str(archive), MODULE, "--into", str(archive)]) == 2
