//! Text to token ids and back, by the tokenizer that a bundle carries. Owns what lies between a user's words and the ids of
//! the runtime: tokenizers, whole characters while tokens stream in, stop strings, chat templates, and what a checkpoint's
//! generation_config.json asks for. Knows no graph.

mod backtracking;
pub mod chat;
pub mod clock;
pub mod defaults;
mod error;
mod files;
mod jinja;
mod oniguruma;
mod preflight;
pub mod speech;
pub mod stream;
pub mod tokenizer;

pub use error::TextError;
pub use jinja::Date;
