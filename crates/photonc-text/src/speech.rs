//! The text of a generated sequence: whole characters up to the first stop string. Owns what is held back because it may
//! be the beginning of one, and the rule that ends a sequence in the runtime.

use super::TextError;
use super::stream::CharStream;
use super::tokenizer::Tokenizer;
use photonc_runtime::request::{StopCondition, StopState};
use std::sync::Arc;

/// Text that grows with the tokens of one sequence. Nothing of a stop string, nor after it, comes out.
#[derive(Clone, Debug)]
pub struct Speech {
    characters: CharStream,
    stops: Arc<[String]>,
    /// The end of the text, as long as it may begin a stop string.
    held: String,
    over: bool,
}

impl Speech {
    /// A sequence without tokens; empty stop strings are ignored.
    #[must_use]
    pub fn new(tokenizer: Arc<Tokenizer>, stops: Arc<[String]>) -> Self {
        Speech { characters: CharStream::new(tokenizer), stops, held: String::new(), over: false }
    }

    /// Whether a stop string has come.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Takes a token; the text that is certain now.
    ///
    /// # Errors
    /// The tokenizer's decoder fails.
    pub fn push(&mut self, id: i64) -> Result<String, TextError> {
        if self.over {
            return Ok(String::new());
        }
        let piece = self.characters.push(id)?;
        Ok(self.scan(&piece))
    }

    /// What was held back, at the end of the tokens.
    ///
    /// # Errors
    /// The tokenizer's decoder fails.
    pub fn finish(&mut self) -> Result<String, TextError> {
        if self.over {
            return Ok(String::new());
        }
        let piece = self.characters.finish()?;
        let mut text = self.scan(&piece);
        text.push_str(&std::mem::take(&mut self.held));
        Ok(text)
    }

    /// The whole text of `tokens`.
    ///
    /// # Errors
    /// The tokenizer's decoder fails.
    pub fn of(
        tokenizer: &Arc<Tokenizer>,
        stops: &Arc<[String]>,
        tokens: &[i64],
    ) -> Result<String, TextError> {
        let mut speech = Speech::new(Arc::clone(tokenizer), Arc::clone(stops));
        let mut text = String::new();
        for token in tokens {
            text.push_str(&speech.push(*token)?);
        }
        text.push_str(&speech.finish()?);
        Ok(text)
    }

    fn scan(&mut self, piece: &str) -> String {
        self.held.push_str(piece);
        let stops = self.stops.iter().filter(|stop| !stop.is_empty());
        // The stop string that is complete first counts, wherever the pieces were cut.
        let found = stops
            .filter_map(|stop| self.held.find(stop.as_str()).map(|start| (start + stop.len(), start)))
            .min();
        if let Some((_, start)) = found {
            self.over = true;
            let mut text = std::mem::take(&mut self.held);
            text.truncate(start);
            return text;
        }
        let may_begin = |start: &usize| self.stops.iter().any(|stop| stop.starts_with(&self.held[*start..]));
        let starts = self.held.char_indices().map(|(start, _)| start);
        let kept = starts.filter(|start| may_begin(start)).min().unwrap_or(self.held.len());
        let held = self.held.split_off(kept);
        std::mem::replace(&mut self.held, held)
    }
}

/// Ends sequences at stop strings.
#[derive(Clone, Debug)]
pub struct StopStrings {
    /// What makes text of the tokens.
    pub tokenizer: Arc<Tokenizer>,
    /// The strings.
    pub stops: Arc<[String]>,
}

impl StopCondition for StopStrings {
    fn start(&self) -> Box<dyn StopState> {
        Box::new(Speech::new(Arc::clone(&self.tokenizer), Arc::clone(&self.stops)))
    }
}

impl StopState for Speech {
    fn ends_with(&mut self, token: i64) -> bool {
        // A decoder that fails here fails again where the text is made, and is reported there.
        self.push(token).is_ok() && self.over
    }
}
