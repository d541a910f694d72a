//! Whom an export is for. Owns the names of targets and who reads them; what each takes is the table in `rules`.

use std::fmt;

/// A family of runtimes that reads the same files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// Every ONNX runtime: ONNX Runtime on CPU and CUDA, tract, TensorRT.
    Portable,
    /// TensorRT-RTX: one ONNX model, engines per compute capability.
    TensorrtRtx,
    /// TensorRT.
    Tensorrt,
    /// Kernels of our own on the processor, which read the graph text: no ONNX models are written.
    Cpu,
    /// The same on GPUs.
    Cuda,
}

impl Target {
    /// Every target, in declaration order.
    pub const ALL: [Target; 5] =
        [Target::Portable, Target::TensorrtRtx, Target::Tensorrt, Target::Cpu, Target::Cuda];

    /// Name in options, manifests and file names.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Target::Portable => "portable",
            Target::TensorrtRtx => "tensorrt-rtx",
            Target::Tensorrt => "tensorrt",
            Target::Cpu => "cpu",
            Target::Cuda => "cuda",
        }
    }

    /// The target of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|target| target.name() == name)
    }

    /// Who reads it, for people.
    #[must_use]
    pub fn readers(self) -> &'static str {
        match self {
            Target::Portable => "ONNX Runtime (CPU, CUDA), tract, and what reads their common subset",
            Target::TensorrtRtx => "TensorRT-RTX",
            Target::Tensorrt => "TensorRT",
            Target::Cpu => "kernels of our own on the processor, from the graph text",
            Target::Cuda => "CUDA kernels of our own, from the graph text",
        }
    }

    /// Whether TensorRT reads its files, in either form.
    #[must_use]
    pub fn is_tensorrt(self) -> bool {
        matches!(self, Target::TensorrtRtx | Target::Tensorrt)
    }

    /// Whether its files are ONNX models.
    #[must_use]
    pub fn reads_onnx(self) -> bool {
        !matches!(self, Target::Cpu | Target::Cuda)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
