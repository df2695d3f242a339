"""HTML pages of the kit: their templates, and what a browser is told never to do with them."""

from collections.abc import Callable

from jinja2 import Environment, PackageLoader, StrictUndefined

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:"


def templates(**filters: Callable[..., object]) -> Environment:
    """The templates of openweightlab/data; whatever is put into one is escaped."""
    loader = PackageLoader("openweightlab", "data")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= filters
    environment.globals["policy"] = POLICY
    return environment
