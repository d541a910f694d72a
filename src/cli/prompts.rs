//! Prompts as the user gives them: text, conversations, lists of token ids, in arguments and files. Owns their syntax;
//! refuses what is neither, with its place.

use super::language::Language;
use super::{Failure, input_file};
use crate::json;
use crate::text::Date;
use crate::text::chat::{ChatOptions, Message};
use std::path::{Path, PathBuf};

/// Most prompts of a file of token ids: all of them are requests at once, of about 2 KB each.
const MOST_PROMPTS: usize = 1 << 16;

/// Token ids of one prompt, as an argument: `1,2,3`.
#[derive(Clone, Debug)]
pub struct Ids(pub Vec<i64>);

/// For clap: ids separated by commas or blanks.
pub fn ids(text: &str) -> Result<Ids, String> {
    let parts = text.split([',', ' ', '\t']).filter(|part| !part.is_empty());
    let parse = |part: &str| part.parse().map_err(|_| format!("`{part}` is not a token id"));
    let mut ids: Vec<i64> = parts.map(parse).collect::<Result<_, String>>()?;
    ids.shrink_to_fit();
    if ids.is_empty() { Err("no token ids".to_owned()) } else { Ok(Ids(ids)) }
}

/// Where prompts come from.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct PromptArgs {
    /// Text of a prompt, `-` for standard input; give it several times for a batch
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Vec<String>,
    /// Token ids of a prompt, `1,2,3`; give it several times for a batch
    #[arg(long, value_name = "IDS", value_parser = ids)]
    prompt_ids: Vec<Ids>,
    /// File with the token ids of one prompt a line
    #[arg(long, value_name = "FILE")]
    prompt_file: Option<PathBuf>,
    /// File with one JSON object a line: `prompt`, `messages` or `prompt_ids`, and `id`, `max_new_tokens`, `seed` if
    /// wanted
    #[arg(long, value_name = "JSONL")]
    pub prompts_file: Option<PathBuf>,
}

/// How a text becomes a prompt.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ChatArgs {
    /// Take the text as what a user says and put the model's chat template around it
    #[arg(long)]
    chat: bool,
    /// What the system says before the user, with --chat
    #[arg(long, value_name = "TEXT", requires = "chat")]
    system: Option<String>,
    /// File with a JSON list of the tools that the chat template tells the model of
    #[arg(long, value_name = "FILE")]
    tools: Option<PathBuf>,
    /// What chat templates that ask for today's date are told, 2026-01-31 or 2026-01-31T23:59:59; there is no clock
    #[arg(long, value_name = "DATE")]
    date: Option<Date>,
}

impl PromptArgs {
    /// Whether prompts are text.
    pub fn are_text(&self) -> bool {
        !self.prompt.is_empty()
    }

    /// Token ids of every prompt.
    pub fn read(&self, chat: &ChatArgs, language: &Language) -> Result<Vec<Vec<i64>>, Failure> {
        // Those of a file are read line by line, where they are needed.
        if self.prompts_file.is_some() {
            return Ok(Vec::new());
        }
        if chat.chat && !self.are_text() {
            return Err(Failure::usage(&"--chat takes text, and these prompts are token ids")
                .help("give the text with --prompt"));
        }
        match &self.prompt_file {
            Some(file) => lines(file),
            None if self.are_text() => self.prompt.iter().map(|text| chat.tokens(text, language)).collect(),
            None => Ok(self.prompt_ids.iter().map(|ids| ids.0.clone()).collect()),
        }
    }
}

impl ChatArgs {
    /// What chat templates are given beside messages.
    pub fn options(&self) -> Result<ChatOptions, Failure> {
        let Some(file) = &self.tools else {
            return Ok(ChatOptions { date: self.date, ..Default::default() });
        };
        let failed = |cause: &dyn std::fmt::Display| {
            Failure::input("the tools cannot be read", &format_args!("{}: {cause}", file.display()))
                .help("name a file with a JSON list of tools, each an object")
        };
        let tools: serde_json::Value =
            json::parse(text_file(file)?.as_bytes()).map_err(|error| failed(&error))?;
        match tools.as_array() {
            Some(list) if list.iter().all(serde_json::Value::is_object) => {
                Ok(ChatOptions { tools, date: self.date })
            }
            _ => Err(failed(&"not a list of objects")),
        }
    }

    /// Token ids of a text of the command line, where `-` is standard input.
    pub fn tokens(&self, text: &str, language: &Language) -> Result<Vec<i64>, Failure> {
        match text {
            "-" => self.of_text(&standard_input()?, language),
            text => self.of_text(text, language),
        }
    }

    /// Token ids of a text, with the chat template around it if that was asked for.
    pub fn of_text(&self, text: &str, language: &Language) -> Result<Vec<i64>, Failure> {
        if !self.chat {
            return Ok(language.encode(text)?.ids);
        }
        let system = self.system.iter().map(|words| Message::new("system", words));
        let messages: Vec<Message> = system.chain([Message::new("user", text)]).collect();
        Ok(language.encode_chat(&messages, None)?.ids)
    }
}

fn standard_input() -> Result<String, Failure> {
    let failed = |cause: &dyn std::fmt::Display| {
        Failure::input("the prompt cannot be read", &format_args!("standard input: {cause}"))
    };
    let bytes = input_file::stream(&mut std::io::stdin().lock()).map_err(|error| failed(&error))?;
    String::from_utf8(bytes).map_err(|error| failed(&format_args!("{error}; expected UTF-8 text")))
}

/// A file of text.
pub fn text_file(file: &Path) -> Result<String, Failure> {
    input_file::text(file).map_err(|error| {
        Failure::input("the file cannot be read", &format_args!("{}: {error}", file.display()))
            .help("name a file of UTF-8 text")
    })
}

/// One list of ids for each line of `file` that is not blank.
pub fn lines(file: &Path) -> Result<Vec<Vec<i64>>, Failure> {
    let failed = |cause: String| {
        Failure::input("the prompts cannot be read", &format_args!("{}: {cause}", file.display()))
            .help("write token ids separated by commas or blanks, one prompt a line")
    };
    let text = input_file::text(file).map_err(|error| failed(error.to_string()))?;
    let mut prompts = Vec::new();
    for (number, line) in
        json::unmarked(&text).lines().enumerate().filter(|(_, line)| !line.trim().is_empty())
    {
        if prompts.len() == MOST_PROMPTS {
            return Err(Failure::input(
                "there are too many prompts",
                &format_args!("{} has more than {MOST_PROMPTS}, which would run at once", file.display()),
            )
            .help("give them as JSON lines with --prompts-file, which takes any number"));
        }
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
