"""nbgrader's settings for this course: which folder is which, what students see, how answers are judged."""

import os
import sysconfig

from nbgrader.converters import GenerateAssignment

from openweightlab.grading.gradeids import allow_dots

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
c.GenerateAssignment.preprocessors = allow_dots(GenerateAssignment.preprocessors.default())
c.ClearSolutions.code_stub = {
    "python": 'raise NotImplementedError("write your answer here, in place of this line")'
}
c.ClearSolutions.text_stub = "*Write your answer here, in place of this line.*"

# Autograding: our judge takes the place of nbgrader's Execute.
