"""nbgrader's settings for this course: which folder is which, what students see, how answers are judged."""

c = get_config()  # type: ignore[name-defined]  # noqa: F821

# Folders. nbgrader calls them source, release, submitted, autograded and feedback.
c.CourseDirectory.course_id = "openweightlab"
c.CourseDirectory.source_directory = "solutions"
c.CourseDirectory.release_directory = "exercises"
c.CourseDirectory.submitted_directory = "submitted"
c.CourseDirectory.autograded_directory = "autograded"
c.CourseDirectory.feedback_directory = "feedback"

# What stands in an exercise where the solution was.
c.ClearSolutions.code_stub = {
    "python": 'raise NotImplementedError("write your answer here, in place of this line")'
}
c.ClearSolutions.text_stub = "*Write your answer here, in place of this line.*"

# Autograding. Our judge takes the place of nbgrader's Execute.
