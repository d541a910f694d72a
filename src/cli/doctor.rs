//! `photonc doctor`: which backends this machine can use, and what the others lack.

use super::backends::BackendName;
use super::{Failure, Reporter};
#[cfg(any(feature = "ort", feature = "tensorrt-rtx"))]
use crate::places::NotFound;
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
    about: &'static str,
    found: bool,
    version: Option<String>,
    place: Option<String>,
    missing: Vec<Missing>,
}

/// Something that a backend needs and that is not there.
#[derive(Debug, Serialize)]
struct Missing {
    part: &'static str,
    /// Every place that was searched, and what is wrong with it.
    reason: String,
    /// What to do, a command where there is one.
    install: &'static str,
}

pub fn run(_args: &Args, reporter: &Reporter) -> Result<(), Failure> {
    let report = Report {
        photonc: env!("CARGO_PKG_VERSION"),
        system: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
        threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        backends: BackendName::ALL.into_iter().map(status).collect(),
    };
    if reporter.json() {
        return reporter.document(&report);
    }
    reporter.text(&text(&report))
}

fn text(report: &Report) -> String {
    let mut text = format!("photonc {} on {}, {} threads\n", report.photonc, report.system, report.threads);
    for backend in &report.backends {
        let state = if backend.found { "found" } else { "missing" };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "\n{:<10} {state:<9}{}", backend.name, backend.about);
        let found = [("version", &backend.version), ("where", &backend.place)];
        for (what, value) in found.iter().filter_map(|(what, value)| Some((what, value.as_ref()?))) {
            let _ = writeln!(text, "           {what:<9}{value}");
        }
        for missing in &backend.missing {
            // The rest of the reason, every place that was searched, is in the JSON.
            let _ = writeln!(
                text,
                "           lacks    {}\n           install  {}",
                missing.part, missing.install
            );
        }
    }
    text
}

/// Version and place, or what is missing.
struct Found {
    version: Option<String>,
    place: Option<String>,
    missing: Vec<Missing>,
}

fn status(backend: BackendName) -> BackendStatus {
    let Found { version, place, missing } = match backend {
        BackendName::Tract => tract(),
        BackendName::Reference | BackendName::Cpu => built_in(env!("CARGO_PKG_VERSION")),
        BackendName::Ort => ort(),
        BackendName::Cuda => cuda(),
        BackendName::Tensorrt => engines(),
    };
    let (name, about, found) = (backend.name(), backend.about(), missing.is_empty());
    BackendStatus { name, about, found, version, place, missing }
}

fn built_in(version: &str) -> Found {
    Found { version: Some(version.to_owned()), place: Some("built in".to_owned()), missing: Vec::new() }
}

#[cfg(feature = "tract")]
fn tract() -> Found {
    built_in(super::backends::TRACT_VERSION)
}

#[cfg(not(feature = "tract"))]
fn tract() -> Found {
    not_built("the feature `tract`", crate::api::WITH_TRACT)
}

/// A backend that this build does not have.
#[cfg(not(all(feature = "cuda", feature = "ort", feature = "tensorrt-rtx", feature = "tract")))]
fn not_built(part: &'static str, install: &'static str) -> Found {
    let reason = "this photonc was built without it".to_owned();
    Found { version: None, place: None, missing: vec![Missing { part, reason, install }] }
}

#[cfg(feature = "ort")]
fn ort() -> Found {
    use crate::runtime::ort::{cuda, library};
    match library::find(None) {
        Ok(found) => {
            let told = |name: &String| {
                let short = name.trim_end_matches("ExecutionProvider");
                let missing = if name == cuda::NAME { cuda::missing() } else { Vec::new() };
                match missing.split_first() {
                    None => short.to_owned(),
                    Some((first, [])) => format!("{short} (lacks {first})"),
                    Some((first, more)) => format!("{short} (lacks {first} and {} more)", more.len()),
                }
            };
            let providers: Vec<String> = found.providers.iter().map(told).collect();
            let version = format!("{} with providers {}", found.version, providers.join(", "));
            let place = found.place.display().to_string();
            Found { version: Some(version), place: Some(place), missing: Vec::new() }
        }
        Err(missing) => not_found(&missing),
    }
}

#[cfg(not(feature = "ort"))]
fn ort() -> Found {
    not_built("the feature `ort`", crate::api::WITH_ORT)
}

/// A library that was not found.
#[cfg(any(feature = "ort", feature = "tensorrt-rtx"))]
fn not_found(missing: &NotFound) -> Found {
    let (part, install) = (missing.wanted.name, missing.wanted.install);
    let missing = Missing { part, reason: missing.to_string(), install };
    Found { version: None, place: None, missing: vec![missing] }
}

#[cfg(feature = "tensorrt-rtx")]
fn engines() -> Found {
    match crate::engine::tensorrt::find(None) {
        Ok(found) => {
            let place = found.library.display().to_string();
            Found {
                version: Some(format!("{} {}", found.vendor, found.version)),
                place: Some(place),
                missing: Vec::new(),
            }
        }
        Err(missing) => not_found(&missing),
    }
}

#[cfg(not(feature = "tensorrt-rtx"))]
fn engines() -> Found {
    not_built("the feature `tensorrt-rtx`", super::engine_args::WITH_TENSORRT_RTX)
}

#[cfg(feature = "cuda")]
fn cuda() -> Found {
    use crate::runtime::cuda::libraries::named_folders;
    use crate::runtime::cuda::presence::Presence;
    let presence = Presence::find(&named_folders(&[]));
    let missing = presence.missing().into_iter();
    let missing = missing.map(|(library, error)| Missing {
        part: library.name(),
        reason: error.to_string(),
        install: library.install(),
    });
    let known = |text: String| Some(text).filter(|text| !text.is_empty());
    Found { version: known(presence.versions()), place: known(presence.places()), missing: missing.collect() }
}

#[cfg(not(feature = "cuda"))]
fn cuda() -> Found {
    not_built("the feature `cuda`", crate::api::WITH_CUDA)
}
