//! A file of results that grows line by line. Owns what is found of an earlier run: whole lines count, half a line at the
//! end, left by a kill, is cut off.

use crate::cli::{Failure, Reporter};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

/// Results by the place of their prompt.
pub type Found = BTreeMap<usize, FoundResult>;

/// A result of an earlier run.
#[derive(Clone, Debug)]
pub struct FoundResult {
    /// Key of what it answers.
    pub key: String,
    /// Whether it says why there is none.
    pub failed: bool,
}

/// Where results go.
pub struct Results {
    file: Option<(PathBuf, File)>,
    reporter: Reporter,
}

impl Results {
    /// Opens `out` behind its last whole line, or standard output; and what stands there.
    pub fn open(out: Option<&Path>, reporter: Reporter) -> Result<(Self, Found), Failure> {
        let Some(path) = out else { return Ok((Results { file: None, reporter }, Found::new())) };
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed(path, &error)),
        };
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let found = read(path, &bytes[..whole])?;
        let file =
            OpenOptions::new().append(true).create(true).open(path).map_err(|error| failed(path, &error))?;
        if whole < bytes.len() {
            file.set_len(whole as u64).map_err(|error| failed(path, &error))?;
            reporter.note(&format!("{}: half a line at the end was cut off", path.display()));
        }
        Ok((Results { file: Some((path.to_owned(), file)), reporter }, found))
    }

    /// Adds whole lines.
    pub fn add(&mut self, lines: &str) -> Result<(), Failure> {
        match &mut self.file {
            Some((path, file)) => file.write_all(lines.as_bytes()).map_err(|error| failed(path, &error)),
            None => self.reporter.text(lines),
        }
    }
}

fn read(path: &Path, bytes: &[u8]) -> Result<Found, Failure> {
    let mut found = Found::new();
    for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty())
    {
        let line: Option<Value> = serde_json::from_slice(line).ok();
        let entry = line.as_ref().and_then(|line| {
            let index = usize::try_from(line.get("index")?.as_u64()?).ok()?;
            let key = line.get("key")?.as_str()?.to_owned();
            Some((index, FoundResult { key, failed: line.get("error").is_some() }))
        });
        let Some((index, result)) = entry else {
            let cause =
                format_args!("{}: line {} is no result of photonc", path.display(), number + 1).to_string();
            return Err(Failure::input("the results cannot be gone on with", &cause)
                .help("name another file with --out: photonc adds only to its own results"));
        };
        found.insert(index, result);
    }
    Ok(found)
}

fn failed(path: &Path, cause: &dyn std::fmt::Display) -> Failure {
    Failure::input("the results cannot be written", &format_args!("{}: {cause}", path.display()))
        .help("make room or name another file with --out")
}
