//! What case tests share: finding files, and running graphs on random data.

use photonc::graph::interp::{InterpError, Interpreter, Tensors, WeightSource as _};
use photonc::graph::{Graph, NodeId};
use photonc::ir::attr::Scheme;
use photonc::ir::dim::{Bindings, Symbol};
use photonc::ir::dtype::Dtype;
use photonc::ir::op::Op;
use photonc::ir::shape::Type;
use photonc::ir::tensor::{Data, Tensor};
use std::path::{Path, PathBuf};

/// Set to write canonical texts, tables and snapshots anew instead of comparing them.
pub const UPDATE: &str = "PHOTONC_UPDATE";

/// A file of cases: its path and its text.
pub struct Case {
    pub path: PathBuf,
    pub text: String,
}

/// Every `.pho` file right under `tests/cases/<folder>`, by name.
pub fn cases(folder: &str) -> Vec<Case> {
    let folder = root().join("tests/cases").join(folder);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&folder)
        .map(|entries| entries.map(|entry| entry.expect("entry").path()).collect())
        .unwrap_or_default();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "pho"));
    paths.sort();
    paths
        .into_iter()
        .map(|path| Case { text: std::fs::read_to_string(&path).expect("readable"), path })
        .collect()
}

/// The folder of the crate.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Numbers without structure, the same in every run.
struct Noise(u64);

impl Noise {
    /// In [0, 1).
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Small sizes for every symbol.
fn sizes() -> Bindings {
    let mut bindings = Bindings::default();
    for (symbol, size) in Symbol::ALL.into_iter().zip([2, 3, 2]) {
        bindings.bind(symbol, size);
    }
    bindings
}

/// A value of `ty` for what `node`'s users do with it: ids and lengths are 0 or 1, sampling parameters lawful.
fn random(graph: &Graph, node: NodeId, ty: &Type, noise: &mut Noise) -> Tensor {
    let shape = ty.shape.eval(&sizes()).expect("every symbol is bound");
    let count: usize = shape.iter().product();
    let for_sample = graph
        .users(node)
        .iter()
        .any(|(user, slot)| matches!(graph.op(*user), Op::Sample { .. }) && *slot > 0);
    let data = match ty.dtype {
        Dtype::F32 | Dtype::F16 | Dtype::Bf16 if for_sample => {
            Data::float((0..count).map(|_| noise.next()).collect())
        }
        Dtype::F32 | Dtype::F16 | Dtype::Bf16 => {
            Data::float((0..count).map(|_| noise.next() * 2.0 - 1.0).collect())
        }
        Dtype::I64 if for_sample => Data::int((0..count).map(|_| 1 + (noise.next() * 3.0) as i64).collect()),
        Dtype::I64 => Data::int((0..count).map(|_| i64::from(noise.next() < 0.5)).collect()),
        Dtype::Bool => Data::bool((0..count).map(|_| noise.next() < 0.5).collect()),
    };
    Tensor { shape, data }
}

/// Random values for the inputs, states and weights of a graph.
#[derive(Clone)]
pub struct Setting {
    inputs: Tensors,
    state: Tensors,
    weights: Tensors,
}

impl Setting {
    /// Replaces a matrix by what its codes in `scheme` give back.
    pub fn decode(&mut self, weight: &str, scheme: Scheme) {
        let decoded = self.weights.quantized(weight, scheme).expect("fits");
        self.weights.insert(weight.to_owned(), decoded);
    }
}

/// A setting for `graph`; another `seed` is another one.
pub fn setting(graph: &Graph, seed: u64) -> Setting {
    let mut noise = Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut setting = Setting { inputs: Tensors::new(), state: Tensors::new(), weights: Tensors::new() };
    for id in graph.nodes() {
        let (into, name, ty) = match graph.op(id) {
            Op::Input { name, ty, .. } => (&mut setting.inputs, name, ty),
            Op::Delay { name, ty } => (&mut setting.state, name, ty),
            Op::Weight { name, ty } | Op::QuantizedWeight { name, ty, .. } => {
                (&mut setting.weights, name, ty)
            }
            _ => continue,
        };
        if !into.contains_key(&**name) {
            let value = random(graph, id, ty, &mut noise);
            into.insert(name.to_string(), value);
        }
    }
    setting
}

/// The outputs of `steps` steps (one run, if nothing is carried) of a valid graph; what the graph does not ask for is
/// left away. A state that a pass made an input is a counter: it goes up by one a step.
pub fn outputs(graph: &Graph, setting: &Setting, steps: usize) -> Vec<Tensors> {
    try_outputs(graph, setting, steps).expect("runs")
}

/// [`outputs`], where an operation may have no value on the setting.
pub fn try_outputs(graph: &Graph, setting: &Setting, steps: usize) -> Result<Vec<Tensors>, InterpError> {
    let verified = graph.verify().expect("valid");
    let interpreter = Interpreter::new(verified, &setting.weights)?;
    let mut state = Tensors::new();
    for (name, _) in interpreter.states() {
        state.extend(setting.state.get(name).map(|value| (name.clone(), value.clone())));
    }
    let inputs = |step: i64| -> Tensors {
        let names = interpreter.inputs().iter().map(|(name, _)| name);
        let given = names.filter_map(|name| match setting.inputs.get(name) {
            Some(value) => Some((name.clone(), value.clone())),
            None => Some((name.clone(), counted(setting.state.get(name)?, step)?)),
        });
        given.collect()
    };
    (0..steps).map(|step| interpreter.step(&mut state, &inputs(step as i64))).collect()
}

/// A counter after some steps.
fn counted(first: &Tensor, steps: i64) -> Option<Tensor> {
    Tensor::ints(&first.shape, first.as_ints()?.iter().map(|count| count + steps).collect())
}

/// Fails unless both agree: floats to a relative `tolerance` (at least absolute), everything else exactly.
#[track_caller]
pub fn assert_close(found: &Tensor, expected: &Tensor, tolerance: f64, what: &str) {
    assert_eq!(found.shape, expected.shape, "{what}: shapes differ");
    match (found.as_floats(), expected.as_floats()) {
        (Some(a), Some(b)) => {
            for (at, (a, b)) in a.iter().zip(b).enumerate() {
                let same =
                    a == b || (a - b).abs() <= tolerance * b.abs().max(1.0) || (a.is_nan() && b.is_nan());
                assert!(same, "{what}: element {at} is {a}, expected {b}");
            }
        }
        _ => assert_eq!(found.data, expected.data, "{what}"),
    }
}

/// Fails unless both graphs give the same outputs of the same names on random data, over several steps and seeds.
#[track_caller]
pub fn assert_same_values(before: &Graph, after: &Graph, tolerance: f64, what: &str) {
    for seed in 1..=3 {
        let setting = setting(before, seed);
        let (expected, found) = (outputs(before, &setting, 2), outputs(after, &setting, 2));
        for (step, (expected, found)) in expected.iter().zip(&found).enumerate() {
            let names = |tensors: &Tensors| tensors.keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(found), names(expected), "{what}: outputs differ");
            for (name, expected) in expected {
                let place = format!("{what}: seed {seed}, step {step}, output `{name}`");
                assert_close(&found[name], expected, tolerance, &place);
            }
        }
    }
}
