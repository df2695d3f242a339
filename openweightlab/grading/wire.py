"""Plain data between the learner's process and the judge: JSON and a safetensors blob, never pickle.

A frame is two lengths (4 bytes each, big-endian), the header, the blob. The receiver trusts neither
lengths nor types.
"""

import json
import socket
import struct
import sys
import time
from typing import Any

from ..questions import Plain
from ..questions.judging import is_tensor

MAX_HEADER = 2**22
MAX_BLOB = 2**26
MAX_DEPTH = 12
MAX_NODES = 200_000
MAX_TENSORS = 256
DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
_LENGTHS = struct.Struct(">II")
_TENSOR = "$tensor"


class WireError(ValueError):
    """Data that may not cross: too large, too deep, of a kind that is not plain, or a broken frame."""


def flatten(value: Any, depth: int = 0) -> Plain:
    """A result as plain data: subclasses, tuples, numpy values become the plain thing; the rest is refused.

    Raises:
        WireError: a value that is not plain, nested too deep, or a dict key that is no string.

    >>> flatten({"a": (1, 2.5, None)})
    {'a': [1, 2.5, None]}
    """
    if depth > MAX_DEPTH:
        raise WireError(f"the result is nested more than {MAX_DEPTH} deep")
    if value is None or type(value) in (bool, int, float, str):
        return value
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy and isinstance(value, numpy.generic):
        return flatten(value.item(), depth + 1)
    if torch and isinstance(value, torch.Tensor):
        return _flatten_tensor(value)
    if numpy and isinstance(value, numpy.ndarray):
        return _flatten_array(value)
    if isinstance(value, int):
        return int.__add__(value, 0)
    if isinstance(value, float):
        return float.__add__(value, 0.0)
    if isinstance(value, str):
        return str.__add__(value, "")
    if isinstance(value, list | tuple):
        return [flatten(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {_key(key): flatten(item, depth + 1) for key, item in value.items()}
    raise WireError(f"a {type(value).__name__} came; expected numbers, strings, lists, dicts or tensors")


def _key(key: Any) -> str:
    if not isinstance(key, str) or key.startswith("$"):
        raise WireError(f"a dict came with the key {key!r:.60}; keys must be strings, not beginning with $")
    return str.__add__(key, "")


def _flatten_tensor(tensor: Any) -> Any:
    import torch

    name = str(tensor.dtype).removeprefix("torch.")
    if name not in DTYPES or tensor.layout != torch.strided or tensor.is_quantized:
        raise WireError(f"a tensor of dtype {name} came; expected one of {', '.join(DTYPES)}")
    plain = torch.Tensor.detach(tensor).as_subclass(torch.Tensor)  # type: ignore[arg-type]
    return plain.to("cpu", copy=True).contiguous()


def _flatten_array(array: Any) -> Any:
    import torch

    if array.dtype.name not in DTYPES:
        raise WireError(f"an array of dtype {array.dtype.name} came; expected one of {', '.join(DTYPES)}")
    return torch.from_numpy(array.copy())


def pack(value: Plain) -> bytes:
    """One frame that holds a plain value.

    Raises:
        WireError: it is larger than a frame may be.
    """
    tensors: dict[str, Any] = {}
    try:
        header = json.dumps(to_json(value, tensors)).encode()
    except (ValueError, RecursionError) as error:
        raise WireError(f"the result can't be written: {error}") from None
    blob = b""
    if tensors:
        if sum(tensor.nbytes for tensor in tensors.values()) > MAX_BLOB:
            raise WireError(f"the result's tensors take more than {MAX_BLOB} bytes")
        from safetensors.torch import save

        blob = save(tensors)
    if len(header) > MAX_HEADER or len(blob) > MAX_BLOB + 2**16:
        raise WireError("the result is too large")
    return _LENGTHS.pack(len(header), len(blob)) + header + blob


def read(frame: bytes, trusted: bool = False) -> Plain:
    """The value of a whole frame, as `pack` made it; a trusted one may have any number of parts.

    Raises:
        WireError: it is cut off or out of order.

    >>> read(pack({"a": [1, None]}))
    {'a': [1, None]}
    """
    if len(frame) < _LENGTHS.size:
        raise WireError("the frame is cut off")
    n_header, n_blob = _LENGTHS.unpack(frame[: _LENGTHS.size])
    body = frame[_LENGTHS.size :]
    if len(body) != n_header + n_blob:
        raise WireError("the frame is cut off")
    return unpack(body[:n_header], body[n_header:], trusted)


def to_json(value: Plain, tensors: dict[str, Any]) -> Any:
    """Plain data with {"$tensor": name} for each tensor; the tensors themselves are put into `tensors`."""
    if is_tensor(value):
        name = str(len(tensors))
        tensors[name] = value.detach().clone().contiguous()
        return {_TENSOR: name}
    if isinstance(value, list | tuple):
        return [to_json(item, tensors) for item in value]
    if isinstance(value, dict):
        return {key: to_json(item, tensors) for key, item in value.items()}
    return value


def unpack(header: bytes, blob: bytes, trusted: bool = False) -> Plain:
    """The plain value of a frame's two parts; trusted ones may have any number of parts.

    Raises:
        WireError: anything about them is out of order.
    """
    tensors = _load_tensors(blob, trusted) if blob else {}
    try:
        tree = json.loads(header)
    except (ValueError, RecursionError):
        raise WireError("the header is not JSON") from None
    return from_json(tree, tensors, [sys.maxsize if trusted else MAX_NODES])


def from_json(tree: Any, tensors: dict[str, Any], left: list[int], depth: int = 0) -> Plain:
    """What `to_json` made, put together again; `left` counts down the parts that may still come."""
    left[0] -= 1
    if left[0] < 0 or depth > MAX_DEPTH + 2:
        raise WireError("the data has too many parts or is nested too deep")
    if isinstance(tree, list):
        return [from_json(item, tensors, left, depth + 1) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if _TENSOR in tree:
        name = tree[_TENSOR]
        if len(tree) != 1 or not isinstance(name, str) or name not in tensors:
            raise WireError("a tensor is named that did not come along")
        return tensors[name]
    return {key: from_json(item, tensors, left, depth + 1) for key, item in tree.items()}


def _load_tensors(blob: bytes, trusted: bool) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(blob)
    except (SafetensorError, ValueError, KeyError, OverflowError, RuntimeError) as error:
        raise WireError(f"the tensors can't be read: {type(error).__name__}") from None
    names = {str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()}
    too_many = len(tensors) > MAX_TENSORS and not trusted
    if too_many or not names <= set(DTYPES) or any(t.ndim > 8 for t in tensors.values()):
        raise WireError("too many tensors, or one of a kind that may not cross")
    return tensors


def send(connection: socket.socket, value: Plain) -> None:
    """Send one value."""
    connection.sendall(pack(value))


def receive(connection: socket.socket, deadline: float | None = None) -> Plain:
    """Receive one value, by `deadline` (a time of `time.monotonic()`) if one is given.

    Raises:
        WireError: the frame is broken or too large.
        TimeoutError: it did not come in time.
        ConnectionError: the other side hung up.
    """
    n_header, n_blob = _LENGTHS.unpack(_read(connection, _LENGTHS.size, deadline))
    if n_header > MAX_HEADER or n_blob > MAX_BLOB + 2**16:
        raise WireError("the frame is larger than allowed")
    return unpack(_read(connection, n_header, deadline), _read(connection, n_blob, deadline))


def _read(connection: socket.socket, size: int, deadline: float | None) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        if deadline is not None:
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
        part = connection.recv(min(size - len(parts), 2**16))
        if not part:
            raise ConnectionError("the other side hung up")
        parts += part
    return bytes(parts)
