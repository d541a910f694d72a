//! What the GPU's copying unit is told of a matrix.

use super::context::check;
use crate::runtime::cuda::device::{DeviceError, MAP_BYTES, Matrix};
use cudarc::driver::sys;

/// Rows and columns of a tile: `copy_tile` of `device.cuh`.
const TILE: [u32; 2] = [16, 64];

/// `Device::tile_map`.
pub(super) fn map(matrix: Matrix) -> Result<[u8; MAP_BYTES], DeviceError> {
    // The innermost axis comes first.
    let sizes = [matrix.columns as u64, matrix.rows as u64];
    let row_bytes = [2 * matrix.columns as u64];
    let (tile, every) = ([TILE[1], TILE[0]], [1, 1]);
    let mut map = sys::CUtensorMap { opaque: [0; 16] };
    // SAFETY: every array has as many entries as the two axes need; the address is not followed here.
    let encoded = unsafe {
        sys::cuTensorMapEncodeTiled(
            &raw mut map,
            sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_UINT16,
            2,
            matrix.address as *mut std::ffi::c_void,
            sizes.as_ptr(),
            row_bytes.as_ptr(),
            tile.as_ptr(),
            every.as_ptr(),
            sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
            sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
            sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    };
    check("cuTensorMapEncodeTiled", encoded)?;
    let mut bytes = [0; MAP_BYTES];
    for (to, word) in bytes.chunks_exact_mut(8).zip(map.opaque) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    Ok(bytes)
}
