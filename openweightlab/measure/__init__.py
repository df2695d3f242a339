"""Measuring: what lessons call on models and their files. No answer to a graded question is in here."""

from openweightlab.measure.files import tensors_in
from openweightlab.measure.replies import exact_share, replies

__all__ = ["exact_share", "replies", "tensors_in"]
