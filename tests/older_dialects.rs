//! The two older third-party wirings from their checkpoints to tokens: exported, opened again, and every golden prompt
//! generated under both protocols on every backend.

mod fixture;

use fixture::golden_checkpoint;
use fixture::model::AHEAD;
use fixture::older::{GOLDENS, Golden};
use photonc::graph::interp::Interpreter;
use photonc::ir::tensor::Tensor;
use photonc::model::build;
use photonc::model::config_json::config_json;
use photonc::model::dialect::built_in;
use photonc::program::{Plan, Protocol};
use photonc::runtime::reference::Reference;

#[test]
fn the_reference_generates_every_golden_token() {
    for name in GOLDENS {
        let golden = Golden::of(name);
        let mut generator = golden.generator(Box::new(Reference::of_bundle(golden.bundle.clone())));
        AHEAD.iter().for_each(|ahead| golden.check(&mut generator, *ahead, true));
        golden.check_scores(&mut generator);
    }
}

#[cfg(feature = "tract")]
#[test]
fn tract_generates_every_golden_token() {
    use photonc::runtime::tract::Tract;
    for name in GOLDENS {
        let golden = Golden::of(name);
        let mut generator = golden.generator(Box::new(Tract::of_bundle(golden.bundle.clone())));
        golden.check(&mut generator, AHEAD[1], true);
        golden.check_scores(&mut generator);
    }
}

#[cfg(feature = "ort")]
#[test]
fn onnx_runtime_generates_every_golden_token() {
    use photonc::runtime::ort::Ort;
    for name in GOLDENS {
        let golden = Golden::of(name);
        let backend = Ort::of_bundle(golden.bundle.clone(), &fixture::onnx_runtime::options());
        let mut generator = golden.generator(Box::new(backend.expect("the library loads")));
        golden.check(&mut generator, AHEAD[1], true);
        golden.check_scores(&mut generator);
    }
}

// No token reaches the latents of RecGen; under HierGen each waits for the encoder's states.
#[test]
fn only_recgen_is_distributed() {
    for name in GOLDENS {
        let golden = Golden::of(name);
        let protocols = &golden.bundle.manifest().protocols;
        assert_eq!(protocols.len(), 2, "{name}");
        for (protocol, plan) in protocols {
            match plan {
                Plan::Distributed { .. } => assert_eq!(*protocol, Protocol::Recgen, "{name}"),
                Plan::Undistributed { declined, .. } => {
                    assert_eq!(*protocol, Protocol::Hiergen, "{name}");
                    assert!(!declined.path.is_empty(), "{name}: {}", declined.reason);
                }
            }
        }
    }
}

// What the forward reconstructs above the tokens, and the states that it reads, are the original's.
#[test]
fn states_of_the_forward_are_the_golden_ones() {
    for name in GOLDENS {
        let checkpoint = golden_checkpoint(name);
        let weights = fixture::weights_of(&checkpoint);
        let golden = fixture::Expected::of(name);
        let graph = build::states(&checkpoint.config).expect("builds");
        let verified = graph.verify().expect("verifies");
        let meta_tokens = checkpoint.config.meta_tokens();
        let key = if name == "gv_a" { "prompt_padded" } else { "prompt_aligned" };
        for k in 0..golden.prompts() {
            let ids = golden.ints(k, key).to_vec();
            let metas = (ids.len() / meta_tokens) as i64;
            let inputs = [
                ("ids".to_owned(), Tensor::ints(&[1, ids.len()], ids).expect("counts agree")),
                ("lengths".to_owned(), Tensor::ints(&[1], vec![metas]).expect("counts agree")),
            ];
            let found = Interpreter::new(verified, &weights)
                .expect("prepares")
                .run(&inputs.into_iter().collect())
                .expect("runs");
            let reconstructed = if name == "gv_a" { "fwd_pred_l1" } else { "fwd_Xhat1" };
            for (ours, theirs) in
                [("encoded.1", "fwd_X1"), ("encoded.2", "fwd_X2"), ("reconstructed.1", reconstructed)]
            {
                let values = found[ours].as_floats().expect("floats");
                fixture::assert_close(&format!("{name} {k} {ours}"), values, golden.floats(k, theirs), 5e-4);
            }
        }
    }
}

// The canonical writing of such a model is read back as the same model.
#[test]
fn canonical_configurations_keep_the_wiring() {
    let paper = built_in().expect("parse").into_iter().find(|dialect| dialect.name == "paper");
    let paper = paper.expect("is built in");
    for name in GOLDENS {
        let config = golden_checkpoint(name).config;
        let read = paper.read_config("config.json", &config_json(&config)).expect("reads");
        assert_eq!(read.config, config, "{name}");
    }
}

/// The golden of the older wiring without the key that tells it from the newer one, and its first prompt's logits and states.
fn mistaken(folder: &std::path::Path) -> std::path::PathBuf {
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(fixture::golden_path("v1_a").join(file), folder.join(file)).expect("copies");
    }
    let path = folder.join("config.json");
    let text = std::fs::read_to_string(&path).expect("reads");
    let mut config: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    config.as_object_mut().expect("an object").remove("variant");
    std::fs::write(&path, config.to_string()).expect("writes");
    let golden = fixture::Expected::of("v1_a");
    let bytes = |values: &[f64]| -> Vec<u8> {
        values.iter().flat_map(|value| (*value as f32).to_le_bytes()).collect()
    };
    let ids = golden.ints(0, "prompt_aligned");
    let id_bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    let named = [
        ("logits", vec![ids.len(), 97], bytes(golden.floats(0, "fwd_logits"))),
        ("encoded.1", vec![4, 32], bytes(golden.floats(0, "fwd_X1"))),
        ("level2.encoder", vec![1, 32], bytes(golden.floats(0, "fwd_X2"))),
    ];
    let view = |dtype, shape: Vec<usize>, data| {
        safetensors::tensor::TensorView::new(dtype, shape, data).expect("a view")
    };
    let mut tensors = vec![("ids", view(safetensors::Dtype::I64, vec![ids.len()], &id_bytes))];
    tensors.extend(
        named.iter().map(|(name, shape, data)| (*name, view(safetensors::Dtype::F32, shape.clone(), data))),
    );
    let theirs = folder.join("theirs.safetensors");
    safetensors::serialize_to_file(tensors, None, &theirs).expect("writes");
    theirs
}

// The wiring is in no shape: the encoders agree, the logits do not, and the choice that they hang on is found.
#[test]
fn a_wrong_choice_is_found_by_the_logits_of_the_original() {
    use photonc::api::{AgainstOptions, against};
    use photonc::model::checkpoint::Checkpoint;
    use photonc::model::dialect::DialectChoice;
    let folder = tempfile::tempdir().expect("a folder");
    let theirs = mistaken(folder.path());
    let open = |name: &str| {
        let choice = DialectChoice::Named(name.to_owned());
        std::sync::Arc::new(Checkpoint::open(folder.path(), &choice).expect("opens"))
    };
    let right = against(&open("photon-experiment-v1"), &theirs, AgainstOptions::default()).expect("compares");
    assert_eq!(right.first(), None);
    assert_eq!(right.values.len(), 3);
    let wrong = against(&open("photon-experiment"), &theirs, AgainstOptions::default()).expect("compares");
    let first = wrong.first().expect("differs");
    assert_eq!((first.name.as_str(), first.module.as_str()), ("logits", "lm_head"));
    let agreeing: Vec<&str> =
        wrong.values.iter().filter(|value| value.agrees).map(|value| value.name.as_str()).collect();
    assert_eq!(agreeing, ["encoded.1", "level2.encoder"]);
    let expected = "condition = state, decoder.feedback = summary, decoder.slot = repeat";
    let found: Vec<&Vec<String>> = wrong.explanations.iter().map(|one| &one.choices).collect();
    assert_eq!(found, [&[expected.to_owned()]], "{wrong:?}");
}
