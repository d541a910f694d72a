//! The graphs of a bundle on one device: plans by size, weights, constants and the memory that plans share. Owns what
//! every way of running has in common; refuses to know state, protocols and requests.

use super::bound::Bound;
use super::computed::Computed;
use super::device::{Allocation, Device, DeviceError, Stream};
use super::plan::view::Element;
use super::plan::weights::WeightLayout;
use super::plan::{Contents, Plan, PlanError, PlanOptions, lower};
use super::weights::{DeviceWeights, WeightBytes};
use crate::graph::{BuildError, Graph};
use crate::ir::dim::{Bindings, Symbol};
use crate::ir::dtype::Dtype;
use crate::ir::tensor::{Data, Literal};
use indexmap::IndexMap;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Graphs and weights on a device.
pub struct Machine {
    /// The device.
    pub device: Arc<dyn Device>,
    /// Type of activations and weights.
    pub dtype: Dtype,
    graphs: IndexMap<String, Graph>,
    weights: DeviceWeights,
    constants: HashMap<(Literal, Element), Allocation>,
    /// Cosines and sines by angle base and half width: positions and memory.
    rotations: HashMap<(u64, usize), (usize, Allocation)>,
    /// Tables that longer ones replaced; plans bound before still read them.
    outgrown: Vec<Allocation>,
}

/// Why a graph could not be made ready or run.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// No such graph.
    #[error("graph `{0}` is not in the bundle; export it again with this graph")]
    NoGraph(String),
    /// The graph breaks a rule of the IR.
    #[error(transparent)]
    Verify(#[from] crate::graph::VerifyError),
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

impl Machine {
    /// `graphs` with weights from `source`, computed in `dtype`.
    ///
    /// # Errors
    /// Never for verified graphs.
    pub fn new(
        device: Arc<dyn Device>,
        mut graphs: IndexMap<String, Graph>,
        source: Box<dyn WeightBytes>,
        dtype: Dtype,
    ) -> Result<Self, BuildError> {
        let source = Box::new(Computed::separate(graphs.values_mut(), source)?);
        let layout = WeightLayout::of(&graphs.values().collect::<Vec<_>>());
        Ok(Machine {
            device,
            dtype,
            graphs,
            weights: DeviceWeights::new(source, layout, dtype),
            constants: HashMap::new(),
            rotations: HashMap::new(),
            outgrown: Vec::new(),
        })
    }

    /// A graph by name.
    ///
    /// # Errors
    /// No such graph.
    pub fn graph(&self, name: &str) -> Result<&Graph, MachineError> {
        self.graphs.get(name).ok_or_else(|| MachineError::NoGraph(name.to_owned()))
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
    pub fn plan(&self, name: &str, bindings: &Bindings, options: &PlanOptions) -> Result<Plan, MachineError> {
        let verified = self.graph(name)?.verify()?;
        Ok(lower(verified, bindings, self.dtype, self.weights.layout(), options)?)
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
    ) -> Result<Bound, MachineError> {
        let mut addresses = Vec::with_capacity(plan.buffers.len());
        for buffer in &plan.buffers {
            let given = |name: &String| {
                let unbound = || MachineError::Unbound { graph: plan.graph.clone(), name: name.clone() };
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
        Ok(Bound::new(&*self.device, plan, &addresses)?)
    }

    fn constant(&mut self, value: &Literal, element: Element) -> Result<u64, DeviceError> {
        let key = (value.clone(), element);
        if let Some(known) = self.constants.get(&key) {
            return Ok(known.address);
        }
        let bytes = bytes_of(&value.to_tensor().data, element, self.dtype);
        let memory = self.device.allocate(bytes.len().max(1))?;
        self.device.write(Stream(0), memory.address, &bytes)?;
        self.device.synchronize()?;
        let address = memory.address;
        self.constants.insert(key, memory);
        Ok(address)
    }

    fn rotation(&mut self, theta: u64, half: usize, positions: usize) -> Result<u64, DeviceError> {
        let known = self.rotations.get(&(theta, half)).filter(|(known, _)| *known >= positions);
        if let Some((_, memory)) = known {
            return Ok(memory.address);
        }
        let base = f64::from_bits(theta);
        let mut bytes = Vec::with_capacity(positions * half * 8);
        for position in 0..positions {
            for pair in 0..half {
                // Positions and pairs are far below 2^52: the quotient is the nearest f64.
                let exponent = -(pair as f64) / half as f64;
                let (sin, cos) = (position as f64 * base.powf(exponent)).sin_cos();
                bytes.extend_from_slice(&super::plan::narrow(cos).to_le_bytes());
                bytes.extend_from_slice(&super::plan::narrow(sin).to_le_bytes());
            }
        }
        let memory = self.device.allocate(bytes.len().max(1))?;
        self.device.write(Stream(0), memory.address, &bytes)?;
        self.device.synchronize()?;
        let address = memory.address;
        if let Some((_, old)) = self.rotations.insert((theta, half), (positions, memory)) {
            self.outgrown.push(old);
        }
        Ok(address)
    }
}

/// Elements as the device holds them, rounded to nearest.
#[must_use]
pub fn bytes_of(data: &Data, element: Element, model: Dtype) -> Vec<u8> {
    match data {
        Data::Int(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Data::Bool(values) => values.iter().map(|value| u8::from(*value)).collect(),
        Data::Float(values) => {
            let dtype = if element == Element::Float { Dtype::F32 } else { model };
            let values = values.iter().map(|value| super::plan::narrow(*value));
            match dtype {
                Dtype::F16 => values.flat_map(|value| half::f16::from_f32(value).to_le_bytes()).collect(),
                Dtype::Bf16 => values.flat_map(|value| half::bf16::from_f32(value).to_le_bytes()).collect(),
                _ => values.flat_map(f32::to_le_bytes).collect(),
            }
        }
    }
}

/// Sizes of the symbols, from the sizes of the inputs of a graph.
///
/// # Errors
/// The input whose sizes do not fit its type.
pub fn solve(graph: &Graph, sizes: &[(&str, &[usize])]) -> Result<Bindings, String> {
    use crate::ir::op::Op;
    let mut bindings = Bindings::default();
    let inputs = graph.inputs();
    // Dimensions of one symbol first, products once one of their symbols is known.
    for _ in 0..Symbol::ALL.len() + 1 {
        for id in &inputs {
            let Op::Input { name, ty, .. } = graph.op(*id) else { continue };
            let Some((_, dims)) = sizes.iter().find(|(given, _)| *given == &**name) else { continue };
            for (dim, size) in ty.shape.0.iter().zip(*dims) {
                if let Some((symbol, value)) = dim.solve(*size, &bindings)
                    && bindings.get(symbol).is_none()
                {
                    bindings.bind(symbol, value);
                }
            }
        }
    }
    for id in &inputs {
        let Op::Input { name, ty, .. } = graph.op(*id) else { continue };
        let Some((_, dims)) = sizes.iter().find(|(given, _)| *given == &**name) else {
            return Err(format!("input `{name}` is missing"));
        };
        if ty.shape.eval(&bindings).as_deref() != Some(*dims) {
            return Err(format!("input `{name}` has the sizes {dims:?}, expected {}", ty.shape));
        }
    }
    Ok(bindings)
}
