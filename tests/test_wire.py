"""What crosses between the student's process and the judge: everything plain, and nothing else."""

import contextlib
import json
import socket
import struct
import threading
import time
from collections import namedtuple
from enum import IntEnum
from typing import Any

import numpy as np
import pytest
import torch

from openweightlab.grading import wire


def crossed(value: Any) -> Any:
    """A value after a trip through a real socket."""
    near, far = socket.socketpair()
    with near, far:
        wire.send(near, wire.flatten(value))
        return wire.receive(far, time.monotonic() + 5)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -7,
        2**80,
        0.1,
        float("inf"),
        "",
        "naïve 模型 \ud800",
        [],
        [1, [2]],
        {},
        {"a": {"b": [None]}},
    ],
)
def test_plain_values_come_back_the_same(value: Any) -> None:
    assert crossed(value) == value and type(crossed(value)) is type(value)


@pytest.mark.parametrize("name", wire.DTYPES)
def test_tensors_of_every_dtype_come_back_the_same(name: str) -> None:
    for tensor in (torch.ones(2, 3), torch.tensor(1), torch.zeros(0, 4), torch.arange(6).reshape(2, 3).T):
        sent = tensor.to(getattr(torch, name))
        assert torch.equal(crossed({"x": [sent]})["x"][0], sent)


def test_shared_and_strided_tensors_may_cross_together() -> None:
    weight = torch.arange(12.0).reshape(3, 4)
    first, second = crossed([weight[:, 1], weight])
    assert first.tolist() == [1, 5, 9] and torch.equal(second, weight)


def test_relatives_of_plain_values_are_flattened() -> None:
    colour = IntEnum("colour", "red")
    point = namedtuple("point", "x y")
    mixed = [np.float32(0.5), np.int64(3), np.bool_(True), colour.red, point(1, 2), np.arange(3)]
    got = crossed(mixed)
    assert got[:5] == [0.5, 3, True, 1, [1, 2]] and [type(item) for item in got[:4]] == [
        float,
        int,
        bool,
        int,
    ]
    assert torch.equal(got[5], torch.arange(3))
    assert type(crossed(torch.nn.Parameter(torch.ones(2)))) is torch.Tensor


def deep(levels: int) -> list:
    return [deep(levels - 1)] if levels else []


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({1, 2}, "a set came"),
        (len, "a builtin_function_or_method came"),
        ({1: 2}, "keys must be strings"),
        ({"$tensor": "0"}, "not beginning with \\$"),
        (deep(99), "nested more than"),
        (torch.ones(2, dtype=torch.complex64), "dtype complex64"),
        (np.array(["a"]), "dtype str"),
        (torch.eye(3).to_sparse(), "dtype float32"),
    ],
)
def test_anything_else_is_refused_by_name(value: Any, sentence: str) -> None:
    with pytest.raises(wire.WireError, match=sentence):
        wire.flatten(value)


def test_large_results_are_refused_before_they_are_sent() -> None:
    with pytest.raises(wire.WireError, match="bytes"):
        wire.pack(torch.zeros(wire.MAX_BLOB // 4 + 1))
    with pytest.raises(wire.WireError, match="too large"):
        wire.pack("x" * wire.MAX_HEADER)


def received(data: bytes) -> Any:
    near, far = socket.socketpair()

    def send() -> None:  # from a thread: a large frame waits for its reader
        with near, contextlib.suppress(OSError):
            near.sendall(data)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        return wire.receive(far, time.monotonic() + 20)
    finally:
        far.close()
        sender.join()


def frame(header: bytes, blob: bytes = b"") -> bytes:
    return struct.pack(">II", len(header), len(blob)) + header + blob


def tensor_header(**entry: Any) -> bytes:
    header = json.dumps({"0": entry}).encode()
    return struct.pack("<Q", len(header)) + header


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">II", 2**32 - 1, 0),
        struct.pack(">II", 0, 2**32 - 1),
        frame(b""),
        frame(b"\xff\xfe"),
        frame(b"[" * 100_000),
        frame(b"[" * 20 + b"]" * 20),
        frame(b"1" * 5000),
        frame(b"[" + b"1," * (wire.MAX_NODES + 1) + b"1]"),
        frame(b'{"$tensor": "0"}'),
        frame(b'{"$tensor": ["0"]}'),
        frame(b'{"$tensor": "0"}', b"rubbish"),
        frame(b'{"$tensor": "0"}', tensor_header(dtype="F32", shape=[2**62], data_offsets=[0, 4]) + b"0000"),
        frame(b'{"$tensor": "0"}', tensor_header(dtype="F32", shape=[1], data_offsets=[0, 400]) + b"0000"),
        frame(b'{"$tensor": "0"}', tensor_header(dtype="F8_E4M3", shape=[4], data_offsets=[0, 4]) + b"0000"),
        frame(b'{"$tensor": "0"}', struct.pack("<Q", 2**60)),
    ],
)
def test_a_forged_frame_is_refused(data: bytes) -> None:
    with pytest.raises(wire.WireError):
        received(data)


def test_half_a_frame_and_silence_end() -> None:
    with pytest.raises(ConnectionError):
        received(frame(b'"whole"')[:-2])
    near, far = socket.socketpair()
    with near, far, pytest.raises(TimeoutError):
        near.sendall(b"\0")
        wire.receive(far, time.monotonic() + 0.1)
