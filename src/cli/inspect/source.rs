//! Opening what is looked at: a checkpoint or a bundle, by what stands there.

use crate::bundle::{Bundle, Layout, is_bundle};
use crate::cli::model_args::DialectArgs;
use crate::cli::open_args::OpenArgs;
use crate::cli::pass_args::PassArgs;
use crate::cli::{Failure, Reporter};
use crate::graph::Graph;
use crate::inspect::Subject;
use crate::inspect::source::{config_of, protocols, subject_title};
use crate::model::build;
use crate::model::checkpoint::Checkpoint;
use crate::model::config::ModelConfig;
use crate::passes::choose_protocol::Protocol;
use crate::passes::compile::{self, Compilation, PassOptions, compile_with};
use std::cell::OnceCell;
use std::path::Path;

/// Names of the step programs that `--graph` takes beside the compiled graphs.
const STEPS: [(&str, Option<Protocol>); 5] = [
    ("step", None),
    ("step-recgen", Some(Protocol::Recgen)),
    ("step-hiergen", Some(Protocol::Hiergen)),
    ("step-windowed", Some(Protocol::Windowed)),
    ("step-chunkgen", Some(Protocol::Chunkgen)),
];

/// What is looked at, and how it is compiled.
pub struct Source {
    pub model: Model,
    passes: PassArgs,
    reporter: Reporter,
    compiled: OnceCell<Compilation>,
}

/// What stands at the path.
pub enum Model {
    Checkpoint(Box<Checkpoint>),
    Bundle(Box<Bundle>),
}

impl Source {
    pub fn open(
        path: &Path,
        opened: OpenArgs,
        dialect: &DialectArgs,
        passes: &PassArgs,
        reporter: &Reporter,
    ) -> Result<Self, Failure> {
        let model = if !is_bundle(path) {
            Model::Checkpoint(Box::new(dialect.open(path, reporter)?))
        } else if dialect.given() {
            return Err(Failure::usage(
                &"a bundle has its dialect already; leave out --dialect and --weight-map",
            ));
        } else {
            let bundle = opened.open(path)?;
            // Whoever looks at a bundle is told of its model too.
            config_of(&bundle)?;
            Model::Bundle(Box::new(bundle))
        };
        Ok(Source { model, passes: passes.clone(), reporter: *reporter, compiled: OnceCell::new() })
    }

    /// What inspection counts and compares; weights hashed if asked.
    pub fn subject(&self, path: &Path, hash_weights: bool) -> Result<Subject, Failure> {
        let title = subject_title(path);
        Ok(match &self.model {
            Model::Checkpoint(checkpoint) => {
                Subject::of_checkpoint(&title, checkpoint, self.compilation()?.clone(), hash_weights)?
            }
            Model::Bundle(bundle) => Subject::of_bundle(&title, bundle, hash_weights)?,
        })
    }

    /// What the configuration compiles to, for every protocol it defines; compiled once.
    pub fn compilation(&self) -> Result<&Compilation, Failure> {
        if let Some(compilation) = self.compiled.get() {
            return Ok(compilation);
        }
        let config = self.config()?;
        let compile = |options: PassOptions<'_>| compile_with(&config, &protocols(&config), options);
        let compilation = self.passes.watching(&self.reporter, compile)?;
        Ok(self.compiled.get_or_init(|| compilation))
    }

    pub fn config(&self) -> Result<ModelConfig, Failure> {
        Ok(match &self.model {
            Model::Checkpoint(checkpoint) => checkpoint.config.clone(),
            Model::Bundle(bundle) => config_of(bundle)?,
        })
    }

    pub fn graph(&self, name: &str) -> Result<Graph, Failure> {
        match &self.model {
            Model::Checkpoint(checkpoint) => self.compiled(&checkpoint.config, name),
            Model::Bundle(bundle) => {
                if bundle.manifest().graphs.is_empty() {
                    let path = bundle.root().join(Layout::MANIFEST);
                    let cause = format!("{}: lists no graphs", path.display());
                    return Err(Failure::input("the bundle cannot be used", &cause).help("export it again"));
                }
                if !bundle.manifest().graphs.contains_key(name) {
                    return Err(unknown(name, bundle.manifest().graphs.keys().map(String::as_str)));
                }
                Ok(bundle.parsed(name)?.clone())
            }
        }
    }

    fn compiled(&self, config: &ModelConfig, name: &str) -> Result<Graph, Failure> {
        match STEPS.iter().find(|(step, _)| *step == name) {
            Some((_, None)) => build::step_program(config).map_err(|error| Failure::bug(&error)),
            Some((_, Some(protocol))) => self
                .passes
                .watching(&self.reporter, |options| compile::specialise_with(config, *protocol, options)),
            None => {
                let graphs = &self.compilation()?.graphs;
                let defined = protocols(config);
                let is_defined =
                    |protocol: &Option<Protocol>| protocol.is_none_or(|one| defined.contains(&one));
                let steps = STEPS.iter().filter(|(_, protocol)| is_defined(protocol)).map(|(step, _)| *step);
                let unknown = || unknown(name, steps.chain(graphs.keys().map(String::as_str)));
                graphs.get(name).cloned().ok_or_else(unknown)
            }
        }
    }
}

pub fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Failure {
    let known: Vec<&str> = known.collect();
    Failure::input("there is nothing to show", &format_args!("no graph is called `{name}`"))
        .help(&format!("there are {}", known.join(", ")))
}
