//! Checkpoints and bundles on disk. Results are JSON, which `python/photonc` reads.

use crate::convert::{PromptArgument, load_options};
use crate::errors::Raised;
use photonc::api::{self, Error, ExportNames, documents};
use photonc::bundle::Bundle;
use photonc::export::Progress;
use photonc::runtime::drift::DriftOptions;
use photonc::text::tokenizer::Tokenizer;
use pyo3::prelude::{FromPyObject, Py, PyAny, PyErr, PyResult, Python, pyfunction};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// The keywords of `photonc.export`.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct ExportKeywords {
    dtype: String,
    quant: Vec<(String, String)>,
    targets: Vec<String>,
    protocols: Vec<String>,
    max_tokens: Option<usize>,
    dialect: Option<String>,
    weight_map: Option<PathBuf>,
    ignore_unexpected: bool,
    allow_nonfinite: bool,
    force: bool,
}

impl From<ExportKeywords> for ExportNames {
    fn from(keywords: ExportKeywords) -> Self {
        ExportNames {
            dtype: Some(keywords.dtype),
            quant: keywords.quant,
            targets: keywords.targets,
            protocols: keywords.protocols,
            max_tokens: keywords.max_tokens,
            dialect: keywords.dialect,
            weight_map: keywords.weight_map,
            ignore_unexpected: keywords.ignore_unexpected,
            allow_nonfinite: keywords.allow_nonfinite,
            force: keywords.force,
        }
    }
}

/// Compiles a checkpoint; `progress` is called with a stage, bytes done and bytes in all.
#[pyfunction]
pub fn export(
    py: Python<'_>,
    model: PathBuf,
    out: PathBuf,
    keywords: ExportKeywords,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    let options = ExportNames::from(keywords).options(model, out).map_err(Raised::from)?;
    let raised: Mutex<Option<PyErr>> = Mutex::new(None);
    let first = || raised.lock().unwrap_or_else(PoisonError::into_inner);
    let tell = |told: Progress| {
        let Some(progress) = &progress else { return };
        let called = Python::attach(|py| {
            let Progress { stage, done_bytes, total_bytes } = told;
            progress.call1(py, (stage, done_bytes, total_bytes)).map(drop)
        });
        if let Err(error) = called {
            first().get_or_insert(error);
        }
    };
    let report = py.detach(|| api::export(&options, &tell)).map_err(Raised::from)?;
    match first().take() {
        Some(error) => Err(error),
        None => Ok(documents::of_export(&report).to_string()),
    }
}

/// What a checkpoint or a bundle holds.
#[pyfunction]
pub fn inspect(py: Python<'_>, path: PathBuf) -> PyResult<String> {
    Ok(py.detach(|| api::inspect(&path)).map_err(Raised::from)?.to_string())
}

/// Every graph on a backend against the reference.
#[pyfunction]
pub fn verify(
    py: Python<'_>,
    path: PathBuf,
    backend: &str,
    device: usize,
    threads: Option<usize>,
    seed: u64,
) -> PyResult<String> {
    let options = load_options(backend, device, threads, true)?;
    let comparisons = py.detach(|| api::verify(&path, &options, seed)).map_err(Raised::from)?;
    Ok(documents::of_verify(&comparisons).to_string())
}

/// The keywords of `photonc.drift`.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct DriftKeywords {
    prompt_tokens: usize,
    new_tokens: usize,
    prompts: usize,
    batch: usize,
    free_running: bool,
    distances: Vec<usize>,
}

/// How far RecGen drifts from HierGen on a text, given as itself or as tokens.
#[pyfunction]
pub fn drift(
    py: Python<'_>,
    path: PathBuf,
    text: PromptArgument,
    backend: &str,
    device: usize,
    threads: Option<usize>,
    keywords: DriftKeywords,
) -> PyResult<String> {
    let options = load_options(backend, device, threads, true)?;
    let measured = DriftOptions {
        prompt_tokens: keywords.prompt_tokens,
        new_tokens: keywords.new_tokens,
        prompts: keywords.prompts,
        batch: keywords.batch,
        free_running: keywords.free_running,
    };
    let found = py.detach(|| -> Result<_, Error> {
        let bundle = Bundle::open(&path)?;
        let tokens = match text {
            PromptArgument::Ids(ids) => ids,
            PromptArgument::Text(text) => Tokenizer::needed(&bundle)?.encode(&text, false)?.ids,
        };
        api::drift(&bundle, &options, &tokens, measured, &|_, _| {})
    });
    let drift = found.map_err(Raised::from)?;
    Ok(documents::of_drift(&drift, &keywords.distances).to_string())
}

/// What differs between two checkpoints or bundles.
#[pyfunction]
pub fn diff(py: Python<'_>, left: PathBuf, right: PathBuf, weights: bool) -> PyResult<String> {
    let difference = py.detach(|| api::diff(&left, &right, weights)).map_err(Raised::from)?;
    Ok(documents::of_diff(&difference).to_string())
}
