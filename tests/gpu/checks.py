"""What each kernel must give: inputs, the launch, and the result by NumPy in f64. A check returns the largest error as a
part of its tolerance; a timing returns launches that cycle through more memory than the L2 cache holds, with the bytes
and operations of one."""

import ctypes

import numpy as np
from values import BYTES, EPSILON, STRUCTS, decode, encode, rounded

NOTHING = STRUCTS["Rows"](0, 0, 0, 1, 0)
L2_BYTES = 192 << 20


def ratio(found, expected, tolerance):
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape, f"{found.shape} for {expected.shape}"
    bad = ~np.isfinite(found)
    assert not bad.any(), f"{int(bad.sum())} of {bad.size} are no numbers, first at {int(np.argmax(bad.reshape(-1)))}"
    return float((np.abs(found - expected) / np.maximum(tolerance, 1e-30)).max()) if found.size else 0.0


def dense(buffer, width, rows):
    return STRUCTS["Rows"](buffer.address, 0, width, max(rows, 1), 0)


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


# ---- linear ----


class Linear:
    """Inputs of a product on the device."""

    def __init__(self, bench, weights=1):
        case, self.bench = bench.case, bench
        self.m, self.k, self.n, self.dtype = case["rows"], case["k"], case["n"], case["dtype"]
        self.copies = weights
        self.flags = case["flags"].split()
        self.gated = "swiglu" in self.flags
        m, k, n, dtype = self.m, self.k, self.n, self.dtype
        self.x, rows = bench.draw(m, k), (2 if self.gated else 1) * n
        self.norm = bench.draw(k) if "norm" in self.flags else None
        self.bias = bench.draw(n) if "bias" in self.flags else None
        self.residual = bench.draw(m, n) if "residual" in self.flags else None
        skew = BYTES[dtype] if "skewed" in self.flags else 0
        give = lambda values: bench.buffer(values.size, dtype, values).address if values is not None else 0
        self.x_buffer = bench.buffer(m * k, dtype, self.x, skew)
        self.w, self.weights = self.give_weights(rows)
        self.out = bench.buffer(m * n, "f32" if "wide" in self.flags else dtype)
        self.norm_at, self.bias_at = give(self.norm), give(self.bias)
        self.residual_rows = NOTHING
        if self.residual is not None:
            at = bench.buffer(m * n, dtype, self.residual)
            self.residual_rows = dense(at, n, m)

    def give_weights(self, rows):
        """The weight, and where its copies are."""
        w = self.bench.draw(rows, self.k, scale=self.k**-0.5)
        # Encoded once for all copies.
        raw = encode(w, self.dtype)
        return w, [self.bench.buffer(w.size, self.dtype, raw).address for _ in range(self.copies)]

    def fields(self, weight):
        return dict(
            x=dense(self.x_buffer, self.k, self.m), residual=self.residual_rows, out=dense(self.out, self.n, self.m),
            norm=self.norm_at, weight=weight, bias=self.bias_at, rows=self.m, k=self.k, n=self.n, mode=int(self.gated),
            wide=int("wide" in self.flags), eps=1e-5)

    def launch(self, weight, overlap=False):
        self.bench.run("LinearArguments", self.fields(weight), overlap)

    def expected(self):
        """The product, and its tolerance."""
        x, eps, scale = self.x, EPSILON[self.dtype], 1.0
        if self.norm is not None:
            shift = 16 if self.dtype == "f16" else 1
            scale = 1 / np.sqrt((x * x).mean(1, keepdims=True) + 1e-5)
            x = rounded(x * self.norm / shift, self.dtype) * shift
        y = x @ self.w.T * scale
        # Sums in f32; the scale of a row is right to a few steps of f32.
        error = 2.0**-24 * 8 * (np.abs(x) @ np.abs(self.w).T) * scale + 2.0**-20 * np.abs(y)
        if self.gated:
            gate, up = y[:, : self.n], y[:, self.n:]
            error = 1.2 * error[:, : self.n] * np.abs(up) + error[:, self.n:] * np.abs(gate * sigmoid(gate))
            y = gate * sigmoid(gate) * up
            error = error + 1e-6 * np.abs(y)
        if self.bias is not None:
            y = y + self.bias
        if self.residual is not None:
            y = y + self.residual
        own = EPSILON["f32"] if "wide" in self.flags else eps
        return y, error + 1.02 * own * np.abs(y) + 1e-7


def check_linear(bench):
    case = Linear(bench)
    case.launch(case.weights[0])
    y, tolerance = case.expected()
    return ratio(case.out.read().reshape(y.shape), y, tolerance)


def time_linear(bench):
    case = bench.case
    size = (2 if "swiglu" in case["flags"] else 1) * case["n"] * case["k"]
    copies = int(max(4, min(40, L2_BYTES // (2 * size) + 1)))
    linear = Linear(bench, copies)
    launches = [lambda overlap, at=at: linear.launch(at, overlap) for at in linear.weights] * max(1, 24 // copies)
    out = case["n"] * case["rows"] * (4 if "wide" in case["flags"] else 2)
    moved = 2 * size + 2 * case["rows"] * case["k"] + out
    return launches, moved, 2.0 * size * case["rows"]


# ---- weights in few bits ----


class Codes:
    """Random codes and scales, and the weight that they are."""

    def __init__(self, random, scheme, rows, k):
        self.grouped, self.scheme, self.k = scheme == "int4", scheme, k
        if scheme == "fp8":
            # Every number of E4M3 but the two that are none.
            self.codes = random.integers(0, 0x7F, (rows, k)) | (random.integers(0, 2, (rows, k)) << 7)
            exponent, mantissa = (self.codes >> 3) & 15, (self.codes & 7) / 8.0
            size = np.where(exponent == 0, mantissa * 2.0**-6, (1 + mantissa) * 2.0 ** (exponent - 7.0))
            numbers, scale = np.where(self.codes & 0x80, -size, size), 1 / 150
        else:
            most = 7 if self.grouped else 127
            numbers = random.integers(-most, most + 1, (rows, k)).astype(np.float64)
            self.codes, scale = numbers.astype(np.int64) & (15 if self.grouped else 255), 2 / most
        groups = (rows, k // 32) if self.grouped else (rows, 1)
        self.scales = (random.uniform(0.5, 1.5, groups) * scale * k**-0.5).astype(np.float32)
        spread = np.repeat(self.scales, 32 if self.grouped else k, 1)
        self.weight = numbers * spread.astype(np.float64)

    def arranged(self):
        """Codes and scales as codes.cuh has them."""
        rows, step = self.codes.shape[0], 128 if self.grouped else 64
        filled = -(-self.k // step) * step
        codes = np.zeros((rows, filled), np.uint8)
        codes[:, : self.k] = self.codes
        # [row, stretch, u, lane, column]: the lanes' u go together.
        pieces = codes.reshape(rows, filled // step, step // 32, 4, 8).transpose(0, 1, 3, 2, 4)
        if self.grouped:
            low, high = pieces[..., 0::2].reshape(rows, -1, 4), pieces[..., 1::2].reshape(rows, -1, 4)
            nibbles = np.concatenate([low, high], 2).reshape(rows, -1, 2)
            raw = nibbles[..., 0] | (nibbles[..., 1] << 4)
            scales = np.zeros((rows, filled // 32), np.float32)
            scales[:, : self.scales.shape[1]] = self.scales
        else:
            raw, scales = pieces.reshape(rows, -1, 4)[..., [0, 2, 1, 3]], self.scales
        return np.ascontiguousarray(raw.reshape(-1)), scales.reshape(-1)


class CodedLinear(Linear):
    """A product with a weight in few bits."""

    def give_weights(self, rows):
        codes = Codes(self.bench.random, self.bench.case["scheme"], rows, self.k)
        raw, scales = codes.arranged()
        give = lambda values, kind: self.bench.buffer(values.size, kind, values).address
        self.read_bytes = raw.nbytes + scales.nbytes
        self.copies = max(self.copies, 1)
        return codes.weight, [(give(raw, "bool"), give(scales, "f32")) for _ in range(self.copies)]

    def launch(self, weight, overlap=False):
        linear = STRUCTS["LinearArguments"](**self.fields(weight[0]))
        fields = dict(linear=linear, scales=weight[1], scheme=["int8", "int4", "fp8"].index(self.bench.case["scheme"]))
        self.bench.run("CodesArguments", fields, overlap)


def check_codes(bench):
    case = CodedLinear(bench)
    case.launch(case.weights[0])
    y, tolerance = case.expected()
    return ratio(case.out.read().reshape(y.shape), y, tolerance)


def time_codes(bench):
    case = bench.case
    size = (2 if "swiglu" in case["flags"] else 1) * case["n"] * case["k"]
    copies = int(max(4, min(80, L2_BYTES // size + 1)))
    linear = CodedLinear(bench, copies)
    launches = [lambda overlap, at=at: linear.launch(at, overlap) for at in linear.weights] * max(1, 24 // copies)
    out = case["n"] * case["rows"] * (4 if "wide" in case["flags"] else 2)
    return launches, linear.read_bytes + 2 * case["rows"] * case["k"] + out, 2.0 * size * case["rows"]


def half_steps(values, dtype):
    """Half the distance of neighbouring numbers of a type around values that are no subnormal ones."""
    exponent = np.frexp(values)[1] - 1.0
    return np.where(values == 0, 0.0, EPSILON[dtype] * 2.0**exponent)


def dequantized(bench):
    case = bench.case
    codes = Codes(bench.random, case["scheme"], case["rows"], case["k"])
    raw, scales = codes.arranged()
    out = bench.buffer(codes.codes.size, case["dtype"])
    give = lambda values, kind: bench.buffer(values.size, kind, values).address
    fields = dict(codes=give(raw, "bool"), scales=give(scales, "f32"), out=out.address, rows=case["rows"], k=case["k"],
                  scheme=["int8", "int4", "fp8"].index(case["scheme"]))
    bench.run("DequantizeArguments", fields)
    return codes, out, raw.nbytes + scales.nbytes + out.bytes


def check_dequantize(bench):
    codes, out, _ = dequantized(bench)
    # Rounded once: never farther than half a step.
    floor = 2.0**-25 if bench.case["dtype"] == "f16" else 0.0
    tolerance = np.maximum(half_steps(codes.weight, bench.case["dtype"]), floor) * (1 + 1e-9)
    return ratio(out.read().reshape(codes.weight.shape), codes.weight, tolerance)


def time_dequantize(bench):
    _, _, moved = dequantized(bench)
    unit = ("codes.cu", bench.case["dtype"], ["int8", "int4", "fp8"].index(bench.case["scheme"]))
    again = lambda overlap: bench.device.launch(unit, bench.case["launch"], bench.arguments, overlap)
    return [again] * 10, moved, 0.0


# ---- rows ----


def check_rms_norm(bench):
    case, dtype = bench.case, bench.case["dtype"]
    m, width, flags = case["rows"], case["width"], case["flags"].split()
    x, weight = bench.draw(m, width), bench.draw(width)
    fields = dict(weight=bench.buffer(width, dtype, weight).address, rows=m, width=width, eps=1e-5)
    out = bench.buffer(m * width, dtype)
    fields.update(residual=NOTHING, sum=NOTHING, out=dense(out, width, m))
    if "grouped" in flags:
        # Pairs of rows, three rows apart from pair to pair.
        spaced = np.zeros(((m + 1) // 2, 3, width))
        for r in range(m):
            spaced[r // 2, r % 2] = x[r]
        fields["x"] = STRUCTS["Rows"](bench.buffer(spaced.size, dtype, spaced).address, 3 * width, width, 2, 0)
    else:
        fields["x"] = dense(bench.buffer(m * width, dtype, x), width, m)
    total = x
    if "residual" in flags:
        residual = bench.draw(m, width)
        fields["residual"] = dense(bench.buffer(m * width, dtype, residual), width, m)
        total = rounded(x + residual, dtype)
    kept = None
    if "sum" in flags:
        kept = bench.buffer(m * width, dtype)
        fields["sum"] = dense(kept, width, m)
    bench.run("NormArguments", fields)
    expected = total / np.sqrt((total * total).mean(1, keepdims=True) + 1e-5) * weight
    worst = ratio(out.read().reshape(m, width), expected, (1.02 * EPSILON[dtype] + 2e-6) * np.abs(expected) + 1e-7)
    if kept is not None:
        worst = max(worst, ratio(kept.read().reshape(m, width), total, 1e-12 + 0 * total))
    return worst


def time_rms_norm(bench):
    check_rms_norm(bench)
    case = bench.case
    tensors = 4 if "sum" in case["flags"] else 2
    again = lambda overlap: bench.device.launch(("rows.cu", case["dtype"], 0), case["launch"], bench.arguments, overlap)
    return [again] * 10, tensors * 2 * case["rows"] * case["width"], 0.0


def check_swiglu(bench):
    case, dtype = bench.case, bench.case["dtype"]
    m, width = case["rows"], case["width"]
    gate, up = bench.draw(m, width), bench.draw(m, width)
    both = bench.buffer(2 * m * width, dtype, np.concatenate([gate, up], 1))
    out = bench.buffer(m * width, dtype)
    side = lambda at: STRUCTS["Rows"](both.address + at * BYTES[dtype], 0, 2 * width, m, 0)
    bench.run("SwigluArguments", dict(gate=side(0), up=side(width), out=dense(out, width, m), rows=m, width=width))
    expected = gate * sigmoid(gate) * up
    return ratio(out.read().reshape(m, width), expected, (1.02 * EPSILON[dtype] + 2e-6) * np.abs(expected) + 1e-7)


def check_embed(bench):
    case, dtype = bench.case, bench.case["dtype"]
    m, width, vocabulary = case["rows"], case["width"], case["vocabulary"]
    table, ids = bench.draw(vocabulary, width), bench.random.integers(0, vocabulary, m)
    ids[0], ids[-1] = vocabulary, -1
    out = bench.buffer(m * width, dtype)
    bench.run("EmbedArguments", dict(
        ids=bench.buffer(m, "i64", ids).address, table=bench.buffer(table.size, dtype, table).address,
        out=dense(out, width, m), rows=m, width=width, vocabulary=vocabulary))
    expected = np.where(((ids >= 0) & (ids < vocabulary))[:, None], table[ids % vocabulary], 0.0)
    return ratio(out.read().reshape(m, width), expected, 1e-12 + 0 * expected)


def check_gather_rows(bench):
    case, dtype = bench.case, bench.case["dtype"]
    batch, length, count, width = case["batch"], case["length"], case["count"], case["width"]
    x, index = bench.draw(batch, length, width), bench.random.integers(0, length, (batch, count))
    index[0, 0], index[-1, -1] = length, -1
    out = bench.buffer(batch * count * width, dtype)
    bench.run("GatherArguments", dict(
        x=bench.buffer(x.size, dtype, x).address, index=bench.buffer(index.size, "i64", index).address, out=out.address,
        x_row=length * width, x_position=width, index_row=count, index_inner=1, batch=batch, length=length, count=count,
        width=width))
    known = (index >= 0) & (index < length)
    expected = np.where(known[..., None], x[np.arange(batch)[:, None], index % length], 0.0)
    return ratio(out.read().reshape(expected.shape), expected, 1e-12 + 0 * expected)


ELEMENT_TYPES = {"model": 0, "float": 1, "int64": 2, "bool": 3}
OPERATIONS = {"copy": 0, "neg": 1, "sigmoid": 2, "silu": 3, "exp": 4, "add": 8, "sub": 9, "mul": 10, "max": 11, "min": 12,
              "less": 16, "equal": 17, "where": 24}


def check_elementwise(bench):
    case, name = bench.case, bench.case["operation"]
    size, dtype = tuple(case["size"]), {"model": case["dtype"], "float": "f32", "int64": "i64"}[case["element"]]

    def operand(shape, own):
        if own == "bool":
            return bench.random.integers(0, 2, shape)
        if own == "i64":
            return bench.random.integers(-3, 4, shape)
        return rounded(np.round(bench.random.standard_normal(shape) * 4) / 4, own)

    # The second operand is broadcast along two axes, the first is a transposed view.
    a_type = "bool" if name == "where" else dtype
    a = operand((size[0], size[1], size[2], size[4], size[3]), a_type)
    b, c = operand((1, 1, size[2], 1, size[4]), dtype), operand(size, dtype)
    turned = a.transpose(0, 1, 2, 4, 3)
    b_all, out_type = np.broadcast_to(b, size), "bool" if name in ("less", "equal") else dtype
    out = bench.buffer(np.prod(size), out_type)
    strides = lambda array, own: [s // array.itemsize if n > 1 else 0 for s, n in zip(array.strides, own)]
    kinds = {"bool": 3, "i64": 2, dtype: ELEMENT_TYPES[case["element"]]}
    fields = dict(
        out=out.address, a=bench.buffer(a.size, a_type, a).address, b=bench.buffer(b.size, dtype, b).address,
        c=bench.buffer(c.size, dtype, c).address, operation=OPERATIONS[name], out_type=kinds[out_type],
        a_type=kinds[a_type], b_type=kinds[dtype], c_type=kinds[dtype])
    five = lambda values: (ctypes.c_int64 * 5)(*[int(value) for value in values])
    plain = np.empty(size)
    fields.update(out_stride=five(strides(plain, size)), a_stride=five(strides(turned, size)),
                  b_stride=five(strides(b, b.shape)), c_stride=five(strides(np.ascontiguousarray(c), size)),
                  size=(ctypes.c_int * 5)(*size))
    bench.run("ElementArguments", fields)
    x, y = turned.astype(np.float64), b_all.astype(np.float64)
    expected = {
        "copy": lambda: x, "neg": lambda: -x, "sigmoid": lambda: sigmoid(x), "silu": lambda: x * sigmoid(x),
        "exp": lambda: np.exp(x), "add": lambda: x + y, "sub": lambda: x - y, "mul": lambda: x * y,
        "max": lambda: np.maximum(x, y), "min": lambda: np.minimum(x, y), "less": lambda: x < y, "equal": lambda: x == y,
        "where": lambda: np.where(turned != 0, b_all, c),
    }[name]().astype(np.float64)
    tolerance = 1e-12 if out_type in ("i64", "bool") else 1.02 * EPSILON[dtype] + 2e-6
    return ratio(out.read().reshape(size), expected, tolerance * np.abs(expected) + 1e-12)


def check_iota(bench):
    count = bench.case["count"]
    out = bench.buffer(count, "i64")
    bench.run("IotaArguments", dict(out=out.address, count=count))
    return ratio(out.read(), np.arange(count), 1e-12 + np.zeros(count))


# ---- attention ----


def rotation(positions, head_dim):
    angle = np.arange(positions)[:, None] * 10000.0 ** (-2.0 * np.arange(head_dim // 2) / head_dim)
    return np.stack([np.cos(angle), np.sin(angle)], -1).astype(np.float32).astype(np.float64)


def rotate(x, table, positions):
    """x [.., positions, heads, head_dim]"""
    half = x.shape[-1] // 2
    cosine, sine = table[positions][:, None, :, 0], table[positions][:, None, :, 1]
    low, high = x[..., :half], x[..., half:]
    return np.concatenate([low * cosine - high * sine, high * cosine + low * sine], -1)


class Attend:
    """Inputs of attention on the device."""

    def __init__(self, bench, copies=1):
        case = bench.case
        self.bench, self.case, self.dtype, self.flags = bench, case, case["dtype"], case["flags"].split()
        rows, keys, self.d = case["rows"], case["keys"], case["head_dim"]
        self.heads, self.kv_heads, self.queries = case["heads"], case["kv_heads"], case["queries"]
        each = 2 if "shared_length" in self.flags else 1
        self.lengths = bench.random.integers(0, 40, (rows + each - 1) // each) if "lengths" in self.flags else None
        scale = 2
        self.past = np.full(rows, case["past_base"])
        if self.lengths is not None:
            self.past = self.past + scale * self.lengths[np.arange(rows) // each]
        self.capacity = int(self.past.max() + keys + 1)
        self.visible = bench.random.integers(0, self.capacity + 1, rows) if "visible" in self.flags else None
        self.q = bench.draw(rows, self.queries, self.heads, self.d)
        # New keys and values side by side, as one product leaves them.
        self.kv = bench.draw(rows, max(keys, 1), 2, self.kv_heads, self.d)
        self.table = rotation(self.capacity + 8, self.d) if "table" in self.flags else None
        # Nothing past a row's length may count: it is not a number.
        self.cache = bench.draw(2, rows, self.capacity, self.kv_heads, self.d)
        for row in range(rows):
            self.cache[:, row, self.past[row]:] = np.nan
        give = lambda values, own=self.dtype: bench.buffer(values.size, own, values)
        self.q_at, self.kv_at, self.caches = give(self.q), give(self.kv), [give(self.cache) for _ in range(copies)]
        self.out = bench.buffer(self.q.size, self.dtype)
        self.in_place = "at_past" in self.flags
        self.store = bench.buffer(2 * rows * max(keys, 1) * self.kv_heads * self.d, self.dtype)
        integers = lambda values: give(values, "i64").address if values is not None else 0
        self.fields = dict(
            lengths=integers(self.lengths), visible=integers(self.visible),
            table=give(self.table, "f32").address if self.table is not None else 0, rows_per_length=each,
            past_scale=scale, past_base=case["past_base"], visible_scale=1, rows=rows, heads=self.heads,
            kv_heads=self.kv_heads, queries=self.queries, keys=keys, first_query=case["first_query"],
            causal=int("causal" in self.flags), store_at_past=int(self.in_place),
            table_positions=self.capacity + 8, scale=self.d**-0.5)

    def launch(self, cache, overlap=False):
        d, kv, size, keys = self.d, self.kv_heads, BYTES[self.dtype], max(self.case["keys"], 1)
        heads = lambda at, row, position: STRUCTS["Heads"](at, row, position, d)
        half = self.cache[0].size * size
        old = [heads(cache.address + half * i, self.capacity * kv * d, kv * d) for i in (0, 1)]
        new = [heads(self.kv_at.address + kv * d * size * i, keys * 2 * kv * d, 2 * kv * d) for i in (0, 1)]
        place = [STRUCTS["Heads"](0, 0, 0, 0)] * 2
        if "store" in self.flags:
            apart = self.store.bytes // 2
            place = old if self.in_place else [heads(self.store.address + apart * i, keys * kv * d, kv * d) for i in (0, 1)]
        wide = self.heads * d
        self.bench.run("AttendArguments", dict(
            self.fields, q=heads(self.q_at.address, self.queries * wide, wide), k=new[0], v=new[1], cache_k=old[0],
            cache_v=old[1], store_k=place[0], store_v=place[1], out=heads(self.out.address, self.queries * wide, wide)),
            overlap)

    def turned(self, x, positions):
        if self.table is None:
            return x
        return rounded(rotate(x, self.table, np.clip(positions, 0, len(self.table) - 1)), self.dtype)

    def row(self, row):
        """Keys and values of a row, and the attention's result."""
        case, past = self.case, int(self.past[row])
        new_k = self.turned(self.kv[row, : case["keys"], 0], past + np.arange(case["keys"]))
        k = np.concatenate([self.cache[0, row, :past], new_k])
        v = np.concatenate([self.cache[1, row, :past], self.kv[row, : case["keys"], 1]])
        positions = past + case["first_query"] + np.arange(self.queries)
        q = self.turned(self.q[row], positions)
        group = self.heads // self.kv_heads
        k_all, v_all = np.repeat(k, group, 1), np.repeat(v, group, 1)
        scores = np.einsum("qhd,khd->hqk", q, k_all) * self.d**-0.5
        index = np.arange(len(k))
        seen = np.ones((self.queries, len(k)), bool)
        if "causal" in self.flags:
            seen &= index[None] <= positions[:, None]
        if self.visible is not None:
            seen &= index[None] < self.visible[row]
        scores = np.where(seen[None], scores, -np.inf)
        top = scores.max(-1, keepdims=True, initial=-np.inf)
        weights = np.where(seen[None], np.exp(scores - np.where(np.isfinite(top), top, 0.0)), 0.0)
        total = weights.sum(-1, keepdims=True)
        weights = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
        out = np.einsum("hqk,khd->qhd", weights, v_all)
        size = np.einsum("hqk,khd->qhd", weights, np.abs(v_all))
        return new_k, out, size


def check_stored(case, cache):
    """New keys and values where they belong; everything else of the cache as it was."""
    rows, keys = case.case["rows"], case.case["keys"]
    if "store" not in case.flags:
        return 0.0
    if case.in_place:
        found = cache.read().reshape(case.cache.shape)
        kept = np.isfinite(case.cache)
        assert (found[kept] == case.cache[kept]).all(), "changed a key that was in the cache"
        left = np.isnan(found).reshape(2, rows, case.capacity, -1).any(-1)
        after = np.arange(case.capacity)[None] >= (case.past + keys)[:, None]
        assert (left == after[None]).all(), "the wrong positions of the cache were written"
        stored = np.stack([found[:, r, case.past[r]: case.past[r] + keys] for r in range(rows)], 1)
    else:
        stored = case.store.read().reshape(2, rows, keys, case.kv_heads, case.d)
    expected = np.stack([case.row(r)[0] for r in range(rows)])
    values = case.kv[:, :keys, 1]
    worst = ratio(stored[0], expected, 2 * EPSILON[case.dtype] * np.abs(expected) + 2e-6)
    return max(worst, ratio(stored[1], values, 1e-12 + 0 * values))


def check_attend(bench):
    case = Attend(bench)
    case.launch(case.caches[0])
    found = case.out.read().reshape(case.q.shape)
    worst, eps = 0.0, EPSILON[case.dtype]
    # Long timed cases: the first rows stand for all.
    for row in range(min(bench.case["rows"], 40)):
        _, out, size = case.row(row)
        # Rounded q, k and weights each move a result by a step of T of what it sums.
        worst = max(worst, ratio(found[row], out, 2 * eps * size + eps * np.abs(out) + 4e-6))
    return max(worst, check_stored(case, case.caches[0]))


def check_append_keys(bench):
    case = Attend(bench)
    case.launch(case.caches[0])
    return check_stored(case, case.caches[0])


def time_attend(bench):
    case = bench.case
    keys = case["past_base"] + case["keys"]
    pairs = case["rows"] * case["kv_heads"] * case["head_dim"] * 2
    moved = pairs * (2 * keys + 2 * case["queries"] + (2 * case["keys"] if "store" in case["flags"] else 0))
    attend = Attend(bench, int(max(1, min(8, L2_BYTES // max(2 * keys * pairs, 1) + 1))))
    launches = [lambda overlap, at=at: attend.launch(at, overlap) for at in attend.caches]
    seen = case["queries"] * keys / (2 if case["keys"] == 0 else 1)
    return launches * max(1, 8 // len(launches)), moved, 4.0 * seen * case["rows"] * case["heads"] * case["head_dim"]


def check_read_words(bench):
    words, blocks = bench.case["words"], bench.case["launch"]["grid"][0]
    values = bench.random.integers(0, 2**63, 2 * words).astype(np.uint64)
    out = bench.buffer(blocks, "u64")
    bench.run("ReadArguments", dict(data=bench.buffer(2 * words, "u64", values).address, out=out.address, words=words))
    expected = np.zeros(blocks, np.uint64)
    np.bitwise_xor.at(expected, np.arange(words) // bench.case["launch"]["threads"] % blocks, values[::2] ^ values[1::2])
    assert (out.read() == expected).all(), "another sum"
    return 0.0


# ---- sample ----


def philox(counter, key):
    multipliers, mask = (0xD2511F53, 0xCD9E8D57), 0xFFFFFFFF
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        first, second = multipliers[0] * c0, multipliers[1] * c2
        c0, c1, c2, c3 = (second >> 32) ^ c1 ^ k0, second & mask, (first >> 32) ^ c3 ^ k1, first & mask
        k0, k1 = (k0 + 0x9E3779B9) & mask, (k1 + 0xBB67AE85) & mask
    return c0


def check_uniforms(bench):
    rows, count, mask = bench.case["rows"], bench.case["count"], 0xFFFFFFFF
    large = lambda: np.array([int(v) for v in bench.random.integers(0, 2**63, rows)], np.uint64) * np.uint64(2)
    seeds, samples, first = large(), large(), bench.random.integers(0, 2**40, rows)
    out = bench.buffer(rows * count, "f32")
    bench.run("UniformArguments", dict(
        out=out.address, seed=bench.buffer(rows, "u64", seeds).address, sample=bench.buffer(rows, "u64", samples).address,
        first=bench.buffer(rows, "i64", first).address, rows=rows, count=count))
    expected = np.empty((rows, count))
    for r in range(rows):
        seed, sample = int(seeds[r]), int(samples[r])
        for i in range(count):
            token = int(first[r]) + i
            word = philox((token & mask, token >> 32, sample & mask, sample >> 32), (seed & mask, seed >> 32))
            expected[r, i] = (word >> 8) / 2.0**24
    return ratio(out.read().reshape(rows, count), expected, 1e-12 + 0 * expected)


def drawn(logits, temperature, top_k, top_p, min_p, uniform):
    """`Sampling::draw`: the token, and how near the uniform is to a boundary between tokens."""
    if np.isnan(logits).any():
        return -1, 1.0
    if temperature == 0:
        return int(np.argmax(logits)), 1.0
    order = np.lexsort((np.arange(len(logits)), -logits))
    if 0 < top_k < len(order):
        order = order[:top_k]
    if not np.isfinite(logits[order[0]]):
        return -1, 1.0
    shares = np.exp((logits[order] - logits[order[0]]) / temperature)
    masses = np.cumsum(shares / shares.sum())
    before = np.concatenate([[0.0], masses[:-1]])
    keep = (before < top_p) & (shares >= min_p)
    keep[0] = True
    kept = len(keep) if keep.all() else int(np.argmin(keep))
    cumulative = masses[:kept]
    target = uniform * cumulative[-1]
    at = int(np.argmax(cumulative > target)) if (cumulative > target).any() else kept - 1
    near = np.abs(cumulative - target).min()
    edges = min(np.abs(before[1:] - top_p).min(initial=1.0), np.abs(shares - min_p).min(initial=1.0) if min_p else 1.0)
    return int(order[at]), min(near, edges)


def sample_inputs(bench):
    case, dtype = bench.case, bench.case["dtype"]
    rows, vocabulary = case["rows"], case["vocabulary"]
    own = "f32" if case["wide"] else dtype
    logits = rounded(bench.random.standard_normal((rows, vocabulary)) * 3, own)
    if case["kind"] == "level":
        logits = np.round(logits * 2) / 2
    if case["kind"] == "equal":
        logits[:] = 1.25
        logits[1::2, vocabulary // 2:] = -np.inf
    if case["kind"] == "bad":
        logits[0, vocabulary - 1], logits[1, 0], logits[2] = np.nan, np.inf, -np.inf
        logits[3, ::2] = -np.inf
    pick = lambda options: bench.random.choice(options, rows)
    temperature = pick([0.0, 0.3, 1.0, 1.0, 2.5]).astype(np.float32)
    top_k = pick([0, 1, 5, 50, 64, 65, 300, vocabulary, 10 * vocabulary])
    if case["timed"]:
        temperature[:], top_k[:] = 0.0, 1
    return (logits, own, temperature, top_k, pick([0.2, 0.9, 1.0]).astype(np.float32),
            pick([0.0, 0.0, 0.05, 0.5]).astype(np.float32), bench.random.integers(0, 2**24, rows) / 2.0**24)


def check_sample(bench):
    case, rows = bench.case, bench.case["rows"]
    logits, own, temperature, top_k, top_p, min_p, uniform = sample_inputs(bench)
    ids = bench.buffer(2 * rows, "i64")
    give = lambda values, kind: bench.buffer(rows, kind, values).address
    bench.run("SampleArguments", dict(
        logits=bench.buffer(logits.size, own, logits).address, logits_stride=case["vocabulary"],
        uniforms=give(uniform, "f32"), temperature=give(temperature, "f32"), top_k=give(top_k, "i64"),
        top_p=give(top_p, "f32"), min_p=give(min_p, "f32"), ids=ids.address, ids_outer=4, ids_inner=2, ids_split=2,
        uniforms_split=1, uniforms_outer=1, uniforms_inner=0, rows=rows, rows_per_parameter=1,
        vocabulary=case["vocabulary"], wide=int(case["wide"])))
    found, wrong = ids.read()[::2], []
    for r in range(rows):
        expected, near = drawn(logits[r], temperature[r], int(top_k[r]), float(top_p[r]), float(min_p[r]), uniform[r])
        # Within a few roundings of f32 of a boundary either side is right.
        if found[r] != expected and near > 2e-6:
            wrong.append(f"row {r}: {found[r]} for {expected} (t {temperature[r]} k {top_k[r]} p {top_p[r]} "
                         f"min {min_p[r]} u {uniform[r]})")
    assert not wrong, "; ".join(wrong)
    return 0.0


def time_sample(bench):
    check_sample(bench)
    case = bench.case
    again = lambda overlap: bench.device.launch(("sample.cu", case["dtype"], 0), case["launch"], bench.arguments, overlap)
    return [again] * 10, case["rows"] * case["vocabulary"] * (4 if case["wide"] else 2), 0.0
