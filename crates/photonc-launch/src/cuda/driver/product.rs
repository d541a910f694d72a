//! Matrix products by cuBLASLt. Owns descriptors, the choice of an algorithm for each shape, and one workspace a stream, so
//! that a product allocates nothing.
//!
//! cuBLASLt counts columns first: row-major `out [m, n] = x [m, k] weight[n, k]^T` is there `out' [n, m] = weight'^T x'` with
//! `weight' [k, n]` and `x' [k, m]`.

use super::context::{Context, call};
use super::memory;
use crate::cuda::libraries::{self, Cuda};
use crate::launch::device::{Allocation, DeviceError, MatMul, ProductKind, STREAMS};
use cudarc::cublaslt::sys;
use cudarc::driver::sys::CUstream;
use photonc_graph::ir::dtype::Dtype;
use std::collections::HashMap;
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::path::PathBuf;
use std::sync::Arc;

/// Room for partial sums, as NVIDIA advises for Hopper.
const WORKSPACE_BYTES: usize = 32 << 20;

/// `CUBLAS_OP_T` and `CUBLAS_OP_N` of cublas_api.h.
const TRANSPOSED: i32 = 1;
const AS_IT_IS: i32 = 0;

/// Descriptors and algorithm of a shape.
struct Chosen {
    product: sys::cublasLtMatmulDesc_t,
    weight: sys::cublasLtMatrixLayout_t,
    x: sys::cublasLtMatrixLayout_t,
    residual: sys::cublasLtMatrixLayout_t,
    out: sys::cublasLtMatrixLayout_t,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

/// cuBLASLt on one GPU.
pub(super) struct Products {
    handle: sys::cublasLtHandle_t,
    chosen: HashMap<ProductKind, Chosen>,
    workspaces: Vec<Allocation>,
    context: Arc<Context>,
}

impl Products {
    pub fn new(context: &Arc<Context>, named: &[PathBuf]) -> Result<Self, DeviceError> {
        // cudarc finds the library by its name, which one that is loaded already answers to.
        libraries::load(Cuda::CublasLt, named, |_| {
            // SAFETY: loads the library by its name.
            if unsafe { sys::is_culib_present() } {
                Ok(())
            } else {
                Err("it does not answer to its name".to_owned())
            }
        })?;
        context.make_current()?;
        let workspaces =
            (0..STREAMS).map(|_| memory::allocate(context, WORKSPACE_BYTES)).collect::<Result<_, _>>()?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: a place to write to; destroyed when dropped.
        check("cublasLtCreate", unsafe { sys::cublasLtCreate(&raw mut handle) })?;
        Ok(Products { handle, chosen: HashMap::new(), workspaces, context: Arc::clone(context) })
    }

    /// Starts a product.
    pub fn run(&mut self, stream: usize, raw: CUstream, p: &MatMul) -> Result<(), DeviceError> {
        p.check()?;
        if p.m == 0 || p.n == 0 {
            return Ok(());
        }
        let key = p.kind();
        if !self.chosen.contains_key(&key) {
            let chosen = Chosen::new(self.handle, &key)?;
            self.chosen.insert(key, chosen);
        }
        let Some(chosen) = self.chosen.get(&key) else { return Ok(()) };
        if p.bias != 0 {
            let pointer = sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER;
            set_product(chosen.product, pointer, &p.bias)?;
        }
        let (alpha, beta) = (1.0f32, if p.residual == 0 { 0.0f32 } else { 1.0 });
        let residual = if p.residual == 0 { p.out } else { p.residual };
        // SAFETY: descriptors of these very shapes; the caller promises addresses of this device with room that outlive
        // the work; the workspace is this stream's own.
        let started = unsafe {
            sys::cublasLtMatmul(
                self.handle,
                chosen.product,
                (&raw const alpha).cast(),
                pointer(p.weight),
                chosen.weight,
                pointer(p.x),
                chosen.x,
                (&raw const beta).cast(),
                pointer(residual),
                chosen.residual,
                pointer(p.out),
                chosen.out,
                &raw const chosen.algorithm,
                pointer(self.workspaces[stream].address),
                WORKSPACE_BYTES,
                raw.cast(),
            )
        };
        check("cublasLtMatmul", started)
    }
}

impl Drop for Products {
    fn drop(&mut self) {
        if self.context.make_current().is_ok() {
            // SAFETY: created by `new`, destroyed once.
            let _destroyed = unsafe { sys::cublasLtDestroy(self.handle) };
        }
    }
}

impl Drop for Chosen {
    fn drop(&mut self) {
        // SAFETY: created by `new`, destroyed once; those that were not created are null.
        unsafe {
            if !self.product.is_null() {
                let _destroyed = sys::cublasLtMatmulDescDestroy(self.product);
            }
            for layout in [self.weight, self.x, self.residual, self.out] {
                if !layout.is_null() {
                    let _destroyed = sys::cublasLtMatrixLayoutDestroy(layout);
                }
            }
        }
    }
}

impl Chosen {
    fn new(handle: sys::cublasLtHandle_t, key: &ProductKind) -> Result<Self, DeviceError> {
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        let [m, n, k] = key.sizes;
        let (narrow, wide) = (data_type(key.dtype)?, data_type(key.out_dtype)?);
        let none = std::ptr::null_mut();
        let mut chosen = Chosen {
            product: none,
            weight: none.cast(),
            x: none.cast(),
            residual: none.cast(),
            out: none.cast(),
            // SAFETY: a plain struct of integers.
            algorithm: unsafe { MaybeUninit::zeroed().assume_init() },
        };
        // True f32: without the fast types, f32 is never rounded to TF32.
        let compute = sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        // SAFETY: a place to write to.
        check("cublasLtMatmulDescCreate", unsafe {
            sys::cublasLtMatmulDescCreate(&raw mut chosen.product, compute, sys::cudaDataType_t::CUDA_R_32F)
        })?;
        let product = chosen.product;
        set_product(product, Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &TRANSPOSED)?;
        set_product(product, Attribute::CUBLASLT_MATMUL_DESC_TRANSB, &AS_IT_IS)?;
        if key.bias {
            let epilogue = sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS as i32;
            set_product(product, Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
            set_product(product, Attribute::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &(narrow as i32))?;
        }
        chosen.weight = layout(narrow, k, n, k)?;
        chosen.x = layout(narrow, k, m, key.strides[0])?;
        chosen.residual = layout(wide, n, m, key.strides[1])?;
        chosen.out = layout(wide, n, m, key.strides[2])?;
        chosen.algorithm = chosen.best(handle, key)?;
        Ok(chosen)
    }

    /// cuBLASLt's first choice for the shape within the workspace.
    fn best(
        &self,
        handle: sys::cublasLtHandle_t,
        key: &ProductKind,
    ) -> Result<sys::cublasLtMatmulAlgo_t, DeviceError> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
        let preference = Preference::new()?;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &WORKSPACE_BYTES)?;
        let alignments = [
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
        ];
        for (attribute, bytes) in alignments.into_iter().zip(key.alignments) {
            preference.set(attribute, &bytes)?;
        }
        // SAFETY: a plain struct of numbers that the call fills in.
        let mut result: sys::cublasLtMatmulHeuristicResult_t = unsafe { MaybeUninit::zeroed().assume_init() };
        let mut count = 0;
        // SAFETY: descriptors made above, room for one result.
        let asked = unsafe {
            sys::cublasLtMatmulAlgoGetHeuristic(
                handle,
                self.product,
                self.weight,
                self.x,
                self.residual,
                self.out,
                preference.0,
                1,
                &raw mut result,
                &raw mut count,
            )
        };
        let [m, n, k] = key.sizes;
        let shape = || format!("[{m}, {k}] x [{n}, {k}]^T, {} to {}", key.dtype, key.out_dtype);
        check("cublasLtMatmulAlgoGetHeuristic", asked)
            .map_err(|error| call("matmul", &format!("{}: {error}", shape())))?;
        if count == 0 || result.state != sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS {
            return Err(call("matmul", &format!("cuBLASLt has no algorithm for {}", shape())));
        }
        Ok(result.algo)
    }
}

/// Wishes for an algorithm, destroyed when dropped.
struct Preference(sys::cublasLtMatmulPreference_t);

impl Preference {
    fn new() -> Result<Self, DeviceError> {
        let mut preference = std::ptr::null_mut();
        // SAFETY: a place to write to.
        check("cublasLtMatmulPreferenceCreate", unsafe {
            sys::cublasLtMatmulPreferenceCreate(&raw mut preference)
        })?;
        Ok(Preference(preference))
    }

    fn set<T>(
        &self,
        attribute: sys::cublasLtMatmulPreferenceAttributes_t,
        value: &T,
    ) -> Result<(), DeviceError> {
        let value: *const T = value;
        // SAFETY: cuBLASLt reads the value's bytes and checks their number.
        check("cublasLtMatmulPreferenceSetAttribute", unsafe {
            sys::cublasLtMatmulPreferenceSetAttribute(self.0, attribute, value.cast(), size_of::<T>())
        })
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: created by `new`, destroyed once.
        let _destroyed = unsafe { sys::cublasLtMatmulPreferenceDestroy(self.0) };
    }
}

fn set_product<T>(
    product: sys::cublasLtMatmulDesc_t,
    attribute: sys::cublasLtMatmulDescAttributes_t,
    value: &T,
) -> Result<(), DeviceError> {
    let value: *const T = value;
    // SAFETY: cuBLASLt reads the value's bytes and checks their number.
    check("cublasLtMatmulDescSetAttribute", unsafe {
        sys::cublasLtMatmulDescSetAttribute(product, attribute, value.cast(), size_of::<T>())
    })
}

/// A matrix counted columns first.
fn layout(
    data: sys::cudaDataType_t,
    rows: usize,
    columns: usize,
    stride: usize,
) -> Result<sys::cublasLtMatrixLayout_t, DeviceError> {
    let mut layout = std::ptr::null_mut();
    let stride = i64::try_from(stride).map_err(|_| call("matmul", "a stride beyond 63 bits"))?;
    // SAFETY: a place to write to.
    check("cublasLtMatrixLayoutCreate", unsafe {
        sys::cublasLtMatrixLayoutCreate(&raw mut layout, data, rows as u64, columns as u64, stride)
    })?;
    Ok(layout)
}

fn data_type(dtype: Dtype) -> Result<sys::cudaDataType_t, DeviceError> {
    match dtype {
        Dtype::F32 => Ok(sys::cudaDataType_t::CUDA_R_32F),
        Dtype::F16 => Ok(sys::cudaDataType_t::CUDA_R_16F),
        Dtype::Bf16 => Ok(sys::cudaDataType_t::CUDA_R_16BF),
        Dtype::I64 | Dtype::Bool => Err(call("matmul", &format!("no products of {dtype}"))),
    }
}

fn pointer(address: u64) -> *mut c_void {
    std::ptr::without_provenance_mut(address as usize)
}

fn check(what: &'static str, status: sys::cublasStatus_t) -> Result<(), DeviceError> {
    if status == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS {
        return Ok(());
    }
    Err(call(what, &format!("{status:?}")))
}
