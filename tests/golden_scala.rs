//! The published family's wiring: the teacher-forced forward, and one step program for each way to summarise units, on the
//! interpreter against results of the original code. Prompts of every length: what stands in a meta-context that is only
//! partly given stands there in the place of drawn tokens.
#![allow(clippy::panic, reason = "a test fails by panicking")]

mod fixture;

use fixture::{Expected, assert_close, golden_checkpoint, weights_of};
use indexmap::IndexMap;
use photonc::graph::interp::Interpreter;
use photonc::graph::{Graph, NodeId};
use photonc::ir::op::Op;
use photonc::ir::tensor::Tensor;
use photonc::model::build::{self, KeptCaches, Summary};
use photonc::model::checkpoint::Checkpoint;
use std::collections::BTreeMap;

type Values = IndexMap<String, Tensor>;

const GOLDENS: [&str; 4] = ["scala_dense", "scala_moe", "scala_short", "scala_L3_block"];

/// The unmodified original in f32 differs by 1.2e-4 from the results, which were made in f64.
const LOGITS: f64 = 1e-3;
const STATES: f64 = 5e-4;

/// The golden's name of a protocol, what stands for a unit, and whose caches the prompt leaves.
const PROTOCOLS: [(&str, Summary, KeptCaches); 4] = [
    ("hiergen", Summary::State, KeptCaches::All),
    ("windowed", Summary::TiledState, KeptCaches::Tiled),
    ("chunkgen", Summary::Chunk, KeptCaches::Top),
    ("recgen", Summary::Reconstruction, KeptCaches::Top),
];

/// `ids`, padded to whole meta-contexts (one at least), and the number of those that count.
fn padded(ids: &[i64], meta_tokens: usize, metas: usize) -> Values {
    let mut ids = ids.to_vec();
    ids.resize(ids.len().max(1).next_multiple_of(meta_tokens), 0);
    let lengths = Tensor::ints(&[1], vec![metas as i64]).expect("counts agree");
    let ids = Tensor::ints(&[1, ids.len()], ids).expect("counts agree");
    IndexMap::from([("ids".to_owned(), ids), ("lengths".to_owned(), lengths)])
}

/// The first entries of `found`, as many as `expected` has.
fn assert_begins(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert!(found.len() >= expected.len(), "{what}: {} entries of {}", found.len(), expected.len());
    assert_close(what, &found[..expected.len()], expected, tolerance);
}

#[test]
fn teacher_forced_forward_matches_every_golden() {
    for name in GOLDENS {
        let checkpoint = golden_checkpoint(name);
        check_forward(name, &checkpoint, &weights_of(&checkpoint));
    }
}

fn check_forward(name: &str, checkpoint: &Checkpoint, weights: &BTreeMap<String, Tensor>) {
    let config = &checkpoint.config;
    let expected = Expected::of(name);
    let graph = build::score(config).expect("builds");
    let verified = graph.verify().expect("verifies");
    for k in 0..expected.prompts() {
        let prompt = expected.ints(k, "prompt");
        let metas = prompt.len().div_ceil(config.meta_tokens());
        let mut seen: BTreeMap<String, Tensor> = BTreeMap::new();
        let outputs = Interpreter::new(verified, weights)
            .expect("prepares")
            .run_observed(&padded(prompt, config.meta_tokens(), metas), &mut |id: NodeId, value| {
                if let Some(label) = graph.label(id) {
                    seen.insert(label.to_owned(), value.clone());
                }
            })
            .expect("runs");
        let what = format!("{name} prompt {k}");
        for l in 1..=config.depth() {
            for (label, key) in [
                (format!("encoder.{l}"), format!("fwd_X{l}")),
                (format!("decoder.{}", l - 1), format!("fwd_Xhat{}", l - 1)),
            ] {
                let Some(wanted) = expected.get(k, &key).and_then(Tensor::as_floats) else { continue };
                let found = seen[&label].as_floats().expect("floats");
                assert_begins(&format!("{what} {key}"), found, wanted, STATES);
            }
        }
        let logits = outputs["logits"].as_floats().expect("floats");
        assert_begins(&format!("{what} logits"), logits, expected.floats(k, "fwd_logits"), LOGITS);
    }
}

/// State after prefill of the whole meta-contexts of a prompt, caches grown to hold `steps` more.
fn prefilled(
    checkpoint: &Checkpoint,
    weights: &BTreeMap<String, Tensor>,
    aligned: &[i64],
    kept: KeptCaches,
    steps: usize,
) -> Values {
    let config = &checkpoint.config;
    let metas = aligned.len() / config.meta_tokens();
    let graph = build::encode(config, kept).expect("builds");
    let mut state = Interpreter::new(graph.verify().expect("verifies"), weights)
        .expect("prepares")
        .run(&padded(aligned, config.meta_tokens(), metas))
        .expect("runs");
    for (name, value) in &mut state {
        let Some((l, _)) = name.strip_prefix("level").and_then(|rest| rest.split_once('.')) else { continue };
        let units = config.units(l.parse().expect("level"));
        let [_, heads, slots, width] = value.shape[..] else { panic!("cache of 4 axes") };
        let (filled, capacity) = (metas * units, (metas + steps) * units);
        let old = value.as_floats().expect("floats");
        let mut grown = vec![f64::NAN; heads * capacity * width];
        for h in 0..heads {
            let (from, to) = (h * slots * width, h * capacity * width);
            grown[to..to + filled * width].copy_from_slice(&old[from..from + filled * width]);
        }
        *value = Tensor::floats(&[1, heads, capacity, width], grown).expect("counts agree");
    }
    state.insert("lengths".to_owned(), Tensor::ints(&[1], vec![metas as i64]).expect("counts agree"));
    state
}

#[test]
fn step_programs_generate_every_golden_token() {
    for name in GOLDENS {
        let checkpoint = golden_checkpoint(name);
        let weights = weights_of(&checkpoint);
        let expected = Expected::of(name);
        for protocol in PROTOCOLS {
            for k in 0..expected.prompts() {
                generate(name, &checkpoint, &weights, &expected, protocol, k);
            }
        }
    }
}

/// What the windows of each level were conditioned on becomes an output, in order of time.
fn with_conditions(mut graph: Graph, depth: usize) -> (Graph, BTreeMap<usize, Vec<String>>) {
    let mut names: BTreeMap<usize, Vec<(usize, String)>> = BTreeMap::new();
    for id in graph.nodes() {
        let Some(label) = graph.label(id).map(str::to_owned) else { continue };
        // Side by side, the condition of level L - 1 has the name that distribution gives the state it runs ahead with.
        let label = if label == "reconstruction" { format!("condition.{}", depth - 1) } else { label };
        if let Some(rest) = label.strip_prefix("condition.") {
            let (level, place) = rest.split_once('.').unwrap_or((rest, "0"));
            let key = level.parse().expect("a level");
            names.entry(key).or_default().push((place.parse().expect("a place"), label.clone()));
            graph.set_output(&label, id);
        }
    }
    let sorted = names.into_iter().map(|(level, mut names)| {
        names.sort_unstable();
        (level, names.into_iter().map(|(_, name)| name).collect())
    });
    (graph, sorted.collect())
}

fn generate(
    name: &str,
    checkpoint: &Checkpoint,
    weights: &BTreeMap<String, Tensor>,
    expected: &Expected,
    (protocol, summary, kept): (&str, Summary, KeptCaches),
    k: usize,
) {
    let config = &checkpoint.config;
    let what = format!("{name} {protocol} prompt {k}");
    let key = |part: &str| format!("{protocol}_{part}");
    let meta_tokens = config.meta_tokens();
    let prompt = expected.ints(k, "prompt");
    let (aligned, forced) = prompt.split_at(prompt.len() / meta_tokens * meta_tokens);
    let tokens = expected.ints(k, &key("tokens"));
    let steps = (forced.len() + tokens.len()) / meta_tokens;
    let (step, conditions) =
        with_conditions(build::step_program_of(config, summary).expect("builds"), config.depth());
    let prefill = prefilled(checkpoint, weights, aligned, kept, steps);
    let mut state: Values = step
        .delays()
        .into_iter()
        .map(|id| match step.op(id) {
            Op::Delay { name, .. } => (name.to_string(), prefill[&**name].clone()),
            other => panic!("{other:?} is no delay"),
        })
        .collect();
    let one = |value: f64| Tensor::floats(&[1], vec![value]).expect("counts agree");
    let mut inputs: Values = IndexMap::from([
        ("temperature".to_owned(), one(0.0)),
        ("top_p".to_owned(), one(1.0)),
        ("top_k".to_owned(), Tensor::ints(&[1], vec![1]).expect("counts agree")),
        (
            "uniforms".to_owned(),
            Tensor::floats(&[1, meta_tokens], vec![0.5; meta_tokens]).expect("counts agree"),
        ),
    ]);
    let (mut found_tokens, mut found_logits, mut tops) = (Vec::new(), Vec::new(), Vec::new());
    let mut found_conditions: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for at in 0..steps {
        tops.extend_from_slice(state["top_state"].as_floats().expect("floats"));
        let given: Vec<i64> = (0..meta_tokens)
            .map(|i| if at == 0 { forced.get(i).copied().unwrap_or(-1) } else { -1 })
            .collect();
        inputs.insert("forced".to_owned(), Tensor::ints(&[1, meta_tokens], given).expect("counts agree"));
        let verified = step.verify().expect("verifies");
        let outputs =
            Interpreter::new(verified, weights).expect("prepares").step(&mut state, &inputs).expect("steps");
        found_tokens.extend_from_slice(outputs["ids"].as_ints().expect("ints"));
        found_logits.extend_from_slice(outputs["logits"].as_floats().expect("floats"));
        for (level, names) in &conditions {
            let found = found_conditions.entry(*level).or_default();
            names.iter().for_each(|name| found.extend_from_slice(outputs[name].as_floats().expect("floats")));
        }
    }
    assert_eq!(&found_tokens[forced.len()..], tokens, "{what} tokens");
    let drawn = &found_logits[forced.len() * config.vocab_size..];
    assert_close(&format!("{what} logits"), drawn, expected.floats(k, &key("logits")), LOGITS);
    if let Some(wanted) = expected.get(k, &key("forced_logits")).and_then(Tensor::as_floats) {
        assert_begins(&format!("{what} forced logits"), &found_logits, wanted, LOGITS);
    }
    assert_close(&format!("{what} XL"), &tops, expected.floats(k, &key("XL")), STATES);
    for (level, found) in &found_conditions {
        let wanted = expected.floats(k, &key(&format!("Xhat{level}")));
        assert_close(&format!("{what} Xhat{level}"), found, wanted, STATES);
    }
}

/// Weights in few bits read as the numbers that the original quantiser's codes stand for, formats mixed by tensor.
#[test]
fn packed_weights_are_the_numbers_of_their_codes() {
    for name in ["scala_moe_fp8", "scala_moe_nvfp4"] {
        let checkpoint = golden_checkpoint(name);
        let expected = Expected::at(&fixture::golden_path(name).join("dequant.safetensors"));
        let mut compared = 0;
        for (canonical, entry) in checkpoint.tensors.iter().filter(|(_, entry)| entry.packing.is_some()) {
            let Some(wanted) = expected.find(&entry.native) else { continue };
            let found = checkpoint.read_f64(canonical).expect("reads");
            assert_close(&entry.native, &found, wanted.as_floats().expect("floats"), 1e-6);
            compared += 1;
        }
        assert!(compared > 3, "{name}: {compared} packed tensors compared");
        check_forward(name, &checkpoint, &weights_of(&checkpoint));
    }
}
