//! One case: a graph, weights and runs. Exported, run by the interpreter and by tract, and left on disk for others.

use half::{bf16, f16};
use indexmap::IndexMap;
use photonc::export::onnx::{self, WeightLocation};
use photonc::export::target::Target;
use photonc::graph::Graph;
use photonc::graph::interp::{Interpreter, Tensors};
use photonc::ir;
use photonc::ir::attr::Scheme;
use photonc::ir::op::Op;
use photonc::ir::tensor::{Data, Tensor};
use photonc::onnx::pb::ModelProto;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use tract_onnx::prelude::{
    Framework, InferenceModelExt, IntoRunnable, IntoTValue, TValue, TVec, Tensor as TractTensor,
};

pub type Weights = BTreeMap<String, Tensor>;

/// Relative to the folder of the model, as every runtime demands.
const STORE: &str = "weights/model.safetensors";

/// Exports `graph` for the portable target, runs it in tract on `runs` and compares every output with the interpreter's:
/// integers and truth values exactly, floats within `tolerance` of the output's largest element (or of 1). Returns the
/// model.
pub fn check(name: &str, graph: &Graph, weights: &Weights, runs: &[Tensors], tolerance: f64) -> ModelProto {
    let case = Case::new(name, graph, weights, Target::Portable);
    case.describe(tolerance, runs.len());
    let plan = tract_onnx::onnx()
        .model_for_path(case.folder.join(MODEL))
        .and_then(|model| model.into_optimized())
        .and_then(|model| model.into_runnable())
        .unwrap_or_else(|e| panic!("{name}: tract: {e:?}"));
    for (at, inputs) in runs.iter().enumerate() {
        let (inputs, expected) = case.run(at, inputs);
        let given: TVec<TValue> = case
            .interpreter
            .inputs()
            .iter()
            .map(|(name, ty)| tract(&inputs[name], ty.dtype).into_tvalue())
            .collect();
        let found = plan.run(given).unwrap_or_else(|e| panic!("{name}: tract: {e:?}"));
        for ((output, expected), found) in expected.iter().zip(found) {
            compare(&format!("{name} run {at}: {output}"), &found, expected, tolerance);
        }
    }
    case.model
}

/// Exports `graph` for a target and leaves it with `runs` for ONNX Runtime, without running it in tract.
pub fn leave(
    name: &str,
    graph: &Graph,
    weights: &Weights,
    target: Target,
    runs: &[Tensors],
    tolerance: f64,
) -> ModelProto {
    let case = Case::new(name, graph, weights, target);
    case.describe(tolerance, runs.len());
    for (at, inputs) in runs.iter().enumerate() {
        case.run(at, inputs);
    }
    case.model
}

/// Exports `graph` for a target whose runtime is not here, and leaves it for its builder.
pub fn leave_unrun(name: &str, graph: &Graph, weights: &Weights, target: Target) -> ModelProto {
    let case = Case::new(name, graph, weights, target);
    case.describe(0.0, 0);
    case.model
}

const MODEL: &str = "model.onnx";

/// An exported model on disk and what it should compute.
struct Case {
    folder: PathBuf,
    interpreter: Interpreter,
    model: ModelProto,
}

impl Case {
    fn new(name: &str, graph: &Graph, weights: &Weights, target: Target) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("onnx").join(name);
        fs::create_dir_all(folder.join("weights")).expect("folder");
        let verified = graph.verify().expect("verifies");
        let places = store(&folder.join(STORE), weights, graph);
        let locate = |weight: &str| places.get(weight).cloned();
        let export = || onnx::export(verified, target, "", &locate).unwrap_or_else(|e| panic!("{name}: {e}"));
        let (model, again) = (export(), export());
        let bytes = onnx::to_bytes(&model);
        assert_eq!(bytes, onnx::to_bytes(&again), "{name}: two exports differ");
        fs::write(folder.join(MODEL), bytes).expect("model");
        Case { folder, interpreter: Interpreter::new(verified, weights).expect("prepares"), model }
    }

    fn describe(&self, tolerance: f64, runs: usize) {
        let json = format!("{{\"tolerance\": {tolerance:e}, \"runs\": {runs}}}\n");
        fs::write(self.folder.join("case.json"), json).expect("case");
    }

    /// What the interpreter is given and yields, also as a file.
    fn run(&self, at: usize, inputs: &Tensors) -> (Tensors, Tensors) {
        let types: BTreeMap<&str, ir::dtype::Dtype> =
            self.interpreter.inputs().iter().map(|(name, ty)| (name.as_str(), ty.dtype)).collect();
        let inputs: Tensors =
            inputs.iter().map(|(name, value)| (name.clone(), rounded(value, types[name.as_str()]))).collect();
        let expected =
            self.interpreter.run(&inputs).unwrap_or_else(|e| panic!("{}: {e}", self.folder.display()));
        let given = inputs.iter().map(|(name, value)| (format!("input {name}"), value, types[name.as_str()]));
        let outputs = expected.iter().zip(self.interpreter.outputs());
        let outputs = outputs.map(|((name, value), dtype)| (format!("output {name}"), value, *dtype));
        save(&self.folder.join(format!("run{at}.safetensors")), given.chain(outputs));
        (inputs, expected)
    }
}

/// Writes all weights into one store, those of the graph in their types, others as f32; where each lies.
fn store(path: &std::path::Path, weights: &Weights, graph: &Graph) -> BTreeMap<String, WeightLocation> {
    let types: BTreeMap<&str, ir::dtype::Dtype> = graph
        .nodes()
        .into_iter()
        .filter_map(|id| match graph.op(id) {
            Op::Weight { name, ty } => Some((&**name, ty.dtype)),
            _ => None,
        })
        .collect();
    let typed = |name: &String| types.get(name.as_str()).copied().unwrap_or(ir::dtype::Dtype::F32);
    let bytes: BTreeMap<String, (Dtype, Vec<u8>)> =
        weights.iter().map(|(name, value)| (name.clone(), encode(value, typed(name)))).collect();
    let mut shapes: BTreeMap<String, Vec<usize>> =
        weights.iter().map(|(name, value)| (name.clone(), value.shape.clone())).collect();
    let mut bytes = bytes;
    for id in graph.nodes() {
        let Op::QuantizedWeight { name, scheme, .. } = graph.op(id) else { continue };
        let (key, coded) = (scheme.key(name), coded(&weights[&**name], *scheme));
        shapes.insert(key.clone(), vec![coded.0.len()]);
        shapes.insert(format!("{key}.scale"), vec![coded.1.len()]);
        let scales = coded.1.iter().flat_map(|scale| scale.to_le_bytes()).collect();
        bytes.insert(key.clone(), (Dtype::U8, coded.0));
        bytes.insert(format!("{key}.scale"), (Dtype::F32, scales));
    }
    let views = bytes.iter().map(|(name, (dtype, bytes))| {
        (name.clone(), TensorView::new(*dtype, shapes[name].clone(), bytes).expect("view"))
    });
    let file = safetensors::serialize(views, None).expect("serialises");
    let (header_bytes, header) = safetensors::SafeTensors::read_metadata(&file).expect("header");
    fs::write(path, &file).expect("store");
    header
        .tensors()
        .into_iter()
        .map(|(name, info)| {
            let (start, end) = info.data_offsets;
            let place = WeightLocation {
                file: STORE.to_owned(),
                offset_bytes: (8 + header_bytes + start) as u64,
                length_bytes: (end - start) as u64,
            };
            (name, place)
        })
        .collect()
}

/// Codes as they are stored, and scales.
fn coded(weight: &Tensor, scheme: Scheme) -> (Vec<u8>, Vec<f32>) {
    let (values, shape) = (weight.as_floats().expect("floats"), [weight.shape[0], weight.shape[1]]);
    let (mut codes, mut scales) = (Vec::new(), Vec::new());
    for group in values.chunks(scheme.group(shape)) {
        let scale = scheme.scale(group.iter().fold(0f32, |most, value| most.max((*value as f32).abs())));
        scales.push(scale);
        codes.extend(group.iter().map(|value| scheme.encode(*value as f32, scale)));
    }
    if scheme == Scheme::Int4 {
        codes = codes.chunks(2).map(|pair| pair[0] | (pair[1] << 4)).collect();
    }
    (codes, scales)
}

fn save<'t>(path: &std::path::Path, tensors: impl Iterator<Item = (String, &'t Tensor, ir::dtype::Dtype)>) {
    let encoded: IndexMap<String, (Dtype, Vec<u8>, Vec<usize>)> = tensors
        .map(|(name, value, dtype)| {
            let (dtype, bytes) = encode(value, dtype);
            (name, (dtype, bytes, value.shape.clone()))
        })
        .collect();
    let views = encoded.iter().map(|(name, (dtype, bytes, shape))| {
        (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).expect("view"))
    });
    fs::write(path, safetensors::serialize(views, None).expect("serialises")).expect("run");
}

fn encode(value: &Tensor, dtype: ir::dtype::Dtype) -> (Dtype, Vec<u8>) {
    match &value.data {
        Data::Float(v) if dtype == ir::dtype::Dtype::F16 => {
            (Dtype::F16, v.iter().flat_map(|x| f16::from_f64(*x).to_le_bytes()).collect())
        }
        Data::Float(v) if dtype == ir::dtype::Dtype::Bf16 => {
            (Dtype::BF16, v.iter().flat_map(|x| bf16::from_f64(*x).to_le_bytes()).collect())
        }
        Data::Float(v) => (Dtype::F32, v.iter().flat_map(|x| (*x as f32).to_le_bytes()).collect()),
        Data::Int(v) => (Dtype::I64, v.iter().flat_map(|x| x.to_le_bytes()).collect()),
        Data::Bool(v) => (Dtype::BOOL, v.iter().map(|x| u8::from(*x)).collect()),
    }
}

/// The same value as its type holds it: what every backend is given.
fn rounded(value: &Tensor, dtype: ir::dtype::Dtype) -> Tensor {
    match &value.data {
        Data::Float(v) => Tensor::floats(&value.shape, v.iter().map(|x| f64::from(*x as f32)).collect())
            .expect("counts agree")
            .rounded(dtype),
        Data::Int(_) | Data::Bool(_) => value.clone(),
    }
}

fn tract(value: &Tensor, dtype: ir::dtype::Dtype) -> TractTensor {
    match &value.data {
        Data::Float(v) if dtype == ir::dtype::Dtype::F16 => {
            let values: Vec<f16> = v.iter().map(|x| f16::from_f64(*x)).collect();
            TractTensor::from_shape(&value.shape, &values)
        }
        Data::Float(v) => {
            let values: Vec<f32> = v.iter().map(|x| *x as f32).collect();
            TractTensor::from_shape(&value.shape, &values)
        }
        Data::Int(v) => TractTensor::from_shape(&value.shape, v),
        Data::Bool(v) => TractTensor::from_shape(&value.shape, v),
    }
    .expect("counts agree")
}

fn compare(what: &str, found: &TractTensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(found.shape(), expected.shape, "{what}: shape");
    match &expected.data {
        Data::Float(expected) => {
            let found = found.cast_to::<f32>().expect("floats");
            let found = found.to_plain_array_view::<f32>().expect("floats");
            let found: Vec<f64> = found.iter().map(|x| f64::from(*x)).collect();
            let scale = expected.iter().fold(1.0, |largest: f64, value| largest.max(value.abs()));
            crate::fixture::assert_close(what, &found, expected, tolerance * scale);
        }
        Data::Int(expected) => {
            let found = found.cast_to::<i64>().expect("integers");
            let found: Vec<i64> = found.to_plain_array_view::<i64>().expect("ints").iter().copied().collect();
            assert_eq!(&found, &**expected, "{what}");
        }
        Data::Bool(expected) => {
            let found: Vec<bool> =
                found.to_plain_array_view::<bool>().expect("bools").iter().copied().collect();
            assert_eq!(&found, &**expected, "{what}");
        }
    }
}
