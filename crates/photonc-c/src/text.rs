//! Text to tokens and back.

use crate::border::{Failed, c_text, call, fill, handle, list, photonc_status, put, text, text_or_none};
use crate::model::photonc_model;
use photonc_core::api::Error;
use std::ffi::{CString, c_char};

/// The tokens of a text, with the marks that the tokenizer puts around one if `add_special_tokens` is not 0. `count` is told how
/// many there are.
///
/// # Safety
/// Pointers are null or as the header says: `token_ids` has room for `capacity` ids.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_encode(
    model: *const photonc_model,
    words: *const c_char,
    add_special_tokens: u32,
    token_ids: *mut i64,
    capacity: usize,
    count: *mut usize,
) -> photonc_status {
    // SAFETY: the caller's promise.
    call(|| unsafe {
        let tokenizer = handle("model", model)?.model.tokenizer()?;
        let encoded = tokenizer.encode(text("text", words)?, add_special_tokens != 0).map_err(Error::from)?;
        fill("tokens", &encoded.ids, (token_ids, capacity), count)
    })
}

/// The text of tokens, in memory that is freed with `photonc_text_free`; special tokens have none.
///
/// # Safety
/// Pointers are null or as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_decode(
    model: *const photonc_model,
    token_ids: *const i64,
    count: usize,
    words: *mut *mut c_char,
) -> photonc_status {
    // SAFETY: the caller's promise.
    call(|| unsafe {
        let tokenizer = handle("model", model)?.model.tokenizer()?;
        let decoded = tokenizer.decode(list("token_ids", token_ids, count)?).map_err(Error::from)?;
        give_text(words, &decoded)
    })
}

/// The text of a conversation by the model's chat template, ready for the assistant's answer: `messages` and `tools`, which may be
/// null, are JSON as transformers has them. It is encoded without special tokens, and freed with `photonc_text_free`.
///
/// # Safety
/// Pointers are null or as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_chat(
    model: *const photonc_model,
    messages: *const c_char,
    tools: *const c_char,
    words: *mut *mut c_char,
) -> photonc_status {
    // SAFETY: the caller's promise.
    call(|| unsafe {
        let messages = text("messages", messages)?;
        let tools = text_or_none("tools", tools)?;
        let rendered = handle("model", model)?.model.chat(messages, tools)?;
        give_text(words, &rendered)
    })
}

/// Hands a text to the caller.
///
/// # Safety
/// `out` is null or can be written.
pub unsafe fn give_text(out: *mut *mut c_char, words: &str) -> Result<(), Failed> {
    if out.is_null() {
        return Err(Failed::argument("an out-parameter is null"));
    }
    // SAFETY: it is not null, so it can be written.
    unsafe { put(out, c_text(words).into_raw()) }
}

/// Frees a text that this library made. Null is nothing.
///
/// # Safety
/// `words` is null or such a text, which nobody frees again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_text_free(words: *mut c_char) {
    if !words.is_null() {
        // SAFETY: `give_text` made it, and it is freed once.
        drop(unsafe { CString::from_raw(words) });
    }
}
