//! Checkpoints and bundles on disk. Documents are JSON, as the command line writes it.

use crate::border::{Failed, Versioned, c_text, call, list, photonc_status, put, read, text, text_or_none};
use crate::params::{load_options, photonc_load_options};
use crate::text::give_text;
use photonc_core::api::{self, ExportNames, documents};
use photonc_core::export::Progress;
use std::ffi::{c_char, c_void};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Told how far an export has come, perhaps on other threads than the one that called, one at a time: a stage, the bytes done and
/// the bytes in all, 0 where bytes do not measure it. It must not unwind.
pub type photonc_on_progress = Option<
    unsafe extern "C" fn(stage: *const c_char, done_bytes: u64, total_bytes: u64, user_data: *mut c_void),
>;

/// A stack of the model and how its weights are quantized: `level1.decoder`, `int8`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct photonc_quant {
    /// The stack.
    pub stack: *const c_char,
    /// `int8`, `int4` or `fp8`.
    pub scheme: *const c_char,
}

/// How a checkpoint is exported. `photonc_export_options_init` fills it with the defaults.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct photonc_export_options {
    /// `sizeof(photonc_export_options)`.
    pub struct_size: u32,
    /// Whether a bundle that stands there is replaced: 1, or 0.
    pub force: u32,
    /// `f32`, `f16` or `bf16`; null is `f32`.
    pub dtype: *const c_char,
    /// Whom ONNX models are written for: `portable`, `tensorrt-rtx`, `tensorrt`, `cpu` or `cuda` (none);
    /// null is `portable`, unless that takes a second copy of the weights.
    pub target: *const c_char,
    /// One protocol to compile for; null is every one that the model defines.
    pub protocol: *const c_char,
    /// Stacks whose weights are quantized.
    pub quant: *const photonc_quant,
    /// How many stand there.
    pub quant_count: usize,
    /// Longest sequence in tokens; 0 is what the checkpoint states.
    pub max_tokens: u64,
    /// Data file of the checkpoint's layout; null recognises it.
    pub weight_map: *const c_char,
    /// Whether a checkpoint with tensors that the model has not is taken: 1, or 0.
    pub ignore_unexpected: u32,
    /// Whether NaN and infinite weights are taken as they are: 1, or 0.
    pub allow_nonfinite: u32,
}

// SAFETY: numbers and pointers behind the size.
unsafe impl Versioned for photonc_export_options {}

impl photonc_export_options {
    fn defaults() -> Self {
        photonc_export_options {
            struct_size: u32::try_from(size_of::<Self>()).unwrap_or(u32::MAX),
            force: 0,
            dtype: std::ptr::null(),
            target: std::ptr::null(),
            protocol: std::ptr::null(),
            quant: std::ptr::null(),
            quant_count: 0,
            max_tokens: 0,
            weight_map: std::ptr::null(),
            ignore_unexpected: 0,
            allow_nonfinite: 0,
        }
    }
}

/// Fills options with the defaults.
///
/// # Safety
/// `options` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_export_options_init(options: *mut photonc_export_options) {
    // SAFETY: the caller's promise; there is nobody to tell of null.
    let _null = unsafe { put(options, photonc_export_options::defaults()) };
}

/// Compiles a checkpoint into a bundle. `options` and `on_progress` may be null. What was exported is written to `report` as JSON,
/// to be freed with `photonc_text_free`, unless that is null.
///
/// # Safety
/// Pointers are null or as the header says; `user_data` is what `on_progress` makes of it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_export(
    checkpoint: *const c_char,
    bundle: *const c_char,
    options: *const photonc_export_options,
    on_progress: photonc_on_progress,
    user_data: *mut c_void,
    report: *mut *mut c_char,
) -> photonc_status {
    // SAFETY: the caller's promise.
    call(|| unsafe {
        let given = read("export options", options, photonc_export_options::defaults())?;
        let (model, out) = (text("checkpoint", checkpoint)?, text("bundle", bundle)?);
        let word = |what: &str, pointer| text_or_none(what, pointer).map(|one| one.map(str::to_owned));
        let quant = list("quant", given.quant, given.quant_count)?.iter().map(|one| {
            Ok((text("a stack", one.stack)?.to_owned(), text("a scheme", one.scheme)?.to_owned()))
        });
        let names = ExportNames {
            dtype: word("dtype", given.dtype)?,
            quant: quant.collect::<Result<_, Failed>>()?,
            targets: word("target", given.target)?.into_iter().collect(),
            protocols: word("protocol", given.protocol)?.into_iter().collect(),
            max_tokens: usize::try_from(given.max_tokens).ok().filter(|most| *most > 0),
            dialect: None,
            weight_map: text_or_none("weight_map", given.weight_map)?.map(PathBuf::from),
            ignore_unexpected: given.ignore_unexpected != 0,
            allow_nonfinite: given.allow_nonfinite != 0,
            force: given.force != 0,
        };
        let options = names.options(model.into(), out.into())?;
        // A pointer as a number may go to other threads, which the header says it does.
        let one_at_a_time = Mutex::new(user_data as usize);
        let tell = |Progress { stage, done_bytes, total_bytes }: Progress| {
            let Some(on_progress) = on_progress else { return };
            let user_data = one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
            on_progress(c_text(stage).as_ptr(), done_bytes, total_bytes, *user_data as *mut c_void);
        };
        let exported = api::export(&options, &tell)?;
        if report.is_null() {
            return Ok(());
        }
        give_text(report, &documents::of_export(&exported).to_string())
    })
}

/// What a checkpoint or a bundle holds, as `photonc inspect --json` says it; freed with `photonc_text_free`.
///
/// # Safety
/// Pointers are null or as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_inspect(path: *const c_char, document: *mut *mut c_char) -> photonc_status {
    // SAFETY: the caller's promise.
    call(|| unsafe {
        let told = api::inspect(Path::new(text("path", path)?))?;
        give_text(document, &told.to_string())
    })
}

/// Compares every graph of a bundle on a backend with the reference, on random inputs; `holds` is told whether every value is as
/// near as its arithmetic allows: 1, or 0. What was found is written to `document` as JSON, unless that is null.
///
/// # Safety
/// Pointers are null or as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_verify(
    bundle: *const c_char,
    options: *const photonc_load_options,
    seed: u64,
    holds: *mut u32,
    document: *mut *mut c_char,
) -> photonc_status {
    // SAFETY: the caller's promise.
    call(|| unsafe {
        let found = api::verify(Path::new(text("bundle", bundle)?), &load_options(options)?, seed)?;
        let all = found.iter().all(|one| one.first_divergent().is_none());
        put(holds, all.into())?;
        if document.is_null() {
            return Ok(());
        }
        give_text(document, &documents::of_verify(&found).to_string())
    })
}

/// What differs between two checkpoints or bundles; `equal` is told whether nothing does: 1, or 0. Weights are compared by their
/// bytes where `weights` is not 0. What was found is written to `document` as JSON, unless that is null.
///
/// # Safety
/// Pointers are null or as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn photonc_diff(
    left: *const c_char,
    right: *const c_char,
    weights: u32,
    equal: *mut u32,
    document: *mut *mut c_char,
) -> photonc_status {
    // SAFETY: the caller's promise.
    call(|| unsafe {
        let (left, right) = (Path::new(text("left", left)?), Path::new(text("right", right)?));
        let found = api::diff(left, right, weights != 0)?;
        put(equal, found.is_empty().into())?;
        if document.is_null() {
            return Ok(());
        }
        give_text(document, &documents::of_diff(&found).to_string())
    })
}
