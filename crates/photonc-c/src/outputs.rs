//! Finished sequences. What is asked of them points into them, and lives as long as they do.

use crate::border::{Failed, Versioned, c_text, call, free, handle, photonc_status, put, write};
use photonc_core::api::{Output, Sample};
use photonc_core::runtime::logprobs::TokenLogprobs;
use photonc_core::runtime::request::{Finish, StateRecord};
use std::ffi::{CString, c_char};

/// Why a sequence ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum photonc_finish {
    /// It has not.
    PHOTONC_FINISH_NONE = 0,
    /// At an id or a text that ends sequences.
    PHOTONC_FINISH_STOP = 1,
    /// At as many tokens as were asked for.
    PHOTONC_FINISH_LENGTH = 2,
    /// It was cancelled.
    PHOTONC_FINISH_ABORT = 3,
}

/// The end of a sequence in C's words.
pub fn finish_of(finish: Option<Finish>) -> photonc_finish {
    match finish {
        None => photonc_finish::PHOTONC_FINISH_NONE,
        Some(Finish::Stop | Finish::Eos) => photonc_finish::PHOTONC_FINISH_STOP,
        Some(Finish::Length) => photonc_finish::PHOTONC_FINISH_LENGTH,
        Some(Finish::Cancelled | Finish::Deadline) => photonc_finish::PHOTONC_FINISH_ABORT,
    }
}

/// A token and its log-probability.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct photonc_logprob {
    /// The id.
    pub token: i64,
    /// Natural logarithm of its probability under the model's own distribution.
    pub logprob: f64,
}

/// Log-probabilities at a place.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct photonc_token_logprobs {
    /// The token that stands there.
    pub chosen: photonc_logprob,
    /// Tokens more probable than it, plus one.
    pub rank: u64,
    /// The most probable tokens, best first.
    pub top: *const photonc_logprob,
    /// How many stand there.
    pub top_count: usize,
}

/// Log-probabilities with what they point to.
pub struct Logprobs {
    told: Vec<photonc_token_logprobs>,
    _tops: Vec<Vec<photonc_logprob>>,
}

// SAFETY: the pointers lead into `_tops`, which goes wherever this does and is never changed.
unsafe impl Send for Logprobs {}

// SAFETY: nothing of it is ever changed.
unsafe impl Sync for Logprobs {}

impl Logprobs {
    /// Those of tokens.
    pub fn of(all: &[TokenLogprobs]) -> Self {
        let top = |one: &TokenLogprobs| -> Vec<photonc_logprob> {
            one.top
                .iter()
                .map(|(token, logprob)| photonc_logprob { token: *token, logprob: *logprob })
                .collect()
        };
        let tops: Vec<Vec<photonc_logprob>> = all.iter().map(top).collect();
        let told = all.iter().zip(&tops).map(|(one, top)| photonc_token_logprobs {
            chosen: photonc_logprob { token: one.token, logprob: one.logprob },
            rank: one.rank as u64,
            top: top.as_ptr(),
            top_count: top.len(),
        });
        Logprobs { told: told.collect(), _tops: tops }
    }

    /// By place.
    pub fn all(&self) -> &[photonc_token_logprobs] {
        &self.told
    }
}

struct Own {
    text: Option<CString>,
    tokens: Vec<i64>,
    logprobs: Logprobs,
    logits: Vec<f32>,
    finish: photonc_finish,
}

struct OwnState {
    sample: usize,
    meta: usize,
    name: CString,
    values: Vec<f32>,
}

struct OfPrompt {
    prompt_logprobs: Logprobs,
    samples: Vec<Own>,
    states: Vec<OwnState>,
}

#[expect(clippy::cast_possible_truncation, reason = "the caller reads f32")]
fn numbers(values: Vec<f64>) -> Vec<f32> {
    values.into_iter().map(|value| value as f32).collect()
}

/// Finished sequences of prompts.
pub struct photonc_outputs(Vec<OfPrompt>);

impl photonc_outputs {
    /// Those of a generation.
    pub fn of(outputs: Vec<Output>) -> Self {
        let own = |sample: Sample| Own {
            text: sample.text.as_deref().map(c_text),
            logprobs: Logprobs::of(&sample.logprobs),
            tokens: sample.tokens,
            logits: numbers(sample.logits),
            finish: finish_of(sample.finish),
        };
        let state = |StateRecord { sample, meta, name, values, .. }| OwnState {
            sample,
            meta,
            name: c_text(&name),
            values: numbers(values),
        };
        let of_prompt = |output: Output| OfPrompt {
            prompt_logprobs: Logprobs::of(&output.prompt_logprobs.unwrap_or_default()),
            samples: output.samples.into_iter().map(own).collect(),
            states: output.states.into_iter().map(state).collect(),
        };
        photonc_outputs(outputs.into_iter().map(of_prompt).collect())
    }

    fn prompt(&self, prompt: usize) -> Result<&OfPrompt, Failed> {
        let unknown = || Failed::argument(format!("there is no prompt {prompt} of {}", self.0.len()));
        self.0.get(prompt).ok_or_else(unknown)
    }
}

/// How many prompts there are.
///
/// # Safety
/// Pointers are null or as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_outputs_count(
    outputs: *const photonc_outputs,
    count: *mut usize,
) -> photonc_status {
    // SAFETY: the caller's promise.
    call(|| unsafe { put(count, handle("outputs", outputs)?.0.len()) })
}

/// A finished sequence. Its pointers live as long as the outputs.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct photonc_sequence {
    /// `sizeof(photonc_sequence)`, set by the caller.
    pub struct_size: u32,
    /// Why it ended.
    pub finish: photonc_finish,
    /// Its text up to a stop string, UTF-8; null where the model has no tokenizer.
    pub text: *const c_char,
    /// Its tokens, without the id that ended it.
    pub token_ids: *const i64,
    /// How many there are.
    pub token_ids_count: usize,
    /// Log-probabilities of its tokens, if they were asked for.
    pub logprobs: *const photonc_token_logprobs,
    /// How many there are.
    pub logprobs_count: usize,
    /// Logits `[tokens of its meta-contexts, vocab_size]`, if they were asked for: those past its end included.
    pub logits: *const f32,
    /// How many elements there are.
    pub logits_count: usize,
}

// SAFETY: it is only ever written to callers, never read from them.
unsafe impl Versioned for photonc_sequence {}

/// How many sequences a prompt has.
///
/// # Safety
/// Pointers are null or as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_outputs_sequences(
    outputs: *const photonc_outputs,
    prompt: usize,
    count: *mut usize,
) -> photonc_status {
    // SAFETY: the caller's promise.
    call(|| unsafe { put(count, handle("outputs", outputs)?.prompt(prompt)?.samples.len()) })
}

/// A sequence of a prompt; `sequence->struct_size` is set before.
///
/// # Safety
/// Pointers are null or as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_outputs_get(
    outputs: *const photonc_outputs,
    prompt: usize,
    number: usize,
    sequence: *mut photonc_sequence,
) -> photonc_status {
    // SAFETY: the caller's promise.
    call(|| unsafe {
        let samples = &handle("outputs", outputs)?.prompt(prompt)?.samples;
        let unknown = || Failed::argument(format!("there is no sequence {number} of {}", samples.len()));
        let own = samples.get(number).ok_or_else(unknown)?;
        let told = photonc_sequence {
            struct_size: 0,
            finish: own.finish,
            text: own.text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr()),
            token_ids: own.tokens.as_ptr(),
            token_ids_count: own.tokens.len(),
            logprobs: own.logprobs.all().as_ptr(),
            logprobs_count: own.logprobs.all().len(),
            logits: own.logits.as_ptr(),
            logits_count: own.logits.len(),
        };
        write("sequence", &told, sequence)
    })
}

/// Log-probabilities of a prompt's tokens, if they were asked for; they live as long as the outputs.
///
/// # Safety
/// Pointers are null or as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_outputs_prompt_logprobs(
    outputs: *const photonc_outputs,
    prompt: usize,
    logprobs: *mut *const photonc_token_logprobs,
    count: *mut usize,
) -> photonc_status {
    // SAFETY: the caller's promise.
    call(|| unsafe {
        let all = handle("outputs", outputs)?.prompt(prompt)?.prompt_logprobs.all();
        put(logprobs, all.as_ptr())?;
        put(count, all.len())
    })
}

/// A state that conditions a meta-context. Its pointers live as long as the outputs.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct photonc_state {
    /// `sizeof(photonc_state)`, set by the caller.
    pub struct_size: u32,
    /// Nothing yet: 0.
    pub reserved: u32,
    /// Number of the sequence among those of its prompt; 0 for what all of them share.
    pub sequence: usize,
    /// The meta-context, from 0 behind the whole ones of the prompt.
    pub meta_context: usize,
    /// Name in the graphs: `top_state`, `carry.1`, ..
    pub name: *const c_char,
    /// Elements, row-major.
    pub values: *const f32,
    /// How many there are.
    pub values_count: usize,
}

// SAFETY: it is only ever written to callers, never read from them.
unsafe impl Versioned for photonc_state {}

/// How many states were kept of a prompt, if `return_states` asked for them.
///
/// # Safety
/// Pointers are null or as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_outputs_states(
    outputs: *const photonc_outputs,
    prompt: usize,
    count: *mut usize,
) -> photonc_status {
    // SAFETY: the caller's promise.
    call(|| unsafe { put(count, handle("outputs", outputs)?.prompt(prompt)?.states.len()) })
}

/// A state of a prompt, by its place among those that were kept; `state->struct_size` is set before.
///
/// # Safety
/// Pointers are null or as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_outputs_state(
    outputs: *const photonc_outputs,
    prompt: usize,
    number: usize,
    state: *mut photonc_state,
) -> photonc_status {
    // SAFETY: the caller's promise.
    call(|| unsafe {
        let states = &handle("outputs", outputs)?.prompt(prompt)?.states;
        let unknown = || Failed::argument(format!("there is no state {number} of {}", states.len()));
        let own = states.get(number).ok_or_else(unknown)?;
        let told = photonc_state {
            struct_size: 0,
            reserved: 0,
            sequence: own.sample,
            meta_context: own.meta,
            name: own.name.as_ptr(),
            values: own.values.as_ptr(),
            values_count: own.values.len(),
        };
        write("state", &told, state)
    })
}

/// Frees outputs. Null is nothing.
///
/// # Safety
/// `outputs` is null or outputs that nobody frees again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_outputs_free(outputs: *mut photonc_outputs) {
    free(outputs);
}
