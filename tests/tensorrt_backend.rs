//! The `tensorrt` backend on every golden, with a vendor that pretends: engines are hashes, and a run computes the graph with
//! the reference on values read from the emulated device by address. What is proven is everything around a run: which engine
//! and profile, sizes, types and addresses of every value, the stream, and state that stays on the device. The device works
//! late, in any order that its streams allow, and nothing but the order of one stream keeps a run from its inputs.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a failed test panics")]
#![allow(dead_code, reason = "the emulated device's own tests use all of it")]

#[path = "harness/emulated/mod.rs"]
mod emulated;
mod fixture;

use emulated::{Emulated, HANDLES, Options, Order, program_text};
use fixture::model::{AHEAD, Model, PROTOCOLS, check_within, golden_batch, run};
use fixture::pretender::{Pretender, VERSION};
use fixture::{GOLDENS, golden_path};
use photonc::bundle::{Blake3, Bundle};
use photonc::engine::{Bindings, EngineRunner, Gpu, Here, Profile, Sm, Vendor};
use photonc::export::engines::{EngineOptions, EngineProgress, build_engines};
use photonc::export::target::Target;
use photonc::export::{ExportOptions, export};
use photonc::ir::dtype::Dtype;
use photonc::ir::tensor::{Data, Tensor};
use photonc::runtime::backend::Backend as _;
use photonc::runtime::generator::Generator;
use photonc::runtime::launch::device::{Device, Stream};
use photonc::runtime::reference::Reference;
use photonc::runtime::tensorrt::Tensorrt;
use std::path::Path;
use std::sync::Arc;

const TOLERANCE_F32: f64 = 2e-3;

/// Runs graphs with the reference on what lies at the addresses it is given.
struct Runner {
    here: Here,
    device: Arc<dyn Device>,
    bundle: Bundle,
    reference: Reference,
    loaded: Vec<String>,
}

impl Runner {
    fn dtype(&self, graph: &str, name: &str) -> Dtype {
        let record = self.bundle.graph(graph).expect("a graph");
        let port = record.inputs.iter().chain(&record.outputs).find(|port| port.name == name);
        Dtype::from_name(&port.expect("a port").dtype).expect("a type")
    }
}

impl EngineRunner for Runner {
    fn here(&self) -> &Here {
        &self.here
    }

    fn load(&mut self, graph: &str, hash: &Blake3, engine: &[u8]) -> Result<(), String> {
        assert_eq!(*hash, Blake3::of(engine), "the hash is that of the bytes");
        assert!(!self.loaded.iter().any(|known| known == graph), "`{graph}` is loaded once");
        assert!(!engine.is_empty());
        self.loaded.push(graph.to_owned());
        Ok(())
    }

    fn run(&mut self, graph: &str, bindings: &Bindings<'_>) -> Result<(), String> {
        assert!(self.loaded.iter().any(|known| known == graph), "`{graph}` is loaded");
        let stream = Stream(usize::try_from(bindings.stream - HANDLES).expect("a stream of the device"));
        let mut inputs = Vec::new();
        for input in bindings.inputs {
            let dtype = self.dtype(graph, input.name);
            let mut bytes = vec![0; input.shape.iter().product::<usize>() * dtype.size_bytes()];
            self.device.read(stream, input.address, &mut bytes).map_err(|error| error.to_string())?;
            let data = match dtype {
                Dtype::I64 => {
                    Data::int(bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect())
                }
                Dtype::F32 => Data::float(
                    bytes.as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
                ),
                other => panic!("no input of {other}"),
            };
            let tensor = Tensor { shape: input.shape.to_vec(), data };
            inputs.push((
                input.name,
                self.reference.upload(&tensor, dtype).map_err(|error| error.to_string())?,
            ));
        }
        let given: Vec<_> = inputs.iter().map(|(name, buffer)| (*name, buffer)).collect();
        let outputs = self.reference.run(graph, &given).map_err(|error| error.to_string())?;
        for binding in bindings.outputs {
            let (_, buffer) = outputs.iter().find(|(name, _)| name == binding.name).expect("an output");
            assert_eq!(buffer.shape(), binding.shape, "{graph} {}", binding.name);
            let tensor = self.reference.download(buffer).map_err(|error| error.to_string())?;
            let bytes: Vec<u8> = match (tensor.as_ints(), tensor.as_floats()) {
                (Some(ints), _) => ints.iter().flat_map(|value| value.to_le_bytes()).collect(),
                (_, Some(floats)) => floats.iter().flat_map(|value| (*value as f32).to_le_bytes()).collect(),
                _ => panic!("no output of another type"),
            };
            self.device.write(stream, binding.address, &bytes).map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

/// A golden's bundle with engines for one to four rows and any of a few sizes.
fn bundle(golden: &str, folder: &Path) -> Bundle {
    let out = folder.join("bundle");
    let targets = vec![Target::TensorrtRtx];
    export(
        &ExportOptions { targets: Some(targets), ..ExportOptions::new(golden_path(golden), &out) },
        &|_| {},
    )
    .expect("exports");
    let bundle = Bundle::open(&out).expect("opens");
    let profile = |text: &str| Profile::parse(text).expect("a profile");
    let profiles = vec![
        profile("batch=1,meta=1:1:64,capacity=1:8:512"),
        profile("batch=2:2:64,meta=1:1:64,capacity=1:8:512"),
    ];
    let options = EngineOptions { profiles, ..EngineOptions::new(vec![Sm(89)]) };
    let progress: Arc<dyn Fn(EngineProgress) + Send + Sync> = Arc::new(|_| {});
    build_engines(&bundle, &mut Pretender::new(), &options, &progress).expect("builds");
    bundle
}

fn generator(bundle: &Bundle, gpu: Option<Gpu>) -> Generator {
    let device: Arc<dyn Device> =
        Arc::new(Emulated::new(Options::new(Order::Mixed(11)), Box::new(program_text)));
    let here = Here { vendor: Vendor::TensorrtRtx, version: VERSION, gpu };
    let reference = Reference::of_bundle(bundle.clone());
    let runner =
        Runner { here, device: Arc::clone(&device), bundle: bundle.clone(), reference, loaded: Vec::new() };
    let backend = Tensorrt::of_bundle(bundle.clone(), device, Box::new(runner)).expect("opens");
    Generator::of_bundle(bundle, Box::new(backend)).expect("a generator")
}

fn gpu() -> Option<Gpu> {
    Some(Gpu { name: "Some GPU".to_owned(), sm: Sm(89) })
}

#[test]
fn every_golden_is_reproduced_around_a_run() {
    for name in GOLDENS {
        let folder = tempfile::tempdir().expect("a folder");
        let bundle = bundle(name, folder.path());
        let model = Model::of(name);
        let mut generator = generator(&bundle, gpu());
        let prompts: Vec<usize> = (0..model.expected.prompts()).collect();
        for protocol in PROTOCOLS {
            for ahead in AHEAD {
                let generation = run(&mut generator, &golden_batch(&model, protocol, &prompts, ahead));
                for k in &prompts {
                    check_within(&model, protocol, *k, &generation, *k, TOLERANCE_F32);
                }
            }
        }
    }
}

// More rows than any profile covers, and no GPU at all: said before anything of the vendor runs.
#[test]
fn what_no_engine_covers_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let bundle = bundle("paper", folder.path());
    let model = Model::of("paper");
    let batch = golden_batch(&model, PROTOCOLS[0], &[0; 65], AHEAD[0]);
    let refusal = |gpu| {
        let mut generator = generator(&bundle, gpu);
        let cancel = photonc::runtime::request::Cancel::default();
        generator.generate(&batch, &mut |_| {}, &cancel).expect_err("is refused").to_string()
    };
    let rows = refusal(gpu());
    assert!(rows.contains("batch 65 is outside of what the engine of"), "{rows}");
    let none = refusal(None);
    assert!(none.contains("this machine has no GPU"), "{none}");
}
