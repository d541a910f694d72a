//! ONNX models of target `portable` in an engine whose tensors are host memory: what tract and ONNX Runtime have in
//! common. Owns the models of a bundle by name, the binding of inputs and all work on buffers; knows no engine.
//!
//! A graph is loaded when it first runs, because engines pack the weights of each for themselves: memory is that of the
//! graphs in use.

use super::backend::{Backend, BackendError, Buffer, Outputs};
use super::region::{self, RegionError, View};
use crate::bundle::{Bundle, Layout};
use crate::ir::dtype::Dtype;
use crate::ir::tensor::{Data, Tensor};
use half::f16;
use std::any::Any;
use std::collections::HashMap;
use std::path::Path;

/// The target whose models are read.
pub const TARGET: &str = "portable";

/// One of the element types that portable models have.
#[derive(Clone, Copy, Debug)]
pub enum Typed<F, H, I, B> {
    /// `f32`.
    F32(F),
    /// `f16`.
    F16(H),
    /// `i64`.
    I64(I),
    /// `bool`.
    Bool(B),
}

/// Elements of their own.
pub type Elements = Typed<Vec<f32>, Vec<f16>, Vec<i64>, Vec<bool>>;
/// Elements of an engine's tensor, row-major.
pub type ElementsRef<'a> = Typed<&'a [f32], &'a [f16], &'a [i64], &'a [bool]>;
/// The same for writing.
pub type ElementsMut<'a> = Typed<&'a mut [f32], &'a mut [f16], &'a mut [i64], &'a mut [bool]>;

/// A value that a graph reads.
pub struct Input<'a, S> {
    /// Name in the graph.
    pub name: &'a str,
    /// Element type.
    pub dtype: Dtype,
    /// Sizes, which may differ from those that the storage was made with; the number of elements is the same.
    pub shape: &'a [usize],
    /// The elements.
    pub storage: &'a S,
}

/// A value that a graph has yielded.
pub struct Output<S> {
    /// Element type.
    pub dtype: Dtype,
    /// Sizes.
    pub shape: Vec<usize>,
    /// The elements, shared with no input.
    pub storage: S,
}

/// A graph as an ONNX model in memory.
#[derive(Clone, Debug)]
pub struct OnnxGraph {
    /// Name.
    pub name: String,
    /// The model in protobuf.
    pub model: Vec<u8>,
    /// Names of its inputs, in order.
    pub inputs: Vec<String>,
    /// Names of its outputs, in order.
    pub outputs: Vec<String>,
}

/// What runs ONNX models on tensors in host memory. Errors are in the engine's words.
pub trait Engine {
    /// Name in options and messages.
    const NAME: &'static str;
    /// Storage of a buffer.
    type Storage: Any + Send;
    /// A model ready to run.
    type Plan;

    /// A tensor of these sizes and elements, as many as the sizes say.
    ///
    /// # Errors
    /// No room.
    fn keep(shape: &[usize], elements: Elements) -> Result<Self::Storage, String>;

    /// The elements of a tensor, which are of type `dtype`.
    ///
    /// # Errors
    /// They are of another type.
    fn elements(storage: &Self::Storage, dtype: Dtype) -> Result<ElementsRef<'_>, String>;

    /// Lets `write` change the elements of a tensor.
    ///
    /// # Errors
    /// They are of another type.
    fn change<R>(
        storage: &mut Self::Storage,
        dtype: Dtype,
        write: impl FnOnce(ElementsMut<'_>) -> R,
    ) -> Result<R, String>;

    /// Loads the model at `path`; its weights stand beside it.
    ///
    /// # Errors
    /// The file cannot be read, or the engine does not take it.
    fn load(&self, path: &Path) -> Result<Self::Plan, String>;

    /// Loads a model in memory whose weights stand in `folder`.
    ///
    /// # Errors
    /// The engine does not take it.
    fn load_bytes(&self, model: &[u8], folder: &Path) -> Result<Self::Plan, String>;

    /// Runs a model on all its inputs, in their order. Yields its outputs in their order.
    ///
    /// # Errors
    /// Inputs that do not fit, or a failing operation.
    fn run(
        plan: &mut Self::Plan,
        inputs: &[Input<'_, Self::Storage>],
    ) -> Result<Vec<Output<Self::Storage>>, String>;
}

/// Graphs of a bundle in an engine.
pub struct Portable<E: Engine> {
    engine: E,
    bundle: Bundle,
    loaded: HashMap<String, Model<E::Plan>>,
}

struct Model<P> {
    plan: P,
    inputs: Vec<String>,
    outputs: Vec<String>,
}

impl<E: Engine> Portable<E> {
    /// The graphs of a bundle in `engine`.
    #[must_use]
    pub fn new(bundle: Bundle, engine: E) -> Self {
        Portable { engine, bundle, loaded: HashMap::new() }
    }

    /// Adds a graph that the bundle does not have; its weights stand where those of the bundle's models do.
    ///
    /// # Errors
    /// The engine does not take it.
    pub fn insert(&mut self, graph: OnnxGraph) -> Result<(), BackendError> {
        let OnnxGraph { name, model, inputs, outputs } = graph;
        let failed = |message: String| BackendError::Load {
            graph: name.clone(),
            message: format!("{} cannot load it: {message}", E::NAME),
        };
        let path = self.bundle.root().join(Layout::onnx(TARGET, &name));
        let plan = self.engine.load_bytes(&model, path.parent().unwrap_or(&path)).map_err(failed)?;
        self.loaded.insert(name, Model { plan, inputs, outputs });
        Ok(())
    }

    fn model(&mut self, graph: &str) -> Result<&mut Model<E::Plan>, BackendError> {
        if !self.loaded.contains_key(graph) {
            let model = self.load(graph)?;
            self.loaded.insert(graph.to_owned(), model);
        }
        let missing = || BackendError::NoGraph { graph: graph.to_owned(), backend: E::NAME };
        self.loaded.get_mut(graph).ok_or_else(missing)
    }

    fn load(&self, graph: &str) -> Result<Model<E::Plan>, BackendError> {
        let error = |message: String| BackendError::Load { graph: graph.to_owned(), message };
        let path = self.bundle.onnx(TARGET, graph).map_err(|source| error(source.to_string()))?;
        let record = self.bundle.graph(graph).map_err(|source| error(source.to_string()))?;
        let failed =
            |message: String| error(format!("{} cannot load {}: {message}", E::NAME, path.display()));
        Ok(Model {
            plan: self.engine.load(&path).map_err(failed)?,
            inputs: record.inputs.iter().map(|port| port.name.clone()).collect(),
            outputs: record.outputs.iter().map(|port| port.name.clone()).collect(),
        })
    }

    fn keep(dtype: Dtype, shape: Vec<usize>, elements: Elements) -> Result<Buffer, BackendError> {
        let storage = E::keep(&shape, elements).map_err(Self::failed)?;
        Ok(Buffer::new(dtype, shape, storage))
    }

    fn elements(buffer: &Buffer) -> Result<ElementsRef<'_>, BackendError> {
        E::elements(buffer.storage()?, buffer.dtype()).map_err(Self::failed)
    }

    /// A new buffer with the elements that `part` takes from each type of array.
    fn part(
        source: &Buffer,
        shape: Vec<usize>,
        floats: impl FnOnce(View<'_, f32>) -> Result<Vec<f32>, RegionError>,
        halves: impl FnOnce(View<'_, f16>) -> Result<Vec<f16>, RegionError>,
        ints: impl FnOnce(View<'_, i64>) -> Result<Vec<i64>, RegionError>,
        bools: impl FnOnce(View<'_, bool>) -> Result<Vec<bool>, RegionError>,
    ) -> Result<Buffer, BackendError> {
        let sizes = source.shape();
        let elements = match Self::elements(source)? {
            Typed::F32(data) => Typed::F32(floats(View { data, shape: sizes })?),
            Typed::F16(data) => Typed::F16(halves(View { data, shape: sizes })?),
            Typed::I64(data) => Typed::I64(ints(View { data, shape: sizes })?),
            Typed::Bool(data) => Typed::Bool(bools(View { data, shape: sizes })?),
        };
        Self::keep(source.dtype(), shape, elements)
    }

    fn failed(message: String) -> BackendError {
        BackendError::Run { graph: "buffer".to_owned(), backend: E::NAME, message }
    }
}

/// Why there are no elements of type `dtype`.
pub(super) fn no_elements(dtype: Dtype) -> String {
    format!("portable models have no elements of {dtype}")
}

/// What each of the graph's inputs is given, in the graph's order.
fn bind<'a, S: Any>(
    graph: &str,
    names: &'a [String],
    given: &[(&str, &'a Buffer)],
) -> Result<Vec<Input<'a, S>>, BackendError> {
    let binding = |message: String| BackendError::Binding { graph: graph.to_owned(), message };
    if let Some((name, _)) = given.iter().find(|(name, _)| !names.iter().any(|known| known == name)) {
        return Err(binding(format!("has no input `{name}`")));
    }
    let input = |name: &'a String| {
        let bound = given.iter().find(|(given, _)| given == name);
        let (_, buffer) = bound.ok_or_else(|| binding(format!("input `{name}` is missing")))?;
        Ok(Input { name, dtype: buffer.dtype(), shape: buffer.shape(), storage: buffer.storage()? })
    };
    names.iter().map(input).collect()
}

impl<E: Engine> Backend for Portable<E> {
    fn name(&self) -> &'static str {
        E::NAME
    }

    fn allocate(&mut self, dtype: Dtype, shape: &[usize]) -> Result<Buffer, BackendError> {
        let count = shape.iter().product();
        let elements = match dtype {
            Dtype::F32 => Typed::F32(vec![0.0; count]),
            Dtype::F16 => Typed::F16(vec![f16::ZERO; count]),
            Dtype::I64 => Typed::I64(vec![0; count]),
            Dtype::Bool => Typed::Bool(vec![false; count]),
            Dtype::Bf16 => return Err(BackendError::Elements { dtype }),
        };
        Self::keep(dtype, shape.to_vec(), elements)
    }

    fn upload(&mut self, tensor: &Tensor, dtype: Dtype) -> Result<Buffer, BackendError> {
        let elements = match (&tensor.data, dtype) {
            (Data::Float(values), Dtype::F32) => {
                Typed::F32(values.iter().map(|value| *value as f32).collect())
            }
            (Data::Float(values), Dtype::F16) => {
                Typed::F16(values.iter().map(|value| f16::from_f64(*value)).collect())
            }
            (Data::Int(values), Dtype::I64) => Typed::I64(values.to_vec()),
            (Data::Bool(values), Dtype::Bool) => Typed::Bool(values.to_vec()),
            _ => return Err(BackendError::Elements { dtype }),
        };
        Self::keep(dtype, tensor.shape.clone(), elements)
    }

    fn download(&mut self, buffer: &Buffer) -> Result<Tensor, BackendError> {
        let data = match Self::elements(buffer)? {
            Typed::F32(values) => Data::float(values.iter().map(|value| f64::from(*value)).collect()),
            Typed::F16(values) => Data::float(values.iter().map(|value| value.to_f64()).collect()),
            Typed::I64(values) => Data::int(values.to_vec()),
            Typed::Bool(values) => Data::bool(values.to_vec()),
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
        let (dtype, shape) = (target.dtype(), target.shape().to_vec());
        let from = Self::elements(source)?;
        let view = source.shape();
        let write = |into: ElementsMut<'_>| match (into, from) {
            (Typed::F32(into), Typed::F32(data)) => {
                Ok(region::write(into, &shape, View { data, shape: view }, axis, offsets)?)
            }
            (Typed::F16(into), Typed::F16(data)) => {
                Ok(region::write(into, &shape, View { data, shape: view }, axis, offsets)?)
            }
            (Typed::I64(into), Typed::I64(data)) => {
                Ok(region::write(into, &shape, View { data, shape: view }, axis, offsets)?)
            }
            (Typed::Bool(into), Typed::Bool(data)) => {
                Ok(region::write(into, &shape, View { data, shape: view }, axis, offsets)?)
            }
            _ => Err(BackendError::Elements { dtype }),
        };
        E::change(target.storage_mut()?, dtype, write).map_err(Self::failed)?
    }

    fn gather(&mut self, source: &Buffer, rows: &[usize]) -> Result<Buffer, BackendError> {
        let shape = [&[rows.len()], source.shape().get(1..).unwrap_or_default()].concat();
        Self::part(
            source,
            shape,
            |view| region::gather(view, rows),
            |view| region::gather(view, rows),
            |view| region::gather(view, rows),
            |view| region::gather(view, rows),
        )
    }

    fn slice(
        &mut self,
        source: &Buffer,
        axis: usize,
        start: usize,
        len: usize,
    ) -> Result<Buffer, BackendError> {
        let mut shape = source.shape().to_vec();
        shape.iter_mut().skip(axis).take(1).for_each(|size| *size = len);
        Self::part(
            source,
            shape,
            |view| region::slice(view, axis, start, len),
            |view| region::slice(view, axis, start, len),
            |view| region::slice(view, axis, start, len),
            |view| region::slice(view, axis, start, len),
        )
    }

    fn run(&mut self, graph: &str, inputs: &[(&str, &Buffer)]) -> Result<Outputs, BackendError> {
        let model = self.model(graph)?;
        let bound = bind::<E::Storage>(graph, &model.inputs, inputs)?;
        let outputs = E::run(&mut model.plan, &bound).map_err(|message| BackendError::Run {
            graph: graph.to_owned(),
            backend: E::NAME,
            message,
        })?;
        let named = model.outputs.iter().zip(outputs);
        let buffer = |output: Output<E::Storage>| Buffer::new(output.dtype, output.shape, output.storage);
        Ok(named.map(|(name, output)| (name.clone(), buffer(output))).collect())
    }

    fn prepare(&mut self, graph: &str) -> Result<(), BackendError> {
        self.model(graph).map(|_| ())
    }
}
