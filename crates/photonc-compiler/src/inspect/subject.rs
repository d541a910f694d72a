//! A model as inspection sees it, compiled or read from a bundle. Owns the sizes of a run that costs are counted for.

use super::sheet::Sheet;
use crate::passes::choose_protocol::Protocol;
use crate::passes::compile::Plan;
use indexmap::IndexMap;
use photonc_graph::graph::Graph;
use photonc_graph::ir::dim::{Bindings, Symbol};
use photonc_graph::ir::dtype::Dtype;
use serde::Serialize;
use std::collections::BTreeMap;

/// A compiled model with everything that can be looked at.
#[derive(Clone, Debug)]
pub struct Subject {
    /// What to call it.
    pub title: String,
    /// Facts in a line each, by name.
    pub facts: IndexMap<String, String>,
    /// Tokens of a meta-context.
    pub meta_tokens: usize,
    /// Longest sequence in tokens; bounds the caches.
    pub max_tokens: usize,
    /// How each protocol generates.
    pub plans: IndexMap<Protocol, Plan>,
    /// Straight graphs by name.
    pub graphs: IndexMap<String, Graph>,
    /// Stored weights by canonical name.
    pub weights: BTreeMap<String, StoredWeight>,
}

/// A stored weight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoredWeight {
    /// Element type and shape: `bf16[32000, 1664]`.
    #[serde(rename = "type")]
    pub ty: String,
    /// BLAKE3 of its bytes, where they were read.
    pub blake3: Option<String>,
}

/// Sizes of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Sequences at once.
    pub batch: usize,
    /// Meta-contexts that the coarse graph runs ahead of the expansion.
    pub run_ahead: usize,
    /// Slots of the KV caches, in meta-contexts; also the length of a prompt.
    pub capacity: usize,
    /// Counts every floating-point value as of this type, instead of the graph's own.
    #[serde(serialize_with = "dtype_name")]
    pub precision: Option<Dtype>,
}

fn dtype_name<S: serde::Serializer>(dtype: &Option<Dtype>, serializer: S) -> Result<S::Ok, S::Error> {
    dtype.map(Dtype::name).serialize(serializer)
}

impl Setting {
    /// One sequence, one meta-context at a time, caches as long as the model allows, types as declared.
    #[must_use]
    pub fn of(subject: &Subject) -> Self {
        let capacity = subject.max_tokens.div_ceil(subject.meta_tokens.max(1)).max(1);
        Setting { batch: 1, run_ahead: 1, capacity, precision: None }
    }

    /// In a line.
    #[must_use]
    pub fn describe(&self) -> String {
        let types = match self.precision {
            Some(dtype) => format!("floats as {dtype}"),
            None => "types as declared".to_owned(),
        };
        format!("batch {}, run-ahead {}, capacity {}, {types}", self.batch, self.run_ahead, self.capacity)
    }
}

impl Subject {
    /// Symbols bound for one run of a graph: an expansion covers the run-ahead, any other graph over meta-contexts a
    /// prompt that fills the caches.
    #[must_use]
    pub fn bindings(&self, graph: &str, setting: &Setting) -> Bindings {
        let expands = self.plans.values().any(|plan| match plan {
            Plan::Distributed { coarse, .. } => {
                plan.parts().iter().any(|(_, name)| *name == graph && name != coarse)
            }
            Plan::Undistributed { .. } => false,
        });
        let mut bindings = Bindings::default();
        bindings.bind(Symbol::Batch, setting.batch);
        bindings.bind(Symbol::Meta, if expands { setting.run_ahead } else { setting.capacity });
        bindings.bind(Symbol::Capacity, setting.capacity);
        bindings
    }

    /// A graph counted, if there is one of that name.
    #[must_use]
    pub fn sheet(&self, graph: &str, setting: &Setting) -> Option<Sheet> {
        let bindings = self.bindings(graph, setting);
        self.graphs.get(graph).map(|graph| Sheet::new(graph, bindings, setting))
    }

    /// Every graph counted.
    #[must_use]
    pub fn sheets(&self, setting: &Setting) -> Vec<Sheet> {
        self.graphs.keys().filter_map(|name| self.sheet(name, setting)).collect()
    }
}
