//! Arguments of kernels, as `kernels/abi.cuh` has them. Owns the layout on the host's side: fields in the same order,
//! strides in elements of the value's own type, addresses as numbers, absent values as address 0.

mod general;

pub use general::{AppendArguments, ExpertsArguments, GeneralArguments, RopeArguments, RouteArguments};

/// Rows of a matrix that may be part of a larger tensor: row `r` starts at
/// `base + (r / split) * outer + (r % split) * inner`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// Address of row 0.
    pub base: u64,
    /// From one group of `split` rows to the next.
    pub outer: i64,
    /// From one row to the next inside a group.
    pub inner: i64,
    /// Rows of a group, at least 1.
    pub split: i32,
    /// Padding.
    pub unused: i32,
}

/// Heads of a sequence: entry 0 of (row, position, head).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heads {
    /// Address of row 0, position 0, head 0.
    pub base: u64,
    /// From one row to the next.
    pub row: i64,
    /// From one position to the next.
    pub position: i64,
    /// From one head to the next.
    pub head: i64,
}

/// Arguments of `linear_*`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "fields are described in kernels/abi.cuh")]
pub struct LinearArguments {
    pub x: Rows,
    pub residual: Rows,
    pub out: Rows,
    pub norm: u64,
    pub weight: u64,
    pub bias: u64,
    pub rows: i32,
    pub k: i32,
    pub n: i32,
    pub mode: i32,
    pub wide: i32,
    pub eps: f32,
}

/// Arguments of `codes_*`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "fields are described in kernels/abi.cuh")]
pub struct CodesArguments {
    pub linear: LinearArguments,
    pub scales: u64,
    pub scheme: i32,
    pub unused: i32,
}

/// Arguments of `dequantize`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields are described in kernels/abi.cuh")]
pub struct DequantizeArguments {
    pub codes: u64,
    pub scales: u64,
    pub out: u64,
    pub rows: i32,
    pub k: i32,
    pub scheme: i32,
    pub unused: i32,
}

/// Arguments of `rms_norm`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "fields are described in kernels/abi.cuh")]
pub struct NormArguments {
    pub x: Rows,
    pub residual: Rows,
    pub sum: Rows,
    pub out: Rows,
    pub weight: u64,
    pub rows: i32,
    pub width: i32,
    pub eps: f32,
    pub unused: i32,
}

/// Arguments of `swiglu`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "fields are described in kernels/abi.cuh")]
pub struct SwigluArguments {
    pub gate: Rows,
    pub up: Rows,
    pub out: Rows,
    pub rows: i32,
    pub width: i32,
}

/// Arguments of `embed`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "fields are described in kernels/abi.cuh")]
pub struct EmbedArguments {
    pub ids: u64,
    pub table: u64,
    pub out: Rows,
    pub rows: i32,
    pub width: i32,
    pub vocabulary: i32,
    pub unused: i32,
}

/// Arguments of `attend_window`, `attend_cache`, `attend_stream` and `append_keys`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "fields are described in kernels/abi.cuh")]
pub struct AttendArguments {
    pub q: Heads,
    pub k: Heads,
    pub v: Heads,
    pub cache_k: Heads,
    pub cache_v: Heads,
    pub store_k: Heads,
    pub store_v: Heads,
    pub out: Heads,
    pub lengths: u64,
    pub visible: u64,
    pub table: u64,
    pub rows_per_length: i32,
    pub past_scale: i32,
    pub past_base: i32,
    pub visible_scale: i32,
    pub rows: i32,
    pub heads: i32,
    pub kv_heads: i32,
    pub queries: i32,
    pub keys: i32,
    pub first_query: i32,
    pub causal: i32,
    pub store_at_past: i32,
    pub table_positions: i32,
    pub scale: f32,
}

/// Arguments of `sample`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "fields are described in kernels/abi.cuh")]
pub struct SampleArguments {
    pub logits: u64,
    pub logits_stride: i64,
    pub uniforms: u64,
    pub temperature: u64,
    pub top_k: u64,
    pub top_p: u64,
    pub min_p: u64,
    pub ids: u64,
    pub ids_outer: i64,
    pub ids_inner: i64,
    pub ids_split: i32,
    pub uniforms_split: i32,
    pub uniforms_outer: i64,
    pub uniforms_inner: i64,
    pub rows: i32,
    pub rows_per_parameter: i32,
    pub vocabulary: i32,
    pub wide: i32,
}

/// Arguments of `elementwise`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields are described in kernels/abi.cuh")]
pub struct ElementArguments {
    pub out: u64,
    pub a: u64,
    pub b: u64,
    pub c: u64,
    pub out_stride: [i64; 5],
    pub a_stride: [i64; 5],
    pub b_stride: [i64; 5],
    pub c_stride: [i64; 5],
    pub size: [i32; 5],
    pub operation: i32,
    pub out_type: i32,
    pub a_type: i32,
    pub b_type: i32,
    pub c_type: i32,
}

/// Arguments of `gather_rows`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields are described in kernels/abi.cuh")]
pub struct GatherArguments {
    pub x: u64,
    pub index: u64,
    pub out: u64,
    pub x_row: i64,
    pub x_position: i64,
    pub index_row: i64,
    pub index_inner: i64,
    pub batch: i32,
    pub length: i32,
    pub count: i32,
    pub width: i32,
}

/// Arguments of `uniforms`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields are described in kernels/abi.cuh")]
pub struct UniformArguments {
    pub out: u64,
    pub seed: u64,
    pub sample: u64,
    pub first: u64,
    pub rows: i32,
    pub count: i32,
}

/// Arguments of `iota`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields are described in kernels/abi.cuh")]
pub struct IotaArguments {
    pub out: u64,
    pub count: i32,
    pub unused: i32,
}

/// Arguments of `read_words`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields are described in kernels/abi.cuh")]
pub struct ReadArguments {
    pub data: u64,
    pub out: u64,
    pub words: i64,
}

// The sizes that `kernels/abi.cuh` asserts.
const _: () = {
    assert!(size_of::<Rows>() == 32 && size_of::<Heads>() == 32);
    assert!(size_of::<LinearArguments>() == 144 && size_of::<NormArguments>() == 152);
    assert!(size_of::<CodesArguments>() == 160 && size_of::<DequantizeArguments>() == 40);
    assert!(size_of::<SwigluArguments>() == 104 && size_of::<EmbedArguments>() == 64);
    assert!(size_of::<AttendArguments>() == 336 && size_of::<SampleArguments>() == 120);
    assert!(size_of::<ElementArguments>() == 232 && size_of::<GatherArguments>() == 72);
    assert!(size_of::<UniformArguments>() == 40 && size_of::<IotaArguments>() == 16);
    assert!(size_of::<ReadArguments>() == 24);
};

/// What a kernel does with the memory at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads only.
    Read,
    /// Writes, and may read what it writes.
    Write,
}

/// Arguments that hold addresses.
pub trait Addresses {
    /// Calls `visit` with every address, 0 where a value is absent.
    fn addresses(&mut self, visit: &mut dyn FnMut(&mut u64, Access));
}

macro_rules! addresses {
    ($($type:ty { reads: $($($read:ident).+),* ; writes: $($($write:ident).+),* })*) => { $(
        impl Addresses for $type {
            fn addresses(&mut self, visit: &mut dyn FnMut(&mut u64, Access)) {
                $( visit(&mut self.$($read).+, Access::Read); )*
                $( visit(&mut self.$($write).+, Access::Write); )*
            }
        }
    )* };
}

addresses! {
    LinearArguments { reads: x.base, residual.base, norm, weight, bias; writes: out.base }
    CodesArguments {
        reads: linear.x.base, linear.residual.base, linear.norm, linear.weight, linear.bias, scales;
        writes: linear.out.base
    }
    DequantizeArguments { reads: codes, scales; writes: out }
    NormArguments { reads: x.base, residual.base, weight; writes: sum.base, out.base }
    SwigluArguments { reads: gate.base, up.base; writes: out.base }
    EmbedArguments { reads: ids, table; writes: out.base }
    AttendArguments {
        reads: q.base, k.base, v.base, cache_k.base, cache_v.base, lengths, visible, table;
        writes: store_k.base, store_v.base, out.base
    }
    SampleArguments { reads: logits, uniforms, temperature, top_k, top_p, min_p; writes: ids }
    ElementArguments { reads: a, b, c; writes: out }
    GatherArguments { reads: x, index; writes: out }
    UniformArguments { reads: seed, sample, first; writes: out }
    IotaArguments { reads: ; writes: out }
    ReadArguments { reads: data; writes: out }
    RopeArguments { reads: x.base, positions; writes: out.base }
    GeneralArguments {
        reads: q.base, k.base, v.base, cache_k.base, cache_v.base, lengths, sinks;
        writes: out.base
    }
    AppendArguments { reads: x.base, lengths; writes: cache.base }
    RouteArguments { reads: logits.base, bias; writes: out.base }
    ExpertsArguments { reads: x.base, gates.base, weight; writes: out.base }
    super::device::MatMul { reads: x, weight, bias, residual; writes: out }
}

/// Arguments whose bytes a kernel reads: `repr(C)`, of numbers only, without padding.
///
/// # Safety
/// Every byte of a value is initialised.
pub unsafe trait Plain: Copy {
    /// The bytes, as the device reads them.
    fn bytes(&self) -> Vec<u8> {
        let start = std::ptr::from_ref(self).cast::<u8>();
        // SAFETY: the value lives for the call, spans `size_of::<Self>()` bytes, and by the trait's contract none of
        // them is padding.
        unsafe { std::slice::from_raw_parts(start, size_of::<Self>()) }.to_vec()
    }
}

macro_rules! plain {
    ($($type:ty),* $(,)?) => { $(
        // SAFETY: `repr(C)` fields of integers, floats and such structs; the sizes asserted above leave no room for
        // padding.
        unsafe impl Plain for $type {}
    )* };
}

plain! {
    LinearArguments,
    CodesArguments,
    DequantizeArguments,
    NormArguments,
    SwigluArguments,
    EmbedArguments,
    AttendArguments,
    SampleArguments,
    ElementArguments,
    GatherArguments,
    UniformArguments,
    IotaArguments,
    ReadArguments,
    RopeArguments,
    GeneralArguments,
    AppendArguments,
    RouteArguments,
    ExpertsArguments,
}
