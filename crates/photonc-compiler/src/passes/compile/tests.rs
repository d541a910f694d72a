//! What compilation derives on the shapes that matter.

use super::{PassOptions, Plan, compile, compile_with};
use crate::model::config::{
    Chunker, Converter, ConverterLayout, Feedback, LevelConfig, ModelConfig, Slot, StackConfig, StackOptions,
    Wiring,
};
use crate::passes::choose_protocol::Protocol;
use crate::passes::opt_level::OptLevel;
use crate::passes::pipeline::{Observer, Record};
use photonc_graph::graph::Graph;

fn model(chunks: &[usize], feedback: Feedback) -> ModelConfig {
    let stack = StackConfig {
        layers: 1,
        heads: 2,
        kv_heads: 1,
        head_dim: 4,
        ffn: 12,
        options: StackOptions::default(),
    };
    let level = |index: usize, chunk: &usize| LevelConfig {
        chunk_size: *chunk,
        dim: 8,
        prefix: 2,
        chunker: Chunker::Linear { norm: true, bias: true },
        encoder: stack,
        converter: Converter { layout: ConverterLayout::Linear, bias: true },
        decoder: stack,
        decoder_dim: 8,
        slot: Slot::None,
        projection: false,
        feedback: if index == 0 { feedback } else { Feedback::Latent },
        stream: None,
        encoder_window: None,
    };
    ModelConfig {
        vocab_size: 11,
        embed_dim: 8,
        tied_head: false,
        rms_norm_eps: 1e-5,
        rope_theta: 10000.0,
        max_position_embeddings: 64,
        levels: chunks.iter().enumerate().map(|(index, chunk)| level(index, chunk)).collect(),
        wiring: Wiring::default(),
    }
}

#[test]
fn recgen_distributes_at_every_depth() {
    for chunks in [&[4, 4][..], &[3, 2, 4], &[2, 1, 1, 2]] {
        let compiled = compile(&model(chunks, Feedback::Token), &[Protocol::Recgen]).expect("compiles");
        let Plan::Distributed { certificate, .. } = &compiled.plans[&Protocol::Recgen] else {
            panic!("{chunks:?} was not distributed: {:?}", compiled.plans)
        };
        assert_eq!(certificate.tainted_coarse_nodes, 0);
        assert_eq!(certificate.cut.len(), 1, "{certificate:?}");
        assert_eq!(certificate.shifts.len(), chunks.len() - 1);
        for (name, graph) in &compiled.graphs {
            assert!(graph.verify().is_ok(), "{name}");
        }
    }
}

// The only data flow from a sample to the state at L = 1 is token feedback.
#[test]
fn one_level_distributes_only_with_latent_feedback() {
    let latent = compile(&model(&[4], Feedback::Latent), &[Protocol::Recgen]).expect("compiles");
    assert!(matches!(latent.plans[&Protocol::Recgen], Plan::Distributed { .. }));
    let token = compile(&model(&[4], Feedback::Token), &[Protocol::Recgen]).expect("compiles");
    let Plan::Undistributed { declined, reencode, prepare, .. } = &token.plans[&Protocol::Recgen] else {
        panic!("token feedback at one level was distributed")
    };
    assert_eq!(declined.path.first().map(|node| node.op.as_str()), Some("sample"));
    assert_eq!(declined.path.last().map(|node| node.op.as_str()), Some("delay"));
    assert!(reencode.is_none() && prepare.is_none());
}

#[test]
fn hiergen_declines_and_cuts_at_the_ids() {
    for feedback in [Feedback::Token, Feedback::Latent] {
        cuts_at_the_ids(feedback);
    }
}

fn cuts_at_the_ids(feedback: Feedback) {
    let compiled = compile(&model(&[4, 4], feedback), &[Protocol::Hiergen]).expect("compiles");
    let Plan::Undistributed { reencode, declined, .. } = &compiled.plans[&Protocol::Hiergen] else {
        panic!("HierGen was distributed")
    };
    assert_eq!(reencode.as_deref(), Some("reencode"));
    assert!(!declined.path.is_empty());
    let names: Vec<String> =
        compiled.graphs["reencode"].outputs().iter().map(|o| o.name.to_string()).collect();
    assert!(
        names.contains(&"next.top_state".to_owned())
            && names.contains(&"next.level1.encoder.layer0.key".to_owned())
    );
    let names: Vec<String> = compiled.graphs["decode"].outputs().iter().map(|o| o.name.to_string()).collect();
    assert_eq!(names, ["ids", "next.carry.1"]);
}

/// Rewrites of passes that are not needed for straight graphs.
#[derive(Default)]
struct Counter {
    started: usize,
    optional: usize,
}

impl Observer for Counter {
    fn before(&mut self, _: &Graph, _: &'static str) {
        self.started += 1;
    }

    fn after(&mut self, graph: &Graph, record: &Record) {
        assert!(graph.verify().is_ok());
        self.started -= 1;
        if !["choose-protocol", "close-counters", "lower-caches"].contains(&record.pass) {
            self.optional += record.rewrites.count;
        }
    }
}

fn rewrites(level: OptLevel, stop_after: Option<usize>) -> usize {
    let mut counter = Counter::default();
    let options = PassOptions { stop_after, observer: Some(&mut counter), ..PassOptions::at(level) };
    compile_with(&model(&[4, 4], Feedback::Token), &[Protocol::Recgen], options).expect("compiles");
    assert_eq!(counter.started, 0, "every pass that starts is told to have ended");
    counter.optional
}

#[test]
fn higher_levels_rewrite_no_less() {
    let found = OptLevel::ALL.map(|level| rewrites(level, None));
    assert_eq!(found[0], 0);
    assert!(found[0] < found[1] && found[1] < found[2] && found[2] <= found[3], "{found:?}");
}

// Bisection names one rewrite: a pass ends in its middle, and what came before is what came before without a bound.
#[test]
fn rewrites_stop_where_they_are_told_to() {
    let all = rewrites(OptLevel::O2, None);
    for bound in [0, 1, 10, 57, all - 1, all] {
        assert_eq!(rewrites(OptLevel::O2, Some(bound)), bound);
    }
    assert_eq!(rewrites(OptLevel::O2, Some(all + 1)), all);
}
