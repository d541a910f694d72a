//! The graphs of a bundle on one device: plans by size, weights, constants and the memory that plans share. Owns what
//! every way of running has in common; refuses to know state, protocols and requests.

use super::bound_plan::BoundPlan;
use super::derived_weights::{BrokenGraph, DerivedWeights};
use super::device::{Allocation, Device, DeviceError, ProductKind, Stream};
use super::plan::view::Element;
use super::plan::weights::WeightLayout;
use super::plan::{Contents, Plan, PlanError, PlanOptions, Tuning, lower};
use super::resources::Resources;
use super::weights::{DeviceWeights, WeightBytes};
use indexmap::IndexMap;
use photonc_graph::graph::Graph;
use photonc_graph::ir::bytes::bytes_of as floats_as;
use photonc_graph::ir::dim::Bindings;
use photonc_graph::ir::dtype::Dtype;
use photonc_graph::ir::tensor::{Data, Literal};
use photonc_runtime::plan::signature;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// Graphs and weights on a device.
pub struct LoadedModel {
    /// The device.
    pub device: Arc<dyn Device>,
    /// Type of activations and weights.
    pub dtype: Dtype,
    /// Which kernels serve which sizes.
    pub tuning: Tuning,
    graphs: IndexMap<String, Graph>,
    pub(super) weights: DeviceWeights,
    pub(super) constants: HashMap<(Literal, Element), Allocation>,
    /// Cosines and sines by angle base and half width: positions and memory.
    pub(super) rotations: HashMap<(u64, usize), (usize, Allocation)>,
    /// Tables that longer ones replaced; plans bound before still read them.
    pub(super) outgrown: Vec<Allocation>,
    /// Kinds of products that were started.
    warm: HashSet<ProductKind>,
}

/// Why a graph could not be made ready or run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// No such graph.
    #[error("graph `{0}` is not in the bundle; export it again with this graph")]
    NoGraph(String),
    /// The graph breaks a rule of the IR.
    #[error(transparent)]
    Verify(#[from] photonc_graph::graph::VerifyError),
    /// No plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A value that a plan needs was not given.
    #[error("graph `{graph}`: `{name}` was given no memory")]
    Unbound {
        /// The graph.
        graph: String,
        /// The input or output.
        name: String,
    },
}

impl LoadedModel {
    /// `graphs` with weights from `source`, computed in `dtype`.
    ///
    /// # Errors
    /// Never for verified graphs; else the graph that is none.
    pub fn new(
        device: Arc<dyn Device>,
        mut graphs: IndexMap<String, Graph>,
        source: Box<dyn WeightBytes>,
        dtype: Dtype,
    ) -> Result<Self, BrokenGraph> {
        let source = Box::new(DerivedWeights::separate(graphs.values_mut(), source)?);
        // A narrower type is widened as kernels read it, exactly: the same results of fewer bytes.
        let narrow = |name: &str| {
            let stored = source.dtype(name).filter(|stored| *stored != dtype && stored.widens_to(dtype));
            stored.filter(|_| device.reads_matrices_as_stored())
        };
        let layout = WeightLayout::with_stored(&graphs.values().collect::<Vec<_>>(), &narrow);
        let layout = if device.reads_codes_as_stored() { layout.as_stored() } else { layout };
        Ok(LoadedModel {
            tuning: device.tuning(),
            device,
            dtype,
            graphs,
            weights: DeviceWeights::new(source, layout, dtype),
            constants: HashMap::new(),
            rotations: HashMap::new(),
            outgrown: Vec::new(),
            warm: HashSet::new(),
        })
    }

    /// A graph by name.
    ///
    /// # Errors
    /// No such graph.
    pub fn graph(&self, name: &str) -> Result<&Graph, ModelError> {
        self.graphs.get(name).ok_or_else(|| ModelError::NoGraph(name.to_owned()))
    }

    /// Which weights lie where.
    #[must_use]
    pub fn layout(&self) -> &WeightLayout {
        self.weights.layout()
    }

    /// Bytes of weights on the device.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        self.weights.bytes()
    }

    /// The plan of a graph at given sizes. Pure: nothing is loaded.
    ///
    /// # Errors
    /// No such graph, or something in it has no kernel.
    pub fn plan(&self, name: &str, bindings: &Bindings, options: &PlanOptions) -> Result<Plan, ModelError> {
        let verified = self.graph(name)?.verify()?;
        let options = PlanOptions { tuning: self.tuning, ..options.clone() };
        Ok(lower(verified, bindings, self.dtype, self.weights.layout(), &options)?)
    }

    /// Gives a plan its addresses: inputs and outputs by name, the arena at `arena`; loads the weights it reads.
    ///
    /// # Errors
    /// A value without memory, or a failure of the device.
    pub fn bind(
        &mut self,
        plan: &Plan,
        arena: u64,
        values: &BTreeMap<String, u64>,
    ) -> Result<BoundPlan, ModelError> {
        let resources = Resources::of([plan]);
        if self.missing_bytes(&resources) > 0 {
            self.load(&resources)?;
        }
        let mut addresses = Vec::with_capacity(plan.buffers.len());
        for buffer in &plan.buffers {
            let given = |name: &String| {
                let unbound = || ModelError::Unbound { graph: plan.graph.clone(), name: name.clone() };
                values.get(name).copied().ok_or_else(unbound)
            };
            addresses.push(match &buffer.contents {
                Contents::Input { name } | Contents::Output { name } => given(name)?,
                Contents::Arena { offset_bytes } => arena + *offset_bytes as u64,
                Contents::Weights { pack } => self.weights.pack(&*self.device, *pack)?,
                Contents::Constant(value) => self.constant(value, buffer.element)?,
                Contents::Rotation { theta, half, positions } => self.rotation(*theta, *half, *positions)?,
            });
        }
        Ok(BoundPlan::new(&*self.device, plan, &addresses)?)
    }

    /// Starts one product of every kind that `bound` has and that was not started before, so that `bound` can be recorded.
    /// Nobody may use the memory of its results meanwhile.
    ///
    /// # Errors
    /// The device failed.
    pub fn warm(&mut self, bound: &BoundPlan) -> Result<(), DeviceError> {
        for (product, prepared) in bound.products() {
            if self.warm.insert(product.kind()) {
                self.device.start(Stream(0), prepared)?;
            }
        }
        Ok(())
    }
}

/// Elements as the device holds them, rounded to nearest.
#[must_use]
pub fn bytes_of(data: &Data, element: Element, model: Dtype) -> Vec<u8> {
    match data {
        Data::Int(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Data::Bool(values) => values.iter().map(|value| u8::from(*value)).collect(),
        Data::Float(values) => floats_as(if element == Element::Float { Dtype::F32 } else { model }, values),
    }
}

/// Sizes of the symbols, from the sizes of the inputs of a graph.
///
/// # Errors
/// The input whose sizes do not fit its type.
pub fn solve(graph: &Graph, sizes: &[(&str, &[usize])]) -> Result<Bindings, String> {
    let signature = signature(graph);
    let mut ports = Vec::with_capacity(signature.inputs.len());
    for (name, ty) in &signature.inputs {
        let given = sizes.iter().find(|(given, _)| given == name);
        let (_, dims) = given.ok_or_else(|| format!("input `{name}` is missing"))?;
        ports.push((&ty.shape, *dims));
    }
    let bindings = Bindings::solve(&ports);
    for ((shape, dims), name) in ports.iter().zip(signature.inputs.keys()) {
        if shape.eval(&bindings).as_deref() != Some(*dims) {
            return Err(format!("input `{name}` has the sizes {dims:?}, expected {shape}"));
        }
    }
    Ok(bindings)
}
