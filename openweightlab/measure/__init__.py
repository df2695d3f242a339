"""Measuring: what lessons call on models and their files. No answer to a graded question is in here."""

from openweightlab.measure.balance import train_router
from openweightlab.measure.files import tensors_in
from openweightlab.measure.replies import exact_share, replies
from openweightlab.measure.routing import Routed, capture, census, chat_tokens, entering, information
from openweightlab.measure.speed import bandwidth, fastest, one_core, peak

__all__ = [
    "Routed",
    "bandwidth",
    "capture",
    "census",
    "chat_tokens",
    "entering",
    "exact_share",
    "fastest",
    "information",
    "one_core",
    "peak",
    "replies",
    "tensors_in",
    "train_router",
]
