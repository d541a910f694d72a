//! Loaded models.

use crate::border::{Versioned, c_text, call, free, give, handle, photonc_status, text, write};
use crate::params::{load_options, photonc_load_options};
use photonc_core::api::Model;
use std::ffi::{CString, c_char};
use std::path::Path;

/// A loaded model; any thread may use it, several at once.
pub struct photonc_model {
    /// The model.
    pub model: Model,
    backend: CString,
}

/// What a model is.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct photonc_model_info {
    /// `sizeof(photonc_model_info)`, set by the caller.
    pub struct_size: u32,
    /// Whether it has a tokenizer: 1, or 0.
    pub has_tokenizer: u32,
    /// Number of token ids.
    pub vocab_size: u64,
    /// Tokens of a meta-context.
    pub meta_tokens: u64,
    /// Tokens of the longest sequence, prompt included.
    pub max_tokens: u64,
    /// Name of the backend; it lives as long as the model.
    pub backend: *const c_char,
}

// SAFETY: numbers and a pointer behind the size.
unsafe impl Versioned for photonc_model_info {}

/// Loads a bundle and waits until it generates. `options` may be null. The model is freed with `photonc_model_free`.
///
/// # Safety
/// Pointers are null or as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_load(
    bundle: *const c_char,
    options: *const photonc_load_options,
    model: *mut *mut photonc_model,
) -> photonc_status {
    // SAFETY: the caller's promise.
    call(|| unsafe {
        let loaded = Model::load(Path::new(text("bundle", bundle)?), &load_options(options)?)?;
        let backend = c_text(loaded.backend().name());
        give(model, photonc_model { model: loaded, backend })
    })
}

/// What a model is; `info->struct_size` is set before.
///
/// # Safety
/// Pointers are null or as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_model_get_info(
    model: *const photonc_model,
    info: *mut photonc_model_info,
) -> photonc_status {
    // SAFETY: the caller's promise.
    call(|| unsafe {
        let photonc_model { model, backend } = handle("model", model)?;
        let program = model.program();
        let told = photonc_model_info {
            struct_size: 0,
            has_tokenizer: model.tokenizer().is_ok().into(),
            vocab_size: program.vocab_size as u64,
            meta_tokens: program.meta_tokens as u64,
            max_tokens: program.max_tokens as u64,
            backend: backend.as_ptr(),
        };
        write("info", &told, info)
    })
}

/// Cancels what runs and gives back what the model holds; calls under way and later ones end with `PHOTONC_CANCELLED`.
///
/// # Safety
/// `model` is null or a model.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_model_close(model: *const photonc_model) -> photonc_status {
    // SAFETY: the caller's promise.
    call(|| unsafe {
        handle("model", model)?.model.close();
        Ok(())
    })
}

/// Frees a model; streams and trajectories of it may live on, and hold what they need. Null is nothing.
///
/// # Safety
/// `model` is null or a model that nobody frees again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_model_free(model: *mut photonc_model) {
    free(model);
}
