//! Sizes of a model that its graphs' ports determine. Owns the reading of them; refuses graphs that contradict each other.

use super::signature::Signature;
use photonc_graph::ir::dim::{Bindings, Symbol};

/// What the ports of a model's graphs say of its sizes; `None` where no graph has such a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModelSizes {
    /// Number of token ids: the last axis of logits.
    pub vocab_size: Option<usize>,
    /// Tokens of a meta-context: the second axis of ids over one meta-context.
    pub meta_tokens: Option<usize>,
}

impl ModelSizes {
    /// The sizes that these graphs agree on.
    ///
    /// # Errors
    /// Two of them differ, or a size depends on the run.
    pub fn of<'s>(graphs: impl IntoIterator<Item = (&'s str, &'s Signature)>) -> Result<Self, String> {
        let mut sizes = ModelSizes::default();
        let mut one_meta = Bindings::default();
        one_meta.bind(Symbol::Meta, 1);
        for (graph, signature) in graphs {
            for (name, ty) in signature.inputs.iter().chain(&signature.outputs) {
                let (slot, dim) = match (name.as_str(), &ty.shape.0[..]) {
                    ("logits", [.., last]) => (&mut sizes.vocab_size, last),
                    // Ids of one position are no meta-context.
                    ("ids", [_, tokens]) => (&mut sizes.meta_tokens, tokens),
                    _ => continue,
                };
                let Some(found) = dim.eval(&one_meta) else {
                    return Err(format!(
                        "graph `{graph}`: `{name}` of type {ty} has no size of the model's own"
                    ));
                };
                if let Some(other) = slot.replace(found).filter(|other| *other != found) {
                    return Err(format!("graph `{graph}`: `{name}` has {found}, another graph has {other}"));
                }
            }
        }
        Ok(sizes)
    }
}
