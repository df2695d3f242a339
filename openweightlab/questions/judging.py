"""Small parts that questions compare results with; they take plain data of any kind and trust no type."""

import math

from . import Plain, Verdict

OK = Verdict(True)


def is_tensor(value: Plain) -> bool:
    """Whether a plain value is a tensor, without importing torch for one that is not."""
    return type(value).__module__ == "torch" and type(value).__name__ == "Tensor"


def as_number(value: Plain) -> float | int | None:
    """The number that a result stands for, or None; a 0-d tensor is its element, True and False are none.

    >>> as_number(3), as_number(True), as_number("3"), as_number(float("nan"))
    (3, None, None, None)
    """
    if is_tensor(value) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def close(expected: float, got: float, *, relative: float, absolute: float = 0.0) -> bool:
    """Whether two finite numbers agree within a relative or an absolute tolerance."""
    return math.isclose(expected, got, rel_tol=relative, abs_tol=absolute)


def same_values(expected: Plain, got: Plain, *, relative: float, absolute: float) -> bool:
    """Whether two tensors have one shape and finite values within tolerance, whatever their dtypes."""
    import torch

    if not is_tensor(got) or got.shape != expected.shape or not bool(torch.isfinite(got.double()).all()):
        return False
    return bool(torch.allclose(got.double(), expected.double(), rtol=relative, atol=absolute))


def show(value: Plain, width: int = 300) -> str:
    """A value in a few words, for a message.

    >>> show(1234567), show(0.5), show({"a": []}), show(None)
    ('1,234,567', '0.5', "{'a': []}", 'None')
    """
    if is_tensor(value) and value.ndim:
        kind = str(value.dtype).removeprefix("torch.")
        first = [float(f"{number:.5g}") for number in value.flatten()[:4].tolist()]
        return f"a tensor of shape {list(value.shape)} ({kind}), beginning {first}"
    if is_tensor(value):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        text = repr(value)
    else:
        text = f"{value:,}" if isinstance(value, int) and abs(value) < 10**18 else f"{value:.10g}"
    return text if len(text) <= width else text[: width - 1] + "…"


def no(what: str, cause: str = "") -> Verdict:
    """A failed case: `what` came (it may name values) and the likeliest cause (it may not)."""
    return Verdict(False, f"{what} {cause}".strip(), cause)


def compare_number(
    expected: Plain, got: Plain, relative: float, causes: dict[str, str], mistaken: float | None = None
) -> Verdict:
    """Judge a number by `expected["value"]`; one of `expected["mistakes"]` is explained by its cause.

    `mistaken` is the relative tolerance for the mistakes, where it is another one.
    """
    number, right = as_number(got), expected["value"]
    if number is None:
        return no(f"Expected a number, got {show(got)}.", "The result is not a finite number.")
    if close(right, number, relative=relative):
        return OK
    what = f"Expected {show(right)}, got {show(number)}."
    for mistake, value in expected["mistakes"].items():
        if close(value, number, relative=relative if mistaken is None else mistaken):
            return no(what, causes[mistake])
    return no(what)
