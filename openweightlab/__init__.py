"""Open-Weight Lab: what learners import as `owl`.

Everything public is listed in `__all__` and loaded on first use, so that `import openweightlab` is quick.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {  # public name -> module that defines it
    "load": "models",
    "tier": "models",
    "check": "check",
    "predict": "lens.predictions",
    "reveal": "lens.predictions",
    "quiz": "lens.quizzes",
    "next_token": "lens.nexttoken",
    "routing_map": "lens.routingmap",
    "plan": "memory",
    "claims": "data.claims",
    "claims_board": "lens.board",
}
_PARTS = ("lens", "measure", "atlas")  # sub-packages that lessons call by name: owl.lens.show(…)
__all__ = sorted([*_HOME, *_PARTS])


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(f"openweightlab.{_HOME[name]}"), name)
        globals()[name] = value  # importing openweightlab.check leaves the module under this name
        return value
    if name in _PARTS:
        return import_module(f"openweightlab.{name}")
    raise AttributeError(f"openweightlab has no {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
