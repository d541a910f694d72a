//! The cases of `tests/gpu/kernels.py`, with the launches that the library chooses for them on an H100: written to
//! `tests/gpu/cases.json` with `PHOTONC_UPDATE=1`, compared with it otherwise.

use photonc::ir::attr::Scheme;
use photonc::ir::dtype::Dtype;
use photonc::runtime::cuda::launch::{self, LaunchError, Shape};
use photonc::runtime::cuda::launch_attention;
use photonc::runtime::cuda::launch_codes;
use photonc::runtime::cuda::launch_general;
use photonc::runtime::launch::arguments::{
    AppendArguments, AttendArguments, CodesArguments, DequantizeArguments, ElementArguments, EmbedArguments,
    ExpertsArguments, GatherArguments, GeneralArguments, Heads, IotaArguments, LinearArguments,
    NormArguments, ReadArguments, RopeArguments, RouteArguments, Rows, SampleArguments, SwigluArguments,
    UniformArguments,
};
use photonc::runtime::launch::codes::scheme_number;
use photonc::runtime::launch::device::Properties;
use serde_json::{Value, json};
use std::path::Path;

const FLOATS: [Dtype; 3] = [Dtype::F32, Dtype::Bf16, Dtype::F16];

fn h100() -> Properties {
    Properties {
        name: "NVIDIA H100 80GB HBM3".to_owned(),
        sm: 90,
        multiprocessors: 132,
        memory_bytes: 80 << 30,
        shared_bytes: 232_448,
        allocation_bytes: 256,
        batch_invariant: false,
    }
}

/// A case: its description and its launch.
fn case(mut about: Value, dtype: Dtype, shape: Result<Shape, LaunchError>) -> Value {
    let shape = shape.expect("a launch");
    about["dtype"] = json!(dtype.name());
    about["launch"] = json!({
        "name": shape.name,
        "grid": shape.grid,
        "threads": shape.threads,
        "shared_bytes": shape.shared_bytes,
    });
    about
}

/// Rows of a matrix at an address that only counts by its alignment.
fn rows(rows: i32, width: i64, skew: u64) -> Rows {
    Rows { base: 256 + skew, outer: 0, inner: width, split: rows, unused: 0 }
}

fn linear(dtype: Dtype, sizes: (i32, i32, i32), flags: &str, timed: bool) -> Value {
    let (m, k, n) = sizes;
    let has = |flag: &str| flags.split(' ').any(|own| own == flag);
    let skew = if has("skewed") { dtype.size_bytes() as u64 } else { 0 };
    let a = LinearArguments {
        x: rows(m, i64::from(k), skew),
        out: rows(m, i64::from(n), 0),
        weight: 256,
        norm: if has("norm") { 256 } else { 0 },
        rows: m,
        k,
        n,
        mode: i32::from(has("swiglu")),
        ..LinearArguments::default()
    };
    let shape = launch::linear(&a, dtype, &h100());
    let about = json!({
        "op": "linear", "rows": m, "k": k, "n": n, "flags": flags, "timed": timed,
    });
    case(about, dtype, shape)
}

fn linears(cases: &mut Vec<Value>) {
    for dtype in FLOATS {
        for (sizes, flags) in [
            ((1, 8, 16), ""),
            ((1, 40, 3), "norm"),
            ((2, 72, 9), "norm residual"),
            ((3, 104, 40), "norm bias"),
            ((5, 100, 30), "norm bias residual"),
            ((4, 96, 48), "skewed"),
            ((8, 256, 48), "swiglu norm"),
            ((6, 72, 20), "swiglu wide"),
            ((9, 128, 16), "residual"),
            ((17, 320, 33), "norm bias residual"),
            ((40, 64, 24), "swiglu"),
            ((64, 192, 72), "norm wide"),
            ((70, 160, 20), "bias"),
            ((33, 1608, 20), "norm"),
            ((33, 1608, 16), "swiglu norm"),
            ((33, 1472, 4240), "bias"),
            ((1, 64, 5000), "norm residual"),
            ((12, 72, 4260), "swiglu norm"),
        ] {
            cases.push(linear(dtype, sizes, flags, false));
        }
    }
    for m in [1, 2, 8, 16, 32, 64] {
        for (k, n, flags) in [
            (1664, 4992, "norm"),
            (1664, 1664, "residual"),
            (1664, 4096, "norm swiglu"),
            (4096, 1664, "residual"),
            (6656, 1664, "norm bias"),
            (1664, 3328, "bias"),
            (1664, 32_000, "norm wide"),
        ] {
            cases.push(linear(Dtype::Bf16, (m, k, n), flags, true));
        }
    }
    for (k, n, flags) in [
        (1792, 5376, "norm"),
        (4608, 1792, "residual"),
        (1920, 5760, "norm"),
        (1920, 5120, "norm swiglu"),
        (5120, 1920, "residual"),
    ] {
        cases.push(linear(Dtype::Bf16, (1, k, n), flags, true));
    }
    for (m, k, n, flags) in
        [(1, 1664, 4992, "norm"), (1, 4096, 1664, "residual"), (8, 1664, 4096, "norm swiglu")]
    {
        cases.push(linear(Dtype::F32, (m, k, n), flags, true));
    }
}

fn codes(dtype: Dtype, scheme: Scheme, sizes: (i32, i32, i32), flags: &str, timed: bool) -> Value {
    let (m, k, n) = sizes;
    let has = |flag: &str| flags.split(' ').any(|own| own == flag);
    let skew = if has("skewed") { dtype.size_bytes() as u64 } else { 0 };
    let linear = LinearArguments {
        x: rows(m, i64::from(k), skew),
        weight: 256,
        norm: if has("norm") { 256 } else { 0 },
        rows: m,
        k,
        n,
        mode: i32::from(has("swiglu")),
        ..LinearArguments::default()
    };
    let a = CodesArguments { linear, scales: 256, scheme: i32::from(scheme_number(scheme)), unused: 0 };
    let shape = launch_codes::product(&a, dtype, &h100());
    let about = json!({
        "op": "codes", "scheme": scheme.name(), "rows": m, "k": k, "n": n, "flags": flags, "timed": timed,
    });
    case(about, dtype, shape)
}

fn coded_products(cases: &mut Vec<Value>) {
    let device = h100();
    for dtype in FLOATS {
        for scheme in Scheme::ALL.iter().copied() {
            for (sizes, flags) in [
                ((1, 32, 16), ""),
                ((2, 96, 3), "norm"),
                ((3, 160, 40), "norm bias"),
                ((5, 224, 30), "norm bias residual"),
                ((4, 96, 48), "skewed"),
                ((8, 256, 48), "swiglu norm"),
                ((6, 608, 20), "swiglu wide"),
                ((9, 1056, 16), "residual"),
                ((16, 1184, 33), "norm residual"),
                ((13, 1664, 24), "swiglu norm"),
                ((16, 192, 72), "norm wide"),
                ((17, 160, 20), "bias"),
                ((1, 64, 5000), "norm residual"),
                ((7, 64, 4300), "residual"),
                ((12, 96, 4260), "swiglu norm"),
                ((11, 320, 4260), "norm bias"),
            ] {
                cases.push(codes(dtype, scheme, sizes, flags, false));
            }
            // Rows of int4 are whole groups of 32.
            if scheme != Scheme::Int4 {
                for (sizes, flags) in [
                    ((1, 8, 16), "norm"),
                    ((3, 72, 20), ""),
                    ((2, 100, 20), "norm residual"),
                    ((9, 7, 5), "swiglu"),
                ] {
                    cases.push(codes(dtype, scheme, sizes, flags, false));
                }
            }
            for (m, k) in [(5, 32), (3, 224), (2, 1664)] {
                let a = DequantizeArguments { rows: m, k, ..DequantizeArguments::default() };
                let about = json!({"op": "dequantize", "scheme": scheme.name(), "rows": m, "k": k});
                cases.push(case(about, dtype, launch_codes::dequantize(&a, &device)));
            }
            if scheme != Scheme::Int4 {
                let a = DequantizeArguments { rows: 3, k: 43, ..DequantizeArguments::default() };
                let about = json!({"op": "dequantize", "scheme": scheme.name(), "rows": 3, "k": 43});
                cases.push(case(about, dtype, launch_codes::dequantize(&a, &device)));
            }
        }
    }
    for scheme in Scheme::ALL.iter().copied() {
        for m in [1, 8, 16, 64] {
            for (k, n, flags) in [
                (1664, 4992, "norm"),
                (1664, 1664, "residual"),
                (1664, 4096, "norm swiglu"),
                (4096, 1664, "residual"),
            ] {
                cases.push(codes(Dtype::Bf16, scheme, (m, k, n), flags, true));
            }
        }
        cases.push(codes(Dtype::Bf16, scheme, (1, 1664, 32_000), "norm wide", true));
        let a = DequantizeArguments { rows: 4992, k: 1664, ..DequantizeArguments::default() };
        let about =
            json!({"op": "dequantize", "scheme": scheme.name(), "rows": 4992, "k": 1664, "timed": true});
        cases.push(case(about, Dtype::Bf16, launch_codes::dequantize(&a, &device)));
    }
}

fn row_kernels(cases: &mut Vec<Value>) {
    let device = h100();
    for dtype in FLOATS {
        for (m, width, timed) in [(3, 7, false), (5, 64, false), (4, 1664, false), (2, 6656, false)] {
            for flags in ["", "residual", "residual sum", "grouped"] {
                let a = NormArguments { rows: m, width, ..NormArguments::default() };
                let about =
                    json!({"op": "rms_norm", "rows": m, "width": width, "flags": flags, "timed": timed});
                cases.push(case(about, dtype, launch::rms_norm(&a, &device)));
            }
        }
        for (m, width) in [(3, 7), (6, 64)] {
            let a = SwigluArguments { rows: m, width, ..SwigluArguments::default() };
            let about = json!({"op": "swiglu", "rows": m, "width": width});
            cases.push(case(about, dtype, launch::swiglu(&a, &device)));
            let a = EmbedArguments { rows: m, width, vocabulary: 11, ..EmbedArguments::default() };
            let about = json!({"op": "embed", "rows": m, "width": width, "vocabulary": 11});
            cases.push(case(about, dtype, launch::embed(&a, &device)));
            let a = GatherArguments { batch: m, length: 5, count: 3, width, ..GatherArguments::default() };
            let about = json!({"op": "gather_rows", "batch": m, "length": 5, "count": 3, "width": width});
            cases.push(case(about, dtype, launch::gather_rows(&a, &device)));
        }
        for words in [3, 256 * 132 * 16 * 2 + 77] {
            let a = ReadArguments { words, ..ReadArguments::default() };
            let about = json!({"op": "read_words", "words": words});
            cases.push(case(about, dtype, launch::read_words(&a, &device)));
        }
        for operation in [
            "copy", "neg", "sigmoid", "silu", "exp", "add", "sub", "mul", "max", "min", "less", "equal",
            "where",
        ] {
            for element in ["model", "float", "int64"] {
                if element == "int64" && ["sigmoid", "silu", "exp"].contains(&operation) {
                    continue;
                }
                let size = [2, 1, 3, 4, 5];
                let a = ElementArguments { size, ..ElementArguments::default() };
                let about =
                    json!({"op": "elementwise", "operation": operation, "element": element, "size": size});
                cases.push(case(about, dtype, launch::elementwise(&a, &device)));
            }
        }
        let a = IotaArguments { count: 1000, ..IotaArguments::default() };
        cases.push(case(json!({"op": "iota", "count": 1000}), dtype, launch::iota(&a, &device)));
    }
    for flags in ["", "residual sum"] {
        let a = NormArguments { rows: 8192, width: 1664, ..NormArguments::default() };
        let about = json!({"op": "rms_norm", "rows": 8192, "width": 1664, "flags": flags, "timed": true});
        cases.push(case(about, Dtype::Bf16, launch::rms_norm(&a, &device)));
    }
}

/// What an attention case fixes; the rest is drawn by the script.
#[derive(Clone, Copy)]
struct Attend {
    head_dim: usize,
    rows: i32,
    heads: i32,
    kv_heads: i32,
    queries: i32,
    keys: i32,
    past_base: i32,
    first_query: i32,
    flags: &'static str,
    append: bool,
    timed: bool,
}

fn attend(dtype: Dtype, s: Attend) -> Value {
    let has = |flag: &str| s.flags.split(' ').any(|own| own == flag);
    let heads = Heads { base: 256, row: 0, position: 0, head: 0 };
    let a = AttendArguments {
        q: heads,
        lengths: if has("lengths") { 256 } else { 0 },
        rows_per_length: if has("shared_length") { 2 } else { 1 },
        past_base: s.past_base,
        rows: s.rows,
        heads: s.heads,
        kv_heads: s.kv_heads,
        queries: s.queries,
        keys: s.keys,
        first_query: s.first_query,
        ..AttendArguments::default()
    };
    let shape = if s.append {
        launch_attention::append_keys(&a, s.head_dim, dtype)
    } else {
        launch_attention::attend(&a, s.head_dim, dtype, &h100())
    };
    let about = json!({
        "op": if s.append { "append_keys" } else { "attend" }, "head_dim": s.head_dim, "rows": s.rows,
        "heads": s.heads, "kv_heads": s.kv_heads, "queries": s.queries, "keys": s.keys, "past_base": s.past_base,
        "first_query": s.first_query, "flags": s.flags, "timed": s.timed,
    });
    case(about, dtype, shape)
}

fn attends(cases: &mut Vec<Value>) {
    let base = Attend {
        head_dim: 52,
        rows: 3,
        heads: 4,
        kv_heads: 4,
        queries: 1,
        keys: 1,
        past_base: 4,
        first_query: 0,
        flags: "causal table store at_past",
        append: false,
        timed: false,
    };
    let mut all = Vec::new();
    for head_dim in [2, 8, 14, 52, 60, 128, 256] {
        let base = Attend { head_dim, ..base };
        let prefix = Attend { queries: 2, keys: 2, past_base: 0, flags: "causal table store", ..base };
        let lengths =
            Attend { past_base: 0, keys: 3, queries: 3, flags: "causal table lengths visible", ..base };
        let step = Attend { past_base: 1, flags: "causal table store at_past lengths shared_length", ..base };
        let stream =
            Attend { queries: 70, keys: 0, past_base: 70, first_query: -70, flags: "causal table", ..base };
        all.extend([base, prefix, lengths, step, stream]);
    }
    all.extend([
        Attend { kv_heads: 2, ..base },
        Attend { keys: 3, queries: 2, first_query: 1, past_base: 2, kv_heads: 1, ..base },
        Attend { keys: 5, queries: 2, past_base: 0, flags: "store", ..base },
        Attend { keys: 16, queries: 16, past_base: 0, flags: "causal table store", ..base },
        Attend { keys: 2, queries: 1, past_base: 10, flags: "causal visible", ..base },
        Attend { kv_heads: 2, past_base: 300, ..base },
        Attend { kv_heads: 1, past_base: 77, keys: 2, queries: 2, flags: "table visible", ..base },
        Attend { rows: 20, heads: 8, kv_heads: 8, past_base: 0, flags: "causal table lengths", ..base },
        Attend { rows: 300, past_base: 20, flags: "causal table store", ..base },
        Attend { append: true, keys: 3, past_base: 0, flags: "table store lengths at_past", ..base },
        Attend { append: true, keys: 5, flags: "store", ..base },
        Attend {
            kv_heads: 2,
            queries: 130,
            keys: 0,
            past_base: 200,
            first_query: -130,
            flags: "causal table visible",
            ..base
        },
        Attend { queries: 65, keys: 0, past_base: 90, first_query: -65, flags: "visible", ..base },
        Attend {
            rows: 2,
            queries: 64,
            keys: 0,
            past_base: 0,
            first_query: -64,
            flags: "causal table lengths",
            ..base
        },
    ]);
    for dtype in FLOATS {
        cases.extend(all.iter().map(|own| attend(dtype, *own)));
    }
    let paper = Attend { heads: 32, kv_heads: 32, timed: true, ..base };
    for own in [
        Attend { rows: 8192, past_base: 4, keys: 1, ..paper },
        Attend { rows: 8192, past_base: 0, keys: 2, queries: 2, flags: "causal table store", ..paper },
        Attend { rows: 1, past_base: 0, flags: "causal table store at_past lengths", ..paper },
        Attend { rows: 512, past_base: 127, flags: "causal table store at_past", ..paper },
        Attend {
            rows: 8,
            queries: 512,
            keys: 0,
            past_base: 512,
            first_query: -512,
            flags: "causal table",
            ..paper
        },
    ] {
        cases.push(attend(Dtype::Bf16, own));
    }
}

fn samples(cases: &mut Vec<Value>) {
    let device = h100();
    for dtype in FLOATS {
        for (m, vocabulary, wide, timed) in [
            (6, 7, false, false),
            (6, 7, true, false),
            (12, 1000, true, false),
            (12, 1000, false, false),
            (8, 2501, false, false),
            (24, 32_000, true, true),
        ] {
            if timed && dtype != Dtype::Bf16 {
                continue;
            }
            for kind in ["spread", "level", "equal", "bad"] {
                let a = SampleArguments {
                    rows: m,
                    vocabulary,
                    rows_per_parameter: 1,
                    ..SampleArguments::default()
                };
                let about = json!({
                    "op": "sample", "rows": m, "vocabulary": vocabulary, "wide": wide, "kind": kind,
                    "timed": timed && kind == "spread",
                });
                cases.push(case(about, dtype, launch::sample(&a)));
            }
        }
        let a = UniformArguments { rows: 5, count: 33, ..UniformArguments::default() };
        let about = json!({"op": "uniforms", "rows": 5, "count": 33});
        cases.push(case(about, dtype, launch::uniforms(&a, &device)));
    }
}

/// Sizes are those of no model: odd, prime, beyond a block.
fn general(cases: &mut Vec<Value>) {
    let device = h100();
    for dtype in FLOATS {
        for (rows, count, heads, width) in [(1, 1, 1, 2), (3, 5, 4, 14), (2, 33, 3, 64)] {
            let a = RopeArguments { rows, count, heads, width, ..RopeArguments::default() };
            let about = json!({"op": "rope", "rows": rows, "count": count, "heads": heads, "width": width});
            cases.push(case(about, dtype, launch_general::rope(&a, &device)));
            let a = AppendArguments { rows, count, heads, width, ..AppendArguments::default() };
            let about = json!({"op": "append", "rows": rows, "count": count, "heads": heads, "width": width});
            cases.push(case(about, dtype, launch_general::append(&a, &device)));
        }
        for ([rows, heads, kv_heads, queries, keys], [width, value_width, window, tile], flags) in [
            ([2, 3, 3, 1, 1], [10, 7, 0, 0], "lengths"),
            ([3, 4, 1, 3, 5], [72, 40, 0, 0], "lengths sinks"),
            ([2, 6, 2, 40, 40], [12, 10, 9, 0], ""),
            ([2, 2, 2, 7, 19], [33, 65, 0, 8], "sinks"),
            ([1, 2, 1, 4, 4], [576, 512, 20, 16], "lengths"),
        ] {
            let a = GeneralArguments {
                rows,
                heads,
                kv_heads,
                queries,
                keys,
                width,
                value_width,
                ..GeneralArguments::default()
            };
            let about = json!({
                "op": "attend_general", "rows": rows, "heads": heads, "kv_heads": kv_heads,
                "queries": queries, "keys": keys, "width": width, "value_width": value_width,
                "window": window, "tile": tile, "flags": flags,
            });
            cases.push(case(about, dtype, launch_general::attend_general(&a)));
        }
        for ([rows, experts, top_k, groups, kept_groups], [normalize, softmax], bias) in [
            ([5, 8, 2, 1, 1], [1, 0], true),
            ([4, 60, 6, 6, 3], [1, 0], true),
            ([3, 37, 1, 1, 1], [0, 1], false),
            ([2, 256, 8, 8, 4], [1, 1], false),
        ] {
            let a = RouteArguments { rows, experts, top_k, groups, kept_groups, ..RouteArguments::default() };
            let about = json!({
                "op": "route", "rows": rows, "experts": experts, "top_k": top_k, "groups": groups,
                "kept_groups": kept_groups, "normalize": normalize, "softmax": softmax, "bias": bias,
            });
            cases.push(case(about, dtype, launch_general::route(&a)));
        }
        for (rows, experts, top_k, inner, width) in [(4, 5, 2, 9, 21), (3, 16, 4, 130, 257)] {
            let a = ExpertsArguments { rows, experts, top_k, inner, width, ..ExpertsArguments::default() };
            for (op, shape) in [
                ("experts_up", launch_general::experts_up(&a)),
                ("experts_down", launch_general::experts_down(&a)),
            ] {
                let about = json!({
                    "op": op, "rows": rows, "experts": experts, "top_k": top_k, "inner": inner,
                    "width": width,
                });
                cases.push(case(about, dtype, shape));
            }
        }
    }
}

#[test]
fn the_script_runs_the_launches_that_the_library_chooses() {
    let mut cases = Vec::new();
    linears(&mut cases);
    coded_products(&mut cases);
    row_kernels(&mut cases);
    attends(&mut cases);
    samples(&mut cases);
    general(&mut cases);
    let lines: Vec<String> = cases.iter().map(Value::to_string).collect();
    let text = format!("[\n{}\n]\n", lines.join(",\n"));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gpu/cases.json");
    if std::env::var_os("PHOTONC_UPDATE").is_some() {
        std::fs::write(&path, &text).expect("written");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == text,
        "tests/gpu/cases.json is out of date: run with PHOTONC_UPDATE=1 and review the difference"
    );
}
