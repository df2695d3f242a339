"""The command `owl`: one sub-command a job, each loaded only when it is called."""

import argparse
import importlib
import sys


def build_parser() -> argparse.ArgumentParser:
    """Every command with its arguments; `run` names the function that does it, as "module:function"."""
    parser = argparse.ArgumentParser(prog="owl", description="Open-Weight Lab")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: str, help: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help)
        sub.set_defaults(run=run)
        return sub

    lab = command("lab", "openweightlab.lab:main", "start JupyterLab on the first lesson")
    lab.add_argument("--smoke", action="store_true", help="start, run the first lesson, stop")
    lab.add_argument("--instructor", action="store_true", help="with nbgrader's formgrader and course tools")

    doctor = command("doctor", "openweightlab.doctor:main", "what this machine has and what it can run")
    doctor.add_argument("--json", action="store_true")

    notebooks = command("notebooks", "openweightlab.notebooks:main", "build the notebooks from authoring/")
    notebooks.add_argument("--check", action="store_true", help="only say which built notebook differs")
    notebooks.add_argument("--diff", action="store_true", help="the same, and show how")

    check = command(
        "check", "openweightlab.grading.selfcheck:main", "run a notebook against its visible tests"
    )
    check.add_argument("notebook")
    check.add_argument("--json", action="store_true")

    grade = command("grade", "openweightlab.grading.engine:main", "grade a folder of submissions")
    grade.add_argument("module")
    grade.add_argument("--submissions", required=True, metavar="DIR", help="one folder a student")
    grade.add_argument("--json", required=True, metavar="FILE", help="gets one row a submission")
    grade.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="at a time; each takes a core and 1 GB (default 1)"
    )
    grade.add_argument(
        "--scheduler", metavar="ADDRESS", help="run them on this Dask cluster, such as tcp://…"
    )
    grade.add_argument("--gradebook", metavar="URL", help="in place of the course's gradebook.db")
    grade.add_argument("--no-sandbox", action="store_true", help="run students' code unprotected")
    grade.add_argument("--force", action="store_true", help="run again what has a record, too")

    collect = command(
        "collect", "openweightlab.grading.collect:main", "put a platform's download into grading's layout"
    )
    collect.add_argument("archive", help="Canvas's or Moodle's zip, or a folder of downloads")
    collect.add_argument("module")
    collect.add_argument("--into", required=True, metavar="DIR", help="gets one folder a student")
    collect.add_argument("--roster", metavar="CSV", help="the students' ids: id,name,email or an export")
    collect.add_argument("--late-from", metavar="CSV", help="the platform's times of handing in")
    collect.add_argument("--timezone", metavar="ZONE", help="of times without one, such as Europe/Madrid")
    collect.add_argument("--json", metavar="FILE", help="gets a row for each student and unplaced file")

    report = command("report", "openweightlab.grading.report:main", "marks, item analysis, exports of marks")
    report.add_argument("module")
    report.add_argument("--html", metavar="FILE", help="gets the report as a page")
    report.add_argument("--csv", metavar="FILE", help="gets the marks")
    report.add_argument("--format", choices=["plain", "canvas", "moodle"], default="plain", help="of --csv")
    report.add_argument("--all", action="store_true", help="in canvas and moodle: marks not final, too")
    report.add_argument("--column", default="", help='Canvas\'s title of the mark, as in "The bench (1234)"')
    report.add_argument("--student", metavar="NAME", help="only what this student's mark rests on")
    report.add_argument("--submissions", metavar="DIR", help="where students handed in, if not in submitted/")
    report.add_argument("--gradebook", metavar="URL", help="in place of the course's gradebook.db")
    report.add_argument("--roster", metavar="CSV", help="the class's list, as for owl collect")

    atlas = command(
        "atlas", "openweightlab.atlas_table:main", "real models: sizes, memory, licences, sources"
    )
    atlas.add_argument("names", nargs="*", metavar="NAME", help="show these models in full")
    atlas.add_argument("--json", action="store_true")

    pocket = command("pocket", "openweightlab.pocket.command:main", "verify or retrain the Pocket models")
    actions = pocket.add_subparsers(dest="action", required=True)
    verify = actions.add_parser("verify", help="measure the shipped models' planted properties")
    verify.add_argument("--json", action="store_true")
    verify.add_argument("--cards", action="store_true", help="write the figures into the shipped model cards")
    train = actions.add_parser("train", help="retrain one model from its recipe")
    train.add_argument("name")
    train.add_argument("--into", help="folder for checkpoint and result (default .owl/pocket/NAME)")
    train.add_argument("--towns", type=int, help="how many towns the coast has")
    train.add_argument("--world-seed", type=int, help="another number makes another coast")
    train.add_argument("--steps", type=int)
    train.add_argument("--ship", action="store_true", help="replace the kit's own weights")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    args = build_parser().parse_args(argv)
    module, function = args.run.split(":")
    return int(getattr(importlib.import_module(module), function)(args) or 0)


if __name__ == "__main__":
    sys.exit(main())
