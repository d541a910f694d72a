//! Whether an engine can be used here. Owns the comparison of what was recorded with what there is, field by field, and
//! which differences building it again would mend.

use super::record::{EngineRecord, EngineSource};
use super::target::{Sm, Vendor, Version};
use std::fmt;

/// A GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// Its name.
    pub name: String,
    /// Its compute capability.
    pub sm: Sm,
}

/// What there is: the library, the GPU, and the model that engines should have been built from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Here {
    /// The library.
    pub vendor: Vendor,
    /// Its version.
    pub version: Version,
    /// The GPU; `None` on a machine without one.
    pub gpu: Option<Gpu>,
}

/// A difference between an engine and what there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// Another library built it.
    Vendor {
        /// That library.
        built: Vendor,
        /// The one here.
        here: Vendor,
    },
    /// Another version of the library built it.
    Version {
        /// The library.
        vendor: Vendor,
        /// That version.
        built: Version,
        /// The one here.
        here: Version,
    },
    /// It was built for other GPUs, and the library serves this one.
    Gpu {
        /// Those GPUs.
        built: Vec<Sm>,
        /// The one here.
        here: Gpu,
    },
    /// The library does not serve this GPU at all.
    UnsupportedGpu {
        /// The library.
        vendor: Vendor,
        /// Version that built it.
        version: Version,
        /// GPUs it was built for.
        built: Vec<Sm>,
        /// The one here.
        here: Gpu,
    },
    /// There is no GPU.
    NoGpu {
        /// GPUs it was built for.
        built: Vec<Sm>,
    },
    /// It was built from another ONNX model: another graph, or other passes.
    Graph {
        /// Name of the graph.
        graph: String,
    },
    /// It was built from other weights.
    Weights {
        /// Name of the graph.
        graph: String,
    },
}

impl Mismatch {
    /// Whether building the engine again here would mend it.
    #[must_use]
    pub fn mended_by_building(&self) -> bool {
        match self {
            Mismatch::Vendor { .. }
            | Mismatch::Version { .. }
            | Mismatch::Gpu { .. }
            | Mismatch::Graph { .. }
            | Mismatch::Weights { .. } => true,
            Mismatch::UnsupportedGpu { .. } | Mismatch::NoGpu { .. } => false,
        }
    }
}

fn list(sms: &[Sm]) -> String {
    let names: Vec<String> = sms.iter().map(Sm::to_string).collect();
    names.join(" and ")
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mismatch::Vendor { built, here } => write!(f, "built by {built}, the library here is {here}"),
            Mismatch::Version { vendor, built, here } => {
                write!(
                    f,
                    "built by {vendor} {built}, the library here is {here}, which reads only its own engines"
                )
            }
            Mismatch::Gpu { built, here } => {
                write!(f, "built for {}; this GPU ({}) is {}", list(built), here.name, here.sm)
            }
            Mismatch::UnsupportedGpu { vendor, version, built, here } => write!(
                f,
                "built by {vendor} {version} for {}; this GPU ({}) is {}, which {vendor} does not support: use the cuda \
                 backend",
                list(built),
                here.name,
                here.sm
            ),
            Mismatch::NoGpu { built } => {
                write!(
                    f,
                    "built for {}; this machine has no GPU, and engines run on nothing else",
                    list(built)
                )
            }
            Mismatch::Graph { graph } => {
                write!(
                    f,
                    "built from another model than the bundle's `{graph}`: its ONNX file has another hash"
                )
            }
            Mismatch::Weights { graph } => {
                write!(f, "built from other weights than the bundle's `{graph}` has now")
            }
        }
    }
}

/// Every difference between the engine of `graph` and what there is; none where it can be used. `source` is what the bundle
/// has of the graph now.
#[must_use]
pub fn mismatches(
    record: &EngineRecord,
    graph: &str,
    built_from: &EngineSource,
    source: &EngineSource,
    here: &Here,
) -> Vec<Mismatch> {
    let mut found = Vec::new();
    if record.vendor != here.vendor {
        found.push(Mismatch::Vendor { built: record.vendor, here: here.vendor });
    } else if record.version != here.version {
        let (vendor, built, here) = (record.vendor, record.version, here.version);
        found.push(Mismatch::Version { vendor, built, here });
    }
    let built = record.sms.clone();
    match &here.gpu {
        None => found.push(Mismatch::NoGpu { built }),
        Some(gpu) if !here.vendor.serves(gpu.sm) => found.push(Mismatch::UnsupportedGpu {
            vendor: record.vendor,
            version: record.version,
            built,
            here: gpu.clone(),
        }),
        Some(gpu) if !built.contains(&gpu.sm) => found.push(Mismatch::Gpu { built, here: gpu.clone() }),
        Some(_) => {}
    }
    if built_from.onnx != source.onnx {
        found.push(Mismatch::Graph { graph: graph.to_owned() });
    } else if built_from.weights != source.weights {
        found.push(Mismatch::Weights { graph: graph.to_owned() });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{Gpu, Here, Mismatch, mismatches};
    use crate::record::{EngineRecord, EngineSource};
    use crate::target::{Sm, Vendor, Version};
    use photonc_bundle::bundle::Blake3;
    use std::collections::BTreeMap;

    const VERSION: Version = Version { major: 1, minor: 7, patch: 1 };

    fn record() -> EngineRecord {
        EngineRecord {
            format: 1,
            photonc: "0".to_owned(),
            vendor: Vendor::TensorrtRtx,
            version: VERSION,
            sms: vec![Sm(89), Sm(120)],
            precision: "f32".to_owned(),
            graphs: BTreeMap::new(),
            seal: None,
        }
    }

    fn source(onnx: &str, weights: &str) -> EngineSource {
        EngineSource { onnx: Blake3::of(onnx.as_bytes()), weights: Blake3::of(weights.as_bytes()) }
    }

    fn here(sm: Option<u16>) -> Here {
        let gpu = sm.map(|sm| Gpu { name: "NVIDIA H100".to_owned(), sm: Sm(sm) });
        Here { vendor: Vendor::TensorrtRtx, version: VERSION, gpu }
    }

    fn texts(here: &Here, built_from: &EngineSource, now: &EngineSource) -> Vec<String> {
        let found = mismatches(&record(), "coarse", built_from, now, here);
        found.iter().map(Mismatch::to_string).collect()
    }

    #[test]
    fn an_engine_for_this_gpu_fits() {
        let same = source("a", "w");
        assert_eq!(texts(&here(Some(89)), &same, &same), Vec::<String>::new());
    }

    #[test]
    fn an_h100_is_told_that_no_engine_will_run_on_it() {
        let same = source("a", "w");
        assert_eq!(
            texts(&here(Some(90)), &same, &same),
            [
                "built by TensorRT-RTX 1.7.1 for sm_89 and sm_120; this GPU (NVIDIA H100) is sm_90, which TensorRT-RTX \
                 does not support: use the cuda backend"
            ]
        );
    }

    #[test]
    fn every_field_that_differs_is_named() {
        let other = Here { version: Version { minor: 6, ..VERSION }, ..here(Some(86)) };
        let found = mismatches(&record(), "coarse", &source("a", "w"), &source("b", "w"), &other);
        let texts: Vec<String> = found.iter().map(Mismatch::to_string).collect();
        assert_eq!(
            texts,
            [
                "built by TensorRT-RTX 1.7.1, the library here is 1.6.1, which reads only its own engines",
                "built for sm_89 and sm_120; this GPU (NVIDIA H100) is sm_86",
                "built from another model than the bundle's `coarse`: its ONNX file has another hash"
            ]
        );
        assert!(found.iter().all(Mismatch::mended_by_building));
    }

    // Building again cannot help where the library has no kernels for the GPU, or where there is none.
    #[test]
    fn building_does_not_mend_a_missing_gpu() {
        let same = source("a", "w");
        for sm in [None, Some(90)] {
            let found = mismatches(&record(), "coarse", &same, &same, &here(sm));
            assert!(found.iter().all(|mismatch| !mismatch.mended_by_building()), "{found:?}");
        }
    }

    #[test]
    fn new_weights_in_an_old_engine_are_noticed() {
        let texts = texts(&here(Some(120)), &source("a", "w"), &source("a", "v"));
        assert_eq!(texts, ["built from other weights than the bundle's `coarse` has now"]);
    }
}
