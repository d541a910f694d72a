//! The equations themselves: the step program, `encode` and `score` on the interpreter against every golden result,
//! before any runtime, export or distribution comes in.
#![allow(clippy::panic, reason = "a test fails by panicking")]

mod fixture;

use fixture::{Expected, GOLDENS, assert_close, golden_checkpoint, weights_of};
use indexmap::IndexMap;
use photonc::graph::interp::Interpreter;
use photonc::graph::{Graph, NodeId};
use photonc::ir::op::Op;
use photonc::ir::tensor::Tensor;
use photonc::model::build::{self, KeptCaches};
use photonc::model::checkpoint::Checkpoint;
use photonc::passes::choose_protocol::Protocol;
use photonc::passes::compile::specialise;
use std::collections::BTreeMap;

type Values = IndexMap<String, Tensor>;

const TOLERANCE: f64 = 1e-5;

/// The aligned prompt as a batch of one, and its length in meta-contexts.
fn prompt(expected: &Expected, k: usize, meta_tokens: usize) -> Values {
    let ids = expected.ints(k, "prompt_aligned");
    let lengths = Tensor::ints(&[1], vec![(ids.len() / meta_tokens) as i64]).expect("counts agree");
    let ids = Tensor::ints(&[1, ids.len()], ids.to_vec()).expect("counts agree");
    IndexMap::from([("ids".to_owned(), ids), ("lengths".to_owned(), lengths)])
}

fn labelled(graph: &Graph, id: NodeId) -> Option<String> {
    graph.label(id).map(str::to_owned)
}

#[test]
fn teacher_forced_forward_matches_every_golden() {
    for name in GOLDENS {
        let checkpoint = golden_checkpoint(name);
        let config = &checkpoint.config;
        let weights = weights_of(&checkpoint);
        let expected = Expected::of(name);
        let graph = build::score(config).expect("builds");
        let verified = graph.verify().expect("verifies");
        for k in 0..expected.prompts() {
            let mut seen: BTreeMap<String, Tensor> = BTreeMap::new();
            let outputs = Interpreter::new(verified, &weights)
                .expect("prepares")
                .run_observed(&prompt(&expected, k, config.meta_tokens()), &mut |id, value| {
                    if let Some(label) = labelled(&graph, id) {
                        seen.insert(label, value.clone());
                    }
                })
                .expect("runs");
            let what = format!("{name} prompt {k}");
            let logits = outputs["logits"].as_floats().expect("floats");
            let tolerance = if name == "photon-experiment" { 5e-4 } else { TOLERANCE };
            assert_close(&format!("{what} logits"), logits, expected.floats(k, "fwd_logits"), tolerance);
            for l in 1..=config.depth() {
                let state = seen[&format!("encoder.{l}")].as_floats().expect("floats");
                assert_close(
                    &format!("{what} X{l}"),
                    state,
                    expected.floats(k, &format!("fwd_X{l}")),
                    tolerance,
                );
                let below = seen[&format!("decoder.{}", l - 1)].as_floats().expect("floats");
                let key = format!("fwd_Xhat{}", l - 1);
                assert_close(&format!("{what} {key}"), below, expected.floats(k, &key), tolerance);
            }
        }
    }
}

/// State after prefill, caches grown to hold `steps` more meta-contexts.
fn prefilled(
    checkpoint: &Checkpoint,
    weights: &BTreeMap<String, Tensor>,
    given: &Values,
    steps: usize,
) -> Values {
    let config = &checkpoint.config;
    let graph = build::encode(config, KeptCaches::All).expect("builds");
    let mut state = Interpreter::new(graph.verify().expect("verifies"), weights)
        .expect("prepares")
        .run(given)
        .expect("runs");
    let meta = given["lengths"].as_ints().expect("ints")[0] as usize;
    for (name, value) in &mut state {
        let Some((l, _)) = name.strip_prefix("level").and_then(|rest| rest.split_once('.')) else { continue };
        let units = config.units(l.parse().expect("level"));
        let [_, heads, slots, width] = value.shape[..] else { panic!("cache of 4 axes") };
        let capacity = (meta + steps) * units;
        let mut grown = vec![f64::NAN; heads * capacity * width];
        for h in 0..heads {
            let (from, to) = (h * slots * width, h * capacity * width);
            let old = &value.as_floats().expect("floats")[from..from + slots * width];
            grown[to..to + slots * width].copy_from_slice(old);
        }
        *value = Tensor::floats(&[1, heads, capacity, width], grown).expect("counts agree");
    }
    state.insert("lengths".to_owned(), given["lengths"].clone());
    state
}

#[test]
fn step_program_generates_every_golden_token() {
    for name in GOLDENS {
        let checkpoint = golden_checkpoint(name);
        let weights = weights_of(&checkpoint);
        let expected = Expected::of(name);
        for protocol in [Protocol::Recgen, Protocol::Hiergen] {
            let step = specialise(&checkpoint.config, protocol).expect("specialises");
            for k in 0..expected.prompts() {
                generate(name, &checkpoint, &weights, &expected, &step, protocol, k);
            }
        }
    }
}

fn generate(
    name: &str,
    checkpoint: &Checkpoint,
    weights: &BTreeMap<String, Tensor>,
    expected: &Expected,
    step: &Graph,
    protocol: Protocol,
    k: usize,
) {
    let config = &checkpoint.config;
    let what = format!("{name} {protocol} prompt {k}");
    let key = |part: &str| format!("{protocol}_{part}");
    let tokens = expected.ints(k, &key("tokens"));
    let steps = tokens.len() / config.meta_tokens();
    let mut values = prefilled(checkpoint, weights, &prompt(expected, k, config.meta_tokens()), steps);
    let mut state: Values = step
        .delays()
        .into_iter()
        .map(|id| match step.op(id) {
            Op::Delay { name, .. } => (name.to_string(), values[&**name].clone()),
            other => panic!("{other:?} is no delay"),
        })
        .collect();
    let one = |value: f64| Tensor::floats(&[1], vec![value]).expect("counts agree");
    values.insert("temperature".to_owned(), one(0.0));
    values.insert("top_p".to_owned(), one(1.0));
    values.insert("top_k".to_owned(), Tensor::ints(&[1], vec![1]).expect("counts agree"));
    let uniforms = vec![0.5; config.meta_tokens()];
    values
        .insert("uniforms".to_owned(), Tensor::floats(&[1, uniforms.len()], uniforms).expect("counts agree"));
    let free = vec![-1; config.meta_tokens()];
    values.insert("forced".to_owned(), Tensor::ints(&[1, free.len()], free).expect("counts agree"));
    let (mut found_tokens, mut found_logits, mut tops) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..steps {
        tops.extend_from_slice(state["top_state"].as_floats().expect("floats"));
        let inputs: Values = step
            .inputs()
            .into_iter()
            .map(|id| match step.op(id) {
                Op::Input { name, .. } => (name.to_string(), values[&**name].clone()),
                other => panic!("{other:?} is no input"),
            })
            .collect();
        let verified = step.verify().expect("verifies");
        let outputs =
            Interpreter::new(verified, weights).expect("prepares").step(&mut state, &inputs).expect("steps");
        found_tokens.extend_from_slice(outputs["ids"].as_ints().expect("ints"));
        found_logits.extend_from_slice(outputs["logits"].as_floats().expect("floats"));
        let longer = values["lengths"].as_ints().expect("ints")[0] + 1;
        values.insert("lengths".to_owned(), Tensor::ints(&[1], vec![longer]).expect("counts agree"));
    }
    assert_eq!(found_tokens, tokens, "{what} tokens");
    let tolerance = if name == "photon-experiment" { 1e-3 } else { TOLERANCE };
    assert_close(&format!("{what} logits"), &found_logits, expected.floats(k, &key("logits")), tolerance);
    assert_close(&format!("{what} XL"), &tops, expected.floats(k, &key("XL")), tolerance);
}
