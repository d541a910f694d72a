//! Every operation and every kind of mask, alone: small graphs with symbolic sizes.

use crate::fixture::Spread;
use crate::harness::{Weights, check};
use photonc::graph::interp::Tensors;
use photonc::graph::{Graph, NodeId, Scope};
use photonc::ir::attr::{BinaryFn, CompareFn, Mask, Reach, Role, Scores, UnaryFn};
use photonc::ir::dtype::Dtype;
use photonc::ir::op::Op;
use photonc::ir::shape::{Shape, Type};
use photonc::ir::tensor::{Literal, Tensor};
use std::num::NonZeroUsize;

const TOLERANCE: f64 = 2e-5;

/// A graph under construction with what its runs need.
struct Build {
    graph: Graph,
    weights: Weights,
    spread: Spread,
}

impl Build {
    fn new(name: &str) -> Self {
        Build { graph: Graph::new(name), weights: Weights::new(), spread: Spread(7) }
    }

    fn add(&mut self, op: Op, operands: &[NodeId]) -> NodeId {
        self.graph.add(op, operands, &Scope::new("level1.test")).expect("types")
    }

    fn input(&mut self, name: &str, ty: &str) -> NodeId {
        let ty = Type::parse(ty).expect("type");
        self.add(Op::Input { name: name.into(), ty, role: Role::Argument }, &[])
    }

    fn weight(&mut self, name: &str, shape: &[usize]) -> NodeId {
        self.weights.insert(name.to_owned(), self.spread.floats(shape, -1.0, 1.0));
        self.add(Op::Weight { name: name.into(), ty: Type::new(Dtype::F32, Shape::of(shape)) }, &[])
    }

    fn ints(&mut self, values: &[i64]) -> NodeId {
        let value = Literal::ints(&[values.len()], values).expect("counts agree");
        self.add(Op::Const { value }, &[])
    }

    fn output(&mut self, name: &str, op: Op, operands: &[NodeId]) -> NodeId {
        let id = self.add(op, operands);
        self.graph.set_output(name, id);
        id
    }

    fn check(&self, runs: &[Tensors]) {
        check(self.graph.name(), &self.graph, &self.weights, runs, TOLERANCE);
    }
}

fn tensors<const N: usize>(values: [(&str, Tensor); N]) -> Tensors {
    values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn ints(values: &[i64]) -> Tensor {
    Tensor::ints(&[values.len()], values.to_vec()).expect("counts agree")
}

fn floats(values: &[f64]) -> Tensor {
    Tensor::floats(&[values.len()], values.to_vec()).expect("counts agree")
}

fn shape(text: &str) -> Shape {
    Shape::parse(text).expect("shape")
}

#[test]
fn elementwise_operations_broadcast() {
    let mut build = Build::new("elementwise");
    let (a, b) = (build.input("a", "f32[batch, 3, 4]"), build.input("b", "f32[3, 1]"));
    for function in BinaryFn::ALL {
        build.output(function.name(), Op::Binary { function: *function }, &[a, b]);
    }
    for function in UnaryFn::ALL {
        build.output(function.name(), Op::Unary { function: *function }, &[a]);
    }
    let less = build.output("less", Op::Compare { function: CompareFn::Less }, &[a, b]);
    build.output("equal", Op::Compare { function: CompareFn::Equal }, &[a, a]);
    build.output("where", Op::Where, &[less, a, b]);
    build.output("swiglu", Op::SwiGlu, &[a, a]);
    let mut spread = Spread(1);
    let mut run = |batch: usize| {
        tensors([("a", spread.floats(&[batch, 3, 4], -3.0, 3.0)), ("b", spread.floats(&[3, 1], -3.0, 3.0))])
    };
    build.check(&[run(1), run(3)]);
}

#[test]
fn integer_operations_count() {
    let mut build = Build::new("integers");
    let (a, b) = (build.input("a", "i64[batch]"), build.ints(&[4]));
    for function in [BinaryFn::Add, BinaryFn::Sub, BinaryFn::Mul, BinaryFn::Max, BinaryFn::Min] {
        build.output(function.name(), Op::Binary { function }, &[a, b]);
    }
    build.output("less", Op::Compare { function: CompareFn::Less }, &[a, b]);
    build.output("equal", Op::Compare { function: CompareFn::Equal }, &[a, b]);
    build.check(&[tensors([("a", ints(&[0, 4, 9]))])]);
}

#[test]
fn symbolic_axes_fold_and_unfold() {
    let mut build = Build::new("reshape");
    let x = build.input("x", "f32[batch, 4*meta, 6]");
    let folded = build.output("folded", Op::Reshape { shape: shape("batch*meta, 4, 6") }, &[x]);
    let swapped = build.output("swapped", Op::Transpose { perm: vec![0, 2, 1] }, &[folded]);
    let wide = build.output("wide", Op::Reshape { shape: shape("batch, meta, 24") }, &[swapped]);
    build.output("rows", Op::Reshape { shape: shape("4*batch*meta, 1, 6") }, &[wide]);
    build.output("heads", Op::Reshape { shape: shape("batch, 4*meta, 2, 3") }, &[x]);
    build.output("back", Op::Reshape { shape: shape("batch, 2*meta, 12") }, &[folded]);
    let mut spread = Spread(2);
    let mut run =
        |batch: usize, meta: usize| tensors([("x", spread.floats(&[batch, 4 * meta, 6], -1.0, 1.0))]);
    build.check(&[run(1, 1), run(3, 2)]);
}

#[test]
fn slices_and_concatenations_move_entries() {
    let mut build = Build::new("slices");
    let (x, y) = (build.input("x", "f32[batch, meta, 6]"), build.input("y", "f32[batch, 1, 6]"));
    build.output("shifted", Op::Shift, &[x, y]);
    let joined = build.output("joined", Op::Concat { axis: 1 }, &[y, x]);
    build.output("first", Op::Slice { axis: 1, start: 0, len: 1, from_end: false }, &[joined]);
    build.output("last", Op::Slice { axis: 1, start: 1, len: 1, from_end: true }, &[joined]);
    build.output("middle", Op::Slice { axis: 2, start: 2, len: 3, from_end: false }, &[x]);
    build.output("tail", Op::Slice { axis: 2, start: 3, len: 2, from_end: true }, &[x]);
    build.output("count", Op::Iota { axis: 1 }, &[joined]);
    build.output("three", Op::Concat { axis: 2 }, &[x, x, x]);
    let mut spread = Spread(3);
    let mut run = |batch: usize, meta: usize| {
        let x = spread.floats(&[batch, meta, 6], -1.0, 1.0);
        tensors([("x", x), ("y", spread.floats(&[batch, 1, 6], -1.0, 1.0))])
    };
    build.check(&[run(1, 1), run(3, 4)]);
}

#[test]
fn tables_and_rows_are_gathered() {
    let mut build = Build::new("gather");
    let (ids, x) = (build.input("ids", "i64[batch, 2*meta]"), build.input("x", "f32[batch, meta, 5]"));
    let index = build.input("index", "i64[batch, 2]");
    let table = build.weight("embed.weight", &[11, 5]);
    let embedded = build.output("embedded", Op::Gather, &[table, ids]);
    build.output("rows", Op::GatherRows, &[x, index]);
    // The same weight as table and as linear map: a tied head.
    build.output("logits", Op::Linear, &[embedded, table]);
    let mut spread = Spread(4);
    let mut run = |batch: usize, meta: usize| {
        let ids = spread.ints(&[batch, 2 * meta], 11);
        let x = spread.floats(&[batch, meta, 5], -1.0, 1.0);
        tensors([("ids", ids), ("x", x), ("index", spread.ints(&[batch, 2], meta))])
    };
    build.check(&[run(1, 1), run(3, 4)]);
}

#[test]
fn norms_and_linear_maps_take_any_leading_axes() {
    let mut build = Build::new("linear");
    let x = build.input("x", "f32[batch, 2*meta, 6]");
    let (norm, weight) = (build.weight("norm.weight", &[6]), build.weight("proj.weight", &[8, 6]));
    let bias = build.weight("proj.bias", &[8]);
    let normed = build.output("normed", Op::RmsNorm { eps: 1e-5.into() }, &[x, norm]);
    build.output("plain", Op::Linear, &[normed, weight]);
    let biased = build.output("biased", Op::Linear, &[x, weight, bias]);
    build.output("onto", Op::Linear, &[x, weight, biased]);
    let rows = build.input("rows", "f32[batch, 6]");
    build.output("rows.plain", Op::Linear, &[rows, weight]);
    let biased = build.output("rows.biased", Op::Linear, &[rows, weight, bias]);
    build.output("rows.onto", Op::Linear, &[rows, weight, biased]);
    let mut spread = Spread(5);
    let mut run = |batch: usize, meta: usize| {
        let x = spread.floats(&[batch, 2 * meta, 6], -2.0, 2.0);
        tensors([("x", x), ("rows", spread.floats(&[batch, 6], -2.0, 2.0))])
    };
    build.check(&[run(1, 1), run(2, 3)]);
}

#[test]
fn rope_takes_constant_counted_and_given_positions() {
    let mut build = Build::new("rope");
    let (x, y) = (build.input("x", "f32[batch, 2, 3, 6]"), build.input("y", "f32[batch, 2, meta, 6]"));
    let (given, one) = (build.input("positions", "i64[batch, meta]"), build.input("z", "f32[1, 2, 3, 6]"));
    let fixed = build.ints(&[0, 5, 2]);
    let counted = build.add(Op::Iota { axis: 2 }, &[y]);
    let op = || Op::Rope { theta: 10000.0.into() };
    build.output("fixed", op(), &[x, fixed]);
    build.output("alone", op(), &[one, fixed]);
    build.output("counted", op(), &[y, counted]);
    build.output("given", op(), &[y, given]);
    let mut spread = Spread(6);
    let mut run = |batch: usize, meta: usize| {
        let x = spread.floats(&[batch, 2, 3, 6], -1.0, 1.0);
        let y = spread.floats(&[batch, 2, meta, 6], -1.0, 1.0);
        let positions = spread.ints(&[batch, meta], 50);
        tensors([
            ("x", x),
            ("y", y),
            ("positions", positions),
            ("z", spread.floats(&[1, 2, 3, 6], -1.0, 1.0)),
        ])
    };
    build.check(&[run(1, 1), run(3, 4)]);
}

/// Queries `n` over a cache of `capacity` slots and as many new keys.
fn past_graph(name: &str, heads: usize, n: &str) -> Build {
    let mut build = Build::new(name);
    let q = build.input("q", &format!("f32[batch, {heads}, {n}, 4]"));
    let cache = |build: &mut Build, name: &str| build.input(name, "f32[batch, 2, capacity, 4]");
    let (k, v) = (cache(&mut build, "k"), cache(&mut build, "v"));
    let new = |build: &mut Build, name: &str| build.input(name, &format!("f32[batch, 2, {n}, 4]"));
    let (new_k, new_v) = (new(&mut build, "new_k"), new(&mut build, "new_v"));
    let lengths = build.input("lengths", "i64[batch]");
    let keys = build.add(Op::Concat { axis: 2 }, &[k, new_k]);
    let values = build.add(Op::Concat { axis: 2 }, &[v, new_v]);
    let op = Op::Attention { scale: 0.5.into(), mask: Mask::Past, reach: Reach::ALL };
    build.output("out", op, &[q, keys, values, lengths]);
    build
}

/// A cache whose slots past each row's length hold NaN, infinities and huge numbers.
fn poisoned(spread: &mut Spread, slots: usize, lengths: &[i64]) -> Tensor {
    let clean = spread.floats(&[lengths.len(), 2, slots, 4], -1.0, 1.0);
    let values = clean.as_floats().expect("floats").iter().enumerate();
    let values = values.map(|(at, value)| {
        let (slot, row) = (at / 4 % slots, at / (8 * slots));
        let poison = [f64::NAN, f64::INFINITY, 1e30, f64::NEG_INFINITY][at % 4];
        if (slot as i64) < lengths[row] { *value } else { poison }
    });
    Tensor::floats(&clean.shape, values.collect()).expect("counts agree")
}

#[test]
fn past_attention_ignores_whatever_lies_past_the_lengths() {
    for (name, heads, n, size) in [
        ("past_decode", 4, "1", 1),
        ("past_grouped", 6, "3", 3),
        ("past_plain", 2, "2", 2),
        ("past_open", 4, "meta", 3),
    ] {
        let build = past_graph(name, heads, n);
        let mut spread = Spread(8);
        let mut run = |slots: usize, lengths: &[i64]| {
            let b = lengths.len();
            tensors([
                ("q", spread.floats(&[b, heads, size, 4], -2.0, 2.0)),
                ("k", poisoned(&mut spread, slots, lengths)),
                ("v", poisoned(&mut spread, slots, lengths)),
                ("new_k", spread.floats(&[b, 2, size, 4], -2.0, 2.0)),
                ("new_v", spread.floats(&[b, 2, size, 4], -2.0, 2.0)),
                ("lengths", ints(lengths)),
            ])
        };
        build.check(&[run(4, &[0]), run(1, &[1]), run(8, &[0, 3, 8])]);
    }
}

#[test]
fn cache_attention_sees_slots_up_to_each_query() {
    for (name, heads, n) in [("cache_decode", 4, 1), ("cache_grouped", 4, 3)] {
        let mut build = Build::new(name);
        let q = build.input("q", &format!("f32[batch, {heads}, {n}, 4]"));
        let k = build.input("k", "f32[batch, 2, capacity, 4]");
        let v = build.input("v", "f32[batch, 2, capacity, 4]");
        let lengths = build.input("lengths", "i64[batch]");
        let op = Op::Attention { scale: 0.5.into(), mask: Mask::Cache, reach: Reach::ALL };
        build.output("out", op, &[q, k, v, lengths]);
        let mut spread = Spread(9);
        let filled = [n as i64, 2 + n as i64, 5];
        let run = tensors([
            ("q", spread.floats(&[3, heads, n, 4], -2.0, 2.0)),
            ("k", poisoned(&mut spread, 5, &filled)),
            ("v", poisoned(&mut spread, 5, &filled)),
            ("lengths", ints(&[0, 2, 5 - n as i64])),
        ]);
        build.check(&[run]);
    }
}

#[test]
fn causal_attention_is_aligned_at_the_end() {
    let cases = [
        ("causal_square", 4, "3", "3", [3, 3]),
        ("causal_last", 4, "1", "5", [1, 5]),
        ("causal_short", 2, "2", "5", [2, 5]),
        ("causal_open", 2, "2*meta", "2*meta", [4, 4]),
        ("causal_open_grouped", 6, "2*meta", "2*meta", [6, 6]),
        ("causal_open_last", 6, "1", "meta", [1, 7]),
    ];
    for (name, heads, n, m, [queries, keys]) in cases {
        let mut build = Build::new(name);
        let q = build.input("q", &format!("f32[batch, {heads}, {n}, 4]"));
        let k = build.input("k", &format!("f32[batch, 2, {m}, 4]"));
        let v = build.input("v", &format!("f32[batch, 2, {m}, 4]"));
        build.output(
            "out",
            Op::Attention { scale: 0.5.into(), mask: Mask::Causal, reach: Reach::ALL },
            &[q, k, v],
        );
        let mut spread = Spread(10);
        let mut run = |b: usize| {
            tensors([
                ("q", spread.floats(&[b, heads, queries, 4], -2.0, 2.0)),
                ("k", spread.floats(&[b, 2, keys, 4], -2.0, 2.0)),
                ("v", spread.floats(&[b, 2, keys, 4], -2.0, 2.0)),
            ])
        };
        build.check(&[run(1), run(2)]);
    }
}

/// Windows, tiles, recent keys and sinks, each mask with each way heads are grouped; values are narrower than keys.
#[test]
fn attention_reaches_as_far_as_it_says() {
    let reach = |window, tile, recent| Reach {
        tile: NonZeroUsize::new(tile),
        recent,
        ..Reach::window((window > 0).then_some(window))
    };
    let cases = [
        ("reach_plain", 2, "2", 2, Mask::Past, reach(2, 0, 0)),
        ("reach_recent", 4, "1", 1, Mask::Past, reach(0, 0, 2)),
        ("reach_rows", 4, "2", 2, Mask::Past, reach(3, 4, 1)),
        ("reach_open", 4, "meta", 2, Mask::Past, reach(2, 3, 0)),
        ("reach_causal", 4, "3", 3, Mask::Causal, reach(2, 0, 0)),
        ("reach_causal_open", 4, "meta", 2, Mask::Causal, reach(2, 2, 0)),
        ("reach_last", 2, "1", 1, Mask::Causal, reach(2, 0, 0)),
        ("reach_cache", 4, "2", 2, Mask::Cache, reach(2, 0, 0)),
    ];
    for (name, heads, n, size, mask, reach) in cases {
        let recent = reach.recent;
        let mut build = Build::new(name);
        let q = build.input("q", &format!("f32[batch, {heads}, {n}, 4]"));
        let (k, v) = (
            build.input("k", "f32[batch, 2, 6*capacity, 4]"),
            build.input("v", "f32[batch, 2, 6*capacity, 3]"),
        );
        let new = |width: usize| match (n.parse::<usize>(), recent) {
            (Ok(n), recent) => format!("f32[batch, 2, {}, {width}]", n + recent),
            (Err(_), _) => format!("f32[batch, 2, {n}, {width}]"),
        };
        let sinks = build.weight("sink_logits", &[heads]);
        let mut operands = vec![q];
        if mask == Mask::Cache {
            operands.extend([k, v]);
        } else {
            let (new_k, new_v) = (build.input("new_k", &new(4)), build.input("new_v", &new(3)));
            operands.push(build.add(Op::Concat { axis: 2 }, &[k, new_k]));
            operands.push(build.add(Op::Concat { axis: 2 }, &[v, new_v]));
        }
        if mask != Mask::Causal {
            operands.push(build.input("lengths", "i64[batch]"));
        }
        let op = Op::Attention { scale: 0.5.into(), mask, reach };
        build.output("plain", op.clone(), &operands);
        operands.push(sinks);
        build.output("sinks", op, &operands);
        let mut spread = Spread(12);
        let mut run = |lengths: &[i64]| {
            let b = lengths.len();
            let mut all = tensors([
                ("q", spread.floats(&[b, heads, size, 4], -2.0, 2.0)),
                ("k", spread.floats(&[b, 2, 6, 4], -2.0, 2.0)),
                ("v", spread.floats(&[b, 2, 6, 3], -2.0, 2.0)),
            ]);
            if mask != Mask::Cache {
                all.insert("new_k".to_owned(), spread.floats(&[b, 2, size + recent, 4], -2.0, 2.0));
                all.insert("new_v".to_owned(), spread.floats(&[b, 2, size + recent, 3], -2.0, 2.0));
            }
            if mask != Mask::Causal {
                all.insert("lengths".to_owned(), ints(lengths));
            }
            all
        };
        build.check(&[run(&[0]), run(&[1, 4, 3])]);
    }
}

#[test]
fn routers_choose_experts() {
    let mut build = Build::new("experts");
    let x = build.input("x", "f32[batch, 2*meta, 5]");
    let (router, bias) = (build.weight("router.weight", &[6, 5]), build.weight("router.bias", &[6]));
    let logits = build.output("logits", Op::Linear, &[x, router]);
    let route = |scores, top_k, groups, kept_groups, normalize| Op::Route {
        scores,
        top_k,
        groups,
        kept_groups,
        normalize,
        factor: 2.5.into(),
    };
    let gates = build.output("grouped", route(Scores::Sigmoid, 3, 3, 2, true), &[logits, bias]);
    build.output("one", route(Scores::Softmax, 1, 1, 1, false), &[logits]);
    let (up, down) = (build.weight("up", &[6, 5, 8]), build.weight("down", &[6, 4, 5]));
    build.output("experts", Op::Experts { top_k: 3 }, &[x, gates, up, down]);
    let mut spread = Spread(13);
    let mut run =
        |batch: usize, meta: usize| tensors([("x", spread.floats(&[batch, 2 * meta, 5], -2.0, 2.0))]);
    build.check(&[run(1, 1), run(3, 2)]);
}

/// Logits of `6 * meta` tokens per request, with ties.
fn sample_run(spread: &mut Spread, meta: usize, requests: [&[f64]; 3]) -> Tensors {
    let batch = requests[0].len();
    let tokens = 6 * meta;
    let logits: Vec<f64> = (0..batch * tokens * 9).map(|_| (spread.unit() * 12.0).floor() / 2.0).collect();
    let top_k: Vec<i64> = requests[1].iter().map(|k| *k as i64).collect();
    tensors([
        ("logits", Tensor::floats(&[batch, tokens, 9], logits).expect("counts agree")),
        ("uniforms", spread.floats(&[batch, tokens], 0.0, 1.0)),
        ("temperature", floats(requests[0])),
        ("top_k", ints(&top_k)),
        ("top_p", floats(requests[2])),
    ])
}

#[test]
fn samples_equal_the_reference_with_ties() {
    let mut build = Build::new("sample");
    // tract takes no product of symbols as a size of an input, so the rows are folded inside, as in `expand`.
    let logits = build.input("logits", "f32[batch, 6*meta, 9]");
    let logits = build.add(Op::Reshape { shape: shape("2*batch*meta, 3, 9") }, &[logits]);
    let uniforms = build.input("uniforms", "f32[batch, 6*meta]");
    let uniforms = build.add(Op::Reshape { shape: shape("2*batch*meta, 3") }, &[uniforms]);
    let temperature = build.input("temperature", "f32[batch]");
    let top_k = build.input("top_k", "i64[batch]");
    let top_p = build.input("top_p", "f32[batch]");
    build.output("ids", Op::Sample { candidates: 6 }, &[logits, uniforms, temperature, top_k, top_p]);
    let mut spread = Spread(11);
    let greedy = sample_run(&mut spread, 2, [&[0.0], &[1.0], &[1.0]]);
    let mixed = [&[0.0, 1.0, 0.7, 2.0, 1e-30][..], &[6.0, 6.0, 3.0, 20.0, 4.0], &[1.0, 1.0, 0.8, 0.0, 0.9]];
    build.check(&[greedy, sample_run(&mut spread, 1, mixed), sample_run(&mut spread, 5, mixed)]);
}
