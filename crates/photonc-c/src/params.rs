//! Options of calls: structures that begin with their size, so that programs of an older header go on to work.

use crate::border::{Failed, Versioned, list, put, read, text, text_or_none};
use photonc_core::api::{BackendKind, Error, Generate, LoadOptions, Prompt, SamplingParams, protocol_of};
use photonc_core::runtime::request::Keep;
use std::ffi::c_char;
use std::num::NonZero;

/// How a bundle is loaded. `photonc_load_options_init` fills it with the defaults.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct photonc_load_options {
    /// `sizeof(photonc_load_options)`.
    pub struct_size: u32,
    /// Number of the GPU, for `cuda`.
    pub device: u32,
    /// `auto`, `cpu`, `tract`, `reference`, `ort` or `cuda`; null is `auto`: `cuda` where there is a GPU.
    pub backend: *const c_char,
    /// Threads that compute, for `cpu` and `ort`; 0 is one per core.
    pub threads: u32,
    /// Whether the weights are compared with their hashes, which reads all of them: 1, or 0.
    pub verify: u32,
    /// Sequences side by side; 0 is 16 on the host, and what fits on a GPU.
    pub rows: u32,
    /// Meta-contexts of a burst at most.
    pub run_ahead: u32,
    /// Most tokens of a sequence, prompt included; 0 is what the bundle has room for.
    pub max_tokens: u64,
    /// Whether a sequence has the same tokens whatever stands beside it on `cuda` too, which takes time there: 1, or 0. On `cpu`
    /// and `reference` it has them anyway; other backends refuse it.
    pub batch_invariant: u32,
    /// Nothing yet: 0.
    pub reserved: u32,
}

// SAFETY: numbers and a pointer behind the size.
unsafe impl Versioned for photonc_load_options {}

/// What the first field of a structure says.
pub fn size_of_struct<T>() -> u32 {
    u32::try_from(size_of::<T>()).expect("invariant: a structure of this header is small")
}

/// A count of the caller's; one beyond this machine's is the most that there can be.
pub fn whole(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

impl photonc_load_options {
    fn defaults() -> Self {
        let LoadOptions { verify, run_ahead, .. } = LoadOptions::default();
        photonc_load_options {
            struct_size: size_of_struct::<Self>(),
            device: 0,
            backend: std::ptr::null(),
            threads: 0,
            verify: verify.into(),
            rows: 0,
            run_ahead: u32::try_from(run_ahead.get()).unwrap_or(u32::MAX),
            max_tokens: 0,
            batch_invariant: 0,
            reserved: 0,
        }
    }
}

/// Fills options with the defaults.
///
/// # Safety
/// `options` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_load_options_init(options: *mut photonc_load_options) {
    // SAFETY: the caller's promise; there is nobody to tell of null.
    let _null = unsafe { put(options, photonc_load_options::defaults()) };
}

/// The options that a caller gave.
///
/// # Safety
/// As the header says of the structure.
pub unsafe fn load_options(options: *const photonc_load_options) -> Result<LoadOptions, Failed> {
    // SAFETY: the caller's promise.
    let given = unsafe { read("load options", options, photonc_load_options::defaults()) }?;
    // SAFETY: the caller's promise.
    let backend = unsafe { text_or_none("backend", given.backend) }?;
    let count = |count: u32| NonZero::new(count as usize);
    let run_ahead =
        count(given.run_ahead).ok_or_else(|| Failed::argument("run_ahead is 0, expected at least 1"))?;
    Ok(LoadOptions {
        backend: backend.map_or(Ok(BackendKind::Auto), BackendKind::from_name)?,
        device: given.device as usize,
        threads: count(given.threads),
        verify: given.verify != 0,
        rows: count(given.rows),
        max_tokens: NonZero::new(usize::try_from(given.max_tokens).unwrap_or(usize::MAX)),
        run_ahead,
        batch_invariant: given.batch_invariant != 0,
    })
}

/// A token id and what is added to its logit.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct photonc_logit_bias {
    /// The id.
    pub token: i64,
    /// What is added.
    pub bias: f64,
}

/// How tokens are drawn and where sequences end. `photonc_sampling_params_init` fills it with the defaults: one sequence of 16
/// tokens from the model's own distribution.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct photonc_sampling_params {
    /// `sizeof(photonc_sampling_params)`.
    pub struct_size: u32,
    /// Sequences of a prompt.
    pub n: u32,
    /// Divides the logits; 0 is greedy.
    pub temperature: f64,
    /// Keeps the most probable tokens that reach this mass.
    pub top_p: f64,
    /// Keeps so many of the most probable tokens; 0 or -1 keeps all.
    pub top_k: i64,
    /// Keeps tokens at least this probable relative to the most probable one.
    pub min_p: f64,
    /// Taken off the logits of tokens among the new ones.
    pub presence_penalty: f64,
    /// The same for each time they occur.
    pub frequency_penalty: f64,
    /// Divides the logits above 0 of tokens that occurred, prompt included.
    pub repetition_penalty: f64,
    /// Added to logits.
    pub logit_bias: *const photonc_logit_bias,
    /// How many stand there.
    pub logit_bias_count: usize,
    /// Log-probabilities of each new token and of so many of the most probable ones, 20 at most; -1 is none.
    pub logprobs: i32,
    /// The same of each token of the prompt.
    pub prompt_logprobs: i32,
    /// Texts that end a sequence and are not part of it.
    pub stop: *const *const c_char,
    /// How many stand there.
    pub stop_count: usize,
    /// Token ids that end a sequence and are not part of it.
    pub stop_token_ids: *const i64,
    /// How many stand there.
    pub stop_token_ids_count: usize,
    /// New tokens of a sequence at most; 0 is all that there is room for.
    pub max_tokens: u64,
    /// New tokens before which no id ends a sequence.
    pub min_tokens: u64,
    /// Whether a sequence goes on behind the ids that end it by the model's convention: 1, or 0.
    pub ignore_eos: u32,
    /// Whether `seed` counts: 1; or 0, and every prompt has another.
    pub has_seed: u32,
    /// Key of the random numbers: the same seed gives the same tokens.
    pub seed: u64,
}

// SAFETY: numbers and pointers behind the size.
unsafe impl Versioned for photonc_sampling_params {}

impl photonc_sampling_params {
    fn defaults() -> Self {
        let SamplingParams { temperature, top_p, top_k, min_p, repetition_penalty, max_tokens, .. } =
            SamplingParams::default();
        photonc_sampling_params {
            struct_size: size_of_struct::<Self>(),
            n: 1,
            temperature,
            top_p,
            top_k,
            min_p,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repetition_penalty,
            logit_bias: std::ptr::null(),
            logit_bias_count: 0,
            logprobs: -1,
            prompt_logprobs: -1,
            stop: std::ptr::null(),
            stop_count: 0,
            stop_token_ids: std::ptr::null(),
            stop_token_ids_count: 0,
            max_tokens: max_tokens.map_or(0, |count| count as u64),
            min_tokens: 0,
            ignore_eos: 0,
            has_seed: 0,
            seed: 0,
        }
    }
}

/// Fills parameters with the defaults.
///
/// # Safety
/// `params` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_sampling_params_init(params: *mut photonc_sampling_params) {
    // SAFETY: the caller's promise; there is nobody to tell of null.
    let _null = unsafe { put(params, photonc_sampling_params::defaults()) };
}

/// The parameters that a caller gave.
///
/// # Safety
/// As the header says of the structure.
pub unsafe fn sampling_params(params: *const photonc_sampling_params) -> Result<SamplingParams, Failed> {
    // SAFETY: the caller's promise.
    let given = unsafe { read("sampling parameters", params, photonc_sampling_params::defaults()) }?;
    // SAFETY: the caller's promise.
    let (bias, stops, ids) = unsafe {
        (
            list("logit_bias", given.logit_bias, given.logit_bias_count)?,
            list("stop", given.stop, given.stop_count)?,
            list("stop_token_ids", given.stop_token_ids, given.stop_token_ids_count)?,
        )
    };
    // SAFETY: the caller's promise.
    let stop = stops.iter().map(|stop| Ok(unsafe { text("a stop string", *stop) }?.to_owned()));
    Ok(SamplingParams {
        n: given.n as usize,
        temperature: given.temperature,
        top_p: given.top_p,
        top_k: given.top_k,
        min_p: given.min_p,
        presence_penalty: given.presence_penalty,
        frequency_penalty: given.frequency_penalty,
        repetition_penalty: given.repetition_penalty,
        logit_bias: bias.iter().map(|one| (one.token, one.bias)).collect(),
        logprobs: usize::try_from(given.logprobs).ok(),
        prompt_logprobs: usize::try_from(given.prompt_logprobs).ok(),
        stop: stop.collect::<Result<_, Failed>>()?,
        stop_token_ids: ids.to_vec(),
        max_tokens: Some(whole(given.max_tokens)).filter(|count| *count > 0),
        min_tokens: whole(given.min_tokens),
        ignore_eos: given.ignore_eos != 0,
        seed: (given.has_seed != 0).then_some(given.seed),
    })
}

/// A prompt: a text, or token ids where that is null.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct photonc_prompt {
    /// UTF-8 that ends with a zero byte; or null.
    pub text: *const c_char,
    /// Token ids, oldest first.
    pub token_ids: *const i64,
    /// How many stand there.
    pub token_ids_count: usize,
}

/// The prompt that a caller gave.
///
/// # Safety
/// As the header says of the structure.
pub unsafe fn prompt(prompt: &photonc_prompt) -> Result<Prompt, Failed> {
    // SAFETY: the caller's promise.
    unsafe {
        Ok(match text_or_none("a prompt", prompt.text)? {
            Some(text) => Prompt::Text(text.to_owned()),
            None => Prompt::Ids(list("token_ids", prompt.token_ids, prompt.token_ids_count)?.to_vec()),
        })
    }
}

/// How a generation runs. `photonc_generate_options_init` fills it with the defaults.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct photonc_generate_options {
    /// `sizeof(photonc_generate_options)`.
    pub struct_size: u32,
    /// Meta-contexts of a burst while this runs, up to what the model was loaded with; 0 leaves it to the load. No token
    /// depends on it, and calls that run together share it.
    pub run_ahead: u32,
    /// `recgen`, `hiergen`, ...; null is `recgen` where the bundle has it.
    pub protocol: *const c_char,
    /// Whether logits are kept, which is slower: 1, or 0. Streams have none.
    pub return_logits: u32,
    /// Whether the states that condition each meta-context are kept, which is slower: 1, or 0. Streams have none.
    pub return_states: u32,
}

// SAFETY: numbers and a pointer behind the size.
unsafe impl Versioned for photonc_generate_options {}

impl photonc_generate_options {
    fn defaults() -> Self {
        let struct_size = size_of_struct::<Self>();
        let protocol = std::ptr::null();
        photonc_generate_options { struct_size, run_ahead: 0, protocol, return_logits: 0, return_states: 0 }
    }
}

/// Fills options with the defaults.
///
/// # Safety
/// `options` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_generate_options_init(options: *mut photonc_generate_options) {
    // SAFETY: the caller's promise; there is nobody to tell of null.
    let _null = unsafe { put(options, photonc_generate_options::defaults()) };
}

/// What a caller asks to generate.
///
/// # Safety
/// As the header says of the structures.
pub unsafe fn asked(
    prompts: (*const photonc_prompt, usize),
    params: *const photonc_sampling_params,
    options: *const photonc_generate_options,
) -> Result<Generate, Failed> {
    // SAFETY: the caller's promise.
    unsafe {
        let given = read("generate options", options, photonc_generate_options::defaults())?;
        let prompts = list("prompts", prompts.0, prompts.1)?;
        let protocol = text_or_none("protocol", given.protocol)?;
        Ok(Generate {
            prompts: prompts.iter().map(|one| prompt(one)).collect::<Result<_, Failed>>()?,
            params: sampling_params(params)?,
            protocol: protocol.map(protocol_of).transpose()?,
            run_ahead: NonZero::new(given.run_ahead as usize),
            keep: Keep {
                logits: given.return_logits != 0,
                states: given.return_states != 0,
                ..Keep::default()
            },
        })
    }
}

/// The same where tokens are told as they come.
///
/// # Safety
/// As [`asked`].
pub unsafe fn asked_as_stream(
    prompts: (*const photonc_prompt, usize),
    params: *const photonc_sampling_params,
    options: *const photonc_generate_options,
) -> Result<Generate, Failed> {
    // SAFETY: the caller's promise.
    let asked = unsafe { asked(prompts, params, options) }?;
    if asked.keep != Keep::default() {
        let message = "return_logits and return_states are set, and only photonc_generate has them";
        return Err(Error::refused(message).into());
    }
    Ok(asked)
}
