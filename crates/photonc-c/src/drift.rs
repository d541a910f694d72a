//! How far RecGen drifts from HierGen. The document is JSON, as the command line writes it.

use crate::border::{Versioned, call, handle, list, photonc_status, put, read, text};
use crate::params::{load_options, photonc_load_options, photonc_prompt, prompt, size_of_struct, whole};
use crate::text::give_text;
use photonc_core::api::{self, Error, Prompt, documents};
use photonc_core::bundle::Bundle;
use photonc_core::runtime::drift::{DISTANCES, DriftOptions};
use photonc_core::text::tokenizer::Tokenizer;
use std::ffi::c_char;
use std::path::Path;

/// What is measured of a drift. `photonc_drift_options_init` fills it with the defaults.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct photonc_drift_options {
    /// `sizeof(photonc_drift_options)`.
    pub struct_size: u32,
    /// Whether both protocols also draw greedily, and their tokens are compared: 1, or 0.
    pub free_running: u32,
    /// Tokens of each prompt, in whole meta-contexts.
    pub prompt_tokens: u64,
    /// Tokens behind each prompt, in whole meta-contexts.
    pub new_tokens: u64,
    /// Prompts at most: they follow each other in the text.
    pub prompts: u64,
    /// Prompts at once.
    pub batch: u64,
    /// Distances from the prompt, in tokens, between which is measured; null are 16, 64 and 256.
    pub distances: *const u64,
    /// How many stand there.
    pub distances_count: usize,
}

// SAFETY: numbers and a pointer behind the size.
unsafe impl Versioned for photonc_drift_options {}

impl photonc_drift_options {
    fn defaults() -> Self {
        let DriftOptions { prompt_tokens, new_tokens, prompts, batch, free_running } =
            DriftOptions::default();
        photonc_drift_options {
            struct_size: size_of_struct::<Self>(),
            free_running: free_running.into(),
            prompt_tokens: prompt_tokens as u64,
            new_tokens: new_tokens as u64,
            prompts: prompts as u64,
            batch: batch as u64,
            distances: std::ptr::null(),
            distances_count: 0,
        }
    }
}

/// Fills options with the defaults.
///
/// # Safety
/// `options` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_drift_options_init(options: *mut photonc_drift_options) {
    // SAFETY: the caller's promise; there is nobody to tell of null.
    let _null = unsafe { put(options, photonc_drift_options::defaults()) };
}

/// How far RecGen drifts from HierGen on a text, given as itself or as tokens: agreement, divergence, perplexities and cosines of
/// states. `load` and `options` may be null. What was found is written to `document` as JSON, to be freed with
/// `photonc_text_free`.
///
/// # Safety
/// Pointers are null or as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_drift(
    bundle: *const c_char,
    of: *const photonc_prompt,
    load: *const photonc_load_options,
    options: *const photonc_drift_options,
    document: *mut *mut c_char,
) -> photonc_status {
    // SAFETY: the caller's promise.
    call(|| unsafe {
        let given = read("drift options", options, photonc_drift_options::defaults())?;
        let distances = match given.distances.is_null() && given.distances_count == 0 {
            true => DISTANCES.to_vec(),
            false => {
                let given = list("distances", given.distances, given.distances_count)?;
                given.iter().map(|distance| whole(*distance)).collect()
            }
        };
        let measured = DriftOptions {
            prompt_tokens: whole(given.prompt_tokens),
            new_tokens: whole(given.new_tokens),
            prompts: whole(given.prompts),
            batch: whole(given.batch),
            free_running: given.free_running != 0,
        };
        let given = prompt(handle("prompt", of)?)?;
        let bundle = Bundle::open(Path::new(text("bundle", bundle)?)).map_err(Error::from)?;
        let tokens = match given {
            Prompt::Ids(ids) => ids,
            Prompt::Text(words) => {
                let tokenizer = Tokenizer::needed(&bundle).map_err(Error::from)?;
                tokenizer.encode(&words, false).map_err(Error::from)?.ids
            }
        };
        let drift = api::drift(&bundle, &load_options(load)?, &tokens, measured, &|_, _| {})?;
        give_text(document, &documents::of_drift(&drift, &distances).to_string())
    })
}
