//! The oracle: graphs in the interpreter with the reference semantics, floats as binary64. Buffers are tensors in host
//! memory.

use super::backend::{Backend, BackendError, Buffer, Outputs};
use super::region::{self, View};
use indexmap::IndexMap;
use photonc_bundle::bundle::Bundle;
use photonc_graph::graph::interp::{Interpreter, Tensors, WeightCache, WeightError, WeightSource};
use photonc_graph::graph::{Graph, Verified};
use photonc_graph::ir::attr::Scheme;
use photonc_graph::ir::dtype::Dtype;
use photonc_graph::ir::tensor::{Data, Tensor};
use std::collections::HashMap;
use std::sync::Arc;

const NAME: &str = "reference";

/// Graphs interpreted on the host.
pub struct Reference {
    graphs: Box<dyn GraphSource>,
    weights: WeightCache<Arc<dyn WeightSource>>,
    loaded: HashMap<String, Interpreter>,
}

/// Where graphs come from.
trait GraphSource {
    fn graph(&self, name: &str) -> Result<Graph, BackendError>;
}

impl GraphSource for IndexMap<String, Graph> {
    fn graph(&self, name: &str) -> Result<Graph, BackendError> {
        let missing = || BackendError::NoGraph { graph: name.to_owned(), backend: NAME };
        self.get(name).cloned().ok_or_else(missing)
    }
}

impl GraphSource for Arc<Bundle> {
    fn graph(&self, name: &str) -> Result<Graph, BackendError> {
        let error = |message: String| BackendError::Load { graph: name.to_owned(), message };
        self.parsed(name).cloned().map_err(|source| error(source.to_string()))
    }
}

/// Weights of a bundle.
pub struct BundleWeights(pub Arc<Bundle>);

impl WeightSource for BundleWeights {
    fn weight(&self, name: &str) -> Result<Tensor, WeightError> {
        if !self.0.manifest().weights.contains_key(name) {
            return Err(WeightError::Missing);
        }
        self.0.weight(name).map_err(|source| WeightError::Unreadable(source.to_string()))
    }

    fn quantized(&self, name: &str, scheme: Scheme) -> Result<Tensor, WeightError> {
        if !self.0.manifest().quantized.contains_key(&scheme.key(name)) {
            return Err(WeightError::Missing);
        }
        self.0.quantized_weight(name, scheme).map_err(|source| WeightError::Unreadable(source.to_string()))
    }
}

impl Reference {
    /// The graphs of a bundle; each is parsed, verified and given its weights when it first runs.
    #[must_use]
    pub fn of_bundle(bundle: Bundle) -> Self {
        let bundle = Arc::new(bundle);
        Self::with(Box::new(Arc::clone(&bundle)), Arc::new(BundleWeights(bundle)))
    }

    /// Graphs in memory.
    #[must_use]
    pub fn of_graphs(graphs: IndexMap<String, Graph>, weights: Arc<dyn WeightSource>) -> Self {
        Self::with(Box::new(graphs), weights)
    }

    /// Adds a graph, under its own name.
    ///
    /// # Errors
    /// A weight is missing, or the protocol is open.
    pub fn insert(&mut self, graph: Verified<'_>) -> Result<(), BackendError> {
        let error = |message: String| BackendError::Load { graph: graph.name().to_owned(), message };
        let ready = Interpreter::new(graph, &self.weights).map_err(|source| error(source.to_string()))?;
        self.loaded.insert(graph.name().to_owned(), ready);
        Ok(())
    }

    fn with(graphs: Box<dyn GraphSource>, weights: Arc<dyn WeightSource>) -> Self {
        Reference { graphs, weights: WeightCache::new(weights), loaded: HashMap::new() }
    }

    fn interpreter(&mut self, name: &str) -> Result<&Interpreter, BackendError> {
        if !self.loaded.contains_key(name) {
            let error = |message: String| BackendError::Load { graph: name.to_owned(), message };
            let graph = self.graphs.graph(name)?;
            let verified = graph.verify().map_err(|source| error(source.to_string()))?;
            let ready =
                Interpreter::new(verified, &self.weights).map_err(|source| error(source.to_string()))?;
            self.loaded.insert(name.to_owned(), ready);
        }
        let missing = || BackendError::NoGraph { graph: name.to_owned(), backend: NAME };
        self.loaded.get(name).ok_or_else(missing)
    }
}

/// A buffer of a tensor whose elements fit `dtype`.
fn buffer(tensor: Tensor, dtype: Dtype) -> Buffer {
    Buffer::new(dtype, tensor.shape.clone(), tensor)
}

/// The tensor of a buffer, under the buffer's sizes.
fn tensor(buffer: &Buffer) -> Result<Tensor, BackendError> {
    let stored: &Tensor = buffer.storage()?;
    Ok(Tensor { shape: buffer.shape().to_vec(), data: stored.data.clone() })
}

/// Applies a function of views to whatever elements a tensor has.
macro_rules! on_elements {
    ($data:expr, $shape:expr, |$view:ident| $result:expr) => {
        match $data {
            Data::Float(values) => {
                let $view = View { data: &values[..], shape: $shape };
                Data::float($result?)
            }
            Data::Int(values) => {
                let $view = View { data: &values[..], shape: $shape };
                Data::int($result?)
            }
            Data::Bool(values) => {
                let $view = View { data: &values[..], shape: $shape };
                Data::bool($result?)
            }
        }
    };
}

impl Backend for Reference {
    fn name(&self) -> &'static str {
        NAME
    }

    fn allocate(&mut self, dtype: Dtype, shape: &[usize]) -> Result<Buffer, BackendError> {
        Ok(buffer(Tensor::zeros(dtype, shape), dtype))
    }

    fn upload(&mut self, tensor: &Tensor, dtype: Dtype) -> Result<Buffer, BackendError> {
        if !tensor.holds(dtype) || tensor.data.len() != tensor.shape.iter().product::<usize>() {
            return Err(BackendError::Elements { dtype });
        }
        Ok(buffer(tensor.clone().rounded(dtype), dtype))
    }

    fn download(&mut self, buffer: &Buffer) -> Result<Tensor, BackendError> {
        tensor(buffer)
    }

    fn write(
        &mut self,
        target: &mut Buffer,
        source: &Buffer,
        axis: usize,
        offsets: &[usize],
    ) -> Result<(), BackendError> {
        let dtype = target.dtype();
        let shape = target.shape().to_vec();
        let from: &Tensor = source.storage()?;
        let sizes = source.shape();
        let into: &mut Tensor = target.storage_mut()?;
        match (&mut into.data, &from.data) {
            (Data::Float(into), Data::Float(from)) => {
                let view = View { data: &from[..], shape: sizes };
                region::write(&mut Arc::make_mut(into)[..], &shape, view, axis, offsets)?;
            }
            (Data::Int(into), Data::Int(from)) => {
                let view = View { data: &from[..], shape: sizes };
                region::write(&mut Arc::make_mut(into)[..], &shape, view, axis, offsets)?;
            }
            _ => return Err(BackendError::Elements { dtype }),
        }
        Ok(())
    }

    fn gather(&mut self, source: &Buffer, rows: &[usize]) -> Result<Buffer, BackendError> {
        let Tensor { shape, data } = tensor(source)?;
        let part = on_elements!(&data, &shape, |view| region::gather(view, rows));
        let sizes = [&[rows.len()], shape.get(1..).unwrap_or_default()].concat();
        Ok(buffer(Tensor { shape: sizes, data: part }, source.dtype()))
    }

    fn slice(
        &mut self,
        source: &Buffer,
        axis: usize,
        start: usize,
        len: usize,
    ) -> Result<Buffer, BackendError> {
        let Tensor { mut shape, data } = tensor(source)?;
        let part = on_elements!(&data, &shape, |view| region::slice(view, axis, start, len));
        shape.iter_mut().skip(axis).take(1).for_each(|size| *size = len);
        Ok(buffer(Tensor { shape, data: part }, source.dtype()))
    }

    fn run(&mut self, graph: &str, inputs: &[(&str, &Buffer)]) -> Result<Outputs, BackendError> {
        let interpreter = self.interpreter(graph)?;
        let mut bound = Tensors::new();
        for (name, buffer) in inputs {
            if !interpreter.inputs().iter().any(|(known, _)| known == name) {
                let message = format!("has no input `{name}`");
                return Err(BackendError::Binding { graph: graph.to_owned(), message });
            }
            bound.insert((*name).to_owned(), tensor(buffer)?);
        }
        let outputs = interpreter.run(&bound).map_err(|source| BackendError::Run {
            graph: graph.to_owned(),
            backend: NAME,
            message: source.to_string(),
        })?;
        let types = interpreter.outputs();
        let typed =
            outputs.into_iter().zip(types).map(|((name, tensor), dtype)| (name, buffer(tensor, *dtype)));
        Ok(typed.collect())
    }

    fn prepare(&mut self, graph: &str) -> Result<(), BackendError> {
        self.interpreter(graph).map(|_| ())
    }
}
