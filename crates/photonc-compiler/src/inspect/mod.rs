//! What an engineer looks at before trusting a compiled model: folded sums by scope, predicted times, differences between
//! two builds, and what each pass declined. Owns counting and the forms (text, DOT, JSON, HTML); never changes a graph and
//! never prints.

pub mod cost;
pub mod diff;
pub mod dot;
pub mod explain;
pub mod gpu;
pub mod html;
pub mod json;
mod nodes;
pub mod page;
pub mod plot;
pub mod sheet;
pub mod source;
pub mod subject;
pub mod summary;
mod units;
pub mod work;

pub use sheet::{Fold, Row, Sheet};
pub use subject::{Setting, Subject};
pub use work::Work;
