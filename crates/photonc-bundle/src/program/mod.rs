//! What a compiled model is, as values: its protocols and how each generates, what distribution proved, and what graphs
//! read and yield. Owns these types and the names that compiler, bundle and runtime share; refuses to know how graphs are
//! made, stored or run.

mod certificate;
mod part;
mod plan;
mod port;
mod proof;
mod protocol;
mod remainder;
mod signature;
mod sizes;

pub use certificate::{Certificate, CutValue, Declined, PathNode, Recurrence};
pub use part::Part;
pub use plan::Plan;
pub use port::{CacheAxis, Port, PortRole, WindowSizes};
pub use proof::certificate;
pub use protocol::Protocol;
pub use remainder::Remainder;
pub use signature::{ENCODE, NEXT, SCORE, Signature, WINDOW, signature};
pub use sizes::ModelSizes;
