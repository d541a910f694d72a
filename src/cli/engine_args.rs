//! Arguments of engine builds, shared by `build` and `export`. Owns how a vendor's libraries are found and what is told of
//! engines.

use super::report::path_text;
use super::{Failure, Reporter};
use crate::bundle::Bundle;
use crate::engine::{
    Capabilities, EngineBuilder, EngineFile, EngineRunner, EngineSet, EngineTarget, Here, Key, Level,
    Profile, Sm, Stale, Vendor, sets,
};
use crate::export::engines::{EngineOptions, EngineProgress, EngineReport, build_engines};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How engines are built.
#[derive(Clone, Debug, clap::Args)]
pub struct EngineArgs {
    /// Folder or file of TensorRT's libraries [default: $PHOTONC_TENSORRT_LIB, else Python packages and the system]
    #[arg(long, value_name = "PATH")]
    tensorrt_lib: Option<PathBuf>,
    /// Sizes to build for, such as `batch=1:8:32,meta=1:4:8,capacity=128` (least:best:most); several make several profiles [default: chosen for each graph]
    #[arg(long, value_name = "SIZES", value_parser = |text: &str| Profile::parse(text))]
    profile: Vec<Profile>,
    /// File of classic TensorRT's timings, which the next build starts from [default: one for each version and GPU in the user's cache folder]
    #[arg(long, value_name = "FILE")]
    timing_cache: Option<PathBuf>,
    /// Folder for the smallest part of a graph that cannot be built, as an ONNX model
    #[arg(long, value_name = "FOLDER", default_value = "reproducer")]
    reproducer: PathBuf,
    /// Look for no such part
    #[arg(long, conflicts_with = "reproducer")]
    no_reproducer: bool,
}

impl EngineArgs {
    /// Refuses options that the target's vendor would not heed.
    pub fn check(&self, target: &EngineTarget) -> Result<(), Failure> {
        if self.timing_cache.is_none() || target.vendor == Vendor::Tensorrt {
            return Ok(());
        }
        let found = target.vendor.name();
        Err(Failure::usage(&format_args!(
            "--timing-cache is for `tensorrt:current`, found `{found}`, which times nothing while it builds"
        )))
    }

    /// Builds engines of a bundle's graphs, showing how far it is.
    pub fn build(
        &self,
        bundle: &Bundle,
        target: &EngineTarget,
        graphs: Option<Vec<String>>,
        force: bool,
        reporter: &Reporter,
    ) -> Result<EngineReport, Failure> {
        self.check(target)?;
        let options = EngineOptions { graphs, force, ..self.options(capabilities(target)?) };
        build_with(bundle, target, options, &self.places(), reporter)
    }

    /// Builds the engines of an earlier set anew, for the same graphs and, unless others are given, the same sizes.
    pub fn rebuild(
        &self,
        bundle: &Bundle,
        target: &EngineTarget,
        earlier: &EngineSet,
        reporter: &Reporter,
    ) -> Result<EngineReport, Failure> {
        self.check(target)?;
        let recorded = earlier.record.graphs.iter();
        let profiles_of = match self.profile.is_empty() {
            true => recorded.map(|(graph, engine)| (graph.clone(), engine.profiles.clone())).collect(),
            false => BTreeMap::new(),
        };
        let graphs = Some(earlier.record.graphs.keys().cloned().collect());
        let options = EngineOptions { graphs, profiles_of, ..self.options(earlier.record.sms.clone()) };
        build_with(bundle, target, options, &self.places(), reporter)
    }

    fn places(&self) -> Places<'_> {
        Places { library: self.tensorrt_lib.as_deref(), timings: self.timing_cache.as_deref() }
    }

    fn options(&self, sms: Vec<Sm>) -> EngineOptions {
        let reproducer = (!self.no_reproducer).then(|| self.reproducer.clone());
        EngineOptions { profiles: self.profile.clone(), reproducer, ..EngineOptions::new(sms) }
    }
}

/// Places that the user named.
#[derive(Clone, Copy, Default)]
#[cfg_attr(
    not(feature = "tensorrt-rtx"),
    expect(dead_code, reason = "nothing is loaded without the feature")
)]
struct Places<'a> {
    library: Option<&'a Path>,
    timings: Option<&'a Path>,
}

/// Builds again what no longer fits, with the libraries that run engines too.
pub fn again(bundle: &Bundle, vendor: Vendor, stale: &Stale, reporter: &Reporter) -> Result<(), Failure> {
    let target = EngineTarget { vendor, capabilities: Capabilities::Listed(stale.sms.clone()) };
    let report = build_with(bundle, &target, EngineOptions::again(stale), &Places::default(), reporter)?;
    for line in as_text(&report).lines() {
        reporter.detail(line);
    }
    Ok(())
}

/// Builds with the libraries that were named, or where they are found, and shows how far it is.
fn build_with(
    bundle: &Bundle,
    target: &EngineTarget,
    options: EngineOptions,
    places: &Places<'_>,
    reporter: &Reporter,
) -> Result<EngineReport, Failure> {
    let mut builder = open(target, places)?;
    let options = EngineOptions { key: sealing_key(reporter), ..options };
    let shown = reporter.phases("build engines");
    let telling = Arc::clone(&shown);
    let progress: Arc<dyn Fn(EngineProgress) + Send + Sync> = Arc::new(move |progress| {
        let EngineProgress { graph, at, of, step } = progress;
        let phase = step.as_ref().map_or(String::new(), |step| format!(", {}", step.phase.to_lowercase()));
        telling.name(&format!("{graph} ({} of {of}){phase}", at + 1));
        let (done, steps) = step.map_or((0, 1), |step| (step.done, step.of));
        telling.set(done, steps);
    });
    let report = build_engines(bundle, builder.as_mut(), &options, &progress)?;
    drop(progress);
    drop(shown);
    tell_messages(&report, reporter);
    Ok(report)
}

/// The user's key, made if there is none.
fn sealing_key(reporter: &Reporter) -> Option<Key> {
    let path = Key::place()?;
    match Key::read_or_make(&path) {
        Ok(key) => Some(key),
        Err(error) => {
            let path = path.display();
            reporter
                .note(&format!("{path}: {error}: the engines are not sealed, and run with --trust alone"));
            None
        }
    }
}

/// Refuses engines of a bundle that this user has not built.
pub fn check_origin(bundle: &Bundle, vendor: Vendor) -> Result<(), Failure> {
    let path = Key::place();
    let key = path.as_deref().and_then(|path| Key::read(path).ok().flatten());
    let is_own = |set: &EngineSet| key.as_ref().is_some_and(|key| set.is_sealed_by(key));
    let sets = sets(bundle).readable;
    match sets.iter().find(|set| set.record.vendor == vendor && !is_own(set)) {
        None => Ok(()),
        Some(set) => {
            let cause = format!(
                "{}: these engines were not built by this user on this machine, and engines are code that runs",
                set.folder.display()
            );
            let help = "build them here with `photonc build`, or pass --trust if you trust who built them";
            Err(Failure::input("the engines are not trusted", &cause).help(help))
        }
    }
}

/// What the vendor warned of, and with `--verbose` everything it said.
fn tell_messages(report: &EngineReport, reporter: &Reporter) {
    for (graph, messages) in &report.messages {
        for message in messages {
            // Said of every integer input of every model.
            let usual = message.text.contains("Int64 binding");
            if message.level == Level::Warning && !usual {
                reporter.note(&format!("{graph}: {}", message.text.trim()));
            } else if !usual {
                reporter.detail(&format!("{graph}: {}", message.text.trim()));
            }
        }
    }
}

/// What was built, a line for each graph.
pub fn as_text(report: &EngineReport) -> String {
    let record = &report.set.record;
    let sms: Vec<String> = record.sms.iter().map(Sm::to_string).collect();
    let (engines, count) = (&record.graphs, record.graphs.len());
    let mut text = format!(
        "{}: {count} engines of {} {} for {}\n",
        report.set.folder.display(),
        record.vendor,
        record.version,
        sms.join(" and ")
    );
    let head = ("graph", "profiles", "MB", "seconds", "peak MB", "expected MB");
    // Writing to a string cannot fail.
    let _ =
        writeln!(text, "{:<16}{:>9}{:>10}{:>9}{:>9}{:>13}", head.0, head.1, head.2, head.3, head.4, head.5);
    for (name, engine) in engines {
        let peak = engine.peak_bytes.map_or_else(|| "-".to_owned(), megabytes);
        let kept = if report.kept.contains(name) { "  kept" } else { "" };
        let _ = writeln!(
            text,
            "{name:<16}{:>9}{:>10}{:>9.1}{peak:>9}{:>13}{kept}",
            engine.profiles.len(),
            megabytes(engine.bytes),
            engine.build_seconds,
            megabytes(engine.predicted_peak_bytes)
        );
    }
    text
}

fn megabytes(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown to a tenth")]
    let megabytes = bytes as f64 / 1e6;
    format!("{megabytes:.1}")
}

/// The same for `--json`.
pub fn as_json(report: &EngineReport) -> Value {
    let graphs = report.set.record.graphs.iter().map(|(name, engine)| {
        let EngineFile { file, bytes, profiles, build_seconds, predicted_peak_bytes, peak_bytes, .. } =
            engine;
        let value = json!({
            "file": file,
            "bytes": bytes,
            "profiles": profiles,
            "build_seconds": build_seconds,
            "predicted_peak_bytes": predicted_peak_bytes,
            "peak_bytes": peak_bytes,
            "kept": report.kept.contains(name),
        });
        (name.clone(), value)
    });
    json!({
        "path": path_text(&report.set.folder),
        "vendor": report.set.record.vendor,
        "version": report.set.record.version,
        "sms": report.set.record.sms,
        "graphs": graphs.collect::<serde_json::Map<_, _>>(),
    })
}

#[cfg(feature = "tensorrt-rtx")]
fn capabilities(target: &EngineTarget) -> Result<Vec<Sm>, Failure> {
    use crate::engine::tensorrt::find_gpu;
    match &target.capabilities {
        Capabilities::Listed(sms) => Ok(sms.clone()),
        Capabilities::Current => {
            let name = target.vendor.name();
            let gpu = find_gpu(0).ok_or_else(|| {
                let help = match target.vendor.capabilities().first() {
                    Some(_) => format!("name the GPUs to build for, such as `{name}:89,120`"),
                    None => "build on a machine with the GPU that will run the engines".to_owned(),
                };
                Failure::input("no engines were written", &"there is no GPU here to build for").help(&help)
            })?;
            if target.vendor.serves(gpu.sm) {
                return Ok(vec![gpu.sm]);
            }
            let found =
                format!("this GPU ({}) is {}, which {} does not support", gpu.name, gpu.sm, target.vendor);
            Err(Failure::input("no engines were written", &found).help("use the cuda backend on it"))
        }
    }
}

#[cfg(feature = "tensorrt-rtx")]
fn open(target: &EngineTarget, places: &Places<'_>) -> Result<Box<dyn EngineBuilder>, Failure> {
    use crate::engine::Kept;
    use crate::engine::tensorrt::{TensorRt, VENDOR, find, find_gpu};
    if target.vendor != VENDOR {
        let found = format!("this photonc was built for {VENDOR}, not for {}", target.vendor);
        return Err(Failure::input("no engines were written", &found).help(&without(target.vendor)));
    }
    let found = find(places.library).map_err(|error| Failure::input("no engines were written", &error))?;
    let opened = TensorRt::open(&found).map_err(|error| Failure::input("no engines were written", &error))?;
    let gpu = find_gpu(0).filter(|_| VENDOR == Vendor::Tensorrt);
    Ok(Box::new(match gpu {
        Some(gpu) => opened.with_timings(Kept::timings(places.timings, VENDOR, found.version, &gpu)),
        None => opened,
    }))
}

#[cfg(not(feature = "tensorrt-rtx"))]
fn capabilities(target: &EngineTarget) -> Result<Vec<Sm>, Failure> {
    match &target.capabilities {
        Capabilities::Listed(sms) => Ok(sms.clone()),
        Capabilities::Current => Ok(Vec::new()),
    }
}

#[cfg(not(feature = "tensorrt-rtx"))]
fn open(target: &EngineTarget, _places: &Places<'_>) -> Result<Box<dyn EngineBuilder>, Failure> {
    let found = format!("this photonc was built without {}", target.vendor);
    Err(Failure::input("no engines were written", &found).help(&without(target.vendor)))
}

/// What engines must fit: the libraries, and GPU `device`.
#[cfg(feature = "tensorrt-rtx")]
pub fn here(device: usize) -> Result<Here, String> {
    use crate::engine::tensorrt::{VENDOR, find, find_gpu};
    let found = find(None).map_err(|missing| missing.to_string())?;
    Ok(Here { vendor: VENDOR, version: found.version, gpu: find_gpu(device) })
}

/// What runs engines there. Nothing can be built beside it: the libraries hear one listener at a time.
#[cfg(feature = "tensorrt-rtx")]
pub fn runner(here: Here) -> Result<Box<dyn EngineRunner>, String> {
    use crate::engine::tensorrt::{TensorRt, find};
    use crate::engine::tensorrt_runner::TensorRtRunner;
    let found = find(None).map_err(|missing| missing.to_string())?;
    Ok(Box::new(TensorRtRunner::new(TensorRt::open(&found)?, here)?))
}

/// Says that this build has no TensorRT.
#[cfg(not(feature = "tensorrt-rtx"))]
pub fn here(_device: usize) -> Result<Here, String> {
    Err(format!("this photonc was built without it; install with `{WITH_TENSORRT_RTX},cuda`"))
}

/// As above.
#[cfg(not(feature = "tensorrt-rtx"))]
pub fn runner(_here: Here) -> Result<Box<dyn EngineRunner>, String> {
    Err(format!("this photonc was built without it; install with `{WITH_TENSORRT_RTX},cuda`"))
}

/// How to get a photonc that speaks to TensorRT-RTX.
pub const WITH_TENSORRT_RTX: &str = "cargo install --path . --features tensorrt-rtx";

/// What to do about a build without the vendor.
fn without(vendor: Vendor) -> String {
    let command = match vendor {
        Vendor::TensorrtRtx => WITH_TENSORRT_RTX,
        Vendor::Tensorrt => "cargo install --path . --features tensorrt",
    };
    format!("install with `{command}` (building it needs libclang)")
}
