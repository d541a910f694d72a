"""Element types, the structs of abi.cuh and guarded buffers for `kernels.py`."""

import ctypes
import os
import re

import numpy as np
from machine import KERNELS

# Largest relative error of one rounding.
EPSILON = {"f32": 2.0**-24, "bf16": 2.0**-8, "f16": 2.0**-11}
BYTES = {"f32": 4, "bf16": 2, "f16": 2, "i64": 8, "u64": 8, "bool": 1}


def encode(values, dtype):
    """Values as the bytes of a type, rounded to the nearest."""
    if dtype == "bf16":
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
        return ((bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.ascontiguousarray(values).astype(
        {"f32": np.float32, "f16": np.float16, "i64": np.int64, "u64": np.uint64, "bool": np.uint8}[dtype])


def decode(raw, dtype):
    if dtype == "bf16":
        return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    kind = {"f32": np.float32, "f16": np.float16, "i64": np.int64, "u64": np.uint64, "bool": np.uint8}[dtype]
    found = raw.view(kind)
    return found.astype(np.float64) if dtype in EPSILON else found


def rounded(values, dtype):
    return decode(encode(values, dtype).view(np.uint8).reshape(-1), dtype).reshape(np.shape(values))


def structs():
    """The structs of abi.cuh as ctypes classes, by name."""
    text = re.sub(r"//[^\n]*", "", open(os.path.join(KERNELS, "abi.cuh")).read())
    found = {}
    plain = {"int": ctypes.c_int, "float": ctypes.c_float, "double": ctypes.c_double, "int64": ctypes.c_int64, "uint64": ctypes.c_uint64}
    for name, body in re.findall(r"struct (\w+) \{(.*?)\};", text, re.S):
        fields = []
        for line in filter(None, (line.strip() for line in body.split(";"))):
            kind, pointer, field, count = re.fullmatch(r"(?:const )?(\w+) (\*?)(\w+)(?:\[(\d+)\])?", line).groups()
            own = ctypes.c_uint64 if pointer else plain.get(kind) or found[kind]
            fields.append((field, own * int(count) if count else own))
        found[name] = type(name, (ctypes.Structure,), {"_fields_": fields})
    return found


STRUCTS = structs()
GUARD = 256


class Buffer:
    """Device memory between two guards; outputs begin as NaN."""

    def __init__(self, machine, count, dtype, values=None, skew=0):
        self.machine, self.count, self.dtype = machine, count, dtype
        self.bytes, self.skew = count * BYTES[dtype], skew
        self.start = machine.allocate(self.bytes + 2 * GUARD + skew)
        self.address = self.start + GUARD + skew
        machine.write(self.start, np.full(self.bytes + 2 * GUARD + skew, 0xFF, np.uint8))
        if values is not None:
            machine.write(self.address, values if values.dtype == np.uint16 else encode(values, dtype))

    def read(self):
        """The values; fails where a guard was written to."""
        raw = self.machine.read(self.start, self.bytes + 2 * GUARD + self.skew)
        first = GUARD + self.skew
        assert (raw[:first] == 0xFF).all() and (raw[first + self.bytes:] == 0xFF).all(), "wrote outside its buffer"
        return decode(raw[first:first + self.bytes].copy(), self.dtype)

    def free(self):
        self.machine.free(self.start)
