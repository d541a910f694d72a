//! Text while tokens arrive. Owns the rule that only whole characters come out: a token may end inside one.
//!
//! Invariant: the pieces, put together, are what the tokenizer makes of all tokens at once.

use super::TextError;
use super::tokenizer::Tokenizer;
use std::sync::Arc;

/// What decoders put where bytes are not, or not yet, a character.
const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;

/// Tokens that are decoded again with each new one, at most, while characters are whole.
const WINDOW_TOKENS: usize = 16;

/// The characters of one sequence.
#[derive(Clone, Debug)]
pub struct CharStream {
    tokenizer: Arc<Tokenizer>,
    /// The newest tokens: those before them have been handed out and say no more.
    window: Vec<i64>,
    /// Bytes of the window's text that have been handed out.
    handed_out: usize,
    /// Tokens of the window after which nothing was held back.
    whole: usize,
    /// Whether the newest token with a text is a single byte.
    in_bytes: bool,
}

impl CharStream {
    /// A stream without tokens.
    #[must_use]
    pub fn new(tokenizer: Arc<Tokenizer>) -> Self {
        CharStream { tokenizer, window: Vec::new(), handed_out: 0, whole: 0, in_bytes: false }
    }

    /// Takes a token; the characters that are certain now.
    ///
    /// # Errors
    /// The tokenizer's decoder fails.
    pub fn push(&mut self, id: i64) -> Result<String, TextError> {
        self.window.push(id);
        // A run of byte tokens is one text or, where it is none, nothing but replacements: it is certain when it ends.
        if !self.tokenizer.is_silent(id) {
            self.in_bytes = self.tokenizer.is_single_byte(id);
        }
        if self.in_bytes {
            return Ok(String::new());
        }
        let text = self.tokenizer.decode(&self.window)?;
        // One at the end may be the beginning of a character; those before it are final.
        let certain = text.strip_suffix(REPLACEMENT).unwrap_or(&text);
        let piece = self.hand_out(certain);
        if certain.len() == text.len() {
            self.move_window()?;
        }
        Ok(piece)
    }

    /// What was held back, at the end of the tokens.
    ///
    /// # Errors
    /// The tokenizer's decoder fails.
    pub fn finish(&mut self) -> Result<String, TextError> {
        let text = self.tokenizer.decode(&self.window)?;
        Ok(self.hand_out(&text))
    }

    fn hand_out(&mut self, text: &str) -> String {
        let piece = text.get(self.handed_out..).unwrap_or_default().to_owned();
        self.handed_out = self.handed_out.max(text.len());
        piece
    }

    /// Called where nothing is held back. The window keeps the tokens since the last such place but one: a decoder may
    /// treat the first token of a text in another way, so there must be one that is not new.
    fn move_window(&mut self) -> Result<(), TextError> {
        if self.window.len() >= WINDOW_TOKENS && self.whole > 0 {
            let later = self.tokenizer.decode(&self.window[self.whole..])?;
            if !later.is_empty() {
                self.window.drain(..self.whole);
                self.handed_out = later.len();
            }
        }
        self.whole = self.window.len();
        Ok(())
    }
}
