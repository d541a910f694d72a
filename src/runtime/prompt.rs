//! Fitting prompts to whole meta-contexts (PHOTON.md section 5). Owns the rule `drop_left` and the check of token
//! ids; refuses to drop silently: what went is part of the result.

/// A prompt of whole meta-contexts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Token ids, oldest first; a positive multiple of the meta-context.
    pub tokens: Vec<i64>,
    /// Oldest tokens left out, `n mod C<=L`.
    pub dropped_left: usize,
}

/// A prompt that no generation can start from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PromptError {
    /// Nothing would be left after alignment.
    #[error(
        "prompt {row}: has {tokens} tokens, expected at least one meta-context of {meta_tokens}; use a longer prompt"
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
}

impl Prompt {
    /// Drops the oldest `n mod meta_tokens` tokens of prompt number `row`; `meta_tokens` is positive.
    ///
    /// # Errors
    /// Fewer tokens than a meta-context, or an id outside the vocabulary.
    pub fn align(
        row: usize,
        tokens: &[i64],
        meta_tokens: usize,
        vocab_size: usize,
    ) -> Result<Self, PromptError> {
        let known = |id: i64| usize::try_from(id).is_ok_and(|id| id < vocab_size);
        if let Some((index, id)) = tokens.iter().enumerate().find(|(_, id)| !known(**id)) {
            return Err(PromptError::OutOfVocabulary { row, index, id: *id, vocab_size });
        }
        if tokens.len() < meta_tokens {
            return Err(PromptError::TooShort { row, tokens: tokens.len(), meta_tokens });
        }
        let dropped_left = tokens.len() % meta_tokens;
        Ok(Prompt { tokens: tokens[dropped_left..].to_vec(), dropped_left })
    }

    /// Meta-contexts of the prompt.
    #[must_use]
    pub fn meta_contexts(&self, meta_tokens: usize) -> usize {
        self.tokens.len() / meta_tokens
    }
}

/// Ids of several prompts `[rows, longest]`, row-major, padded on the right with id 0.
#[must_use]
pub fn pad_right(prompts: &[&[i64]]) -> (usize, Vec<i64>) {
    let longest = prompts.iter().map(|tokens| tokens.len()).max().unwrap_or(0);
    let mut ids = Vec::with_capacity(prompts.len() * longest);
    for tokens in prompts {
        ids.extend_from_slice(tokens);
        ids.resize(ids.len() + longest - tokens.len(), 0);
    }
    (longest, ids)
}

#[cfg(test)]
mod tests {
    use super::{Prompt, PromptError, pad_right};

    #[test]
    fn the_oldest_tokens_are_dropped_and_counted() {
        let prompt = Prompt::align(0, &[9, 8, 7, 6, 5, 4], 4, 10).expect("aligns");
        assert_eq!(prompt, Prompt { tokens: vec![7, 6, 5, 4], dropped_left: 2 });
        assert_eq!(prompt.meta_contexts(4), 1);
    }

    #[test]
    fn prompts_that_cannot_start_are_refused_with_their_place() {
        let short = Prompt::align(3, &[1, 2, 3], 4, 10).expect_err("too short");
        assert_eq!(short, PromptError::TooShort { row: 3, tokens: 3, meta_tokens: 4 });
        for id in [-1, 10] {
            let error = Prompt::align(0, &[1, id, 1, 1], 4, 10).expect_err("out of range");
            assert_eq!(error, PromptError::OutOfVocabulary { row: 0, index: 1, id, vocab_size: 10 });
        }
    }

    #[test]
    fn shorter_rows_are_padded_on_the_right() {
        assert_eq!(pad_right(&[&[1, 2], &[3, 4, 5, 6]]), (4, vec![1, 2, 0, 0, 3, 4, 5, 6]));
    }
}
