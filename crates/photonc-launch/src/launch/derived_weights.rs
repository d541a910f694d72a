//! Weights that graphs compute from stored ones: transposed, reshaped, spread. Owns their evaluation when they are loaded,
//! so that kernels see only stored weights.

use super::weights::WeightBytes;
use photonc_bundle::bundle::{CodePiece, Piece};
use photonc_compiler::passes::Pass as _;
use photonc_compiler::passes::eliminate_dead_code::EliminateDeadCode;
use photonc_graph::graph::interp::{Interpreter, Tensors, WeightError, WeightSource};
use photonc_graph::graph::{BuildError, Graph, NodeId, text};
use photonc_graph::ir::attr::Scheme;
use photonc_graph::ir::bytes::{bytes_of, floats_of};
use photonc_graph::ir::dtype::Dtype;
use photonc_graph::ir::op::Op;
use photonc_graph::ir::tensor::{Data, Tensor};
use std::collections::{BTreeMap, HashMap};

/// Name of the one output of a weight's graph.
const VALUE: &str = "value";

/// A graph breaks a rule when what it computes from weights alone is taken out.
#[derive(Debug, thiserror::Error)]
#[error("graph `{graph}`: {source}")]
pub struct BrokenGraph {
    /// The graph.
    pub graph: String,
    /// The rule.
    pub source: BuildError,
}

/// Stored weights, and those that graphs compute from them, by the names that `separate` gave.
pub struct DerivedWeights {
    stored: Box<dyn WeightBytes>,
    graphs: BTreeMap<String, Graph>,
}

impl DerivedWeights {
    /// Replaces what `graphs` compute from weights alone by weights of their own.
    ///
    /// # Errors
    /// Never for verified graphs; else the graph that is none.
    pub fn separate<'g>(
        graphs: impl Iterator<Item = &'g mut Graph>,
        stored: Box<dyn WeightBytes>,
    ) -> Result<Self, BrokenGraph> {
        let mut computed = BTreeMap::new();
        for graph in graphs {
            let name = graph.name().to_owned();
            separate_in(graph, &mut computed).map_err(|source| BrokenGraph { graph: name, source })?;
        }
        Ok(DerivedWeights { stored, graphs: computed })
    }
}

fn separate_in(graph: &mut Graph, computed: &mut BTreeMap<String, Graph>) -> Result<(), BuildError> {
    let fixed = graph.fixed();
    for id in graph.order() {
        let leaf = matches!(graph.op(id), Op::Weight { .. } | Op::QuantizedWeight { .. } | Op::Const { .. });
        let read = graph.users(id).iter().any(|(user, _)| !fixed.contains(user));
        let float = matches!(graph.ty(id).dtype, Dtype::F32 | Dtype::F16 | Dtype::Bf16);
        let sized = graph.ty(id).shape.as_const().is_some();
        // Kernels read joined weights where they lie.
        let joined = super::plan::weights::joined(graph, id).is_some();
        if fixed.contains(&id) && !leaf && !joined && read && float && sized {
            let own = alone(graph, id)?;
            let hash = blake3::hash(text::print(&own).as_bytes()).to_hex();
            let name = format!("computed.{}", &hash[..16]);
            let op = Op::Weight { name: name.as_str().into(), ty: graph.ty(id).clone() };
            let weight = graph.add(op, &[], &graph.scope(id).clone())?;
            graph.replace_uses(id, weight)?;
            computed.insert(name, own);
        }
    }
    // What only computed weights read is dead now; the pass cannot fail.
    let _ = EliminateDeadCode.run(graph);
    graph.sweep();
    Ok(())
}

/// A graph that yields one node's value.
fn alone(graph: &Graph, id: NodeId) -> Result<Graph, BuildError> {
    let needed = graph.ancestors([id]);
    let mut own = Graph::new("weight");
    let mut map = HashMap::new();
    for ancestor in graph.order().into_iter().filter(|other| needed.contains(other)) {
        own.copy_node(graph, ancestor, &mut map)?;
    }
    own.set_output(VALUE, map[&id]);
    Ok(own)
}

impl WeightBytes for DerivedWeights {
    fn read(&self, name: &str, piece: &mut Piece<'_>) -> Result<(), String> {
        let Some(graph) = self.graphs.get(name) else { return self.stored.read(name, piece) };
        let verified = graph.verify().map_err(|source| source.to_string())?;
        let tensors = Stored(&*self.stored, graph);
        let interpreter = Interpreter::new(verified, &tensors).map_err(|source| source.to_string())?;
        let outputs = interpreter.run(&Tensors::new()).map_err(|source| source.to_string())?;
        let value = outputs.into_iter().find(|(name, _)| name == VALUE);
        let Some((_, Tensor { data: Data::Float(values), .. })) = value else {
            return Err(format!("weight `{name}` has no value"));
        };
        piece(Dtype::F32, &bytes_of(Dtype::F32, &values))
    }

    fn dtype(&self, name: &str) -> Option<Dtype> {
        if self.graphs.contains_key(name) { None } else { self.stored.dtype(name) }
    }

    fn codes(&self, name: &str, scheme: Scheme, piece: &mut CodePiece<'_>) -> Result<(), String> {
        self.stored.codes(name, scheme, piece)
    }
}

/// The stored weights of a small graph as tensors.
struct Stored<'c>(&'c dyn WeightBytes, &'c Graph);

impl WeightSource for Stored<'_> {
    fn weight(&self, name: &str) -> Result<Tensor, WeightError> {
        let is_it = |op: &Op| matches!(op, Op::Weight { name: known, .. } if &**known == name);
        let id = self.1.select(is_it).first().copied().ok_or(WeightError::Missing)?;
        let shape = self.1.ty(id).shape.as_const().ok_or(WeightError::Missing)?;
        let mut values = Vec::new();
        let mut take = |dtype: Dtype, bytes: &[u8]| {
            values.extend(floats_of(dtype, bytes));
            Ok(())
        };
        self.0.read(name, &mut take).map_err(WeightError::Unreadable)?;
        Tensor::floats(&shape, values).ok_or(WeightError::Missing)
    }

    fn quantized(&self, name: &str, scheme: Scheme) -> Result<Tensor, WeightError> {
        let is_it = |op: &Op| matches!(op, Op::QuantizedWeight { name: known, scheme: own, .. } if &**known == name && *own == scheme);
        let id = self.1.select(is_it).first().copied().ok_or(WeightError::Missing)?;
        let shape = self.1.ty(id).shape.as_const().ok_or(WeightError::Missing)?;
        let [_, columns] = shape[..] else { return Err(WeightError::Missing) };
        let mut values = Vec::new();
        let mut take = |codes: &[u8], scales: &[f32]| {
            let rows = codes.len() / scheme.code_bytes(columns).max(1);
            let decoded = scheme.decoded([rows, columns], codes, scales);
            values.extend(decoded.ok_or_else(|| format!("codes of `{name}` do not fit"))?);
            Ok(())
        };
        self.0.codes(name, scheme, &mut take).map_err(WeightError::Unreadable)?;
        Tensor::floats(&shape, values).ok_or(WeightError::Missing)
    }
}
