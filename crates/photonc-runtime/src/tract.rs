//! ONNX models of target `portable` in tract, pure Rust, f32 or f16 on the host. Buffers are tract
//! tensors, handed to graphs without a copy.

mod exact;
mod largest;
mod weights;

use super::portable::{Elements, Engine, Input, Output, Portable, no_elements};
use super::region::{self, Piece};
use half::f16;
use photonc_bundle::bundle::Bundle;
use photonc_graph::ir::dtype::Dtype;
use std::sync::Arc;
use tract_onnx::Onnx;
use tract_onnx::prelude::{
    Datum, DatumType, Framework as _, InferenceModelExt as _, IntoArcTensor as _, IntoRunnable as _,
    IntoTValue as _, TValue, Tensor as Stored, TractError, TractResult, TypedRunnableModel,
};
use weights::{ANY_FOLDER, Weights};

/// Graphs of a bundle in tract.
pub type Tract = Portable<TractEngine>;

/// tract.
#[derive(Clone, Copy, Debug)]
pub struct TractEngine;

impl Tract {
    /// The graphs of a bundle.
    #[must_use]
    pub fn of_bundle(bundle: Bundle) -> Self {
        Portable::new(bundle, TractEngine)
    }
}

/// An ONNX model made ready to run, with the weights of a bundle.
fn plan(model: &[u8], bundle: &Bundle) -> TractResult<Arc<TypedRunnableModel>> {
    let weights = Weights::of(bundle)?;
    let onnx = tract_onnx::onnx();
    let mut proto = onnx.proto_model_for_read(&mut &model[..])?;
    weights.address(&mut proto)?;
    exact::spell_out(&mut proto);
    let onnx = Onnx { provider: Arc::new(weights), ..onnx };
    let parsed = onnx.parse(&proto, Some(ANY_FOLDER))?;
    let mut model = parsed.model.into_optimized()?;
    largest::select_instead_of_sorting(&mut model);
    model.into_runnable()
}

/// Storage of a buffer; shared with a run for its duration only.
type Storage = Arc<Stored>;

fn words(source: TractError) -> String {
    format!("{source:#}")
}

fn slice_of<T: Datum>(stored: &Stored) -> Result<&[T], String> {
    stored.try_as_plain_ram().and_then(|view| view.as_slice::<T>()).map_err(words)
}

fn copy<T: Datum + Copy>(target: &mut Storage, source: &Storage, pieces: &[Piece]) -> Result<(), String> {
    let mut plain = Arc::make_mut(target).try_as_plain_ram_mut().map_err(words)?;
    let into = plain.as_slice_mut::<T>().map_err(words)?;
    region::copy(into, slice_of(source)?, pieces).map_err(|error| error.to_string())
}

/// What a graph reads: the tensor under the buffer's sizes.
fn value(input: &Input<'_, Storage>) -> TractResult<TValue> {
    if input.storage.shape() == input.shape {
        return Ok(Arc::clone(input.storage).into_tvalue());
    }
    Ok(Stored::clone(input.storage).into_shape(input.shape)?.into_tvalue())
}

/// A buffer of what a graph yields; sizes that tract counts symbolically become integers.
fn output(value: TValue) -> TractResult<Output<Storage>> {
    let shape = value.shape().to_vec();
    let dtype = match value.datum_type() {
        DatumType::F32 => Dtype::F32,
        DatumType::F16 => Dtype::F16,
        DatumType::Bool => Dtype::Bool,
        _ => Dtype::I64,
    };
    if dtype != Dtype::I64 || value.datum_type() == i64::datum_type() {
        return Ok(Output { dtype, shape, storage: value.into_arc_tensor() });
    }
    let storage = Storage::new(value.cast_to::<i64>()?.into_owned());
    Ok(Output { dtype, shape, storage })
}

impl Engine for TractEngine {
    const NAME: &'static str = "tract";
    type Storage = Storage;
    type Plan = Arc<TypedRunnableModel>;

    fn allocate(&self, dtype: Dtype, shape: &[usize]) -> Result<Storage, String> {
        let stored = match dtype {
            Dtype::F32 => Stored::zero::<f32>(shape),
            Dtype::F16 => Stored::zero::<f16>(shape),
            Dtype::I64 => Stored::zero::<i64>(shape),
            Dtype::Bool => Stored::zero_dt(DatumType::Bool, shape),
            Dtype::Bf16 => return Err(no_elements(dtype)),
        };
        stored.map(Storage::new).map_err(words)
    }

    fn keep(&self, shape: &[usize], elements: Elements) -> Result<Storage, String> {
        let stored = match elements {
            Elements::F32(values) => Stored::from_shape(shape, &values),
            Elements::F16(values) => Stored::from_shape(shape, &values),
            Elements::I64(values) => Stored::from_shape(shape, &values),
            Elements::Bool(values) => Stored::from_shape(shape, &values),
        };
        stored.map(Storage::new).map_err(words)
    }

    fn fetch(&self, storage: &Storage, dtype: Dtype) -> Result<Elements, String> {
        match dtype {
            Dtype::F32 => slice_of(storage).map(|values| Elements::F32(values.to_vec())),
            Dtype::F16 => slice_of(storage).map(|values| Elements::F16(values.to_vec())),
            Dtype::I64 => slice_of(storage).map(|values| Elements::I64(values.to_vec())),
            Dtype::Bool => slice_of(storage).map(|values| Elements::Bool(values.to_vec())),
            Dtype::Bf16 => Err(no_elements(dtype)),
        }
    }

    fn copy(
        &self,
        target: &mut Storage,
        source: &Storage,
        dtype: Dtype,
        pieces: &[Piece],
    ) -> Result<(), String> {
        match dtype {
            Dtype::F32 => copy::<f32>(target, source, pieces),
            Dtype::F16 => copy::<f16>(target, source, pieces),
            Dtype::I64 => copy::<i64>(target, source, pieces),
            Dtype::Bool => copy::<bool>(target, source, pieces),
            Dtype::Bf16 => Err(no_elements(dtype)),
        }
    }

    fn load(&self, model: &[u8], bundle: &Bundle) -> Result<Self::Plan, String> {
        plan(model, bundle).map_err(words)
    }

    fn run(
        &self,
        plan: &mut Self::Plan,
        inputs: &[Input<'_, Storage>],
    ) -> Result<Vec<Output<Storage>>, String> {
        let given = inputs.iter().map(value).collect::<TractResult<_>>().map_err(words)?;
        let outputs = plan.run(given).map_err(words)?;
        outputs.into_iter().map(output).collect::<TractResult<_>>().map_err(words)
    }
}
