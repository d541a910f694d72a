//! The tokenizer of a bundle. With `backtracking.rs` the only place that names the `tokenizers` library.

use super::files::carried;
use super::preflight;
use super::{TextError, backtracking};
use photonc_bundle::bundle::Bundle;
use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

const FILE: &str = "tokenizer.json";

/// Text to ids and back, as a `tokenizer.json` says.
pub struct Tokenizer {
    path: PathBuf,
    inner: tokenizers::Tokenizer,
    /// Tokens without a text.
    special: BTreeSet<i64>,
}

/// A text as tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids.
    pub ids: Vec<i64>,
    /// Where each token begins in the text, in bytes; several tokens of one character begin where it does.
    pub starts: Vec<usize>,
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer").field("tokens", &self.size()).finish()
    }
}

impl Tokenizer {
    /// The tokenizer of a bundle; `None` where its checkpoint had none.
    ///
    /// # Errors
    /// A `tokenizer.json` that cannot be read.
    pub fn of_bundle(bundle: &Bundle) -> Result<Option<Self>, TextError> {
        carried(bundle, FILE)?.map(|(path, bytes)| Tokenizer::parse(path, &bytes)).transpose()
    }

    /// The tokenizer of a bundle that must have one.
    ///
    /// # Errors
    /// No `tokenizer.json`, or one that cannot be read.
    pub fn needed(bundle: &Bundle) -> Result<Self, TextError> {
        let absent = || TextError::Absent { path: bundle.root().to_owned(), what: FILE };
        Tokenizer::of_bundle(bundle)?.ok_or_else(absent)
    }

    /// The tokenizer that `bytes`, which stand at `path`, describe.
    ///
    /// # Errors
    /// They describe none.
    pub fn parse(path: impl Into<PathBuf>, bytes: &[u8]) -> Result<Self, TextError> {
        let path = path.into();
        let failed = |cause: String| {
            let message = format!("{cause}; expected a tokenizer of the `tokenizers` library");
            TextError::File { path: path.clone(), message }
        };
        let prepared = preflight::prepared(bytes).map_err(&failed)?;
        let read = || -> Result<tokenizers::Tokenizer, tokenizers::Error> {
            let mut inner = tokenizers::Tokenizer::from_bytes(&prepared)?;
            // A prompt is what it is: cutting and padding belong to training.
            inner.with_truncation(None)?.with_padding(None);
            // Some parts break only when they are used; a text without tokens is no fault yet.
            if let Ok(tried) = inner.encode("A text, as any other.", true) {
                let _text = inner.decode(tried.get_ids(), true);
            }
            Ok(inner)
        };
        let inner = guarded(read).map_err(&failed)?;
        let added = inner.get_added_tokens_decoder().into_iter();
        let special = added.filter(|(_, token)| token.special).map(|(id, _)| i64::from(id)).collect();
        Ok(Tokenizer { path, inner, special })
    }

    /// Number of ids, added tokens included.
    #[must_use]
    pub fn size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The id of a token by its text.
    #[must_use]
    pub fn id(&self, token: &str) -> Option<i64> {
        self.inner.token_to_id(token).map(i64::from)
    }

    /// The text of a token by its id, as the vocabulary has it.
    #[must_use]
    pub fn token(&self, id: i64) -> Option<String> {
        self.inner.id_to_token(u32::try_from(id).ok()?)
    }

    /// The tokens of `text`; `mark` adds those that the tokenizer puts around a text of its own, such as a begin mark.
    ///
    /// # Errors
    /// The text has a character that the tokenizer has no token for, or one of its patterns gives up on it.
    pub fn encode(&self, text: &str, mark: bool) -> Result<Encoded, TextError> {
        let encoding = guarded(|| {
            backtracking::check(&self.inner, text)?;
            self.inner.encode(text, mark)
        });
        let encoding = encoding.map_err(|message| TextError::Encode { path: self.path.clone(), message })?;
        Ok(Encoded {
            ids: encoding.get_ids().iter().copied().map(i64::from).collect(),
            starts: encoding.get_offsets().iter().map(|(start, _)| *start).collect(),
        })
    }

    /// The text of `ids`. Special tokens have none; ids that the tokenizer lacks have none either.
    ///
    /// # Errors
    /// The tokenizer's decoder fails.
    pub fn decode(&self, ids: &[i64]) -> Result<String, TextError> {
        let ids: Vec<u32> = ids.iter().filter_map(|id| u32::try_from(*id).ok()).collect();
        let text = guarded(|| self.inner.decode(&ids, true));
        text.map_err(|message| TextError::Decode { path: self.path.clone(), message })
    }

    /// Whether a token has no text: special ones and ids that the tokenizer lacks.
    ///
    /// Decoders see nothing of special and unknown tokens: one between two such bytes does not part them.
    pub(super) fn is_silent(&self, id: i64) -> bool {
        let known = u32::try_from(id).is_ok_and(|id| self.inner.id_to_token(id).is_some());
        !known || self.special.contains(&id)
    }

    /// Whether a token is a single byte of a character that the vocabulary lacks: `<0xE2>`.
    pub(super) fn is_single_byte(&self, id: i64) -> bool {
        let token = u32::try_from(id).ok().and_then(|id| self.inner.id_to_token(id));
        token.is_some_and(|token| token.len() == 6 && token.starts_with("<0x") && token.ends_with('>'))
    }
}

/// What the library does, its panics as errors: they come of what the file says, and a read of it leaves nothing half done.
fn guarded<T>(work: impl FnOnce() -> Result<T, tokenizers::Error>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(payload) => {
            let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
            Err(format!("the `tokenizers` library fails on it ({text})"))
        }
    }
}
