"""Messages on the wire: golden bytes of the real packages, both dialects read, nothing dangerous accepted."""

from __future__ import annotations

import json

import msgpack
import numpy as np
import pytest
from golden_wire import OPENPI, VLA_EVAL

from vla_gen_bench.policies.remote import wire
from vla_gen_bench.policies.remote.wire import WireError, dumps, loads, pack, unpack

STATE = np.array([0, 1, 2], np.float32)
MESSAGE = {"type": "observation", "payload": {"state": STATE}, "seq": 1, "timestamp": 0.0}


def test_openpi_messages_are_the_real_clients_bytes():
    assert pack({"observation/state": STATE}, "openpi") == OPENPI


def test_vla_eval_messages_are_the_real_harness_bytes():
    assert pack(MESSAGE, "vla-eval") == VLA_EVAL


def test_a_decoder_takes_both_dialects():
    assert np.array_equal(unpack(OPENPI)["observation/state"], STATE)
    assert np.array_equal(unpack(VLA_EVAL)["payload"]["state"], STATE)


def test_an_encoder_never_mixes_dialects():
    assert b"\xc4\x0b__ndarray__" not in pack(MESSAGE, "vla-eval", "png")
    assert b"\xab__ndarray__" not in pack({"a": STATE, "b": {"c": [STATE]}}, "openpi")


@pytest.mark.parametrize("dialect", ["openpi", "vla-eval"])
def test_arrays_of_every_kind_survive(dialect):
    arrays = [
        np.zeros((0, 3), np.int64), np.array(True), np.arange(6, dtype=">i2").reshape(2, 3), np.float16([1.5]),
        np.arange(12, dtype=np.uint8).reshape(2, 2, 3)[:, ::-1], np.float64(0.1) * np.ones((1, 2, 3)),
    ]  # fmt: skip
    for array, again in zip(arrays, unpack(pack(arrays, dialect)), strict=True):
        assert again.dtype == array.dtype and np.array_equal(again, array) and again.flags.writeable


def test_numpy_numbers_become_plain_ones():
    assert unpack(pack({"a": np.float32(0.5), "b": np.int64(3)}, "openpi")) == {"a": 0.5, "b": 3}
    generic = {b"__npgeneric__": True, b"data": 0.5, b"dtype": "<f4"}  # as openpi writes them
    assert unpack(msgpack.packb({"a": generic})) == {"a": 0.5}


def test_images_travel_as_png_without_loss_and_as_jpeg_with_little():
    image = np.arange(48 * 64 * 3, dtype=np.uint32).reshape(48, 64, 3).astype(np.uint8)
    png, jpeg = (unpack(pack({"i": image}, "vla-eval", codec))["i"] for codec in ("png", "jpeg"))
    assert np.array_equal(png, image)
    assert jpeg.shape == image.shape and jpeg.dtype == np.uint8 and not np.array_equal(jpeg, image)
    fields = msgpack.unpackb(pack({"i": image}, "vla-eval", "png"))["i"]
    assert fields["__image__"] is True and fields["format"] == "png" and fields["shape"] == [48, 64, 3]
    assert fields["data"][:8] == b"\x89PNG\r\n\x1a\n"


def test_json_numpy_reads_as_its_own_package_writes():
    # json_numpy 2.1: {"__numpy__": base64 of the bytes, "dtype": "<f4", "shape": [3]}
    text = '{"image": {"__numpy__": "AAAAAAAAgD8AAABA", "dtype": "<f4", "shape": [3]}}'
    assert json.loads(dumps({"image": STATE})) == json.loads(text)
    assert np.array_equal(loads(text)["image"], STATE)


def array_fields(**changes):
    fields = {"__ndarray__": True, "data": STATE.tobytes(), "dtype": "<f4", "shape": [3]}
    return msgpack.packb({"a": {**fields, **changes}})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (array_fields(dtype="|O"), "allowed are booleans, integers and floats"),
        (array_fields(dtype="<c8"), "allowed are"),
        (array_fields(dtype="V4"), "allowed are"),
        (array_fields(dtype="import os"), "an array of dtype"),
        (array_fields(shape=[4]), r"\[4\] with 12 bytes"),
        (array_fields(shape=[-1]), r"\[-1\]"),
        (array_fields(shape=[1 << 40, 1 << 40]), "with 12 bytes"),
        (array_fields(shape="abc"), "an array of dtype"),
        (array_fields(data="text"), "with 0 bytes"),
        (msgpack.packb({"a": {"__image__": True, "format": "png", "data": b"no image"}}), "neither PNG nor JPEG"),
        (b"\xc1", "not msgpack"),
        (b"\x81\xa1a", "not msgpack"),
        (b"\x80\x80", "not msgpack"),
    ],
)
def test_what_is_no_message_is_refused(data, message):
    with pytest.raises(WireError, match=message):
        unpack(data)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[" * 100000,
        '{"__numpy__": "AAA?", "dtype": "<f4", "shape": [1]}',
        '{"__numpy__": "AAAA", "dtype": "|O", "shape": [1]}',
    ],
)
def test_what_is_no_json_message_is_refused(text):
    with pytest.raises(WireError):
        loads(text)


def test_a_message_over_the_limit_is_refused():
    with pytest.raises(WireError, match=r"2.0 MiB; the limit is 1 MiB"):
        unpack(pack(np.zeros(2 << 20, np.uint8), "openpi"), 1 << 20)
    with pytest.raises(WireError, match="the limit is"):
        loads("[" + "1," * (1 << 20) + "1]", 1 << 20)


def test_objects_are_never_sent():
    for value in (np.array([object()]), np.array(["text"]), np.array([1j]), object()):
        for encode in (lambda v: pack(v, "openpi"), lambda v: pack(v, "vla-eval"), dumps):
            with pytest.raises(WireError, match="cannot be sent"):
                encode(value)


def test_nothing_here_can_unpickle():
    source = open(wire.__file__).read()
    assert "import pickle" not in source and "allow_pickle" not in source
