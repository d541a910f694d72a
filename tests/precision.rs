//! Goldens in narrow types: states and logits within the tolerance that type and graphs give, greedy tokens equal wherever
//! the golden's margin exceeds it; on the reference and in tract. What was found is the table of docs/numerics.md.
#![allow(clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "what was measured is shown with --nocapture")]

mod fixture;

use fixture::model::{greedy, run};
use fixture::tolerance::Chain;
use fixture::{
    Expected, GOLDENS, assert_states, exported, golden_checkpoint, golden_path, largest_difference,
};
use photonc::bundle::Bundle;
use photonc::export::target::Target;
use photonc::export::{ExportOptions, export};
use photonc::graph::text;
use photonc::ir::attr::Scheme;
use photonc::ir::dtype::Dtype;
use photonc::passes::choose_protocol::Protocol;
use photonc::passes::opt_level::OptLevel;
use photonc::passes::quantize_weights::Choice;
use photonc::runtime::backend::Backend;
use photonc::runtime::generator::Generator;
use photonc::runtime::reference::Reference;
use photonc::runtime::request::{Batch, Keep, Request, RunAhead};
use photonc::runtime::tract::Tract;

const PROTOCOLS: [Protocol; 2] = [Protocol::Recgen, Protocol::Hiergen];

/// A golden as a bundle of a narrow type.
struct Narrow {
    name: &'static str,
    dtype: Dtype,
    bundle: Bundle,
    expected: Expected,
    vocab_size: usize,
    meta_tokens: usize,
    /// Removed with the test.
    _directory: tempfile::TempDir,
}

impl Narrow {
    fn of(name: &'static str, dtype: Dtype) -> Self {
        Narrow::with(name, dtype, |_| {})
    }

    fn with(name: &'static str, dtype: Dtype, change: impl Fn(&mut ExportOptions)) -> Self {
        let target = if dtype == Dtype::Bf16 { Target::Tensorrt } else { Target::Portable };
        let (directory, bundle) = exported(name, |options| {
            options.precision = dtype;
            options.targets = Some(vec![target]);
            change(options);
        });
        bundle.verify_weights().expect("weights are whole");
        let config = golden_checkpoint(name).config;
        Narrow {
            name,
            dtype,
            bundle,
            expected: Expected::of(name),
            vocab_size: config.vocab_size,
            meta_tokens: config.meta_tokens(),
            _directory: directory,
        }
    }

    fn chain(&self, graph: &str) -> Chain {
        let text = self.bundle.graph_text(graph).expect("is there");
        Chain::of(&text::parse(&text).expect("parses"))
    }

    /// Relative to the largest element, of what a protocol yields after `metas` meta-contexts.
    fn tolerance(&self, protocol: Protocol, metas: usize) -> f64 {
        let (step, last) = match protocol {
            Protocol::Recgen => ("coarse", "expand_logits"),
            Protocol::Hiergen | Protocol::Windowed | Protocol::Chunkgen => ("reencode", "decode_logits"),
        };
        let chain = self.chain("encode").then(metas, self.chain(step)).then(1, self.chain(last));
        chain.tolerance(self.dtype, Dtype::F32)
    }

    /// Greedy tokens that agree with the golden's before the first that does not, and all of them. Every prompt and
    /// protocol; fails where a state or a logit is off by more than the tolerance, or a token by more than its margin.
    fn check(&self, what: &str, backend: Box<dyn Backend>) -> (usize, usize) {
        let mut generator = Generator::of_bundle(&self.bundle, backend).expect("signatures parse");
        let (mut agreeing, mut all) = (0, 0);
        for protocol in PROTOCOLS {
            for k in 0..self.expected.prompts() {
                let tokens = self.expected.ints(k, &format!("{protocol}_tokens"));
                let request = Request {
                    prompt: self.expected.ints(k, "prompt").to_vec(),
                    keep: Keep { logits: true, states: true, trajectory: false },
                    ..greedy(protocol, tokens.len())
                };
                let batch = Batch { run_ahead: RunAhead::MetaContexts(2), ..Batch::new(vec![request]) };
                let generation = run(&mut generator, &batch);
                let sequence = &generation.sequences[0];
                let same = sequence.tokens.iter().zip(tokens).take_while(|(a, b)| a == b).count();
                let what = format!("{what} {} {} {protocol} prompt {k}", self.name, self.dtype);
                self.check_logits(&what, protocol, k, &sequence.logits, same);
                // Under HierGen what follows a differing token is another sequence.
                if protocol == Protocol::Recgen || same == tokens.len() {
                    let scale = largest(self.expected.floats(k, &format!("{protocol}_XL")));
                    let metas = tokens.len().div_ceil(self.meta_tokens);
                    let tolerance = self.tolerance(protocol, metas) * scale;
                    assert_states(&what, &self.expected, protocol, k, &generation.states, 0, tolerance);
                }
                (agreeing, all) = (agreeing + same, all + tokens.len());
            }
        }
        (agreeing, all)
    }

    /// Logits of the tokens that agree, and of the first that does not: there the golden's two tokens are closer than
    /// both may be off.
    fn check_logits(&self, what: &str, protocol: Protocol, k: usize, found: &[f64], same: usize) {
        let expected = self.expected.floats(k, &format!("{protocol}_logits"));
        let known = expected.len() / self.vocab_size;
        let scale = largest(expected);
        for token in 0..known.min(same + 1) {
            let at = token * self.vocab_size..(token + 1) * self.vocab_size;
            let (found, expected) = (&found[at.clone()], &expected[at]);
            let tolerance = self.tolerance(protocol, token / self.meta_tokens + 1) * scale;
            let (difference, index) = largest_difference(found, expected);
            assert!(
                difference <= tolerance,
                "{what} logit {index} of token {token}: {difference:e} > {tolerance:e}"
            );
            if token == same {
                let chosen = argmax(found);
                let margin = expected[argmax(expected)] - expected[chosen];
                assert!(
                    margin <= 2.0 * tolerance,
                    "{what}: token {token} is {chosen} against a margin of {margin:e}"
                );
            }
        }
    }
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(1.0, |largest, value| largest.max(value.abs()))
}

fn argmax(values: &[f64]) -> usize {
    (0..values.len()).fold(0, |best, at| if values[at] > values[best] { at } else { best })
}

/// Shows how many greedy tokens agree; that each that does not was close is what `check` asserts.
fn show(what: &str, name: &str, (agreeing, all): (usize, usize)) {
    println!("{what} {name}: {agreeing} of {all} greedy tokens before the first that differs");
    assert!(agreeing > 0, "{what} {name}");
}

#[test]
fn the_reference_rounds_to_f16_and_stays_near_the_goldens() {
    for name in GOLDENS {
        let narrow = Narrow::of(name, Dtype::F16);
        let found = narrow.check("reference", Box::new(Reference::of_bundle(narrow.bundle.clone())));
        show("reference f16", name, found);
        // A reference that did not round would be as near as in f32.
        let exact = Narrow::of(name, Dtype::F32);
        assert_ne!(narrow.logits(), exact.logits(), "{name} did not round");
    }
}

#[test]
fn tract_stays_near_the_goldens_in_f16() {
    for name in GOLDENS {
        let narrow = Narrow::of(name, Dtype::F16);
        let found = narrow.check("tract", Box::new(Tract::of_bundle(narrow.bundle.clone())));
        show("tract f16", name, found);
    }
}

#[test]
fn the_reference_stays_near_the_goldens_in_bf16() {
    let narrow = Narrow::of("paper", Dtype::Bf16);
    let found = narrow.check("reference", Box::new(Reference::of_bundle(narrow.bundle.clone())));
    show("reference bf16", "paper", found);
}

impl Narrow {
    /// Logits of the first prompt's teacher-forced forward on the reference.
    fn logits(&self) -> Vec<f64> {
        let backend = Box::new(Reference::of_bundle(self.bundle.clone()));
        let mut generator = Generator::of_bundle(&self.bundle, backend).expect("signatures parse");
        let (scored, _) = generator.score(&[self.expected.ints(0, "prompt").to_vec()]).expect("scores");
        scored[0].logits.clone()
    }
}

// Types and codes are chosen after all other passes, so no level may lose one: merged maps have merged codes.
#[test]
fn every_level_takes_types_and_codes() {
    let stacks = ["level1.encoder", "level1.decoder", "level2", "lm_head"];
    for level in OptLevel::ALL {
        for (name, dtype) in [("paper", Dtype::F16), ("lopsided", Dtype::F32)] {
            let narrow = Narrow::with(name, dtype, |options| {
                options.opt_level = level;
                let choice = |stack| Choice { stack, scheme: Scheme::Int8 };
                options.quantized = stacks.map(|stack| choice(stack.into())).to_vec();
            });
            let logits = |backend: Box<dyn Backend>| {
                let mut generator = Generator::of_bundle(&narrow.bundle, backend).expect("signatures parse");
                let (scored, _) =
                    generator.score(&[narrow.expected.ints(0, "prompt").to_vec()]).expect("scores");
                scored[0].logits.clone()
            };
            let expected = logits(Box::new(Reference::of_bundle(narrow.bundle.clone())));
            let found = logits(Box::new(Tract::of_bundle(narrow.bundle.clone())));
            let tolerance = narrow.chain("score").tolerance(dtype, Dtype::F32) * largest(&expected);
            let (difference, at) = largest_difference(&found, &expected);
            assert!(difference <= tolerance, "{name} {level} logit {at}: {difference:e} > {tolerance:e}");
            assert!(narrow.bundle.manifest().quantized.len() > 20, "{name} {level}");
        }
    }
}

#[test]
fn the_bundle_says_its_types() {
    let narrow = Narrow::of("paper", Dtype::F16);
    let manifest = narrow.bundle.manifest();
    assert_eq!(manifest.precision, "f16");
    assert!(manifest.weights.values().all(|weight| weight.dtype == "f16"));
    let coarse = &manifest.graphs["coarse"];
    let dtype = |name: &str| {
        let ports = coarse.inputs.iter().chain(&coarse.outputs);
        ports.filter(|port| port.name == name).map(|port| port.dtype.clone()).collect::<Vec<_>>()
    };
    assert_eq!(dtype("top_state"), ["f16"]);
    assert_eq!(dtype("reconstruction"), ["f16"]);
    assert_eq!(dtype("lengths"), ["i64"]);
    let expand = &manifest.graphs["expand_logits"];
    for (name, wanted) in [("uniforms", "f32"), ("temperature", "f32"), ("logits", "f32"), ("carry.1", "f16")]
    {
        let port = expand.inputs.iter().chain(&expand.outputs).find(|port| port.name == name);
        assert_eq!(port.map(|port| port.dtype.as_str()), Some(wanted), "{name}");
    }
    let half = manifest.weight_files.values().map(|file| file.bytes).sum::<u64>();
    let whole = Narrow::of("paper", Dtype::F32);
    let whole = whole.bundle.manifest().weight_files.values().map(|file| file.bytes).sum::<u64>();
    assert!(half < whole * 6 / 10, "{half} of {whole} bytes");
}

#[test]
fn portable_refuses_bf16_before_anything_is_written() {
    let directory = tempfile::tempdir().expect("directory");
    let out = directory.path().join("bundle");
    let options = ExportOptions { precision: Dtype::Bf16, ..ExportOptions::new(golden_path("paper"), &out) };
    let error = export(&options, &|_| {}).expect_err("refused").to_string();
    for part in ["portable", "refuse-bf16", "tract reads no bf16", "--target tensorrt-rtx"] {
        assert!(error.contains(part), "{error}");
    }
    assert!(!out.exists());
}
