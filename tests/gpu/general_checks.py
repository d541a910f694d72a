"""Checks of the kernels of general_attention.cu and experts.cu against NumPy in f64."""

import numpy as np
from checks import dense, ratio, sigmoid
from values import EPSILON, STRUCTS, rounded


def heads(buffer, shape):
    """Heads of a contiguous [rows, positions, heads, width]."""
    _, positions, count, width = shape
    return STRUCTS["Heads"](buffer.address, positions * count * width, count * width, width)


def give(bench, values, dtype=None):
    return bench.buffer(values.size, dtype or bench.case["dtype"], values)


def check_rope(bench):
    case, dtype = bench.case, bench.case["dtype"]
    rows, count, own, width = shape = case["rows"], case["count"], case["heads"], case["width"]
    x, positions = bench.draw(*shape), bench.random.integers(0, 5000, (rows, count))
    out = bench.buffer(x.size, dtype)
    bench.run("RopeArguments", dict(
        x=heads(give(bench, x), shape), out=heads(out, shape), positions=give(bench, positions, "i64").address,
        position_row=count, position_step=1, theta=5e5, rows=rows, heads=own, count=count, width=width))
    half = width // 2
    angle = positions[..., None] * 5e5 ** (-2.0 * np.arange(half) / width)
    cosine, sine = np.cos(angle)[:, :, None], np.sin(angle)[:, :, None]
    low, high = x[..., :half], x[..., half:]
    expected = np.concatenate([low * cosine - high * sine, high * cosine + low * sine], -1)
    bound = EPSILON[dtype] * np.abs(expected) + 1e-6 * (np.abs(np.concatenate([low, low], -1)) + np.abs(
        np.concatenate([high, high], -1)))
    return ratio(out.read().reshape(shape), expected, bound)


def check_append(bench):
    case, dtype = bench.case, bench.case["dtype"]
    rows, count, own, width = shape = case["rows"], case["count"], case["heads"], case["width"]
    capacity = count + 9
    x, cache, lengths = bench.draw(*shape), bench.draw(rows, capacity, own, width), bench.random.integers(0, 9, rows)
    held = give(bench, cache)
    bench.run("AppendArguments", dict(
        x=heads(give(bench, x), shape), cache=heads(held, cache.shape), lengths=give(bench, lengths, "i64").address,
        rows=rows, heads=own, count=count, width=width))
    for row in range(rows):
        cache[row, lengths[row]: lengths[row] + count] = x[row]
    return ratio(held.read().reshape(cache.shape), cache, 1e-12 + 0 * cache)


def check_attend_general(bench):
    case, dtype, flags = bench.case, bench.case["dtype"], bench.case["flags"].split()
    rows, own, kv, queries, keys = (case[name] for name in ["rows", "heads", "kv_heads", "queries", "keys"])
    width, value_width, capacity = case["width"], case["value_width"], 75
    lengths = bench.random.integers(0, capacity, rows) if "lengths" in flags else np.zeros(rows, int)
    q, k, v = bench.draw(rows, queries, own, width), bench.draw(rows, keys, kv, width), bench.draw(rows, keys, kv, value_width)
    cache_k, cache_v = bench.draw(rows, capacity, kv, width), bench.draw(rows, capacity, kv, value_width)
    for row in range(rows):
        cache_k[row, lengths[row]:] = cache_v[row, lengths[row]:] = np.nan
    sinks = bench.draw(own) if "sinks" in flags else None
    out = bench.buffer(rows * queries * own * value_width, dtype)
    scale = width**-0.5
    bench.run("GeneralArguments", dict(
        q=heads(give(bench, q), q.shape), k=heads(give(bench, k), k.shape), v=heads(give(bench, v), v.shape),
        cache_k=heads(give(bench, cache_k), cache_k.shape), cache_v=heads(give(bench, cache_v), cache_v.shape),
        out=heads(out, (rows, queries, own, value_width)),
        lengths=give(bench, lengths, "i64").address if "lengths" in flags else 0,
        sinks=give(bench, sinks).address if sinks is not None else 0, rows=rows, heads=own, kv_heads=kv, queries=queries,
        keys=keys, width=width, value_width=value_width, window=case["window"], tile=case["tile"], scale=scale))
    found, worst = out.read().reshape(rows, queries, own, value_width), 0.0
    for row in range(rows):
        past = lengths[row]
        all_k = np.repeat(np.concatenate([cache_k[row, :past], k[row]]), own // kv, 1)
        all_v = np.repeat(np.concatenate([cache_v[row, :past], v[row]]), own // kv, 1)
        for query in range(queries):
            position = past + keys - queries + query
            first = max(position + 1 - case["window"], 0) if case["window"] else 0
            first = max(first, position // case["tile"] * case["tile"] if case["tile"] else 0)
            seen_k, seen_v = all_k[first: position + 1], all_v[first: position + 1]
            scores = np.einsum("hd,khd->hk", q[row, query], seen_k) * scale
            top = scores.max(-1) if sinks is None else np.maximum(scores.max(-1), sinks)
            weights = np.exp(scores - top[:, None])
            mass = weights.sum(-1) + (0.0 if sinks is None else np.exp(sinks - top))
            weights = weights / mass[:, None]
            expected = np.einsum("hk,khd->hd", weights, seen_v)
            size = np.einsum("hk,khd->hd", weights, np.abs(seen_v))
            bound = EPSILON[dtype] * np.abs(expected) + 1e-5 * size + 1e-6
            worst = max(worst, ratio(found[row, query], expected, bound))
    return worst


def check_route(bench):
    case, dtype = bench.case, bench.case["dtype"]
    rows, experts, top_k, groups, kept = (case[name] for name in ["rows", "experts", "top_k", "groups", "kept_groups"])
    # Equal logits and equal groups too: ties go to the lowest number.
    logits = rounded(np.round(bench.random.standard_normal((rows, experts)) * 4) / 4, dtype)
    bias = rounded(np.round(bench.random.standard_normal(experts)) / 8, dtype) if case["bias"] else None
    out = bench.buffer(rows * experts, dtype)
    bench.run("RouteArguments", dict(
        logits=dense(give(bench, logits), experts, rows), out=dense(out, experts, rows),
        bias=give(bench, bias).address if bias is not None else 0, factor=2.5, rows=rows, experts=experts, top_k=top_k,
        groups=groups, kept_groups=kept, normalize=case["normalize"], softmax=case["softmax"]))
    if case["softmax"]:
        scores = np.exp(logits - logits.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
    else:
        scores = sigmoid(logits)
    biased = scores + (bias if bias is not None else 0.0)
    expected = np.zeros_like(scores)
    for row in range(rows):
        members = experts // groups
        best = np.sort(biased[row].reshape(groups, members), -1)[:, -2:].sum(-1)
        open_groups = np.argsort(-best, kind="stable")[:kept] if groups > 1 else np.arange(groups)
        open_experts = [e for e in range(experts) if e // members in open_groups]
        chosen = sorted(open_experts, key=lambda e: (-biased[row, e], e))[:top_k]
        total = scores[row, chosen].sum() if case["normalize"] else 1.0
        expected[row, chosen] = scores[row, chosen] / total * 2.5
    found = out.read().reshape(expected.shape)
    assert ((found != 0) == (expected != 0)).all(), "other experts were chosen"
    return ratio(found, expected, EPSILON[dtype] * np.abs(expected) + 1e-6)


class Experts:
    """Gates with up to top_k experts a row, and maps."""

    def __init__(self, bench):
        case = bench.case
        self.rows, self.experts, self.top_k = case["rows"], case["experts"], case["top_k"]
        self.inner, self.width = case["inner"], case["width"]
        self.gates = np.zeros((self.rows, self.experts))
        for row in range(self.rows):
            # A row may have fewer, even none.
            count = bench.random.integers(0, self.top_k + 1)
            chosen = bench.random.choice(self.experts, count, replace=False)
            self.gates[row, chosen] = rounded(bench.random.uniform(0.1, 2.0, count), case["dtype"])
        self.fields = dict(
            gates=dense(give(bench, self.gates), self.experts, self.rows), rows=self.rows, experts=self.experts,
            top_k=self.top_k, inner=self.inner, width=self.width)


def check_experts_up(bench):
    case = Experts(bench)
    x = bench.draw(case.rows, case.width)
    maps = bench.draw(case.experts, case.width, 2 * case.inner, scale=case.width**-0.5)
    out = bench.buffer(case.rows * case.top_k * case.inner, "f32")
    bench.run("ExpertsArguments", dict(
        case.fields, x=dense(give(bench, x), case.width, case.rows), weight=give(bench, maps).address,
        out=dense(out, case.inner, case.rows * case.top_k)))
    expected = np.zeros((case.rows, case.top_k, case.inner))
    bound = np.zeros_like(expected) + 1e-6
    for row in range(case.rows):
        for slot, expert in enumerate(np.flatnonzero(case.gates[row])):
            wide, size = x[row] @ maps[expert], np.abs(x[row]) @ np.abs(maps[expert])
            gate, up = wide[: case.inner], wide[case.inner:]
            expected[row, slot] = gate * sigmoid(gate) * up
            bound[row, slot] += 1e-5 * (size[: case.inner] + 1) * (size[case.inner:] + 1)
    return ratio(out.read().reshape(expected.shape), expected, bound)


def check_experts_down(bench):
    case, dtype = Experts(bench), bench.case["dtype"]
    hidden = bench.random.standard_normal((case.rows, case.top_k, case.inner)).astype(np.float32).astype(np.float64)
    maps = bench.draw(case.experts, case.inner, case.width, scale=case.inner**-0.5)
    out = bench.buffer(case.rows * case.width, dtype)
    bench.run("ExpertsArguments", dict(
        case.fields, x=dense(give(bench, hidden, "f32"), case.inner, case.rows * case.top_k),
        weight=give(bench, maps).address, out=dense(out, case.width, case.rows)))
    expected, size = np.zeros((case.rows, case.width)), np.zeros((case.rows, case.width))
    for row in range(case.rows):
        for slot, expert in enumerate(np.flatnonzero(case.gates[row])):
            expected[row] += case.gates[row, expert] * (hidden[row, slot] @ maps[expert])
            size[row] += case.gates[row, expert] * (np.abs(hidden[row, slot]) @ np.abs(maps[expert]))
    return ratio(out.read().reshape(expected.shape), expected, EPSILON[dtype] * np.abs(expected) + 1e-5 * size + 1e-6)
