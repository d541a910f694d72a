//! Opening what is looked at: a checkpoint or a bundle, by what stands there.

use crate::bundle::{Bundle, Layout};
use crate::cli::model_args::DialectArgs;
use crate::cli::{Failure, Reporter};
use crate::graph::{Graph, text};
use crate::inspect::Subject;
use crate::inspect::source::protocols;
use crate::model::build;
use crate::model::checkpoint::Checkpoint;
use crate::model::config::ModelConfig;
use crate::model::dialect;
use crate::passes::choose_protocol::Protocol;
use crate::passes::compile;
use std::path::Path;

/// Names of the step programs that `--graph` takes beside the compiled graphs.
const STEPS: [(&str, Option<Protocol>); 3] =
    [("step", None), ("step-recgen", Some(Protocol::Recgen)), ("step-hiergen", Some(Protocol::Hiergen))];

/// What is looked at.
pub enum Source {
    Checkpoint(Box<Checkpoint>),
    Bundle(Box<Bundle>),
}

impl Source {
    pub fn open(path: &Path, dialect: &DialectArgs, reporter: &Reporter) -> Result<Self, Failure> {
        if !path.join(Layout::MANIFEST).is_file() {
            return Ok(Source::Checkpoint(Box::new(dialect.open(path, reporter)?)));
        }
        if dialect.given() {
            return Err(Failure::usage(
                &"a bundle has its dialect already; leave out --dialect and --weight-map",
            ));
        }
        Ok(Source::Bundle(Box::new(Bundle::open(path)?)))
    }

    /// What inspection counts and compares; weights hashed if asked.
    pub fn subject(&self, path: &Path, hash_weights: bool) -> Result<Subject, Failure> {
        let name =
            path.canonicalize().ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        let title = name.unwrap_or_else(|| path.display().to_string());
        Ok(match self {
            Source::Checkpoint(checkpoint) => Subject::of_checkpoint(&title, checkpoint, hash_weights)?,
            Source::Bundle(bundle) => Subject::of_bundle(&title, bundle, hash_weights)?,
        })
    }

    pub fn config(&self) -> Result<ModelConfig, Failure> {
        let bundle = match self {
            Source::Checkpoint(checkpoint) => return Ok(checkpoint.config.clone()),
            Source::Bundle(bundle) => bundle,
        };
        // A manifest has the canonical form, whatever dialect the checkpoint had.
        let dialects = dialect::built_in().map_err(|error| Failure::bug(&error))?;
        let canonical = dialects.first().ok_or_else(|| Failure::bug(&"no canonical dialect"))?;
        let parsed = canonical.read_config(Layout::MANIFEST, &bundle.manifest().model.config);
        let unusable = |error| Failure::input("the bundle cannot be used", &error);
        Ok(parsed.map_err(unusable)?.config)
    }

    pub fn graph(&self, name: &str) -> Result<Graph, Failure> {
        match self {
            Source::Checkpoint(checkpoint) => compiled(&checkpoint.config, name),
            Source::Bundle(bundle) => {
                let unusable = |error| Failure::input("the bundle cannot be used", &error);
                if !bundle.manifest().graphs.contains_key(name) {
                    return Err(unknown(name, bundle.manifest().graphs.keys().map(String::as_str)));
                }
                text::parse(&bundle.graph_text(name)?).map_err(unusable)
            }
        }
    }
}

fn compiled(config: &ModelConfig, name: &str) -> Result<Graph, Failure> {
    match STEPS.iter().find(|(step, _)| *step == name) {
        Some((_, None)) => build::step_program(config).map_err(|error| Failure::bug(&error)),
        Some((_, Some(protocol))) => Ok(compile::specialise(config, *protocol)?),
        None => {
            let mut graphs = compile::compile(config, &protocols(config))?.graphs;
            let steps = STEPS.iter().map(|(step, _)| *step);
            let unknown = unknown(name, steps.chain(graphs.keys().map(String::as_str)));
            graphs.swap_remove(name).ok_or(unknown)
        }
    }
}

pub fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Failure {
    let known: Vec<&str> = known.collect();
    Failure::input("there is nothing to show", &format_args!("no graph is called `{name}`"))
        .help(&format!("there are {}", known.join(", ")))
}
