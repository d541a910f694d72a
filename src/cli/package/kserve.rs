//! A package for KServe: an inference service whose container is `photonc serve`.

use super::{Facts, PackageFile};

pub fn files(facts: &Facts) -> Vec<PackageFile> {
    vec![("inferenceservice.yaml", facts.filled(include_str!("kserve.yaml")))]
}
