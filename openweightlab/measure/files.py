"""What lies in a weights file, read from its header alone."""

import math
from pathlib import Path

import pandas as pd
from safetensors import safe_open

BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I64": 8,
    "I32": 4,
    "I8": 1,
    "U8": 1,
}


def tensors_in(path: str | Path) -> pd.DataFrame:
    """One row per tensor of a safetensors file: name, shape, dtype, numbers, bytes. No weight is loaded.

    Raises FileNotFoundError where there is no such file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no weights file at {path}")
    rows = []
    with safe_open(path, framework="pt") as weights:
        for name in weights.keys():  # noqa: SIM118 (safe_open is no dict)
            part = weights.get_slice(name)
            shape, dtype = part.get_shape(), part.get_dtype()
            numbers = math.prod(shape)
            rows.append((name, tuple(shape), dtype, numbers, numbers * BYTES[dtype]))
    return pd.DataFrame(rows, columns=["name", "shape", "dtype", "numbers", "bytes"])
