//! What the generator knows of a model: its protocols, its sizes and the signatures of its graphs. Owns the names that
//! graphs and runtime share; refuses to know levels: states are whatever a signature lists.

use super::error::RuntimeError;
use indexmap::IndexMap;
use photonc_bundle::bundle::{Bundle, PortRecord};
use photonc_bundle::program::{Plan, Protocol, Remainder};
use photonc_compiler::passes::compile::Compilation;
use photonc_graph::ir::dim::{Bindings, Dim, Symbol};
use photonc_graph::ir::dtype::Dtype;
use photonc_graph::ir::shape::{Shape, Type};

pub use photonc_bundle::program::{CacheAxis, ENCODE, NEXT, SCORE, Signature, WINDOW, signature};

/// Everything needed to generate, beside a backend that holds the graphs.
#[derive(Clone, Debug)]
pub struct Program {
    /// Number of token ids.
    pub vocab_size: usize,
    /// Tokens of a meta-context.
    pub meta_tokens: usize,
    /// Longest sequence in tokens, prompt included.
    pub max_tokens: usize,
    /// What stands for a meta-context that a prompt begins.
    pub remainder: Remainder,
    /// How each protocol generates.
    pub protocols: IndexMap<Protocol, Plan>,
    signatures: IndexMap<String, Signature>,
}

impl Program {
    /// The program of a bundle.
    ///
    /// # Errors
    /// A signature that does not parse.
    pub fn from_bundle(bundle: &Bundle) -> Result<Self, RuntimeError> {
        let manifest = bundle.manifest();
        let mut signatures = IndexMap::new();
        for (name, graph) in &manifest.graphs {
            let ports = |ports: &[PortRecord]| -> Result<IndexMap<String, Type>, RuntimeError> {
                ports.iter().map(|port| Ok((port.name.clone(), port_type(name, port)?))).collect()
            };
            let signature = Signature { inputs: ports(&graph.inputs)?, outputs: ports(&graph.outputs)? };
            signatures.insert(name.clone(), signature);
        }
        Ok(Program {
            vocab_size: manifest.model.vocab_size,
            meta_tokens: manifest.model.meta_tokens,
            max_tokens: manifest.model.max_tokens,
            remainder: manifest.model.remainder,
            protocols: manifest.protocols.clone(),
            signatures,
        })
    }

    /// The program of graphs in memory.
    #[must_use]
    pub fn from_compilation(
        compilation: &Compilation,
        vocab_size: usize,
        meta_tokens: usize,
        max_tokens: usize,
    ) -> Self {
        let signatures = compilation.graphs.iter().map(|(name, graph)| (name.clone(), signature(graph)));
        Program {
            vocab_size,
            meta_tokens,
            max_tokens,
            remainder: compilation.remainder,
            protocols: compilation.plans.clone(),
            signatures: signatures.collect(),
        }
    }

    /// How `protocol` generates.
    ///
    /// # Errors
    /// The bundle lacks the protocol.
    pub fn plan(&self, protocol: Protocol) -> Result<&Plan, RuntimeError> {
        self.protocols.get(&protocol).ok_or_else(|| {
            let names: Vec<String> = self.protocols.keys().map(|name| format!("`{name}`")).collect();
            let found = if names.is_empty() { "none".to_owned() } else { names.join(" and ") };
            RuntimeError::NoProtocol { protocol: protocol.to_string(), found }
        })
    }

    /// The signature of a graph.
    ///
    /// # Errors
    /// The bundle lacks the graph.
    pub fn signature(&self, graph: &str) -> Result<&Signature, RuntimeError> {
        self.signatures.get(graph).ok_or_else(|| RuntimeError::signature(graph, "not in the bundle"))
    }

    /// Where the input `name` of `graph` grows with the capacity, if it is a cache.
    ///
    /// # Errors
    /// The bundle lacks the graph.
    pub fn cache_axis(&self, graph: &str, name: &str) -> Result<Option<CacheAxis>, RuntimeError> {
        let Some(ty) = self.signature(graph)?.inputs.get(name) else { return Ok(None) };
        let mut one = Bindings::default();
        one.bind(Symbol::Capacity, 1);
        let grows = |dim: &Dim| dim.contains(Symbol::Capacity);
        Ok(ty.shape.0.iter().position(grows).and_then(|axis| {
            let units = ty.shape.0[axis].eval(&one)?;
            Some(CacheAxis { axis, units })
        }))
    }
}

fn port_type(graph: &str, port: &PortRecord) -> Result<Type, RuntimeError> {
    let bad = |what: &str| RuntimeError::signature(graph, format!("`{}` has {what}", port.name));
    let dtype = Dtype::from_name(&port.dtype).ok_or_else(|| bad("an unknown element type"))?;
    let dims: Option<Vec<Dim>> = port.shape.iter().map(|dim| Dim::parse(dim)).collect();
    Ok(Type::new(dtype, Shape(dims.ok_or_else(|| bad("an unknown dimension"))?)))
}
