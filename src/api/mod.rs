//! Models in a program of one's own: load a bundle, generate from it, score with it, and make bundles. What the Python package
//! and the C library stand on. Owns the handles that live as long as their callers want; refuses to do anything itself that
//! `export`, `runtime`, `inspect` or `text` does.
//!
//! ```no_run
//! use photonc::api::{Generate, LoadOptions, Model, SamplingParams};
//!
//! let model = Model::load("bundle".as_ref(), &LoadOptions::default())?;
//! let params = SamplingParams { max_tokens: Some(32), temperature: 0.0, ..SamplingParams::default() };
//! let outputs = model.generate(&Generate::of(vec!["Hello".into()], params))?;
//! println!("{}", outputs[0].samples[0].text.as_deref().unwrap_or_default());
//! # Ok::<(), photonc::api::Error>(())
//! ```

mod against;
mod backends;
mod collect;
mod desk;
pub mod documents;
mod drift;
mod error;
mod expected;
mod export_names;
mod files;
mod model;
mod sampling;
mod score;
mod stream;
mod trajectory;

pub use against::{Against, AgainstOptions, Difference, Explanation, against};
#[cfg(not(feature = "cuda"))]
pub use backends::WITH_CUDA;
#[cfg(not(feature = "ort"))]
pub use backends::WITH_ORT;
#[cfg(not(feature = "tract"))]
pub use backends::WITH_TRACT;
pub use backends::{BackendKind, GPU_ROWS, HOST_ROWS, LoadOptions, open_cpu, open_gpu, open_ort, open_tract};
pub use collect::{Output, Sample};
pub use drift::{DriftSetup, drift};
pub use error::{Error, ErrorKind};
pub use export_names::{ExportNames, protocol_of};
pub use files::{diff, export, inspect, verify};
pub use model::{Generate, Model, Prompt};
pub use sampling::SamplingParams;
pub use score::Score;
pub use stream::{Ended, Next, Piece, Stream, StreamCancel};
pub use trajectory::Trajectory;
