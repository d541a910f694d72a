//! Tokens as they are drawn: by asking for them, or by a function that is called.

use crate::border::{Failed, Versioned, c_text, call, free, give, handle, photonc_status, put, write};
use crate::model::photonc_model;
use crate::outputs::{Logprobs, finish_of, photonc_finish, photonc_token_logprobs};
use crate::params::{asked_as_stream, photonc_generate_options, photonc_prompt, photonc_sampling_params};
use photonc_core::api::{Next, Piece, Stream, StreamCancel};
use std::ffi::{CString, c_char, c_void};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Sequences on their way. Any thread may cancel one; one thread at a time asks for what comes.
pub struct photonc_stream {
    stream: Mutex<Stream>,
    /// Beside the lock, which a thread that waits holds.
    cancel: StreamCancel,
    /// What the last piece points to.
    last: Mutex<Option<Held>>,
}

/// New tokens of a sequence.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct photonc_piece {
    /// `sizeof(photonc_piece)`, set by the caller.
    pub struct_size: u32,
    /// Set with the last piece of a sequence.
    pub finish: photonc_finish,
    /// Place of the prompt.
    pub prompt: usize,
    /// Number of the sequence among those of its prompt.
    pub sequence: usize,
    /// Text that is certain now, in whole characters, UTF-8; null where the model has no tokenizer.
    pub text: *const c_char,
    /// The tokens.
    pub token_ids: *const i64,
    /// How many there are.
    pub token_ids_count: usize,
    /// Their log-probabilities, if they were asked for.
    pub logprobs: *const photonc_token_logprobs,
    /// How many there are.
    pub logprobs_count: usize,
}

// SAFETY: it is only ever written to callers, never read from them.
unsafe impl Versioned for photonc_piece {}

/// What a piece points to.
struct Held {
    text: Option<CString>,
    logprobs: Logprobs,
    piece: Piece,
}

impl Held {
    fn of(piece: Piece) -> Self {
        let text = piece.text.as_deref().map(c_text);
        Held { text, logprobs: Logprobs::of(&piece.logprobs), piece }
    }

    fn told(&self) -> photonc_piece {
        photonc_piece {
            struct_size: u32::try_from(size_of::<photonc_piece>()).unwrap_or(u32::MAX),
            finish: finish_of(self.piece.finish),
            prompt: self.piece.prompt,
            sequence: self.piece.sample,
            text: self.text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr()),
            token_ids: self.piece.tokens.as_ptr(),
            token_ids_count: self.piece.tokens.len(),
            logprobs: self.logprobs.all().as_ptr(),
            logprobs_count: self.logprobs.all().len(),
        }
    }
}

/// What a stream has.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum photonc_next {
    /// A piece, which was written.
    PHOTONC_NEXT_PIECE = 0,
    /// Nothing came within the time.
    PHOTONC_NEXT_WAITING = 1,
    /// Nothing more.
    PHOTONC_NEXT_OVER = 2,
}

/// Begins to generate behind prompts. `params` and `options` may be null.
///
/// # Safety
/// Pointers are null or as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_stream_start(
    model: *const photonc_model,
    prompts: *const photonc_prompt,
    prompts_count: usize,
    params: *const photonc_sampling_params,
    options: *const photonc_generate_options,
    stream: *mut *mut photonc_stream,
) -> photonc_status {
    // SAFETY: the caller's promise.
    call(|| unsafe {
        let asked = asked_as_stream((prompts, prompts_count), params, options)?;
        let started = handle("model", model)?.model.stream(&asked)?;
        let cancel = started.canceller();
        give(stream, photonc_stream { stream: Mutex::new(started), cancel, last: Mutex::default() })
    })
}

/// What comes next, waited for no longer than `timeout_ms`. A piece is written to `piece`, whose `struct_size` is set before; its
/// pointers live until the next call for this stream.
///
/// # Safety
/// Pointers are null or as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_stream_next(
    stream: *const photonc_stream,
    timeout_ms: u32,
    piece: *mut photonc_piece,
    next: *mut photonc_next,
) -> photonc_status {
    // SAFETY: the caller's promise.
    call(|| unsafe {
        let photonc_stream { stream, last, .. } = handle("stream", stream)?;
        let mut stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let came = match stream.next(Duration::from_millis(timeout_ms.into()))? {
                Next::Ended(_) => continue,
                Next::Waiting => photonc_next::PHOTONC_NEXT_WAITING,
                Next::Over => photonc_next::PHOTONC_NEXT_OVER,
                Next::Piece(one) => {
                    let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
                    write("piece", &last.insert(Held::of(one)).told(), piece)?;
                    photonc_next::PHOTONC_NEXT_PIECE
                }
            };
            return put(next, came);
        }
    })
}

/// Ends every sequence of a stream at its next burst, from any thread and without waiting: a call under way in another thread, or
/// else the next one, says `PHOTONC_CANCELLED` behind what had come.
///
/// # Safety
/// `stream` is null or a stream.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_stream_cancel(stream: *const photonc_stream) -> photonc_status {
    // SAFETY: the caller's promise.
    call(|| unsafe {
        handle("stream", stream)?.cancel.cancel();
        Ok(())
    })
}

/// Cancels what is left and frees the stream. Null is nothing.
///
/// # Safety
/// `stream` is null or a stream that nobody frees again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_stream_free(stream: *mut photonc_stream) {
    free(stream);
}

/// Told new tokens, on the thread that called; the piece lives until it returns. 0 goes on, anything else cancels. It must not
/// unwind.
pub type photonc_on_piece =
    Option<unsafe extern "C" fn(piece: *const photonc_piece, user_data: *mut c_void) -> i32>;

/// Generates behind prompts and tells `on_piece` of tokens as they are drawn; returns when all is done, and says
/// `PHOTONC_CANCELLED` where `on_piece` cancelled.
///
/// # Safety
/// Pointers are null or as the header says; `user_data` is what `on_piece` makes of it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_generate_with(
    model: *const photonc_model,
    prompts: *const photonc_prompt,
    prompts_count: usize,
    params: *const photonc_sampling_params,
    options: *const photonc_generate_options,
    on_piece: photonc_on_piece,
    user_data: *mut c_void,
) -> photonc_status {
    // SAFETY: the caller's promise.
    call(|| unsafe {
        let on_piece = on_piece.ok_or_else(|| Failed::argument("on_piece is null"))?;
        let asked = asked_as_stream((prompts, prompts_count), params, options)?;
        let mut stream = handle("model", model)?.model.stream(&asked)?;
        loop {
            match stream.next(Duration::from_secs(1))? {
                Next::Ended(_) | Next::Waiting => {}
                Next::Over => return Ok(()),
                Next::Piece(one) => {
                    let held = Held::of(one);
                    let told = held.told();
                    if on_piece(&raw const told, user_data) != 0 {
                        return Err(
                            photonc_core::api::Error::cancelled("the generation was cancelled").into()
                        );
                    }
                }
            }
        }
    })
}
