"""nbgrader's settings for this course: which folder is which, what students see, how answers are judged."""

import os
import sysconfig

from nbgrader.converters import Autograde, GenerateAssignment
from nbgrader.preprocessors import Execute, SaveCells
from nbgrader.validator import Validator

from openweightlab.grading.autograde import install
from openweightlab.grading.feedback import SafeHTMLExporter, clean_markdown
from openweightlab.grading.gradeids import UseOwlCheck, allow_dots
from openweightlab.grading.keepmarks import KeepMarks
from openweightlab.grading.preprocessor import Judge

c = get_config()  # type: ignore[name-defined]  # noqa: F821

# nbgrader starts `alembic` by name when it makes a gradebook: find it where no environment is activated, too.
os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])

# Folders. nbgrader calls the first two source and release.
c.CourseDirectory.course_id = "openweightlab"
c.CourseDirectory.source_directory = "solutions"
c.CourseDirectory.release_directory = "exercises"
c.CourseDirectory.submitted_directory = "submitted"
c.CourseDirectory.autograded_directory = "autograded"
c.CourseDirectory.feedback_directory = "feedback"

# What students get. nbgrader's own check allows no dot in a grade_id, and our questions are numbered Q1.3.
# nbgrader's own SaveCells refuses other questions once there are submissions; KeepMarks takes them.
c.GenerateAssignment.preprocessors = allow_dots(
    [KeepMarks if step is SaveCells else step for step in GenerateAssignment.preprocessors.default()]
)
Validator.preprocessors.tag(config=True)  # nbgrader forgot to
c.Validator.preprocessors = [UseOwlCheck, *allow_dots(Validator.preprocessors.default())]
c.ClearSolutions.code_stub = {
    "python": 'raise NotImplementedError("write your answer here, in place of this line")'
}
c.ClearSolutions.text_stub = "*Write your answer here, in place of this line.*"

# Autograding: `install` makes "autograde", here and in formgrader, take renamed, nested, damaged and changed
# submissions, and score them by the judge. Judge has its settings, and executes, as nbgrader does,
# assignments without a judge, where the student's kernel scores itself.
c.Autograde.sanitize_preprocessors = allow_dots(Autograde.sanitize_preprocessors.default())
c.Autograde.autograde_preprocessors = allow_dots(
    [Judge if step is Execute else step for step in Autograde.autograde_preprocessors.default()]
)
install()

# Feedback and formgrader: nothing that a student wrote runs in a reader's browser.
c.GenerateFeedback.exporter_class = SafeHTMLExporter
c.HTMLExporter.sanitize_html = True
c.HTMLExporter.filters = {"markdown2html": clean_markdown}
