"""nbgrader with a course's own settings, for commands that nbgrader itself doesn't have."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nbgrader.apps import NbGrader
from sqlalchemy.exc import SAWarning

from .course import Course


@contextmanager
def in_course(
    course: Course, module: str, *, submissions: Path | None = None, url: str | None = None
) -> Iterator[NbGrader]:
    """nbgrader, quiet, as nbgrader_config.py sets it up; the course's folder is the current one meanwhile.

    Args:
        submissions: where students handed in, if not where the settings say.
        url: the gradebook, if not the one of the settings.
    """
    before = os.getcwd()
    os.chdir(course.root)
    warnings.filterwarnings("ignore", category=SAWarning, module="nbgrader")
    app = NbGrader(log_level=logging.CRITICAL)
    try:
        app.initialize([], root=str(course.root))
        app.log_level = logging.CRITICAL
        app.coursedir.assignment_id = module
        if submissions:
            app.coursedir.submitted_directory = str(submissions)
        if url:
            app.coursedir.db_url = url
        yield app
    finally:
        os.chdir(before)
