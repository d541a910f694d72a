//! Lines of results, in a file that grows or on standard output. Owns what is found of an earlier run: whole lines count, half
//! a line at the end, left by a kill, is cut off; a file that holds anything else is left as it is.

use crate::cli::output::{Destination, destination, locked, open_stream, same, told};
use crate::cli::{Failure, Reporter};
use crate::staging::{Begun, undisturbed};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Results by the place of their prompt.
pub type Found = BTreeMap<usize, FoundResult>;

/// How every result begins.
const BEGINS: &str = "{\"index\":";

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
    way: Way,
    reporter: Reporter,
}

enum Way {
    Stdout,
    Stream(PathBuf, File),
    File(Growing),
}

/// A locked file that ends, whatever happens, with a whole line.
struct Growing {
    path: PathBuf,
    file: Arc<File>,
    whole: Arc<AtomicU64>,
    _begun: Begun,
}

impl Results {
    /// Opens `out` behind its last whole line, or standard output; and what stands there. `prompts` is the file that is read.
    pub fn open(out: Option<&Path>, prompts: &Path, reporter: Reporter) -> Result<(Self, Found), Failure> {
        let Some(path) = out else { return Ok((Results { way: Way::Stdout, reporter }, Found::new())) };
        let way = match destination(path).map_err(|error| failed(path, &error))? {
            Destination::Stdout if reporter.json() => return Err(two_forms()),
            Destination::Stdout => Way::Stdout,
            Destination::Stream(_) => {
                Way::Stream(path.to_owned(), open_stream(path).map_err(|error| failed(path, &error))?)
            }
            Destination::File(target, there) => {
                let read = std::fs::metadata(prompts);
                if there.is_some_and(|there| read.is_ok_and(|read| same(&read, &there))) {
                    let cause = format!("--out and --prompts-file are one file: {}", path.display());
                    return Err(Failure::usage(&cause).help("name another file with --out"));
                }
                let (growing, found) = Growing::open(path, &target, reporter)?;
                return Ok((Results { way: Way::File(growing), reporter }, found));
            }
        };
        Ok((Results { way, reporter }, Found::new()))
    }

    /// Adds whole lines.
    pub fn add(&mut self, lines: &str) -> Result<(), Failure> {
        match &mut self.way {
            Way::Stdout => self.reporter.stream(lines),
            Way::Stream(path, stream) => {
                stream.write_all(lines.as_bytes()).map_err(|error| failed(path, &error))
            }
            Way::File(growing) => growing.add(lines).map_err(|error| failed(&growing.path, &error)),
        }
    }

    /// Waits until the lines are on the device: only then do some file systems tell that there was no room for them.
    pub fn finish(self) -> Result<(), Failure> {
        match self.way {
            Way::File(growing) => growing.file.sync_all().map_err(|error| failed(&growing.path, &error)),
            Way::Stdout | Way::Stream(..) => Ok(()),
        }
    }
}

/// Lines of results and the one document of `--json` cannot share standard output.
pub fn two_forms() -> Failure {
    Failure::usage(&"--json prints one document, and the results are lines of standard output")
        .help("name a file for the results with --out")
}

impl Growing {
    fn open(path: &Path, target: &Path, reporter: Reporter) -> Result<(Self, Found), Failure> {
        let failed = |error: std::io::Error| failed(path, &told(error));
        let mut file =
            locked(target, OpenOptions::new().read(true).append(true).create(true)).map_err(failed)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let (lines, rest) = bytes.split_at(whole);
        let found = read(path, lines)?;
        if !begins_a_result(rest, !found.is_empty()) {
            return Err(stranger(path, lines.split(|byte| *byte == b'\n').count()));
        }
        if !rest.is_empty() {
            file.set_len(whole as u64).map_err(failed)?;
            reporter.note(&format!("{}: half a line at the end was cut off", path.display()));
        }
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        let (file, whole) = (Arc::new(file), Arc::new(AtomicU64::new(whole as u64)));
        let _begun = Begun::lines(Arc::clone(&file), Arc::clone(&whole));
        Ok((Growing { path: path.to_owned(), file, whole, _begun }, found))
    }

    /// Adds lines, all of them or none: a full disk leaves no half line.
    fn add(&self, lines: &str) -> std::io::Result<()> {
        let before = self.whole.load(Ordering::Relaxed);
        undisturbed(|| {
            let written = (&*self.file).write_all(lines.as_bytes());
            if written.is_err() {
                // Half a line that stays is cut off by the next run.
                let _ = self.file.set_len(before);
            } else {
                self.whole.store(before + lines.len() as u64, Ordering::Relaxed);
            }
            written
        })
    }
}

/// Whether the bytes behind the last whole line are the beginning of a result. Where no result stands before them they must be
/// more than a brace.
fn begins_a_result(rest: &[u8], among_results: bool) -> bool {
    let known = BEGINS.as_bytes();
    match rest.strip_prefix(known) {
        Some(number) => match number.iter().position(|byte| !byte.is_ascii_digit()) {
            None => true,
            Some(0) => false,
            Some(end) => [&b",\"id\":"[..], b",\"key\":\""].iter().any(|next| {
                let end = &number[end..];
                end.starts_with(next) || next.starts_with(end)
            }),
        },
        None => rest.is_empty() || among_results && known.starts_with(rest),
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
        let Some((index, result)) = entry else { return Err(stranger(path, number + 1)) };
        found.insert(index, result);
    }
    Ok(found)
}

fn stranger(path: &Path, line: usize) -> Failure {
    let cause = format!("{}: line {line} is no result of photonc", path.display());
    Failure::input("the results cannot be gone on with", &cause)
        .help("name another file with --out: photonc adds only to its own results")
}

fn failed(path: &Path, cause: &dyn std::fmt::Display) -> Failure {
    Failure::input("the results cannot be written", &format_args!("{}: {cause}", path.display()))
        .help("make room or name another file with --out")
}

#[cfg(test)]
mod tests {
    use super::begins_a_result;

    /// What a kill leaves of a result is known as such at every length; what others wrote is not.
    #[test]
    fn only_beginnings_of_results_are_cut_off() {
        let line = "{\"index\":12,\"id\":\"a\",\"key\":\"0123\"";
        for end in 0..=line.len() {
            assert!(begins_a_result(&line.as_bytes()[..end], true), "{end}");
            assert_eq!(begins_a_result(&line.as_bytes()[..end], false), end == 0 || end >= 9, "{end}");
        }
        for other in
            ["{\"a\": 1}", "my notes", "{\"index\": 1}", "{\"index\":\"a", "{\"index\":1,\"x\":", "["]
        {
            assert!(!begins_a_result(other.as_bytes(), true), "{other}");
        }
    }
}
