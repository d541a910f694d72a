//! What goes in and comes out of calls: sampling parameters as attributes of an object, results as tuples that `python/photonc`
//! gives names to.

use crate::array::Array;
use crate::errors::{Raised, value};
use photonc::api::{
    BackendKind, Generate, LoadOptions, Output, Piece, Prompt, Sample, SamplingParams, protocol_of,
};
use photonc::runtime::logprobs::TokenLogprobs;
use photonc::runtime::request::{Finish, Keep, StateRecord};
use pyo3::prelude::{FromPyObject, Py, PyResult, Python};
use std::collections::BTreeMap;
use std::num::NonZero;

/// `photonc.SamplingParams`, as its own checks leave it.
#[derive(FromPyObject)]
pub struct Params {
    n: usize,
    temperature: f64,
    top_p: f64,
    top_k: i64,
    min_p: f64,
    presence_penalty: f64,
    frequency_penalty: f64,
    repetition_penalty: f64,
    logit_bias: Option<BTreeMap<i64, f64>>,
    logprobs: Option<usize>,
    prompt_logprobs: Option<usize>,
    stop: Vec<String>,
    stop_token_ids: Vec<i64>,
    max_tokens: Option<usize>,
    min_tokens: usize,
    ignore_eos: bool,
    seed: Option<u64>,
}

impl From<Params> for SamplingParams {
    fn from(params: Params) -> Self {
        SamplingParams {
            n: params.n,
            temperature: params.temperature,
            top_p: params.top_p,
            top_k: params.top_k,
            min_p: params.min_p,
            presence_penalty: params.presence_penalty,
            frequency_penalty: params.frequency_penalty,
            repetition_penalty: params.repetition_penalty,
            logit_bias: params.logit_bias.unwrap_or_default().into_iter().collect(),
            logprobs: params.logprobs,
            prompt_logprobs: params.prompt_logprobs,
            stop: params.stop,
            stop_token_ids: params.stop_token_ids,
            max_tokens: params.max_tokens,
            min_tokens: params.min_tokens,
            ignore_eos: params.ignore_eos,
            seed: params.seed,
        }
    }
}

/// A prompt: a text or its ids.
#[derive(FromPyObject)]
pub enum PromptArgument {
    #[pyo3(transparent)]
    Text(String),
    #[pyo3(transparent)]
    Ids(Vec<i64>),
}

impl From<PromptArgument> for Prompt {
    fn from(prompt: PromptArgument) -> Self {
        match prompt {
            PromptArgument::Text(text) => Prompt::Text(text),
            PromptArgument::Ids(ids) => Prompt::Ids(ids),
        }
    }
}

/// A number from 1, named in the error.
pub fn positive(name: &str, count: usize) -> Result<NonZero<usize>, Raised> {
    NonZero::new(count).ok_or_else(|| value(format!("{name} is 0, expected at least 1")))
}

/// How a bundle is loaded.
pub fn load_options(
    backend: &str,
    device: usize,
    threads: Option<usize>,
    verify: bool,
) -> Result<LoadOptions, Raised> {
    Ok(LoadOptions {
        backend: BackendKind::from_name(backend)?,
        device,
        threads: threads.map(|count| positive("threads", count)).transpose()?,
        verify,
        ..LoadOptions::default()
    })
}

/// What to generate.
pub fn asked(
    prompts: Vec<PromptArgument>,
    params: Params,
    protocol: Option<&str>,
    run_ahead: Option<usize>,
    (logits, states): (bool, bool),
) -> Result<Generate, Raised> {
    Ok(Generate {
        prompts: prompts.into_iter().map(Prompt::from).collect(),
        params: params.into(),
        protocol: protocol.map(protocol_of).transpose()?,
        run_ahead: run_ahead.map(|count| positive("run_ahead", count)).transpose()?,
        keep: Keep { logits, states, trajectory: false },
    })
}

/// Token, log-probability, rank, the most probable ones.
pub type RawLogprobs = (i64, f64, usize, Vec<(i64, f64)>);

/// Prompt, sample, text, tokens, log-probabilities, why it ended.
pub type RawPiece = (usize, usize, Option<String>, Vec<i64>, Vec<RawLogprobs>, Option<&'static str>);

/// Text, tokens, log-probabilities, why it ended, logits.
pub type RawSample = (Option<String>, Vec<i64>, Vec<RawLogprobs>, Option<&'static str>, Option<Py<Array>>);

/// Sample, meta-context, name, elements.
pub type RawState = (usize, usize, String, Py<Array>);

/// Log-probabilities of the prompt, samples, states.
pub type RawOutput = (Option<Vec<RawLogprobs>>, Vec<RawSample>, Vec<RawState>);

pub fn logprobs(all: Vec<TokenLogprobs>) -> Vec<RawLogprobs> {
    all.into_iter().map(|one| (one.token, one.logprob, one.rank, one.top)).collect()
}

/// vLLM's words for ends.
fn finish(finish: Option<Finish>) -> Option<&'static str> {
    Some(match finish? {
        Finish::Length => "length",
        Finish::Stop | Finish::Eos => "stop",
        Finish::Cancelled | Finish::Deadline => "abort",
    })
}

pub fn piece(piece: Piece) -> RawPiece {
    let Piece { prompt, sample, text, tokens, logprobs: told, finish: why } = piece;
    (prompt, sample, text, tokens, logprobs(told), finish(why))
}

fn array(py: Python<'_>, values: &[f64], shape: Vec<usize>) -> PyResult<Py<Array>> {
    Py::new(py, Array::new(py, values, shape)?)
}

fn sample(py: Python<'_>, sample: Sample, vocab_size: usize) -> PyResult<RawSample> {
    let Sample { text, tokens, logprobs: told, finish: why, logits, .. } = sample;
    let logits = match logits.is_empty() {
        true => None,
        false => Some(array(py, &logits, vec![logits.len() / vocab_size, vocab_size])?),
    };
    Ok((text, tokens, logprobs(told), finish(why), logits))
}

fn state(py: Python<'_>, state: StateRecord) -> PyResult<RawState> {
    let StateRecord { sample, meta, name, values, .. } = state;
    let values = array(py, &values, vec![values.len()])?;
    Ok((sample, meta, name, values))
}

pub fn output(py: Python<'_>, output: Output, vocab_size: usize) -> PyResult<RawOutput> {
    let Output { prompt_logprobs, samples, states } = output;
    let samples = samples.into_iter().map(|one| sample(py, one, vocab_size)).collect::<PyResult<_>>()?;
    let states = states.into_iter().map(|one| state(py, one)).collect::<PyResult<_>>()?;
    Ok((prompt_logprobs.map(logprobs), samples, states))
}

/// Logits `[tokens, V]` as an array.
pub fn logits(py: Python<'_>, values: &[f64], vocab_size: usize) -> PyResult<Py<Array>> {
    array(py, values, vec![values.len() / vocab_size, vocab_size])
}
