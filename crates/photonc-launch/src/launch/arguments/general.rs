//! Arguments of what models other than PHOTON's own wiring need: rotations by themselves, attention in its general form,
//! routing and experts.

use super::{Heads, Rows};

/// Arguments of `rope`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "fields are described in kernels/abi.cuh")]
pub struct RopeArguments {
    pub x: Heads,
    pub out: Heads,
    pub positions: u64,
    pub position_row: i64,
    pub position_step: i64,
    pub theta: f64,
    pub rows: i32,
    pub heads: i32,
    pub count: i32,
    pub width: i32,
}

/// Arguments of `attend_general`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "fields are described in kernels/abi.cuh")]
pub struct GeneralArguments {
    pub q: Heads,
    pub k: Heads,
    pub v: Heads,
    pub cache_k: Heads,
    pub cache_v: Heads,
    pub out: Heads,
    pub lengths: u64,
    pub sinks: u64,
    pub rows: i32,
    pub heads: i32,
    pub kv_heads: i32,
    pub queries: i32,
    pub keys: i32,
    pub width: i32,
    pub value_width: i32,
    pub window: i32,
    pub tile: i32,
    pub scale: f32,
}

/// Arguments of `append`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields are described in kernels/abi.cuh")]
pub struct AppendArguments {
    pub x: Heads,
    pub cache: Heads,
    pub lengths: u64,
    pub rows: i32,
    pub heads: i32,
    pub count: i32,
    pub width: i32,
}

/// Arguments of `route`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "fields are described in kernels/abi.cuh")]
pub struct RouteArguments {
    pub logits: Rows,
    pub out: Rows,
    pub bias: u64,
    pub factor: f64,
    pub rows: i32,
    pub experts: i32,
    pub top_k: i32,
    pub groups: i32,
    pub kept_groups: i32,
    pub normalize: i32,
    pub softmax: i32,
    pub unused: i32,
}

/// Arguments of `experts_up` and `experts_down`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields are described in kernels/abi.cuh")]
pub struct ExpertsArguments {
    pub x: Rows,
    pub gates: Rows,
    pub out: Rows,
    pub weight: u64,
    pub rows: i32,
    pub experts: i32,
    pub top_k: i32,
    pub inner: i32,
    pub width: i32,
    pub unused: i32,
}

// The sizes that `kernels/abi.cuh` asserts.
const _: () = {
    assert!(size_of::<RopeArguments>() == 112 && size_of::<GeneralArguments>() == 248);
    assert!(size_of::<RouteArguments>() == 112 && size_of::<ExpertsArguments>() == 128);
    assert!(size_of::<AppendArguments>() == 88);
};
