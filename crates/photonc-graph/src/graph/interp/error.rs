//! What can keep a graph from running, each with its place.

use super::WeightError;
use crate::ir::eval::EvalError;
use crate::ir::shape::Type;

/// Why a graph could not be run.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum InterpError {
    /// An input or a state that the graph needs was not given.
    #[error("{what} `{name}` of graph `{graph}` is missing, expected {expected}")]
    Missing {
        /// `input` or `state`.
        what: &'static str,
        /// Its name.
        name: String,
        /// Name of the graph.
        graph: String,
        /// Its declared type.
        expected: Type,
    },
    /// An input or a state that the graph does not have.
    #[error("graph `{graph}` has no {what} `{name}`, expected {}", one_of(.expected))]
    Unknown {
        /// `input` or `state`.
        what: &'static str,
        /// The name given.
        name: String,
        /// Name of the graph.
        graph: String,
        /// The names it has.
        expected: Vec<String>,
    },
    /// A tensor that does not fit its declared type with the symbols bound so far.
    #[error("{what} `{name}` is {found}, expected {expected}{given}")]
    Mismatch {
        /// `input`, `state` or `weight`.
        what: &'static str,
        /// Its name.
        name: String,
        /// Kind and shape found, e.g. `floats[2, 3]`.
        found: String,
        /// Its declared type.
        expected: Type,
        /// What all inputs and states say about symbols: ` with batch = 3`, or nothing.
        given: String,
    },
    /// A weight that its source does not have or cannot read.
    #[error("{scope}: weight `{name}`: {source}")]
    Weight {
        /// Where in the model.
        scope: String,
        /// Canonical name of the weight.
        name: String,
        /// What the source says.
        source: WeightError,
    },
    /// A shape with a symbol that no input and no state determines.
    #[error("{scope}: `{op}`: no input determines the shape of {ty}")]
    Unbound {
        /// Where in the model.
        scope: String,
        /// Name of the operation.
        op: &'static str,
        /// The type of the result.
        ty: Type,
    },
    /// An operation without a value on what it was given.
    #[error("{scope}: `{op}`: {source}")]
    Node {
        /// Where in the model.
        scope: String,
        /// Name of the operation.
        op: &'static str,
        /// Why.
        source: Box<EvalError>,
    },
    /// A step program whose protocol is still open.
    #[error("{scope}: `protocol_switch` is unresolved, expected a graph after `choose-protocol`")]
    Unresolved {
        /// Where in the model.
        scope: String,
    },
    /// A step program run as if it had no state.
    #[error("graph `{graph}` carries state `{delay}`, expected `step` with a state instead of `run`")]
    Stateful {
        /// Name of the graph.
        graph: String,
        /// Its first delay.
        delay: String,
    },
}

fn one_of(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
