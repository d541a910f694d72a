//! Every golden result from an exported bundle: checkpoint to disk, opened again, on tract and on the reference.

mod fixture;

use fixture::bundled::Golden;
use fixture::model::{AHEAD, PROTOCOLS, greedy, run};
use fixture::{GOLDENS, assert_close, golden_path};
use photonc::bundle::{Bundle, Manifest, PortRecord, sealed};
use photonc::export::{ExportOptions, export};
use photonc::onnx::pb::ModelProto;
use photonc::passes::opt_level::OptLevel;
use photonc::program::{Plan, Protocol};
use photonc::runtime::backend::Backend;
use photonc::runtime::error::RuntimeError;
use photonc::runtime::generator::Generator;
use photonc::runtime::reference::Reference;
use photonc::runtime::request::{Batch, Cancel, Request};
use photonc::runtime::sampler::Sampling;
use photonc::runtime::simulated::Simulated;
use photonc::runtime::tract::Tract;
use prost::Message as _;
use std::collections::HashSet;

#[test]
fn tract_reproduces_every_golden_result() {
    for name in GOLDENS {
        let golden = Golden::of(name);
        let mut generator = golden.generator(Box::new(Tract::of_bundle(golden.bundle.clone())));
        golden.check(name, &mut generator, &AHEAD);
    }
}

#[test]
fn tract_draws_the_golden_tokens_at_lower_levels() {
    for (name, level) in
        GOLDENS.into_iter().flat_map(|name| [OptLevel::O0, OptLevel::O1].map(|level| (name, level)))
    {
        let golden = Golden::at(name, level);
        let mut generator = golden.generator(Box::new(Tract::of_bundle(golden.bundle.clone())));
        for protocol in PROTOCOLS {
            let length = golden.expected.ints(0, &format!("{protocol}_tokens")).len();
            let batch = Batch::alike(&greedy(protocol, length), &golden.prompts(), AHEAD[0]);
            let generation = run(&mut generator, &batch);
            for (k, sequence) in generation.sequences.iter().enumerate() {
                let tokens = golden.expected.ints(k, &format!("{protocol}_tokens"));
                assert_eq!(sequence.tokens, tokens, "{name} {protocol} {level} prompt {k}");
            }
        }
    }
}

// The checkpoint has keys before queries and the output projection between them; a bundle that stored merged weights
// beside them would be larger, and a graph that merged them itself would do so in every run.
#[test]
fn merged_projections_are_stored_once() {
    for name in GOLDENS {
        let (plain, merged) = (Golden::at(name, OptLevel::O0), Golden::of(name));
        let sizes = [&plain, &merged].map(|golden| {
            let files = golden.bundle.manifest().weight_files.values();
            files.map(|file| file.bytes).sum::<u64>()
        });
        assert!(sizes[1] <= sizes[0], "{name}: {sizes:?}");
        let weights = merged.bundle.manifest().weights.keys().map(|weight| {
            let [stored, expected] =
                [&merged, &plain].map(|golden| golden.bundle.weight(weight).expect("reads"));
            assert_eq!(stored, expected, "{name} {weight}");
        });
        assert_eq!(weights.count(), plain.bundle.manifest().weights.len());
        for graph in merged.bundle.manifest().graphs.keys() {
            let record = merged.bundle.onnx_record("portable", graph).expect("is there");
            let bytes = merged.bundle.read(record).expect("reads");
            let model = ModelProto::decode(&bytes[..]).expect("decodes");
            let model = model.graph.expect("has a graph");
            let stored: HashSet<&str> = model
                .initializer
                .iter()
                .filter(|tensor| !tensor.external_data.is_empty())
                .map(|tensor| tensor.name.as_str())
                .collect();
            for node in model.node.iter().filter(|node| node.op_type == "Concat") {
                let joins = node.input.iter().any(|input| stored.contains(input.as_str()));
                assert!(!joins, "{name} {graph}: {} joins stored weights", node.name);
            }
        }
    }
}

#[test]
fn the_reference_reads_the_same_bundle() {
    let golden = Golden::of("lopsided");
    let mut generator = golden.generator(Box::new(Reference::of_bundle(golden.bundle.clone())));
    golden.check("lopsided", &mut generator, &AHEAD);
}

// Both samplers of tract draw what the reference draws, and poisoned buffers change nothing.
#[test]
fn tract_draws_the_tokens_of_the_reference() {
    for name in GOLDENS {
        let golden = Golden::of(name);
        let reference = golden.generator(Box::new(Reference::of_bundle(golden.bundle.clone())));
        let device = Simulated::new(Tract::of_bundle(golden.bundle.clone()));
        let tract = golden.generator(Box::new(device));
        let mut generators = [reference, tract];
        for protocol in PROTOCOLS {
            for min_p in [0.0, 1e-3] {
                let sampling = Sampling { temperature: 0.9, top_k: 10, top_p: 0.95, min_p, seed: 42 };
                let request = Request { sampling, samples: 2, ..greedy(protocol, 40) };
                let batch = Batch::alike(&request, &golden.prompts(), AHEAD[0]);
                let [expected, found] =
                    generators.each_mut().map(|generator| run(generator, &batch).sequences);
                assert_eq!(found, expected, "{name} {protocol} min-p {min_p}");
            }
        }
    }
}

#[test]
fn tract_scores_as_the_teacher_forced_forward() {
    for name in GOLDENS {
        let golden = Golden::of(name);
        let mut generator = golden.generator(Box::new(Tract::of_bundle(golden.bundle.clone())));
        let (scored, _) = generator.score(&golden.aligned()).expect("scores");
        for (k, scored) in scored.iter().enumerate() {
            let logits = golden.expected.floats(k, "fwd_logits");
            assert_close(&format!("{name} prompt {k}"), &scored.logits, logits, golden.tolerance);
        }
    }
}

fn twelve(
    bundle: &Bundle,
    backend: Box<dyn Backend>,
    prompts: &[Vec<i64>],
) -> Result<Vec<i64>, RuntimeError> {
    let mut generator = Generator::of_bundle(bundle, backend).expect("a generator");
    let batch = Batch::alike(&greedy(Protocol::Recgen, 12), prompts, AHEAD[0]);
    let generation = generator.generate(&batch, &mut |_| {}, &Cancel::default())?;
    Ok(generation.sequences.into_iter().flat_map(|sequence| sequence.tokens).collect())
}

// The cache of a model hub keeps every file under its hash, and a snapshot is links to them.
#[test]
fn tract_reads_a_bundle_of_links_as_the_bundle_itself() {
    let golden = Golden::of("paper");
    let prompts = golden.prompts()[..1].to_vec();
    let expected = twelve(&golden.bundle, Box::new(Tract::of_bundle(golden.bundle.clone())), &prompts);
    let folder = tempfile::tempdir().expect("a folder");
    let (blobs, snapshot) = (folder.path().join("blobs"), folder.path().join("snapshots/1"));
    std::fs::create_dir_all(&blobs).expect("creates");
    let mut folders = vec![golden.bundle.root().to_owned()];
    let mut count = 0;
    while let Some(from) = folders.pop() {
        let inside = from.strip_prefix(golden.bundle.root()).expect("is inside").to_owned();
        std::fs::create_dir_all(snapshot.join(&inside)).expect("creates");
        for entry in std::fs::read_dir(&from).expect("lists") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            count += 1;
            let blob = blobs.join(count.to_string());
            std::fs::copy(&path, &blob).expect("copies");
            let link = snapshot.join(&inside).join(path.file_name().expect("a name"));
            std::os::unix::fs::symlink(blob, link).expect("links");
        }
    }
    let linked = Bundle::open(&snapshot).expect("opens");
    let found = twelve(&linked, Box::new(Tract::of_bundle(linked.clone())), &prompts);
    assert_eq!(found.expect("generates"), expected.expect("generates"));
}

// Graphs are loaded when they first run, which may be after another bundle has taken the place of this one.
#[test]
fn a_bundle_replaced_while_in_use_changes_no_token() {
    let (golden, other) = (Golden::of("paper"), Golden::of("lopsided"));
    let prompts = golden.prompts()[..1].to_vec();
    for backend in ["tract", "reference"] {
        let of = |bundle: &Bundle| -> Box<dyn Backend> {
            match backend {
                "tract" => Box::new(Tract::of_bundle(bundle.clone())),
                _ => Box::new(Reference::of_bundle(bundle.clone())),
            }
        };
        let root = golden.bundle.root().to_owned();
        let bundle = Bundle::open(&root).expect("opens");
        let expected = twelve(&bundle, of(&bundle), &prompts).expect("generates");
        let waiting = of(&bundle);
        let aside = root.with_extension("aside");
        std::fs::rename(&root, &aside).expect("renames");
        std::fs::rename(other.bundle.root(), &root).expect("renames");
        assert_eq!(twelve(&bundle, waiting, &prompts).expect("generates"), expected, "{backend}");
        std::fs::rename(&root, other.bundle.root()).expect("renames");
        std::fs::rename(&aside, &root).expect("renames");
    }
}

/// What a bundle with this manifest, sealed anew, is refused for.
fn refused(golden: &Golden, change: impl FnOnce(&mut Manifest)) -> String {
    let mut manifest = golden.bundle.manifest().clone();
    change(&mut manifest);
    let path = golden.bundle.root().join("photon.json");
    let before = std::fs::read(&path).expect("reads");
    std::fs::write(&path, sealed(&manifest).expect("JSON")).expect("writes");
    let found = Bundle::open(golden.bundle.root()).expect_err("is refused").to_string();
    std::fs::write(&path, before).expect("writes");
    found
}

// A hash tells damage; what was never true is told by the graphs.
#[test]
fn a_manifest_that_says_other_than_its_graphs_is_refused() {
    let golden = Golden::of("paper");
    let says = |change: &dyn Fn(&mut Manifest), expected: &str| {
        let found = refused(&golden, change);
        assert!(found.contains("photon.json") && found.contains(expected), "{expected}: {found}");
    };
    says(&|manifest| manifest.model.vocab_size += 1, "`vocab_size` is 102, its graphs have 101");
    says(&|manifest| manifest.model.vocab_size = 1 << 62, "`vocab_size` is");
    says(&|manifest| manifest.model.meta_tokens = 1, "`meta_tokens` is 1, its graphs have 16");
    says(&|manifest| manifest.model.max_tokens = 1, "`max_tokens` is 1");
    let port = |change: fn(&mut PortRecord)| {
        move |manifest: &mut Manifest| change(&mut manifest.graphs["coarse"].inputs[0])
    };
    says(&port(|port| port.dtype = "i64".to_owned()), "graph `coarse`: input 0 is `top_state` i64");
    says(&port(|port| port.shape.push("batch".to_owned())), "graph `coarse`: input 0");
    says(&|manifest| manifest.graphs["coarse"].outputs.swap(0, 1), "graph `coarse`: output 0");
    says(&|manifest| manifest.graphs["coarse"].inputs.clear(), "graph `coarse`: input 0 is none");
    let swapped = |manifest: &mut Manifest| {
        let text = manifest.graphs["decode"].text.clone();
        manifest.graphs["reencode"].text = text;
    };
    says(&swapped, "graph `reencode`: its text is that of graph `decode`");
    let with_plan = |change: fn(&mut Plan)| {
        move |manifest: &mut Manifest| change(&mut manifest.protocols[&Protocol::Recgen])
    };
    says(
        &with_plan(|plan| {
            if let Plan::Distributed { expand, logits, .. } = plan {
                std::mem::swap(expand, logits);
            }
        }),
        "Expand is graph `expand_logits`, expected `expand`",
    );
    says(
        &with_plan(|plan| {
            if let Plan::Distributed { certificate, .. } = plan {
                certificate.samples += 1;
            }
        }),
        "its certificate is not that of its graphs",
    );
    says(&|manifest| drop(manifest.weights.pop_first()), "which is not stored");
}

// A model whose weights are not numbers draws nothing, whatever draws.
#[test]
fn logits_that_are_no_numbers_are_no_tokens() {
    let folder = tempfile::tempdir().expect("a folder");
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(golden_path("paper").join(file), folder.path().join(file)).expect("copies");
    }
    let path = folder.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path).expect("reads");
    let store = safetensors::SafeTensors::deserialize(&bytes).expect("a store");
    let norm = store.tensor("levels.0.decoder.norm.weight").expect("a weight").data().as_ptr() as usize;
    let at = norm - bytes.as_ptr() as usize;
    bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, bytes).expect("writes");
    let out = folder.path().join("bundle");
    export(&ExportOptions { allow_nonfinite: true, ..ExportOptions::new(folder.path(), &out) }, &|_| {})
        .expect("exports");
    let bundle = Bundle::open(&out).expect("opens");
    let prompts = Golden::of("paper").prompts()[..1].to_vec();
    let backends: [Box<dyn Backend>; 2] =
        [Box::new(Tract::of_bundle(bundle.clone())), Box::new(Reference::of_bundle(bundle.clone()))];
    for backend in backends {
        let name = backend.name();
        let mut generator = Generator::of_bundle(&bundle, backend).expect("a generator");
        for protocol in PROTOCOLS {
            for sampling in
                [Sampling::greedy(), Sampling { top_k: 4, temperature: 1.0, ..Sampling::greedy() }]
            {
                let request = Request { sampling, ..greedy(protocol, 4) };
                let batch = Batch::alike(&request, &prompts, AHEAD[0]);
                let error = generator.generate(&batch, &mut |_| {}, &Cancel::default());
                let error = error.map(|_| ()).expect_err("no distribution").to_string();
                assert!(error.contains("NaN"), "{name} {protocol}: {error}");
            }
        }
        let error = generator.score(&prompts).map(|_| ()).expect_err("no distribution").to_string();
        assert!(error.contains("hold NaN or infinity"), "{name}: {error}");
    }
}
