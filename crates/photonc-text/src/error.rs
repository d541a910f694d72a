//! Errors of tokenizers, chat templates and generation defaults. Each names the file, what was found and what to do.

use photonc_bundle::bundle::BundleError;
use std::path::PathBuf;

/// Why text cannot be turned into tokens, or tokens into text.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// The bundle carries no file that the caller needs.
    #[error("{}: has no {what}; put it beside the checkpoint's config.json and export again", .path.display())]
    Absent {
        /// The bundle.
        path: PathBuf,
        /// The file or the part of one.
        what: &'static str,
    },
    /// A carried file cannot be read.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A carried file holds what photonc does not understand.
    #[error("{}: {message}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was found and expected.
        message: String,
    },
    /// The tokenizer fails on a text.
    #[error("{}: cannot encode the text: {message}", .path.display())]
    Encode {
        /// The tokenizer's file.
        path: PathBuf,
        /// The library's reason.
        message: String,
    },
    /// The tokenizer fails on ids.
    #[error("{}: cannot decode the tokens: {message}", .path.display())]
    Decode {
        /// The tokenizer's file.
        path: PathBuf,
        /// The library's reason.
        message: String,
    },
    /// The chat template asks for a date, and there is no clock.
    #[error("{}: {message}, and there is no clock; give it with --date 2026-01-31 (or 2026-01-31T23:59:59)", .path.display())]
    NoDate {
        /// The file with the template.
        path: PathBuf,
        /// What it asks for.
        message: String,
    },
    /// The chat template refuses the messages.
    #[error("{}: the chat template refuses the messages: {message}", .path.display())]
    Refused {
        /// The file with the template.
        path: PathBuf,
        /// The template's reason.
        message: String,
    },
}
