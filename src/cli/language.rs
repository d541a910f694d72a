//! What a bundle knows of text, as the subcommands use it. Owns which of its files are needed for what was asked, and the
//! errors of those that are missing.

use super::{Failure, Reporter};
use crate::bundle::Bundle;
use crate::text::TextError;
use crate::text::chat::{ChatOptions, ChatTemplate, Message};
use crate::text::defaults::{GenerationDefaults, Wanted};
use crate::text::tokenizer::{Encoded, Tokenizer};
use serde_json::Value;
use std::sync::{Arc, OnceLock};

/// Bytes that a token of a text has on average, at most: the longest that are known are runs of as many blanks.
const MAX_TOKEN_BYTES: usize = 128;

/// The tokenizer of a bundle and what its checkpoint says of generation.
#[derive(Debug)]
pub struct Language {
    bundle: Bundle,
    tokenizer: Option<Arc<Tokenizer>>,
    /// Read where the first conversation needs it.
    template: OnceLock<ChatTemplate>,
    chat: ChatOptions,
}

impl Language {
    /// That of a bundle. Where tokens are given and no text is needed, a tokenizer that cannot be read is only told of.
    pub fn of(bundle: &Bundle, needed: bool, reporter: &Reporter) -> Result<Self, Failure> {
        let tokenizer = match Tokenizer::of_bundle(bundle) {
            Ok(None) if needed => Some(Tokenizer::needed(bundle)?),
            Err(error) if !needed => {
                reporter.note(&format!("there will be no text: {error}"));
                None
            }
            found => found?,
        };
        let vocab_size = bundle.manifest().model.vocab_size;
        if let Some(tokenizer) = tokenizer.as_ref().filter(|tokenizer| tokenizer.size() > vocab_size) {
            let (tokens, ids) = (tokenizer.size(), vocab_size);
            reporter.note(&format!(
                "tokenizer.json has {tokens} tokens and the model {ids}: is it this model's?"
            ));
        }
        Ok(Language {
            bundle: bundle.clone(),
            tokenizer: tokenizer.map(Arc::new),
            template: OnceLock::new(),
            chat: ChatOptions::default(),
        })
    }

    /// What the checkpoint says of generation, as far as it is wanted.
    pub fn defaults(&self, wanted: Wanted) -> Result<GenerationDefaults, Failure> {
        Ok(GenerationDefaults::of_bundle(&self.bundle, self.tokenizer.as_deref(), wanted)?)
    }

    /// With what the user gives chat templates beside messages.
    #[must_use]
    pub fn with_chat(self, chat: ChatOptions) -> Self {
        Language { chat, ..self }
    }

    /// The tokenizer, if there is one.
    pub fn tokenizer(&self) -> Option<&Arc<Tokenizer>> {
        self.tokenizer.as_ref()
    }

    /// The tokenizer, which somebody needs.
    pub fn needed(&self) -> Result<&Arc<Tokenizer>, Failure> {
        match &self.tokenizer {
            Some(tokenizer) => Ok(tokenizer),
            None => Err(Tokenizer::needed(&self.bundle)
                .err()
                .map_or_else(|| Failure::bug(&"a tokenizer that was not read before"), Failure::from)),
        }
    }

    /// The tokens of a text as it stands.
    pub fn encode(&self, text: &str) -> Result<Encoded, Failure> {
        self.refuse_endless(text)?;
        Ok(self.needed()?.encode(text, true)?)
    }

    /// Refuses a text that no sequence of the bundle could hold, before its tokens are looked for.
    fn refuse_endless(&self, text: &str) -> Result<(), Failure> {
        let longest = self.bundle.manifest().model.max_tokens;
        let most = longest.saturating_mul(MAX_TOKEN_BYTES);
        if text.len() <= most {
            return Ok(());
        }
        Err(Failure::prompt(&format_args!(
            "a text of {} bytes, and the bundle's longest sequence has {longest} tokens, {most} bytes at most; ask with a shorter one",
            text.len()
        )))
    }

    /// The tokens of a conversation, by the model's chat template; with `tools` of its own in place of the user's.
    pub fn encode_chat(&self, messages: &[Message], tools: Option<&Value>) -> Result<Encoded, Failure> {
        let template = match self.template.get() {
            Some(template) => template,
            None => {
                let read = ChatTemplate::needed(&self.bundle)?;
                self.template.get_or_init(|| read)
            }
        };
        let own = tools.map(|tools| ChatOptions { tools: tools.clone(), ..self.chat.clone() });
        let text = template.render(messages, own.as_ref().unwrap_or(&self.chat))?;
        self.refuse_endless(&text)?;
        // The template writes every mark itself.
        Ok(self.needed()?.encode(&text, false)?)
    }
}

impl From<TextError> for Failure {
    fn from(error: TextError) -> Self {
        match &error {
            TextError::Absent { .. } => Failure::input("the bundle lacks what text needs", &error)
                .help("without it, give and read token ids (--prompt-ids, --ids) and leave out --chat"),
            TextError::Bundle(_) => Failure::input("the bundle cannot be used", &error),
            TextError::File { .. } => Failure::input("the bundle cannot be used", &error)
                .help("mend the file in the checkpoint and export again"),
            TextError::Encode { .. } | TextError::Refused { .. } | TextError::NoDate { .. } => {
                Failure::prompt(&error)
            }
            TextError::Decode { .. } => {
                Failure::input("the tokens have no text", &error).help("read them as ids: --print ids")
            }
        }
    }
}
