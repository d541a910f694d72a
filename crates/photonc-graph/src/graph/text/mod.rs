//! Graphs as text: canonical, readable, and stable under unrelated edits.
//!
//! ```text
//! // A comment runs to the end of its line.
//! graph coarse {
//!   %0 = input{name="top_state", ty=f32[batch, 1, 8], role=argument}
//!   %1 = delay{name="carry", ty=f32[batch, 1, 8]} next %level2.decoder:2
//!
//! @level2.converter
//!   %0 = weight{name="levels.1.converter.weight", ty=f32[16, 8]}
//!   %1 = linear %:0, %0 : f32[batch, 1, 16] #latent
//!
//!   output "latent" = %1
//! }
//! ```
//!
//! - One node a line. A line `@scope` says where in the model the lines below it come from.
//! - Values are numbered within their scope: `%3` is value 3 of the scope at hand, `%level1.head:3` of another,
//!   `%:3` of the graph itself. An edit renumbers its own scope only.
//! - Inputs and delays come first, in the order that is the graph's signature; then what the outputs need, depth
//!   first and operands in slot order, so that a weight stands right before its use; then what the next states need.
//!   The order follows from structure, not from the history of edits: equal graphs have equal text.
//! - The type after `:` is checked against inference. Operations whose attributes say their type do without.
//! - `#name` is the label of a value. `next` of a delay is the one reference that may point forwards.
//!
//! Precondition of the round trip: names, labels and scopes are of printable ASCII without blanks and quotes, a
//! scope without `:`, a graph's name of letters, digits, `_`, `-` and `.`, and the graph has a valid topology.

mod line;
mod parse;
mod print;

pub use parse::{ParseError, ParseErrors, parse};
pub use print::{canonical_order, print};

#[cfg(test)]
mod tests;
