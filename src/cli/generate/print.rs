//! The forms of a generation: text or ids while they come, sequences at the end, JSON.

use crate::cli::backends::BackendName;
use crate::cli::timing::{as_json, one_line};
use crate::cli::{Failure, Reporter};
use crate::runtime::request::{Burst, Generation, Request, Sequence};
use crate::text::speech::Speech;
use crate::text::tokenizer::Tokenizer;
use serde_json::{Value, json};
use std::sync::Arc;

/// What is printed of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// Its text
    Text,
    /// Its token ids
    Ids,
}

/// What turns tokens into what is printed.
pub struct Printer {
    pub form: Form,
    pub tokenizer: Option<Arc<Tokenizer>>,
    pub stops: Arc<[String]>,
}

impl Printer {
    /// The text of a sequence, if there is a tokenizer.
    pub fn text(&self, tokens: &[i64]) -> Result<Option<String>, Failure> {
        let of = |tokenizer| Speech::of(tokenizer, &self.stops, tokens);
        Ok(self.tokenizer.as_ref().map(of).transpose()?)
    }

    /// What prints one sequence as its bursts come.
    pub fn stream(&self) -> Stream {
        let speech = self.tokenizer.as_ref().filter(|_| self.form == Form::Text);
        let speech = speech.map(|tokenizer| Speech::new(Arc::clone(tokenizer), Arc::clone(&self.stops)));
        Stream { speech, begun: false, last: None }
    }

    /// Prints the sequences of several, each with its place.
    pub fn sequences(&self, generation: &Generation, reporter: &Reporter) -> Result<(), Failure> {
        for sequence in &generation.sequences {
            let place = format!("prompt {} sample {}", sequence.prompt, sequence.sample);
            let text = match (self.form, self.text(&sequence.tokens)?) {
                (Form::Text, Some(text)) => {
                    let end = if text.ends_with('\n') { "" } else { "\n" };
                    format!("--- {place}, {}\n{text}{end}", sequence.finish.name())
                }
                _ => {
                    let ids: Vec<String> = sequence.tokens.iter().map(ToString::to_string).collect();
                    format!("{place}: {}\n", ids.join(" "))
                }
            };
            reporter.stream(&text)?;
        }
        Ok(())
    }

    /// A sequence as JSON.
    pub fn sequence(&self, sequence: &Sequence) -> Result<Value, Failure> {
        Ok(json!({
            "tokens": sequence.tokens,
            "text": self.text(&sequence.tokens)?,
            "dropped_left": sequence.dropped_left,
            "finish": sequence.finish.name(),
        }))
    }

    /// The result as JSON: one sequence at the top, several under `samples`.
    pub fn document(
        &self,
        request: &Request,
        generation: &Generation,
        backend: BackendName,
    ) -> Result<Value, Failure> {
        let mut document = match &generation.sequences[..] {
            [one] => self.sequence(one)?,
            several => {
                let mut placed = Vec::with_capacity(several.len());
                for one in several {
                    let mut value = self.sequence(one)?;
                    value["prompt"] = json!(one.prompt);
                    value["sample"] = json!(one.sample);
                    placed.push(value);
                }
                json!({"samples": placed})
            }
        };
        document["protocol"] = json!(request.protocol);
        document["backend"] = json!(backend.name());
        document["host_sampled"] = json!(generation.host_sampled);
        document["timing"] = as_json(&generation.timing, tokens(generation));
        Ok(document)
    }
}

/// One sequence on its way to the user.
pub struct Stream {
    speech: Option<Speech>,
    begun: bool,
    /// Last character printed.
    last: Option<char>,
}

impl Stream {
    /// Prints what a burst makes certain.
    pub fn print(&mut self, burst: &Burst<'_>, reporter: &Reporter) -> Result<(), Failure> {
        let mut text = match &mut self.speech {
            Some(speech) => {
                let mut text = String::new();
                for token in burst.tokens {
                    text.push_str(&speech.push(*token)?);
                }
                if burst.finish.is_some() {
                    text.push_str(&speech.finish()?);
                }
                text
            }
            None => {
                let ids: Vec<String> = burst.tokens.iter().map(ToString::to_string).collect();
                let space = if self.begun && !ids.is_empty() { " " } else { "" };
                format!("{space}{}", ids.join(" "))
            }
        };
        self.begun |= !burst.tokens.is_empty();
        self.last = text.chars().next_back().or(self.last);
        if burst.finish.is_some() && self.last != Some('\n') {
            text.push('\n');
        }
        if text.is_empty() { Ok(()) } else { reporter.stream(&text) }
    }
}

/// Tells what alignment dropped and where the time went.
pub fn tell(request: &Request, generation: &Generation, backend: BackendName, reporter: &Reporter) {
    let dropped = |sequence: &&Sequence| sequence.sample == 0 && sequence.dropped_left > 0;
    for sequence in generation.sequences.iter().filter(dropped) {
        let told = super::dropped_left(sequence.dropped_left);
        reporter.note(&format!("prompt {}: {told}", sequence.prompt));
    }
    reporter.note(&one_line(&generation.timing, tokens(generation), request.protocol, backend));
}

fn tokens(generation: &Generation) -> usize {
    generation.sequences.iter().map(|sequence| sequence.tokens.len()).sum()
}
