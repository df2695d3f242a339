"""HTML pages of the kit: their templates, and what a browser is told never to do with them."""

import re
from collections.abc import Callable

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:"


def templates(**filters: Callable[..., object]) -> Environment:
    """The templates of openweightlab/data; whatever is put into one is escaped."""
    loader = PackageLoader("openweightlab", "data")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"words": words, **filters}
    environment.globals["policy"] = POLICY
    return environment


def words(text: str) -> Markup:
    """Plain text as HTML: `code` between backticks, *emphasis* between asterisks.

    >>> words("*Mind* 2**8 < 2**9 in your line `return <a> * b * c`.")
    Markup('<em>Mind</em> 2**8 &lt; 2**9 in your line <code>return &lt;a&gt; * b * c</code>.')
    """
    return Markup("").join(
        Markup("<code>{}</code>").format(part[1:-1])
        if part.startswith("`") and part.endswith("`") and len(part) > 2
        else Markup(re.sub(r"(?<![\w*])\*(\S|\S[^*]*\S)\*(?![\w*])", r"<em>\1</em>", str(escape(part))))
        for part in re.split(r"(`[^`]+`)", text)
    )
