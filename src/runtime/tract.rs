//! The embedded default: ONNX models of target `portable` in tract, pure Rust, f32 or f16 on the host. Buffers are tract
//! tensors, handed to graphs without a copy. A graph is loaded and optimised when it first runs, because tract packs
//! the weights of each for itself: memory is that of the graphs in use.

mod exact;

use super::backend::{Backend, BackendError, Buffer, Outputs};
use super::region::{self, RegionError, View};
use crate::bundle::{Bundle, Layout};
use crate::ir::dtype::Dtype;
use crate::ir::tensor::{Data, Tensor};
use half::f16;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use tract_onnx::Onnx;
use tract_onnx::data_resolver::ModelDataResolver;
use tract_onnx::prelude::{
    Datum, DatumType, Framework as _, InferenceModelExt as _, IntoArcTensor as _, IntoRunnable as _,
    IntoTValue as _, TValue, TVec, Tensor as Stored, TractError, TractResult, TypedRunnableModel,
};

const NAME: &str = "tract";
/// The target whose models tract reads.
const TARGET: &str = "portable";

/// Graphs of a bundle in tract.
pub struct Tract {
    bundle: Bundle,
    loaded: HashMap<String, Model>,
}

struct Model {
    plan: Arc<TypedRunnableModel>,
    inputs: Vec<String>,
    outputs: Vec<String>,
}

impl Tract {
    /// The graphs of a bundle.
    #[must_use]
    pub fn of_bundle(bundle: Bundle) -> Self {
        Tract { bundle, loaded: HashMap::new() }
    }

    fn model(&mut self, graph: &str) -> Result<&Model, BackendError> {
        if !self.loaded.contains_key(graph) {
            let model = self.load(graph)?;
            self.loaded.insert(graph.to_owned(), model);
        }
        let missing = || BackendError::NoGraph { graph: graph.to_owned(), backend: NAME };
        self.loaded.get(graph).ok_or_else(missing)
    }

    /// Adds a graph that the bundle does not have: its ONNX model, whose weights stand where those of the bundle's models
    /// do, and the names of its inputs and outputs in order.
    ///
    /// # Errors
    /// tract does not take it.
    pub fn insert(
        &mut self,
        graph: &str,
        model: &[u8],
        inputs: Vec<String>,
        outputs: Vec<String>,
    ) -> Result<(), BackendError> {
        let failed = |source: TractError| BackendError::Load {
            graph: graph.to_owned(),
            message: format!("tract cannot load it: {source:#}"),
        };
        let folder = self.bundle.root().join(Layout::onnx(TARGET, graph));
        let plan = plan(model, folder.parent()).map_err(failed)?;
        self.loaded.insert(graph.to_owned(), Model { plan, inputs, outputs });
        Ok(())
    }

    fn load(&self, graph: &str) -> Result<Model, BackendError> {
        let error = |message: String| BackendError::Load { graph: graph.to_owned(), message };
        let path = self.bundle.onnx(TARGET, graph).map_err(|source| error(source.to_string()))?;
        let record = self.bundle.graph(graph).map_err(|source| error(source.to_string()))?;
        let failed = |source: TractError| error(format!("tract cannot load {}: {source:#}", path.display()));
        let bytes = std::fs::read(&path).map_err(|source| failed(source.into()))?;
        Ok(Model {
            plan: plan(&bytes, path.parent()).map_err(failed)?,
            inputs: record.inputs.iter().map(|port| port.name.clone()).collect(),
            outputs: record.outputs.iter().map(|port| port.name.clone()).collect(),
        })
    }
}

/// An ONNX model made ready to run; external data stands in `folder`.
fn plan(model: &[u8], folder: Option<&Path>) -> TractResult<Arc<TypedRunnableModel>> {
    let onnx = Onnx { provider: Arc::new(PositionedReads), ..tract_onnx::onnx() };
    let mut proto = onnx.proto_model_for_read(&mut &model[..])?;
    exact::spell_out(&mut proto);
    let parsed = onnx.parse(&proto, folder.and_then(Path::to_str))?;
    parsed.model.into_optimized()?.into_runnable()
}

/// Reads external data by position: a file cut short is an error, where a mapped one would end the process.
struct PositionedReads;

impl ModelDataResolver for PositionedReads {
    fn read_bytes_from_path(
        &self,
        buffer: &mut Vec<u8>,
        path: &Path,
        offset: usize,
        length: Option<usize>,
    ) -> TractResult<()> {
        let located = |source: std::io::Error| TractError::msg(format!("{}: {source}", path.display()));
        let file = File::open(path).map_err(located)?;
        let size = usize::try_from(file.metadata().map_err(located)?.len())?;
        let length = length.unwrap_or(size.saturating_sub(offset));
        if offset.checked_add(length).is_none_or(|end| end > size) {
            let message = format!("{}: {length} bytes at {offset} of a file of {size}", path.display());
            return Err(TractError::msg(message));
        }
        let start = buffer.len();
        buffer.resize(start + length, 0);
        file.read_exact_at(&mut buffer[start..], offset as u64).map_err(located)
    }
}

/// Storage of a buffer; shared with a run for its duration only.
type Storage = Arc<Stored>;

fn failed(source: TractError) -> BackendError {
    let message = format!("{source:#}");
    BackendError::Run { graph: "buffer".to_owned(), backend: NAME, message }
}

fn datum(dtype: Dtype) -> Result<DatumType, BackendError> {
    match dtype {
        Dtype::F32 => Ok(f32::datum_type()),
        Dtype::F16 => Ok(f16::datum_type()),
        Dtype::I64 => Ok(i64::datum_type()),
        Dtype::Bool => Ok(bool::datum_type()),
        Dtype::Bf16 => Err(BackendError::Elements { dtype }),
    }
}

fn keep(dtype: Dtype, stored: Stored) -> Buffer {
    let shape = stored.shape().to_vec();
    Buffer::new(dtype, shape, Storage::new(stored))
}

fn slice_of<T: Datum>(stored: &Stored) -> Result<&[T], BackendError> {
    stored.try_as_plain_ram().and_then(|view| view.as_slice::<T>()).map_err(failed)
}

/// What a graph reads: the tensor under the buffer's sizes.
fn value(buffer: &Buffer) -> Result<TValue, BackendError> {
    let stored: &Storage = buffer.storage()?;
    if stored.shape() == buffer.shape() {
        return Ok(Arc::clone(stored).into_tvalue());
    }
    let reshaped = Stored::clone(stored).into_shape(buffer.shape()).map_err(failed)?;
    Ok(reshaped.into_tvalue())
}

/// A buffer of what a graph yields; sizes that tract counts symbolically become integers.
fn output(value: TValue) -> Result<Buffer, BackendError> {
    let dtype = match value.datum_type() {
        DatumType::F32 => Dtype::F32,
        DatumType::F16 => Dtype::F16,
        DatumType::Bool => Dtype::Bool,
        _ => Dtype::I64,
    };
    if value.datum_type() == datum(dtype)? {
        let shape = value.shape().to_vec();
        return Ok(Buffer::new(dtype, shape, value.into_arc_tensor()));
    }
    let cast = value.cast_to::<i64>().map_err(failed)?;
    Ok(keep(dtype, cast.into_owned()))
}

fn rows_of<T: Datum + Copy>(
    source: &Buffer,
    sizes: &[usize],
    part: impl FnOnce(View<'_, T>) -> Result<Vec<T>, RegionError>,
) -> Result<Buffer, BackendError> {
    let stored: &Storage = source.storage()?;
    let view = View { data: slice_of::<T>(stored)?, shape: source.shape() };
    let stored = Stored::from_shape(sizes, &part(view)?).map_err(failed)?;
    Ok(keep(source.dtype(), stored))
}

fn write_into<T: Datum + Copy>(
    target: &mut Buffer,
    source: &Buffer,
    axis: usize,
    offsets: &[usize],
) -> Result<(), BackendError> {
    let shape = target.shape().to_vec();
    let from: &Storage = source.storage()?;
    let view = View { data: slice_of::<T>(from)?, shape: source.shape() };
    let into: &mut Storage = target.storage_mut()?;
    let mut plain = Arc::make_mut(into).try_as_plain_ram_mut().map_err(failed)?;
    let elements = plain.as_slice_mut::<T>().map_err(failed)?;
    Ok(region::write(elements, &shape, view, axis, offsets)?)
}

impl Backend for Tract {
    fn name(&self) -> &'static str {
        NAME
    }

    fn allocate(&mut self, dtype: Dtype, shape: &[usize]) -> Result<Buffer, BackendError> {
        Ok(keep(dtype, Stored::zero_dt(datum(dtype)?, shape).map_err(failed)?))
    }

    fn upload(&mut self, tensor: &Tensor, dtype: Dtype) -> Result<Buffer, BackendError> {
        if !tensor.holds(dtype) {
            return Err(BackendError::Elements { dtype });
        }
        datum(dtype)?;
        let stored = match &tensor.data {
            Data::Float(values) if dtype == Dtype::F16 => {
                let values: Vec<f16> = values.iter().map(|value| f16::from_f64(*value)).collect();
                Stored::from_shape(&tensor.shape, &values)
            }
            Data::Float(values) => {
                let values: Vec<f32> = values.iter().map(|value| *value as f32).collect();
                Stored::from_shape(&tensor.shape, &values)
            }
            Data::Int(values) => Stored::from_shape(&tensor.shape, values),
            Data::Bool(values) => Stored::from_shape(&tensor.shape, values),
        };
        Ok(keep(dtype, stored.map_err(failed)?))
    }

    fn download(&mut self, buffer: &Buffer) -> Result<Tensor, BackendError> {
        let stored: &Storage = buffer.storage()?;
        let data = match buffer.dtype() {
            Dtype::F32 => {
                Data::float(slice_of::<f32>(stored)?.iter().map(|value| f64::from(*value)).collect())
            }
            Dtype::I64 => Data::int(slice_of::<i64>(stored)?.to_vec()),
            Dtype::Bool => Data::bool(slice_of::<bool>(stored)?.to_vec()),
            Dtype::F16 => Data::float(slice_of::<f16>(stored)?.iter().map(|value| value.to_f64()).collect()),
            dtype @ Dtype::Bf16 => return Err(BackendError::Elements { dtype }),
        };
        Ok(Tensor { shape: buffer.shape().to_vec(), data })
    }

    fn write(
        &mut self,
        target: &mut Buffer,
        source: &Buffer,
        axis: usize,
        offsets: &[usize],
    ) -> Result<(), BackendError> {
        match target.dtype() {
            Dtype::I64 => write_into::<i64>(target, source, axis, offsets),
            Dtype::F16 => write_into::<f16>(target, source, axis, offsets),
            _ => write_into::<f32>(target, source, axis, offsets),
        }
    }

    fn gather(&mut self, source: &Buffer, rows: &[usize]) -> Result<Buffer, BackendError> {
        let sizes = [&[rows.len()], source.shape().get(1..).unwrap_or_default()].concat();
        match source.dtype() {
            Dtype::I64 => rows_of::<i64>(source, &sizes, |view| region::gather(view, rows)),
            Dtype::F16 => rows_of::<f16>(source, &sizes, |view| region::gather(view, rows)),
            _ => rows_of::<f32>(source, &sizes, |view| region::gather(view, rows)),
        }
    }

    fn slice(
        &mut self,
        source: &Buffer,
        axis: usize,
        start: usize,
        len: usize,
    ) -> Result<Buffer, BackendError> {
        let mut sizes = source.shape().to_vec();
        sizes.iter_mut().skip(axis).take(1).for_each(|size| *size = len);
        match source.dtype() {
            Dtype::I64 => rows_of::<i64>(source, &sizes, |view| region::slice(view, axis, start, len)),
            Dtype::F16 => rows_of::<f16>(source, &sizes, |view| region::slice(view, axis, start, len)),
            _ => rows_of::<f32>(source, &sizes, |view| region::slice(view, axis, start, len)),
        }
    }

    fn run(&mut self, graph: &str, inputs: &[(&str, &Buffer)]) -> Result<Outputs, BackendError> {
        let model = self.model(graph)?;
        let binding = |message: String| BackendError::Binding { graph: graph.to_owned(), message };
        if let Some((name, _)) =
            inputs.iter().find(|(name, _)| !model.inputs.iter().any(|known| known == name))
        {
            return Err(binding(format!("has no input `{name}`")));
        }
        let mut given: TVec<TValue> = TVec::new();
        for name in &model.inputs {
            let bound = inputs.iter().find(|(given, _)| given == name);
            let (_, buffer) = bound.ok_or_else(|| binding(format!("input `{name}` is missing")))?;
            given.push(value(buffer)?);
        }
        let outputs = model.plan.run(given).map_err(|source| BackendError::Run {
            graph: graph.to_owned(),
            backend: NAME,
            message: format!("{source:#}"),
        })?;
        let named = model.outputs.iter().zip(outputs);
        named.map(|(name, value)| Ok((name.clone(), output(value)?))).collect()
    }

    fn prepare(&mut self, graph: &str) -> Result<(), BackendError> {
        self.model(graph).map(|_| ())
    }
}
