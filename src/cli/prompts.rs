//! Prompts as the user gives them: lists of token ids in arguments and files. Owns their syntax; refuses what is no
//! number, with its place.

use super::Failure;
use std::path::{Path, PathBuf};

/// Token ids of one prompt, as an argument: `1,2,3`.
#[derive(Clone, Debug)]
pub struct Ids(pub Vec<i64>);

/// For clap: ids separated by commas or blanks.
pub fn ids(text: &str) -> Result<Ids, String> {
    let parts = text.split([',', ' ', '\t']).filter(|part| !part.is_empty());
    let parse = |part: &str| part.parse().map_err(|_| format!("`{part}` is not a token id"));
    let ids: Vec<i64> = parts.map(parse).collect::<Result<_, String>>()?;
    if ids.is_empty() { Err("no token ids".to_owned()) } else { Ok(Ids(ids)) }
}

/// Where prompts come from.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct PromptArgs {
    /// Token ids of a prompt, `1,2,3`; give it several times for a batch
    #[arg(long, value_name = "IDS", value_parser = ids)]
    prompt_ids: Vec<Ids>,
    /// File with the token ids of one prompt a line
    #[arg(long, value_name = "FILE")]
    prompt_file: Option<PathBuf>,
}

impl PromptArgs {
    /// Token ids of every prompt.
    pub fn read(&self) -> Result<Vec<Vec<i64>>, Failure> {
        match &self.prompt_file {
            Some(file) => lines(file),
            None => Ok(self.prompt_ids.iter().map(|ids| ids.0.clone()).collect()),
        }
    }
}

/// One list of ids for each line of `file` that is not blank.
pub fn lines(file: &Path) -> Result<Vec<Vec<i64>>, Failure> {
    let failed = |cause: String| {
        Failure::input("the prompts cannot be read", &format_args!("{}: {cause}", file.display()))
            .help("write token ids separated by commas or blanks, one prompt a line")
    };
    let text = std::fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
    let mut prompts = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let parsed = ids(line.trim()).map_err(|cause| failed(format!("line {}: {cause}", number + 1)))?;
        prompts.push(parsed.0);
    }
    if prompts.is_empty() {
        return Err(failed("no prompts".to_owned()));
    }
    Ok(prompts)
}

#[cfg(test)]
mod tests {
    use super::ids;

    #[test]
    fn ids_are_separated_by_commas_or_blanks() {
        assert_eq!(ids("1, 2,3 4").map(|ids| ids.0), Ok(vec![1, 2, 3, 4]));
        assert_eq!(ids("1,x").map(|ids| ids.0), Err("`x` is not a token id".to_owned()));
        assert_eq!(ids(" , ").map(|ids| ids.0), Err("no token ids".to_owned()));
    }
}
