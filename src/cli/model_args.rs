//! Arguments that name a checkpoint, shared by the subcommands that read one.

use super::{Failure, Reporter};
use crate::model::checkpoint::{Checkpoint, Unexpected};
use crate::model::dialect::DialectChoice;
use std::path::{Path, PathBuf};

/// How the checkpoint's layout is found.
#[derive(Clone, Debug, clap::Args)]
pub struct DialectArgs {
    /// Layout of the checkpoint by name (`paper`, `photon-experiment`, `photon-experiment-v1`, `gvessere`, `scala`) instead of recognising it
    #[arg(long, value_name = "NAME", conflicts_with = "weight_map")]
    dialect: Option<String>,
    /// Layout of the checkpoint from a data file (docs/dialects.md)
    #[arg(long, value_name = "FILE")]
    weight_map: Option<PathBuf>,
    /// Take a checkpoint that stores tensors which the model has not; each is named in a note
    #[arg(long)]
    ignore_unexpected: bool,
}

impl DialectArgs {
    pub fn choice(&self) -> DialectChoice {
        match (&self.dialect, &self.weight_map) {
            (Some(name), _) => DialectChoice::Named(name.clone()),
            (None, Some(file)) => DialectChoice::File(file.clone()),
            (None, None) => DialectChoice::Recognise,
        }
    }

    /// Whether the user said anything about the layout.
    pub fn given(&self) -> bool {
        self.choice() != DialectChoice::Recognise || self.ignore_unexpected
    }

    /// What happens to tensors that the model has not.
    pub fn unexpected(&self) -> Unexpected {
        if self.ignore_unexpected { Unexpected::Ignored } else { Unexpected::Refused }
    }

    /// Opens the checkpoint and tells what was ignored.
    pub fn open(&self, model: &Path, reporter: &Reporter) -> Result<Checkpoint, Failure> {
        let checkpoint = Checkpoint::open_with(model, &self.choice(), self.unexpected())?;
        for note in &checkpoint.notes {
            reporter.note(note);
        }
        Ok(checkpoint)
    }
}
