//! `photonc doctor`: which backends this machine can use, and what the others lack.

use super::backends::BackendName;
use super::{Failure, Reporter};
use serde::Serialize;
use std::fmt::Write as _;

/// Show which backends can run here, and what is missing for the others
#[derive(Debug, clap::Args)]
pub struct Args {}

#[derive(Debug, Serialize)]
struct Report {
    photonc: &'static str,
    system: String,
    threads: usize,
    backends: Vec<BackendStatus>,
}

/// What was found of one backend.
#[derive(Debug, Serialize)]
struct BackendStatus {
    name: &'static str,
    found: bool,
    version: Option<String>,
    place: Option<String>,
    missing: Option<Vec<String>>,
    about: &'static str,
}

pub fn run(_args: &Args, reporter: &Reporter) -> Result<(), Failure> {
    let report = Report {
        photonc: env!("CARGO_PKG_VERSION"),
        system: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
        threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        backends: backends(),
    };
    if reporter.json() {
        return reporter.document(&report);
    }
    let mut text = format!("photonc {} on {}, {} threads\n", report.photonc, report.system, report.threads);
    for backend in &report.backends {
        let state = match (&backend.missing, &backend.version, &backend.place) {
            // The rest of it, every place that was searched, is in the JSON.
            (Some(missing), _, _) => {
                let brief: Vec<&str> =
                    missing.iter().map(|reason| reason.lines().next().unwrap_or_default()).collect();
                format!("missing: {}", brief.join("\n             missing: "))
            }
            (None, version, place) => {
                format!("{} {}", version.as_deref().unwrap_or("found"), place.as_deref().unwrap_or(""))
            }
        };
        let _infallible = writeln!(text, "  {:<10} {:<18} {}", backend.name, state.trim_end(), backend.about);
    }
    reporter.text(&text)
}

fn backends() -> Vec<BackendStatus> {
    let status = |backend: BackendName| match backend {
        BackendName::Tract | BackendName::Reference => BackendStatus {
            name: backend.name(),
            found: true,
            version: Some(backend.version().to_owned()),
            place: Some("built in".to_owned()),
            missing: None,
            about: backend.about(),
        },
        BackendName::Cuda => cuda(),
    };
    BackendName::ALL.into_iter().map(status).chain([tensorrt()]).collect()
}

/// Builds engines; nothing here runs them.
const ENGINES: &str = "builds engines for GPUs that need not be here";

#[cfg(feature = "tensorrt-rtx")]
fn tensorrt() -> BackendStatus {
    use crate::engine::tensorrt::{VENDOR, find};
    let found = find(None);
    let place = found.as_ref().ok().map(|found| found.library.display().to_string());
    BackendStatus {
        name: VENDOR.name(),
        found: found.is_ok(),
        version: found.as_ref().ok().map(|found| found.version.to_string()),
        place,
        missing: found.err().map(|error| vec![error.to_string()]),
        about: ENGINES,
    }
}

#[cfg(not(feature = "tensorrt-rtx"))]
fn tensorrt() -> BackendStatus {
    let reason =
        "this photonc was built without it; install with `cargo install --path . --features tensorrt-rtx`";
    BackendStatus {
        name: crate::engine::Vendor::TensorrtRtx.name(),
        found: false,
        version: None,
        place: None,
        missing: Some(vec![format!("the feature `tensorrt-rtx`: {reason}")]),
        about: ENGINES,
    }
}

#[cfg(feature = "cuda")]
fn cuda() -> BackendStatus {
    use crate::runtime::cuda::libraries::named_folders;
    use crate::runtime::cuda::presence::Presence;
    let presence = Presence::find(&named_folders(&[]));
    let missing: Vec<String> = presence.missing().into_iter().map(ToString::to_string).collect();
    let known = |text: String| Some(text).filter(|text| !text.is_empty());
    BackendStatus {
        name: BackendName::Cuda.name(),
        found: missing.is_empty(),
        version: known(presence.versions()),
        place: known(presence.places()),
        missing: Some(missing).filter(|missing| !missing.is_empty()),
        about: BackendName::Cuda.about(),
    }
}

#[cfg(not(feature = "cuda"))]
fn cuda() -> BackendStatus {
    BackendStatus {
        name: BackendName::Cuda.name(),
        found: false,
        version: None,
        place: None,
        missing: Some(vec![format!("the feature `cuda`: {}", super::backends::WITHOUT_CUDA)]),
        about: BackendName::Cuda.about(),
    }
}
