//! The trained example: what its own training code computes, photonc computes too, on every backend that is built in; and it
//! writes words.

mod fixture;

use fixture::model::{PROTOCOLS, run, tokens};
use fixture::{Expected, assert_close};
use photonc::bundle::Bundle;
use photonc::export::{ExportOptions, export};
use photonc::runtime::backend::Backend;
use photonc::runtime::generator::Generator;
use photonc::runtime::reference::Reference;
use photonc::runtime::request::{Keep, Request, RunAhead};
use photonc::runtime::sampler::Sampling;
use photonc::runtime::tract::Tract;
use std::path::{Path, PathBuf};

/// On logits, between this program and PyTorch, both in f32.
const TOLERANCE: f64 = 1e-3;
/// Tokens from one whose logits are known to the next.
const EVERY: usize = 16;

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/english")
}

fn exported() -> (tempfile::TempDir, Bundle) {
    let directory = tempfile::tempdir().expect("directory");
    let out = directory.path().join("bundle");
    export(&ExportOptions::new(example(), &out), &|_| {}).expect("exports");
    let bundle = Bundle::open(&out).expect("opens");
    (directory, bundle)
}

fn agrees(bundle: &Bundle, backend: Box<dyn Backend>) -> Generator {
    let expected = Expected::at(&example().join("expected.safetensors"));
    let prompt = expected.named("prompt").as_ints().expect("ids").to_vec();
    let name = backend.name();
    let mut generator = Generator::of_bundle(bundle, backend).expect("signatures parse");
    for protocol in PROTOCOLS {
        let what = format!("{name} {protocol}");
        let wanted = expected.named(&format!("{protocol}_tokens")).as_ints().expect("ids");
        let request = Request {
            run_ahead: RunAhead::MetaContexts(3),
            keep: Keep { logits: true, ..Keep::default() },
            ..Request::greedy(protocol, vec![prompt.clone()], wanted.len())
        };
        let found = run(&mut generator, &request);
        let [sequence] = &found.sequences[..] else { unreachable!("one prompt") };
        assert_eq!(sequence.tokens, wanted, "{what}");
        let vocabulary = sequence.logits.len() / wanted.len();
        let rows = sequence.logits.chunks_exact(vocabulary).step_by(EVERY);
        let logits = expected.named(&format!("{protocol}_logits"));
        assert_close(
            &what,
            &rows.flatten().copied().collect::<Vec<_>>(),
            logits.as_floats().expect("floats"),
            TOLERANCE,
        );
    }
    generator
}

#[test]
fn the_reference_writes_what_the_training_code_writes() {
    let (_directory, bundle) = exported();
    agrees(&bundle, Box::new(Reference::of_bundle(bundle.clone())));
}

// A meta-context of one window: the host's sampler has to find the windows among the meta-contexts. On one generator,
// because tract takes its time to load windows of 32 tokens.
#[test]
fn tract_writes_what_the_training_code_writes_and_both_samplers_draw_the_same() {
    let (_directory, bundle) = exported();
    let mut generator = agrees(&bundle, Box::new(Tract::of_bundle(bundle.clone())));
    let expected = Expected::at(&example().join("expected.safetensors"));
    let prompt = expected.named("prompt").as_ints().expect("ids")[..64].to_vec();
    for protocol in PROTOCOLS {
        let sampling = Sampling { temperature: 0.8, top_k: 6, top_p: 0.9, min_p: 0.0, seed: 5 };
        let request = Request { sampling, ..Request::greedy(protocol, vec![prompt.clone()], 64) };
        let inside = run(&mut generator, &request);
        let outside = Request { sampling: Sampling { min_p: 1e-300, ..sampling }, ..request };
        let outside = run(&mut generator, &outside);
        assert!(outside.host_sampled && !inside.host_sampled);
        assert_eq!(tokens(&outside), tokens(&inside), "{protocol}");
    }
}
