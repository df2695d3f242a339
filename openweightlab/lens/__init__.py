"""Seeing: figures, cards, self-checks, predictions and widgets of the lessons."""

from openweightlab.lens.board import claims_board
from openweightlab.lens.experts import budget, budget_parts, curves, heat_table, roofline
from openweightlab.lens.figures import COLOURS, histogram, line, show, style
from openweightlab.lens.nexttoken import chat_ids, coast_prompts, distribution, next_logits, next_token
from openweightlab.lens.predictions import predict, reveal
from openweightlab.lens.quizzes import quiz
from openweightlab.lens.routingmap import coast_texts, routing_map
from openweightlab.lens.tokens import piece, show_tokens

__all__ = [
    "COLOURS",
    "budget",
    "budget_parts",
    "chat_ids",
    "claims_board",
    "coast_prompts",
    "coast_texts",
    "curves",
    "distribution",
    "heat_table",
    "histogram",
    "line",
    "next_logits",
    "next_token",
    "piece",
    "predict",
    "quiz",
    "reveal",
    "roofline",
    "routing_map",
    "show",
    "show_tokens",
    "style",
]
