//! Fitting prompts to meta-contexts (PHOTON.md section 5). Owns the two rules of alignment and the check of token ids;
//! refuses to drop silently: what went is part of the result.

use super::request::Align;

/// A prompt as it is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Token ids, oldest first.
    pub tokens: Vec<i64>,
    /// Of them, those that are prompt; the others were generated.
    pub length: usize,
    /// Oldest tokens left out.
    pub dropped_left: usize,
}

/// A prompt that no generation can start from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PromptError {
    /// Nothing would be left after alignment.
    #[error(
        "prompt {row}: has {tokens} tokens, expected at least one meta-context of {meta_tokens} where the oldest are dropped; use a longer prompt, or align it by force"
    )]
    TooShort {
        /// Place among the prompts, from 0.
        row: usize,
        /// Tokens given.
        tokens: usize,
        /// Tokens of a meta-context.
        meta_tokens: usize,
    },
    /// A token id that the embedding table lacks.
    #[error(
        "prompt {row}: token {index} is {id}, expected 0..{vocab_size}; the prompt was made for another vocabulary"
    )]
    OutOfVocabulary {
        /// Place among the prompts, from 0.
        row: usize,
        /// Place in the prompt, from 0.
        index: usize,
        /// The id found.
        id: i64,
        /// Number of token ids.
        vocab_size: usize,
    },
    /// More tokens are said to be prompt than there are.
    #[error("prompt {row}: {length} tokens are said to be prompt, and there are {tokens}")]
    Length {
        /// Place among the prompts, from 0.
        row: usize,
        /// Tokens said to be prompt.
        length: usize,
        /// Tokens given.
        tokens: usize,
    },
}

/// Checks the ids of prompt number `row`.
///
/// # Errors
/// An id outside the vocabulary.
pub fn check_ids(row: usize, tokens: &[i64], vocab_size: usize) -> Result<(), PromptError> {
    let known = |id: i64| usize::try_from(id).is_ok_and(|id| id < vocab_size);
    match tokens.iter().position(|id| !known(*id)) {
        Some(index) => Err(PromptError::OutOfVocabulary { row, index, id: tokens[index], vocab_size }),
        None => Ok(()),
    }
}

impl Prompt {
    /// Prompt number `row`, of whose tokens the first `length` are prompt; `meta_tokens` is positive.
    ///
    /// # Errors
    /// An id outside the vocabulary; under `drop_left`, fewer tokens than a meta-context.
    pub fn align(
        row: usize,
        tokens: &[i64],
        length: usize,
        align: Align,
        [meta_tokens, vocab_size]: [usize; 2],
    ) -> Result<Self, PromptError> {
        check_ids(row, tokens, vocab_size)?;
        if length > tokens.len() {
            return Err(PromptError::Length { row, length, tokens: tokens.len() });
        }
        let dropped_left = match align {
            Align::Force => 0,
            Align::DropLeft if length < meta_tokens => {
                return Err(PromptError::TooShort { row, tokens: length, meta_tokens });
            }
            Align::DropLeft => length % meta_tokens,
        };
        Ok(Prompt { tokens: tokens[dropped_left..].to_vec(), length: length - dropped_left, dropped_left })
    }
}

/// Ids of several prompts `[rows, longest]`, row-major, padded on the right with id 0 to at least `least` tokens.
#[must_use]
pub fn pad_right(prompts: &[&[i64]], least: usize) -> (usize, Vec<i64>) {
    let longest = prompts.iter().map(|tokens| tokens.len()).fold(least, usize::max);
    let mut ids = Vec::with_capacity(prompts.len() * longest);
    for tokens in prompts {
        ids.extend_from_slice(tokens);
        ids.resize(ids.len() + longest - tokens.len(), 0);
    }
    (longest, ids)
}

#[cfg(test)]
mod tests {
    use super::{Align, Prompt, PromptError, pad_right};

    #[test]
    fn force_keeps_every_token() {
        for tokens in [&[][..], &[1], &[1, 2, 3, 4, 5]] {
            let prompt = Prompt::align(0, tokens, tokens.len(), Align::Force, [4, 10]).expect("aligns");
            let expected = Prompt { tokens: tokens.to_vec(), length: tokens.len(), dropped_left: 0 };
            assert_eq!(prompt, expected);
        }
    }

    #[test]
    fn the_oldest_tokens_are_dropped_and_counted_on_demand() {
        let prompt = Prompt::align(0, &[9, 8, 7, 6, 5, 4], 6, Align::DropLeft, [4, 10]).expect("aligns");
        assert_eq!(prompt, Prompt { tokens: vec![7, 6, 5, 4], length: 4, dropped_left: 2 });
        // What was generated behind the prompt does not align it anew.
        let prompt = Prompt::align(0, &[9, 8, 7, 6, 5, 4], 5, Align::DropLeft, [4, 10]).expect("aligns");
        assert_eq!(prompt, Prompt { tokens: vec![8, 7, 6, 5, 4], length: 4, dropped_left: 1 });
    }

    #[test]
    fn prompts_that_cannot_start_are_refused_with_their_place() {
        let short = Prompt::align(3, &[1, 2, 3], 3, Align::DropLeft, [4, 10]).expect_err("too short");
        assert_eq!(short, PromptError::TooShort { row: 3, tokens: 3, meta_tokens: 4 });
        for id in [-1, 10] {
            let error = Prompt::align(0, &[1, id, 1, 1], 4, Align::Force, [4, 10]).expect_err("out of range");
            assert_eq!(error, PromptError::OutOfVocabulary { row: 0, index: 1, id, vocab_size: 10 });
        }
        let long = Prompt::align(1, &[1, 2], 3, Align::Force, [4, 10]).expect_err("too long");
        assert_eq!(long, PromptError::Length { row: 1, length: 3, tokens: 2 });
    }

    #[test]
    fn shorter_rows_are_padded_on_the_right() {
        assert_eq!(pad_right(&[&[1, 2], &[3, 4, 5, 6]], 0), (4, vec![1, 2, 0, 0, 3, 4, 5, 6]));
        assert_eq!(pad_right(&[&[], &[]], 2), (2, vec![0; 4]));
    }
}
