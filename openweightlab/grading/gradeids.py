"""nbgrader's checks of a notebook, fitted to this course's question numbers and check cells."""

from copy import deepcopy
from typing import Any

from nbformat import NotebookNode
from nbgrader.preprocessors import CheckCellMetadata, NbGraderPreprocessor


class CheckGradeIds(CheckCellMetadata):
    """CheckCellMetadata, which takes letters, digits, `_` and `-` in a grade_id, for ids such as `Q1.3`.

    Takes CheckCellMetadata's place in nbgrader_config.py. The stock check runs on a copy with other names,
    so everything else that it finds (an id used twice, metadata of the wrong kind) is still found.
    """

    def preprocess(self, nb: NotebookNode, resources: dict[str, Any]) -> tuple[NotebookNode, dict[str, Any]]:
        copy = deepcopy(nb)
        for cell in copy.cells:
            settings = cell.metadata.get("nbgrader", {})
            if isinstance(settings.get("grade_id"), str):
                settings["grade_id"] = settings["grade_id"].replace(".", "_dot_")
        super().preprocess(copy, resources)
        return nb, resources


class UseOwlCheck(NbGraderPreprocessor):
    """Stops `nbgrader validate`, which takes "no error" for a pass, where `owl.check` raises none."""

    def preprocess(self, nb: NotebookNode, resources: dict[str, Any]) -> tuple[NotebookNode, dict[str, Any]]:
        if any(cell.source.startswith("owl.check(") for cell in nb.cells):
            raise ValueError(
                "nbgrader validate cannot tell how this notebook does: call `owl check NOTEBOOK`"
            )
        return nb, resources


def allow_dots(preprocessors: list[type]) -> list[type]:
    """A list of nbgrader preprocessors with CheckGradeIds in CheckCellMetadata's place."""
    return [CheckGradeIds if entry is CheckCellMetadata else entry for entry in preprocessors]
