//! One case: a graph, weights and runs. Exported, run by the interpreter and by tract, and left on disk for others.

use indexmap::IndexMap;
use photonc::export::onnx::{self, WeightLocation};
use photonc::graph::Graph;
use photonc::graph::interp::{Interpreter, Tensors};
use photonc::ir::tensor::{Data, Tensor};
use safetensors::tensor::{Dtype, TensorView};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::{
    Framework, InferenceModelExt, IntoRunnable, IntoTValue, TValue, TVec, Tensor as TractTensor,
};

pub type Weights = BTreeMap<String, Tensor>;

/// Relative to the folder of the model, as every runtime demands.
const STORE: &str = "weights/model.safetensors";

/// Exports `graph`, runs it in tract on `runs` and compares every output with the interpreter's: integers and
/// truth values exactly, floats within `tolerance` of the output's largest element (or of 1). Returns the model.
pub fn check(name: &str, graph: &Graph, weights: &Weights, runs: &[Tensors], tolerance: f64) -> ModelProto {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("onnx").join(name);
    fs::create_dir_all(folder.join("weights")).expect("folder");
    let places = store(&folder.join(STORE), weights);
    let verified = graph.verify().expect("verifies");
    let locate = |weight: &str| places.get(weight).cloned();
    let model = onnx::export(verified, "", &locate).unwrap_or_else(|e| panic!("{name}: {e}"));
    let bytes = onnx::to_bytes(&model);
    let again = onnx::export(verified, "", &locate).expect("exports again");
    assert_eq!(bytes, onnx::to_bytes(&again), "{name}: two exports differ");
    let path = folder.join("model.onnx");
    fs::write(&path, bytes).expect("model");
    let json = format!("{{\"tolerance\": {tolerance:e}, \"runs\": {}}}\n", runs.len());
    fs::write(folder.join("case.json"), json).expect("case");

    let interpreter = Interpreter::new(verified, weights).expect("prepares");
    let plan = tract_onnx::onnx()
        .model_for_path(&path)
        .and_then(|model| model.into_optimized())
        .and_then(|model| model.into_runnable())
        .unwrap_or_else(|e| panic!("{name}: tract: {e:?}"));
    for (at, inputs) in runs.iter().enumerate() {
        let inputs: Tensors = inputs.iter().map(|(name, value)| (name.clone(), rounded(value))).collect();
        let expected = interpreter.run(&inputs).unwrap_or_else(|e| panic!("{name}: {e}"));
        save(&folder.join(format!("run{at}.safetensors")), &inputs, &expected);
        let given: TVec<TValue> =
            interpreter.inputs().iter().map(|(name, _)| tract(&inputs[name]).into_tvalue()).collect();
        let found = plan.run(given).unwrap_or_else(|e| panic!("{name}: tract: {e:?}"));
        for ((output, expected), found) in expected.iter().zip(found) {
            compare(&format!("{name} run {at}: {output}"), &found, expected, tolerance);
        }
    }
    model
}

/// Writes all weights as f32 into one store; where each lies.
fn store(path: &std::path::Path, weights: &Weights) -> BTreeMap<String, WeightLocation> {
    let bytes: BTreeMap<String, Vec<u8>> =
        weights.iter().map(|(name, value)| (name.clone(), encode(value).1)).collect();
    let views = bytes.iter().map(|(name, bytes)| {
        (name.clone(), TensorView::new(Dtype::F32, weights[name].shape.clone(), bytes).expect("view"))
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

fn save(path: &std::path::Path, inputs: &Tensors, outputs: &Tensors) {
    let encoded: IndexMap<String, (Dtype, Vec<u8>, Vec<usize>)> = [("input", inputs), ("output", outputs)]
        .into_iter()
        .flat_map(|(kind, tensors)| {
            tensors.iter().map(move |(name, value)| {
                let (dtype, bytes) = encode(value);
                (format!("{kind} {name}"), (dtype, bytes, value.shape.clone()))
            })
        })
        .collect();
    let views = encoded.iter().map(|(name, (dtype, bytes, shape))| {
        (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).expect("view"))
    });
    fs::write(path, safetensors::serialize(views, None).expect("serialises")).expect("run");
}

fn encode(value: &Tensor) -> (Dtype, Vec<u8>) {
    match &value.data {
        Data::Float(v) => (Dtype::F32, v.iter().flat_map(|x| (*x as f32).to_le_bytes()).collect()),
        Data::Int(v) => (Dtype::I64, v.iter().flat_map(|x| x.to_le_bytes()).collect()),
        Data::Bool(v) => (Dtype::BOOL, v.iter().map(|x| u8::from(*x)).collect()),
    }
}

/// The same value as f32 holds it: what every backend is given.
fn rounded(value: &Tensor) -> Tensor {
    match &value.data {
        Data::Float(v) => Tensor::floats(&value.shape, v.iter().map(|x| f64::from(*x as f32)).collect())
            .expect("counts agree"),
        Data::Int(_) | Data::Bool(_) => value.clone(),
    }
}

fn tract(value: &Tensor) -> TractTensor {
    match &value.data {
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
