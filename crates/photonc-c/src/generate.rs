//! Whole generations.

use crate::border::{call, give, handle, photonc_status};
use crate::model::photonc_model;
use crate::outputs::photonc_outputs;
use crate::params::{asked, photonc_generate_options, photonc_prompt, photonc_sampling_params};

/// Generates behind prompts and waits. `params` and `options` may be null. The outputs are freed with `photonc_outputs_free`.
///
/// # Safety
/// Pointers are null or as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_generate(
    model: *const photonc_model,
    prompts: *const photonc_prompt,
    prompts_count: usize,
    params: *const photonc_sampling_params,
    options: *const photonc_generate_options,
    outputs: *mut *mut photonc_outputs,
) -> photonc_status {
    // SAFETY: the caller's promise.
    call(|| unsafe {
        let generated =
            handle("model", model)?.model.generate(&asked((prompts, prompts_count), params, options)?)?;
        give(outputs, photonc_outputs::of(generated))
    })
}
