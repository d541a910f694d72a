//! Coarse trajectories that are kept.

use crate::border::{Versioned, call, fill, free, give, handle, photonc_status, put, write};
use crate::model::photonc_model;
use crate::params::{photonc_prompt, photonc_sampling_params, prompt, sampling_params};
use photonc_core::api::Trajectory;

/// A coarse trajectory: states that no sampled token reaches, from which any range of tokens can be drawn again.
pub struct photonc_trajectory(Trajectory);

/// The trajectory of a prompt under RecGen, empty at first. It lives in a second copy of the model beside the one that generates.
/// `params` may be null; of them only how tokens are drawn counts.
///
/// # Safety
/// Pointers are null or as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_trajectory_new(
    model: *const photonc_model,
    from: *const photonc_prompt,
    params: *const photonc_sampling_params,
    trajectory: *mut *mut photonc_trajectory,
) -> photonc_status {
    // SAFETY: the caller's promise.
    call(|| unsafe {
        let from = prompt(handle("prompt", from)?)?;
        let made = handle("model", model)?.model.trajectory(&from, &sampling_params(params)?)?;
        give(trajectory, photonc_trajectory(made))
    })
}

/// Goes on by so many meta-contexts; `count` is told how many there are then. It is computed again from the prompt; what was there
/// stays.
///
/// # Safety
/// Pointers are null or as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_trajectory_advance(
    trajectory: *const photonc_trajectory,
    meta_contexts: usize,
    count: *mut usize,
) -> photonc_status {
    // SAFETY: the caller's promise.
    call(|| unsafe { put(count, handle("trajectory", trajectory)?.0.advance(meta_contexts)?) })
}

/// Draws the tokens of meta-contexts `first` up to, but not with, `end`: as they are where `seed` is null, else with that seed.
/// `count` is told how many tokens there are.
///
/// # Safety
/// Pointers are null or as the header says: `token_ids` has room for `capacity` ids.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_trajectory_expand(
    trajectory: *const photonc_trajectory,
    first: usize,
    end: usize,
    seed: *const u64,
    token_ids: *mut i64,
    capacity: usize,
    count: *mut usize,
) -> photonc_status {
    // SAFETY: the caller's promise.
    call(|| unsafe {
        let drawn = handle("trajectory", trajectory)?.0.expand(first..end, seed.as_ref().copied(), 0)?;
        fill("tokens", &drawn.concat(), (token_ids, capacity), count)
    })
}

/// The same, drawn as sequence number `sequence` of a prompt: 0 is what `photonc_trajectory_expand` draws.
///
/// # Safety
/// As `photonc_trajectory_expand`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_trajectory_expand_sequence(
    trajectory: *const photonc_trajectory,
    first: usize,
    end: usize,
    seed: *const u64,
    sequence: u64,
    token_ids: *mut i64,
    capacity: usize,
    count: *mut usize,
) -> photonc_status {
    // SAFETY: the caller's promise.
    call(|| unsafe {
        let drawn =
            handle("trajectory", trajectory)?.0.expand(first..end, seed.as_ref().copied(), sequence)?;
        fill("tokens", &drawn.concat(), (token_ids, capacity), count)
    })
}

/// How far a trajectory is.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct photonc_trajectory_info {
    /// `sizeof(photonc_trajectory_info)`, set by the caller.
    pub struct_size: u32,
    /// Nothing yet: 0.
    pub reserved: u32,
    /// Meta-contexts that it has.
    pub meta_contexts: usize,
    /// Position of the first token of its first meta-context, prompt included.
    pub first_position: usize,
}

// SAFETY: it is only ever written to callers, never read from them.
unsafe impl Versioned for photonc_trajectory_info {}

/// How far a trajectory is; `info->struct_size` is set before.
///
/// # Safety
/// Pointers are null or as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_trajectory_get_info(
    trajectory: *const photonc_trajectory,
    info: *mut photonc_trajectory_info,
) -> photonc_status {
    // SAFETY: the caller's promise.
    call(|| unsafe {
        let own = &handle("trajectory", trajectory)?.0;
        let told = photonc_trajectory_info {
            struct_size: 0,
            reserved: 0,
            meta_contexts: own.meta_contexts(),
            first_position: own.first_position(),
        };
        write("info", &told, info)
    })
}

/// The tokens behind the prompt that were drawn while it was computed. `count` is told how many there are.
///
/// # Safety
/// Pointers are null or as the header says: `token_ids` has room for `capacity` ids.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_trajectory_tokens(
    trajectory: *const photonc_trajectory,
    token_ids: *mut i64,
    capacity: usize,
    count: *mut usize,
) -> photonc_status {
    // SAFETY: the caller's promise.
    call(|| unsafe {
        let drawn = handle("trajectory", trajectory)?.0.tokens();
        fill("tokens", &drawn, (token_ids, capacity), count)
    })
}

/// Frees a trajectory. Null is nothing.
///
/// # Safety
/// `trajectory` is null or one that nobody frees again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_trajectory_free(trajectory: *mut photonc_trajectory) {
    free(trajectory);
}
