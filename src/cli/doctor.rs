//! `photonc doctor`: which backends this machine can use, and what the others lack.

use super::backends::{BackendName, TRACT_VERSION, gpus};
use super::ort_args::onnxruntime;
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
    missing: Option<String>,
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
            (Some(missing), _, _) => format!("missing: {missing}"),
            (None, version, place) => {
                format!("{} {}", version.as_deref().unwrap_or("found"), place.as_deref().unwrap_or(""))
            }
        };
        let _infallible = writeln!(text, "  {:<10} {:<18} {}", backend.name, state.trim_end(), backend.about);
    }
    reporter.text(&text)
}

fn backends() -> Vec<BackendStatus> {
    let status = |backend: BackendName| {
        let built_in = |version: &str| Ok((version.to_owned(), "built in".to_owned()));
        let facts = match backend {
            BackendName::Tract => built_in(TRACT_VERSION),
            BackendName::Reference => built_in(env!("CARGO_PKG_VERSION")),
            BackendName::Ort => onnxruntime(),
            BackendName::Cuda => gpus(),
        };
        let (version, place, missing) = match facts {
            Ok((version, place)) => (Some(version), Some(place), None),
            Err(missing) => (None, None, Some(missing)),
        };
        let (name, about, found) = (backend.name(), backend.about(), missing.is_none());
        BackendStatus { name, found, version, place, missing, about }
    };
    BackendName::ALL.into_iter().map(status).collect()
}
