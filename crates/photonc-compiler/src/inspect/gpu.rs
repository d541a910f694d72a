//! Roofline of GPUs. Owns the table; refuses clocks, caches and launch times: a roofline has two lines.

use photonc_graph::ir::dtype::Dtype;
use serde::Serialize;

/// What one GPU can do at best.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Gpu {
    /// Name in options.
    pub name: &'static str,
    /// Name for people.
    pub title: &'static str,
    /// Device memory in bytes.
    pub memory_bytes: f64,
    /// Bytes read a second.
    pub read_bytes_per_s: f64,
    /// Dense bf16 matrix products accumulated in f32, operations a second; `None` where the type is missing.
    pub bf16_flops: Option<f64>,
    /// Dense f16 matrix products accumulated in f32, operations a second.
    pub f16_flops: f64,
    /// f32 outside the tensor cores, operations a second.
    pub f32_flops: f64,
    /// Where the figures come from.
    pub source: &'static str,
}

const SHEET: &str = "vendor's data sheet, dense";
const SPARSE_SHEET: &str = "vendor's data sheet; products half of the figure that it gives with sparsity";
const GEFORCE: &str = "published memory and f32 rates; products twice the f32 rate, which is what GeForce does when it accumulates in f32";

/// The table, newest first within a class.
pub const GPUS: [Gpu; 9] = [
    Gpu {
        bf16_flops: Some(800e12),
        f16_flops: 800e12,
        source: "read and bf16 products measured; f16 taken as bf16, f32 and memory from the data sheet",
        ..gpu("h100", "H100 SXM 80 GB", 80e9, 3.11e12, 989e12, 66.9e12)
    },
    gpu("h200", "H200 SXM 141 GB", 141e9, 4.8e12, 989e12, 66.9e12),
    gpu("a100", "A100 SXM 80 GB", 80e9, 2.039e12, 312e12, 19.5e12),
    gpu("l40s", "L40S 48 GB", 48e9, 0.864e12, 362e12, 91.6e12),
    Gpu { source: SPARSE_SHEET, ..gpu("l4", "L4 24 GB", 24e9, 0.3e12, 121e12, 30.3e12) },
    geforce("rtx5090", "GeForce RTX 5090 32 GB", 32e9, 1.792e12, 104.8e12),
    geforce("rtx4090", "GeForce RTX 4090 24 GB", 24e9, 1.008e12, 82.6e12),
    geforce("rtx3090", "GeForce RTX 3090 24 GB", 24e9, 0.936e12, 35.6e12),
    Gpu { bf16_flops: None, ..gpu("t4", "T4 16 GB", 16e9, 0.32e12, 65e12, 8.1e12) },
];

const fn geforce(
    name: &'static str,
    title: &'static str,
    memory_bytes: f64,
    read_bytes_per_s: f64,
    f32_flops: f64,
) -> Gpu {
    Gpu { source: GEFORCE, ..gpu(name, title, memory_bytes, read_bytes_per_s, 2.0 * f32_flops, f32_flops) }
}

const fn gpu(
    name: &'static str,
    title: &'static str,
    memory_bytes: f64,
    read_bytes_per_s: f64,
    half_flops: f64,
    f32_flops: f64,
) -> Gpu {
    Gpu {
        name,
        title,
        memory_bytes,
        read_bytes_per_s,
        bf16_flops: Some(half_flops),
        f16_flops: half_flops,
        f32_flops,
        source: SHEET,
    }
}

impl Gpu {
    /// The GPU of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Gpu> {
        GPUS.into_iter().find(|gpu| gpu.name == name)
    }

    /// Matrix products at an element type, operations a second; f32 where the GPU lacks the type.
    #[must_use]
    pub fn matmul_flops(&self, dtype: Dtype) -> f64 {
        match dtype {
            Dtype::Bf16 => self.bf16_flops.unwrap_or(self.f32_flops),
            Dtype::F16 => self.f16_flops,
            Dtype::F32 | Dtype::I64 | Dtype::Bool => self.f32_flops,
        }
    }
}
