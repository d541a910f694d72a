//! What engines are built for: a vendor's library and compute capabilities. Owns their names and which GPUs each library
//! serves.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A library that builds and runs engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vendor {
    /// TensorRT-RTX: builds for any of its GPUs on any machine.
    TensorrtRtx,
    /// Classic TensorRT: builds on the GPU that runs the engine.
    Tensorrt,
}

impl Vendor {
    /// Every vendor.
    pub const ALL: [Vendor; 2] = [Vendor::TensorrtRtx, Vendor::Tensorrt];

    /// Name in options, files and folders.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Vendor::TensorrtRtx => "tensorrt-rtx",
            Vendor::Tensorrt => "tensorrt",
        }
    }

    /// Name in sentences.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Vendor::TensorrtRtx => "TensorRT-RTX",
            Vendor::Tensorrt => "TensorRT",
        }
    }

    /// The compute capabilities that the library can be told to build for; empty where it builds for the GPU at hand only.
    #[must_use]
    pub fn capabilities(self) -> &'static [u16] {
        match self {
            // `ComputeCapability` of NvInfer.h 1.7; neither Hopper (90) nor the Blackwell of data centres (100) is one.
            Vendor::TensorrtRtx => &[75, 80, 86, 89, 120, 121],
            Vendor::Tensorrt => &[],
        }
    }

    /// Whether the library runs engines on such a GPU.
    #[must_use]
    pub fn serves(self, sm: Sm) -> bool {
        self.capabilities().is_empty() || self.capabilities().contains(&sm.0)
    }
}

impl fmt::Display for Vendor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.title())
    }
}

/// A compute capability as one number: 89 is 8.9, 120 is 12.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sm(pub u16);

impl fmt::Display for Sm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sm_{}", self.0)
    }
}

/// Version of a vendor's library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Version {
    /// Changes of this make engines and programs incompatible.
    pub major: u32,
    /// Changes of this too, for TensorRT-RTX.
    pub minor: u32,
    /// Corrections.
    pub patch: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

impl TryFrom<String> for Version {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let numbers: Option<Vec<u32>> = text.split('.').map(|part| part.parse().ok()).collect();
        match numbers.as_deref() {
            Some([major, minor, patch]) => Ok(Version { major: *major, minor: *minor, patch: *patch }),
            _ => Err(format!("`{text}` is not a version such as 1.7.1")),
        }
    }
}

/// Which GPUs engines are built for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capabilities {
    /// That of the GPU at hand.
    Current,
    /// These, in ascending order, each once.
    Listed(Vec<Sm>),
}

/// A library and the GPUs to build for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineTarget {
    /// The library.
    pub vendor: Vendor,
    /// The GPUs.
    pub capabilities: Capabilities,
}

/// Why a text names no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not of the form `vendor:capabilities`.
    #[error("`{0}` is no engine target; expected `tensorrt-rtx:89,120` or `tensorrt:current`")]
    Form(String),
    /// A compute capability that the library does not serve.
    #[error(
        "{sm} is a GPU that {vendor} does not support; it builds for {known} (use the cuda backend on this one)"
    )]
    Unsupported {
        /// What was asked for.
        sm: Sm,
        /// The library.
        vendor: Vendor,
        /// What it can be asked for.
        known: String,
    },
    /// The library builds for the GPU at hand only.
    #[error("{0} builds engines on the GPU that runs them; expected `{name}:current`", name = .0.name())]
    OnlyCurrent(Vendor),
}

impl EngineTarget {
    /// Reads `tensorrt-rtx:89,120`, `tensorrt-rtx:current` or `tensorrt:current`.
    ///
    /// # Errors
    /// Another form, or GPUs that the library does not serve.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        let form = || TargetError::Form(text.to_owned());
        let (name, list) = text.split_once(':').ok_or_else(form)?;
        let vendor = Vendor::ALL.into_iter().find(|vendor| vendor.name() == name).ok_or_else(form)?;
        if list == "current" {
            return Ok(EngineTarget { vendor, capabilities: Capabilities::Current });
        }
        let mut listed = Vec::new();
        for part in list.split([',', ':']) {
            let number = part.strip_prefix("sm_").or(part.strip_prefix("sm")).unwrap_or(part);
            listed.push(Sm(number.parse().map_err(|_| form())?));
        }
        if vendor.capabilities().is_empty() {
            return Err(TargetError::OnlyCurrent(vendor));
        }
        if let Some(sm) = listed.iter().copied().find(|sm| !vendor.serves(*sm)) {
            let known: Vec<String> = vendor.capabilities().iter().map(u16::to_string).collect();
            return Err(TargetError::Unsupported { sm, vendor, known: known.join(", ") });
        }
        listed.sort_unstable();
        listed.dedup();
        Ok(EngineTarget { vendor, capabilities: Capabilities::Listed(listed) })
    }
}

#[cfg(test)]
mod tests {
    use super::{Capabilities, EngineTarget, Sm, TargetError, Vendor, Version};

    #[test]
    fn targets_are_read_in_order_and_once() {
        let target = EngineTarget::parse("tensorrt-rtx:120,89,sm_89").expect("a target");
        assert_eq!(target.vendor, Vendor::TensorrtRtx);
        assert_eq!(target.capabilities, Capabilities::Listed(vec![Sm(89), Sm(120)]));
        let current = EngineTarget::parse("tensorrt:current").expect("a target");
        assert_eq!(current.capabilities, Capabilities::Current);
    }

    // An H100 is the GPU people have: the sentence must say that no engine will run there, before anything is built.
    #[test]
    fn an_unsupported_gpu_is_refused_with_the_way_out() {
        let error = EngineTarget::parse("tensorrt-rtx:89,90").expect_err("is refused");
        let text = error.to_string();
        assert!(text.contains("sm_90") && text.contains("cuda backend"), "{text}");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "tensorrt-rtx", "tensorrt-rtx:", "tensorrt-rtx:8.9", "onnx:89", "tensorrt-rtx:89,"] {
            assert!(matches!(EngineTarget::parse(text), Err(TargetError::Form(_))), "{text}");
        }
        assert_eq!(EngineTarget::parse("tensorrt:89"), Err(TargetError::OnlyCurrent(Vendor::Tensorrt)));
    }

    #[test]
    fn versions_round_trip() {
        let version = Version::try_from("1.7.1".to_owned()).expect("a version");
        assert_eq!(version.to_string(), "1.7.1");
        assert!(Version::try_from("1.7".to_owned()).is_err());
    }
}
