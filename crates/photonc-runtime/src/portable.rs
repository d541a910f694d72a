//! ONNX models of target `portable` in an engine: what tract and ONNX Runtime have in common. Owns the models of a bundle's
//! graphs by name, the binding of inputs and what is to be copied between buffers; knows no engine, nor where its tensors lie.
//!
//! A graph is loaded when it first runs, because engines pack the weights of each for themselves: memory is that of the
//! graphs in use.

use super::backend::{Backend, BackendError, Buffer, Outputs};
use super::region::{self, Piece};
use half::f16;
use photonc_bundle::bundle::Bundle;
use photonc_graph::ir::dtype::Dtype;
use photonc_graph::ir::tensor::{Data, Tensor};
use photonc_onnx::target::Target;
use std::any::Any;
use std::collections::HashMap;

/// The target whose models are run.
pub const TARGET: Target = Target::Portable;

/// Elements in host memory, of one of the types that portable models have.
#[derive(Clone, Debug)]
pub enum Elements {
    /// `f32`.
    F32(Vec<f32>),
    /// `f16`.
    F16(Vec<f16>),
    /// `i64`.
    I64(Vec<i64>),
    /// `bool`.
    Bool(Vec<bool>),
}

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

/// What runs ONNX models on tensors of its own. Errors are in the engine's words.
pub trait Engine {
    /// Name in options and messages.
    const NAME: &'static str;
    /// Storage of a buffer.
    type Storage: Any + Send;
    /// A model ready to run.
    type Plan;

    /// A tensor of zeros.
    ///
    /// # Errors
    /// No room, or no elements of this type.
    fn allocate(&self, dtype: Dtype, shape: &[usize]) -> Result<Self::Storage, String>;

    /// A tensor of these sizes and elements, as many as the sizes say.
    ///
    /// # Errors
    /// No room.
    fn keep(&self, shape: &[usize], elements: Elements) -> Result<Self::Storage, String>;

    /// The elements of a tensor, which are of type `dtype`, once they are there.
    ///
    /// # Errors
    /// They are of another type, or what writes them has failed.
    fn fetch(&self, storage: &Self::Storage, dtype: Dtype) -> Result<Elements, String>;

    /// Copies pieces of one tensor into another; the elements of both are of type `dtype`.
    ///
    /// # Errors
    /// They are of another type, or a piece is past the end.
    fn copy(
        &self,
        target: &mut Self::Storage,
        source: &Self::Storage,
        dtype: Dtype,
        pieces: &[Piece],
    ) -> Result<(), String>;

    /// Loads a model whose weights are those of `bundle`, and no others whatever stands at its path by now.
    ///
    /// # Errors
    /// The engine does not take it, or the bundle is no longer what it was.
    fn load(&self, model: &[u8], bundle: &Bundle) -> Result<Self::Plan, String>;

    /// Runs a model on all its inputs, in their order. Yields its outputs in their order.
    ///
    /// # Errors
    /// Inputs that do not fit, or a failing operation.
    fn run(
        &self,
        plan: &mut Self::Plan,
        inputs: &[Input<'_, Self::Storage>],
    ) -> Result<Vec<Output<Self::Storage>>, String>;

    /// Waits for what it has been asked for.
    ///
    /// # Errors
    /// Something asked for has failed.
    fn wait(&self) -> Result<(), String> {
        Ok(())
    }
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
        let plan = self.engine.load(&model, &self.bundle).map_err(failed)?;
        self.loaded.insert(name, Model { plan, inputs, outputs });
        Ok(())
    }

    fn ensure(&mut self, graph: &str) -> Result<(), BackendError> {
        if !self.loaded.contains_key(graph) {
            let model = self.load(graph)?;
            self.loaded.insert(graph.to_owned(), model);
        }
        Ok(())
    }

    fn load(&self, graph: &str) -> Result<Model<E::Plan>, BackendError> {
        let error = |message: String| BackendError::Load { graph: graph.to_owned(), message };
        let record = self.bundle.graph(graph).map_err(|source| error(source.to_string()))?;
        // Made from the graph itself: a model in a file could say another thing, or one that breaks the engine.
        let model = photonc_onnx::of_bundle(&self.bundle, TARGET, graph)
            .map_err(|source| error(source.to_string()))?;
        let failed = |message: String| error(format!("{} cannot load it: {message}", E::NAME));
        Ok(Model {
            plan: self.engine.load(&model, &self.bundle).map_err(failed)?,
            inputs: record.inputs.iter().map(|port| port.name.clone()).collect(),
            outputs: record.outputs.iter().map(|port| port.name.clone()).collect(),
        })
    }

    fn storage(&self, dtype: Dtype, shape: &[usize]) -> Result<E::Storage, BackendError> {
        match dtype {
            Dtype::Bf16 => Err(BackendError::Elements { dtype }),
            _ => self.engine.allocate(dtype, shape).map_err(Self::failed),
        }
    }

    /// A new buffer that takes pieces of another and nothing else.
    fn part(&self, source: &Buffer, shape: Vec<usize>, pieces: &[Piece]) -> Result<Buffer, BackendError> {
        let dtype = source.dtype();
        let mut storage = self.storage(dtype, &shape)?;
        self.engine.copy(&mut storage, source.storage()?, dtype, pieces).map_err(Self::failed)?;
        Ok(Buffer::new(dtype, shape, storage))
    }

    fn failed(message: String) -> BackendError {
        BackendError::Run { graph: "buffer".to_owned(), backend: E::NAME, message }
    }
}

/// Why there are no elements of type `dtype`.
#[cfg(any(feature = "tract", feature = "ort"))]
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
        Ok(Buffer::new(dtype, shape.to_vec(), self.storage(dtype, shape)?))
    }

    fn upload(&mut self, tensor: &Tensor, dtype: Dtype) -> Result<Buffer, BackendError> {
        let elements = match (&tensor.data, dtype) {
            (Data::Float(values), Dtype::F32) => {
                Elements::F32(values.iter().map(|value| *value as f32).collect())
            }
            (Data::Float(values), Dtype::F16) => {
                Elements::F16(values.iter().map(|value| f16::from_f64(*value)).collect())
            }
            (Data::Int(values), Dtype::I64) => Elements::I64(values.to_vec()),
            (Data::Bool(values), Dtype::Bool) => Elements::Bool(values.to_vec()),
            _ => return Err(BackendError::Elements { dtype }),
        };
        let storage = self.engine.keep(&tensor.shape, elements).map_err(Self::failed)?;
        Ok(Buffer::new(dtype, tensor.shape.clone(), storage))
    }

    fn download(&mut self, buffer: &Buffer) -> Result<Tensor, BackendError> {
        let elements = self.engine.fetch(buffer.storage()?, buffer.dtype()).map_err(Self::failed)?;
        let data = match elements {
            Elements::F32(values) => Data::float(values.into_iter().map(f64::from).collect()),
            Elements::F16(values) => Data::float(values.into_iter().map(f64::from).collect()),
            Elements::I64(values) => Data::int(values),
            Elements::Bool(values) => Data::bool(values),
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
        let dtype = target.dtype();
        if source.dtype() != dtype {
            return Err(BackendError::Elements { dtype });
        }
        let pieces = region::written(target.shape(), source.shape(), axis, offsets)?;
        self.engine.copy(target.storage_mut()?, source.storage()?, dtype, &pieces).map_err(Self::failed)
    }

    fn gather(&mut self, source: &Buffer, rows: &[usize]) -> Result<Buffer, BackendError> {
        let pieces = region::gathered(source.shape(), rows)?;
        let shape = [&[rows.len()], source.shape().get(1..).unwrap_or_default()].concat();
        self.part(source, shape, &pieces)
    }

    fn slice(
        &mut self,
        source: &Buffer,
        axis: usize,
        start: usize,
        len: usize,
    ) -> Result<Buffer, BackendError> {
        let piece = region::sliced(source.shape(), axis, start, len)?;
        let mut shape = source.shape().to_vec();
        shape.iter_mut().skip(axis).take(1).for_each(|size| *size = len);
        self.part(source, shape, &[piece])
    }

    fn run(&mut self, graph: &str, inputs: &[(&str, &Buffer)]) -> Result<Outputs, BackendError> {
        self.ensure(graph)?;
        let missing = || BackendError::NoGraph { graph: graph.to_owned(), backend: E::NAME };
        let model = self.loaded.get_mut(graph).ok_or_else(missing)?;
        let bound = bind::<E::Storage>(graph, &model.inputs, inputs)?;
        let outputs = self.engine.run(&mut model.plan, &bound).map_err(|message| BackendError::Run {
            graph: graph.to_owned(),
            backend: E::NAME,
            message,
        })?;
        let named = model.outputs.iter().zip(outputs);
        let buffer = |output: Output<E::Storage>| Buffer::new(output.dtype, output.shape, output.storage);
        Ok(named.map(|(name, output)| (name.clone(), buffer(output))).collect())
    }

    fn prepare(&mut self, graph: &str) -> Result<(), BackendError> {
        self.ensure(graph)
    }

    fn synchronize(&mut self) -> Result<(), BackendError> {
        self.engine.wait().map_err(|message| BackendError::Device { backend: E::NAME, message })
    }
}
