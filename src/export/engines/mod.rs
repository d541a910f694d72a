//! Engines of a bundle's graphs, in its folder `engines`. Owns which graphs are built for which sizes, what of an earlier
//! build is kept, and that the set appears whole or not at all.

mod plan;
mod reproduce;

use crate::bundle::{Bundle, BundleError, FileRecord, Layout, PartWriter, Unsynced};
use crate::engine::{
    BuildError, EngineBuilder, EngineFile, EngineRecord, EngineSet, EngineSource, FORMAT, Finding, Key,
    Message, Order, PeakMemory, Profile, Sm, Stale, Step, Steps, Vendor, findings, predicted_peak_bytes,
};
use crate::onnx::BundleModelError;
use plan::Planned;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use reproduce::Reproducer;

/// What to build.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// GPUs that every engine serves.
    pub sms: Vec<Sm>,
    /// Graphs by name; by default all.
    pub graphs: Option<Vec<String>>,
    /// Sizes to build for, in place of those chosen for each graph.
    pub profiles: Vec<Profile>,
    /// Sizes to build single graphs for, before all others.
    pub profiles_of: BTreeMap<String, Vec<Profile>>,
    /// Builds engines again that an earlier build has left and that still fit.
    pub force: bool,
    /// Key of the user, who seals the engines and keeps no others of an earlier build; without one they are not sealed.
    pub key: Option<Key>,
    /// Folder for the smallest part of a graph that cannot be built; `None` looks for none.
    pub reproducer: Option<PathBuf>,
    /// How long such a part is looked for.
    pub reduce_for: Duration,
}

impl EngineOptions {
    /// Every graph for these GPUs at chosen sizes.
    #[must_use]
    pub fn new(sms: Vec<Sm>) -> Self {
        let reduce_for = Duration::from_secs(120);
        EngineOptions {
            sms,
            graphs: None,
            profiles: Vec::new(),
            profiles_of: BTreeMap::new(),
            force: false,
            key: None,
            reproducer: None,
            reduce_for,
        }
    }

    /// What no longer fits, for the same sizes as before.
    #[must_use]
    pub fn again(stale: &Stale) -> Self {
        EngineOptions {
            graphs: Some(stale.graphs.keys().cloned().collect()),
            profiles_of: stale.graphs.clone(),
            ..EngineOptions::new(stale.sms.clone())
        }
    }
}

/// How far a build has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineProgress {
    /// The graph at hand.
    pub graph: String,
    /// Its place, from 0.
    pub at: usize,
    /// Graphs in all.
    pub of: usize,
    /// What the vendor is doing, once it tells.
    pub step: Option<Step>,
}

/// What was built.
#[derive(Clone, Debug)]
pub struct EngineReport {
    /// Where the engines are.
    pub set: EngineSet,
    /// Graphs whose engines of an earlier build were kept.
    pub kept: Vec<String>,
    /// What the vendor warned of, by graph.
    pub messages: BTreeMap<String, Vec<Message>>,
}

/// Why no engines were built.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The bundle cannot be read, or the engines not written.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The bundle was not exported for the vendor.
    #[error(
        "{}: has no ONNX models for {vendor}; export the model again with `--target {}`, or `--target portable,{}` to keep the \
         others", .bundle.display(), .vendor.name(), .vendor.name()
    )]
    NoModels {
        /// The bundle.
        bundle: PathBuf,
        /// The vendor.
        vendor: Vendor,
    },
    /// A graph has no ONNX model, or the stored one is another.
    #[error(transparent)]
    Model(#[from] BundleModelError),
    /// The vendor cannot build a graph.
    #[error(transparent)]
    Failed(#[from] Box<Failed>),
}

/// A graph that the vendor cannot build.
#[derive(Debug, thiserror::Error)]
#[error("graph `{graph}`: {error}{}{}", listed(.findings), found_part(.reproducer.as_ref()))]
pub struct Failed {
    /// The graph.
    pub graph: String,
    /// How far it came.
    pub error: BuildError,
    /// What was said, with places in the model.
    pub findings: Vec<Finding>,
    /// The smallest part that fails alike.
    pub reproducer: Option<Reproducer>,
}

fn listed(findings: &[Finding]) -> String {
    findings.iter().map(|finding| format!("\n  {finding}")).collect()
}

fn found_part(reproducer: Option<&Reproducer>) -> String {
    reproducer.map_or_else(String::new, |found| format!("\n  {found}"))
}

/// Builds engines of a bundle's graphs and puts them into it, whole. Engines of an earlier build that still fit are kept.
///
/// # Errors
/// The bundle cannot be used, or the vendor cannot build a graph; the engines that were there stay as they were.
pub fn build_engines(
    bundle: &Bundle,
    builder: &mut dyn EngineBuilder,
    options: &EngineOptions,
    progress: &Arc<dyn Fn(EngineProgress) + Send + Sync>,
) -> Result<EngineReport, EngineError> {
    let vendor = builder.vendor();
    if !bundle.manifest().onnx.contains_key(vendor.name()) {
        return Err(EngineError::NoModels { bundle: bundle.root().to_owned(), vendor });
    }
    let names: Vec<String> = match &options.graphs {
        Some(names) => names.clone(),
        None => bundle.manifest().graphs.keys().cloned().collect(),
    };
    let plan = |name: &String| {
        let given = options.profiles_of.get(name).unwrap_or(&options.profiles);
        plan::plan(bundle, vendor, name, given)
    };
    let plans: Vec<Planned> = names.iter().map(plan).collect::<Result<_, _>>()?;
    let sms: Vec<String> = options.sms.iter().map(Sm::to_string).collect();
    let writer =
        PartWriter::create(bundle, &format!("{}/{}", Layout::engines(vendor.name()), sms.join("+")))?;
    let is_own = |set: &EngineSet| options.key.as_ref().is_none_or(|key| set.is_sealed_by(key));
    let is_current = |set: &EngineSet| set.record.version == builder.version();
    let earlier = EngineSet::open(writer.target()).ok().filter(|set| is_current(set) && is_own(set));
    let mut session =
        Session { builder, options, writer: &writer, earlier: earlier.as_ref(), unsynced: None };
    let mut report = Collected::default();
    for (at, planned) in plans.iter().enumerate() {
        let tell = EngineProgress { graph: planned.name.clone(), at, of: plans.len(), step: None };
        progress(tell.clone());
        let telling = Arc::clone(progress);
        let steps: Steps = Arc::new(move |step| telling(EngineProgress { step: Some(step), ..tell.clone() }));
        session.one(planned, steps, &mut report)?;
    }
    if let Some(last) = session.unsynced.take() {
        last.record(&mut report)?;
    }
    session.others(bundle, &names, &mut report)?;
    let mut record = EngineRecord {
        format: FORMAT,
        photonc: env!("CARGO_PKG_VERSION").to_owned(),
        vendor,
        version: session.builder.version(),
        sms: options.sms.clone(),
        precision: bundle.manifest().precision.clone(),
        graphs: report.graphs,
        seal: None,
    };
    record.seal = options.key.as_ref().and_then(|key| key.seal(&record));
    write_record(&writer, &record)?;
    let set = EngineSet { folder: writer.target().to_owned(), record };
    writer.publish()?;
    Ok(EngineReport { set, kept: report.kept, messages: report.messages })
}

fn write_record(writer: &PartWriter, record: &EngineRecord) -> Result<(), BundleError> {
    let path = writer.target().join(Layout::ENGINE_RECORD);
    let mut text = serde_json::to_string_pretty(record)
        .map_err(|error| BundleError::Manifest { path, message: error.to_string() })?;
    text.push('\n');
    let mut file = writer.file(Layout::ENGINE_RECORD)?;
    file.write(text.as_bytes())?;
    file.finish()?;
    Ok(())
}

#[derive(Default)]
struct Collected {
    graphs: BTreeMap<String, EngineFile>,
    kept: Vec<String>,
    messages: BTreeMap<String, Vec<Message>>,
}

/// An engine whose file is not durable yet.
struct JustBuilt {
    name: String,
    file: Unsynced,
    /// What is recorded, once the file is there.
    engine: Box<dyn FnOnce(FileRecord) -> EngineFile>,
}

impl JustBuilt {
    /// Waits for the file and reports the engine.
    fn record(self, report: &mut Collected) -> Result<(), EngineError> {
        let engine = (self.engine)(self.file.record()?);
        report.graphs.insert(self.name, engine);
        Ok(())
    }
}

struct Session<'a> {
    builder: &'a mut dyn EngineBuilder,
    options: &'a EngineOptions,
    writer: &'a PartWriter,
    earlier: Option<&'a EngineSet>,
    unsynced: Option<JustBuilt>,
}

impl Session<'_> {
    fn one(&mut self, planned: &Planned, steps: Steps, report: &mut Collected) -> Result<(), EngineError> {
        if !self.options.force
            && let Some(engine) = self.fitting(planned)
            && let Some(kept) = self.keep(&engine)?
        {
            report.kept.push(planned.name.clone());
            report.graphs.insert(planned.name.clone(), kept);
            return Ok(());
        }
        let peak = PeakMemory::start();
        let started = Instant::now();
        let order = Order {
            onnx: &planned.onnx,
            sms: &self.options.sms,
            inputs: &planned.inputs,
            profiles: &planned.profiles,
            steps,
        };
        let mut file = self.writer.behind(&format!("{}.engine", planned.name))?;
        let built = match self.builder.build(&order, &mut |bytes| file.write(bytes)) {
            Ok(built) => built,
            Err(BuildError::Write(error)) => return Err(error.into()),
            Err(error) => return Err(self.failed(planned, error)?),
        };
        report.messages.insert(planned.name.clone(), built.messages);
        let (source, profiles) = (planned.source.clone(), planned.profiles.clone());
        let build_seconds = started.elapsed().as_secs_f64();
        let (predicted_peak_bytes, peak_bytes) = (predicted_peak_bytes(planned.weights_bytes), peak.bytes());
        let engine = Box::new(move |FileRecord { file, bytes, blake3 }| EngineFile {
            file,
            bytes,
            blake3,
            source,
            profiles,
            build_seconds,
            predicted_peak_bytes,
            peak_bytes,
        });
        let built = JustBuilt { name: planned.name.clone(), file: file.finish(), engine };
        // One file at a time is made durable beside the next build.
        match self.unsynced.replace(built) {
            Some(before) => before.record(report),
            None => Ok(()),
        }
    }

    /// The failure, with what it means for the model and the smallest part that fails alike.
    fn failed(&mut self, planned: &Planned, error: BuildError) -> Result<EngineError, EngineError> {
        let found = match &error {
            BuildError::Refused { messages, .. } => findings(&planned.graph, messages),
            BuildError::Unconsumed { .. } | BuildError::Profile { .. } | BuildError::Write(_) => Vec::new(),
        };
        let kind = error.kind(&found);
        let reproducer = match &self.options.reproducer {
            Some(folder) => reproduce::reproduce(planned, &kind, self.builder, self.options, folder)?,
            None => None,
        };
        let graph = planned.name.clone();
        Ok(Box::new(Failed { graph, error, findings: found, reproducer }).into())
    }

    /// An engine of the earlier build that is what would be built now.
    fn fitting(&self, planned: &Planned) -> Option<EngineFile> {
        let engine = self.earlier?.graph(&planned.name).ok()?;
        let fits = engine.source == planned.source && engine.profiles == planned.profiles;
        fits.then(|| engine.clone())
    }

    /// Copies an engine of the earlier build; `None` if it is damaged.
    fn keep(&self, engine: &EngineFile) -> Result<Option<EngineFile>, EngineError> {
        let Some(path) = self.earlier.and_then(|set| set.intact(engine).ok()) else { return Ok(None) };
        let source = File::open(&path).map_err(|source| BundleError::Io {
            path: path.clone(),
            action: "open",
            source,
        })?;
        let mut file = self.writer.file(&engine.file)?;
        file.copy(&source, &path, engine.bytes, |_, _| Ok(()))?;
        file.finish()?;
        Ok(Some(engine.clone()))
    }

    /// Keeps engines of the earlier build of graphs that were not asked for, where they still fit the bundle.
    fn others(&self, bundle: &Bundle, asked: &[String], report: &mut Collected) -> Result<(), EngineError> {
        let Some(earlier) = self.earlier else { return Ok(()) };
        for (name, engine) in &earlier.record.graphs {
            let fits = EngineSource::of(bundle, self.builder.vendor(), name)
                .is_ok_and(|source| source == engine.source);
            if !asked.contains(name)
                && fits
                && let Some(kept) = self.keep(engine)?
            {
                report.kept.push(name.clone());
                report.graphs.insert(name.clone(), kept);
            }
        }
        Ok(())
    }
}
