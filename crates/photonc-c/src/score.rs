//! Scores of given tokens.

use crate::border::{Failed, call, fill, free, give, handle, list, photonc_status, put};
use crate::model::photonc_model;
use crate::outputs::{Logprobs, photonc_token_logprobs};
use photonc_core::api::Error;

/// The natural logarithm of the probability of each of `count` tokens, given those before it, the first included.
///
/// # Safety
/// Pointers are null or as the header says: `logprobs` has room for `count` numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_score(
    model: *const photonc_model,
    token_ids: *const i64,
    count: usize,
    logprobs: *mut f64,
) -> photonc_status {
    // SAFETY: the caller's promise.
    call(|| unsafe {
        let tokens = list("token_ids", token_ids, count)?;
        let score = handle("model", model)?.model.score::<Failed>(tokens, 0, &mut || Ok(()))?;
        let told: Vec<f64> = score.logprobs.iter().map(|one| one.logprob).collect();
        let mut written = 0;
        fill("log-probabilities", &told, (logprobs, count), &raw mut written)
    })
}

/// Log-probabilities of given tokens, with ranks and the most probable ones.
pub struct photonc_scores(Logprobs);

/// The log-probability of each of `count` tokens given those before it, the first included, its rank, and the `top` most probable
/// tokens at its place, 20 at most. The scores are freed with `photonc_scores_free`.
///
/// # Safety
/// Pointers are null or as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_score_tokens(
    model: *const photonc_model,
    token_ids: *const i64,
    count: usize,
    top: u32,
    scores: *mut *mut photonc_scores,
) -> photonc_status {
    // SAFETY: the caller's promise.
    call(|| unsafe {
        let tokens = list("token_ids", token_ids, count)?;
        let score = handle("model", model)?.model.score::<Failed>(tokens, top as usize, &mut || Ok(()))?;
        give(scores, photonc_scores(Logprobs::of(&score.logprobs)))
    })
}

/// By place; they live as long as the scores.
///
/// # Safety
/// Pointers are null or as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_scores_get(
    scores: *const photonc_scores,
    logprobs: *mut *const photonc_token_logprobs,
    count: *mut usize,
) -> photonc_status {
    // SAFETY: the caller's promise.
    call(|| unsafe {
        let all = handle("scores", scores)?.0.all();
        put(logprobs, all.as_ptr())?;
        put(count, all.len())
    })
}

/// Frees scores. Null is nothing.
///
/// # Safety
/// `scores` is null or scores that nobody frees again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_scores_free(scores: *mut photonc_scores) {
    free(scores);
}

/// Logits `[count, vocab_size]` of `count` tokens, row-major, each token's from what stands before it. They are computed by a
/// second copy of the model beside the one that generates. `needed` is told how many there are.
///
/// # Safety
/// Pointers are null or as the header says: `logits` has room for `capacity` numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_score_logits(
    model: *const photonc_model,
    token_ids: *const i64,
    count: usize,
    logits: *mut f32,
    capacity: usize,
    needed: *mut usize,
) -> photonc_status {
    // SAFETY: the caller's promise.
    call(|| unsafe {
        let model = &handle("model", model)?.model;
        let tokens = list("token_ids", token_ids, count)?;
        let all = count.checked_mul(model.program().vocab_size);
        let all = all.ok_or_else(|| Error::refused("more logits than there is memory"))?;
        put(needed, all)?;
        if capacity < all {
            return Err(Failed::too_small("logits", all, capacity));
        }
        #[expect(clippy::cast_possible_truncation, reason = "the caller reads f32")]
        let told: Vec<f32> = model.score_logits(tokens)?.into_iter().map(|logit| logit as f32).collect();
        fill("logits", &told, (logits, capacity), needed)
    })
}
