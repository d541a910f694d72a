//! What a checkpoint's `generation_config.json` asks for, and its ids for the end of a sequence. Owns the reading of both, of
//! those keys only that the caller wants; what a caller's own choices leave of it is the caller's.

use super::TextError;
use super::files::{json, token_text};
use super::tokenizer::Tokenizer;
use photonc_bundle::bundle::Bundle;
use photonc_runtime::penalties::Penalties;
use serde_json::{Map, Value};
use std::path::Path;

const FILE: &str = "generation_config.json";
const MODEL: &str = "config.json";
const TOKENIZER: &str = "tokenizer_config.json";

/// Keys that change what transformers generates and that photonc does not read, with the value at which they change nothing,
/// beside `null`.
const UNREAD: [(&str, Neutral); 31] = [
    ("bad_words_ids", Neutral::Null),
    ("begin_suppress_tokens", Neutral::Null),
    ("constraints", Neutral::Null),
    ("diversity_penalty", Neutral::Number(0.0)),
    ("dola_layers", Neutral::Null),
    ("encoder_no_repeat_ngram_size", Neutral::Number(0.0)),
    ("encoder_repetition_penalty", Neutral::Number(1.0)),
    ("epsilon_cutoff", Neutral::Number(0.0)),
    ("eta_cutoff", Neutral::Number(0.0)),
    ("exponential_decay_length_penalty", Neutral::Null),
    ("force_words_ids", Neutral::Null),
    ("forced_bos_token_id", Neutral::Null),
    ("forced_eos_token_id", Neutral::Null),
    ("guidance_scale", Neutral::Number(1.0)),
    ("max_length", Neutral::Null),
    ("max_time", Neutral::Null),
    ("min_length", Neutral::Number(0.0)),
    ("min_new_tokens", Neutral::Number(0.0)),
    ("no_repeat_ngram_size", Neutral::Number(0.0)),
    ("num_beam_groups", Neutral::Number(1.0)),
    ("num_beams", Neutral::Number(1.0)),
    ("num_return_sequences", Neutral::Number(1.0)),
    ("penalty_alpha", Neutral::Number(0.0)),
    ("remove_invalid_values", Neutral::False),
    ("renormalize_logits", Neutral::False),
    ("sequence_bias", Neutral::Null),
    ("stop_strings", Neutral::Null),
    ("suppress_tokens", Neutral::Null),
    ("top_h", Neutral::Null),
    ("typical_p", Neutral::Number(1.0)),
    ("watermarking_config", Neutral::Null),
];

#[derive(Clone, Copy)]
enum Neutral {
    Null,
    False,
    Number(f64),
}

/// Generation as the makers of a checkpoint mean it; `None` where they say nothing, or nobody wanted to know.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationDefaults {
    /// Ids that end a sequence.
    pub eos: Vec<i64>,
    /// False: the most probable token every time.
    pub do_sample: Option<bool>,
    /// Divides the logits; finite, from 0.
    pub temperature: Option<f64>,
    /// Candidates kept; 0 keeps all.
    pub top_k: Option<usize>,
    /// Mass kept, above 0 and up to 1.
    pub top_p: Option<f64>,
    /// Candidates kept by their probability relative to the first, from 0 to 1.
    pub min_p: Option<f64>,
    /// Divides the logits of tokens that occurred; finite, above 0.
    pub repetition_penalty: Option<f64>,
    /// New tokens, at most; from 1.
    pub max_new_tokens: Option<usize>,
    /// What the files ask for and photonc does not do, in words.
    pub notes: Vec<String>,
}

/// Which keys a caller needs: what its user has chosen otherwise is not read, so that it cannot be wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Ids that end a sequence.
    pub eos: bool,
    /// `do_sample`; where it is false, none of the four below counts.
    pub do_sample: bool,
    /// `temperature`
    pub temperature: bool,
    /// `top_k`
    pub top_k: bool,
    /// `top_p`
    pub top_p: bool,
    /// `min_p`
    pub min_p: bool,
    /// `repetition_penalty`
    pub repetition_penalty: bool,
    /// `max_new_tokens`
    pub max_new_tokens: bool,
    /// What photonc does not read.
    pub unread: bool,
}

impl Wanted {
    /// Every key.
    pub const ALL: Wanted = Wanted {
        eos: true,
        do_sample: true,
        temperature: true,
        top_k: true,
        top_p: true,
        min_p: true,
        repetition_penalty: true,
        max_new_tokens: true,
        unread: true,
    };
}

impl GenerationDefaults {
    /// Those of a bundle. Where `generation_config.json` names no end of a sequence, `eos_token_id` of `config.json` is it,
    /// otherwise the `eos_token` of `tokenizer_config.json`.
    ///
    /// # Errors
    /// A file that cannot be read, a wanted value of another kind or range than its key asks for, an id that the model lacks.
    pub fn of_bundle(
        bundle: &Bundle,
        tokenizer: Option<&Tokenizer>,
        wanted: Wanted,
    ) -> Result<Self, TextError> {
        let mut defaults = GenerationDefaults::default();
        let vocab_size = bundle.manifest().model.vocab_size;
        if wanted != Wanted::default()
            && let Some((path, config)) = json(bundle, FILE)?
        {
            defaults = Keys::of(&path, &config)?.read(wanted, vocab_size)?;
        }
        if wanted.eos
            && defaults.eos.is_empty()
            && let Some((path, config)) = json(bundle, MODEL)?
        {
            defaults.eos = Keys::of(&path, &config)?.ids("eos_token_id", vocab_size)?;
        }
        if let (true, true, Some(tokenizer)) = (wanted.eos, defaults.eos.is_empty(), tokenizer) {
            defaults.named_end(bundle, tokenizer, vocab_size)?;
        }
        Ok(defaults)
    }

    fn named_end(
        &mut self,
        bundle: &Bundle,
        tokenizer: &Tokenizer,
        vocab_size: usize,
    ) -> Result<(), TextError> {
        let Some((path, config)) = json(bundle, TOKENIZER)? else { return Ok(()) };
        let Some(token) = config.get("eos_token").and_then(token_text) else { return Ok(()) };
        match tokenizer.id(token) {
            Some(id) if usize::try_from(id).is_ok_and(|id| id < vocab_size) => self.eos.push(id),
            Some(id) => {
                let message =
                    format!("eos_token is {token:?}, token {id} of tokenizer.json, {}", beyond(vocab_size));
                return Err(TextError::File { path, message });
            }
            None => self.notes.push(format!(
                "{TOKENIZER}: eos_token is {token:?}, which tokenizer.json lacks: no sequence ends by it"
            )),
        }
        Ok(())
    }
}

fn beyond(vocab_size: usize) -> String {
    format!("outside the model's vocabulary of {vocab_size}")
}

/// The keys of a file.
struct Keys<'f> {
    path: &'f Path,
    keys: &'f Map<String, Value>,
}

impl<'f> Keys<'f> {
    fn of(path: &'f Path, config: &'f Value) -> Result<Self, TextError> {
        match config {
            Value::Object(keys) => Ok(Keys { path, keys }),
            other => Err(expected(path, "the file", other, "an object")),
        }
    }

    fn read(&self, wanted: Wanted, vocab_size: usize) -> Result<GenerationDefaults, TextError> {
        let mut found = GenerationDefaults::default();
        if wanted.do_sample {
            found.do_sample = self.flag("do_sample")?;
        }
        let draws = found.do_sample != Some(false);
        if wanted.temperature && draws {
            let fits = |t: f64| t.is_finite() && t >= 0.0;
            found.temperature = self.number("temperature", "0 (greedy) or a positive number", fits)?;
        }
        if wanted.top_k && draws {
            found.top_k = self.count("top_k", 0)?;
        }
        if wanted.top_p && draws {
            let fits = |p: f64| p > 0.0 && p <= 1.0;
            found.top_p = self.number("top_p", "a number above 0 and up to 1", fits)?;
        }
        if wanted.min_p && draws {
            found.min_p = self.number("min_p", "a number from 0 to 1", |p| (0.0..=1.0).contains(&p))?;
        }
        if wanted.repetition_penalty {
            let fits = |x: f64| Penalties::REPETITION.contains(&x);
            found.repetition_penalty =
                self.number("repetition_penalty", "a number from 1e-6 to 1e6", fits)?;
        }
        if wanted.max_new_tokens {
            found.max_new_tokens = self.count("max_new_tokens", 1)?;
        }
        if wanted.eos {
            found.eos = self.ids("eos_token_id", vocab_size)?;
        }
        if wanted.unread {
            found.notes.extend(self.unread());
        }
        Ok(found)
    }

    fn value(&self, key: &str) -> Option<&'f Value> {
        self.keys.get(key).filter(|value| !value.is_null())
    }

    fn number(&self, key: &str, what: &str, fits: impl Fn(f64) -> bool) -> Result<Option<f64>, TextError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match value.as_f64() {
            Some(number) if fits(number) => Ok(Some(number)),
            _ => Err(expected(self.path, key, value, what)),
        }
    }

    fn count(&self, key: &str, least: usize) -> Result<Option<usize>, TextError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
        match count.filter(|count| *count >= least) {
            Some(count) => Ok(Some(count)),
            None => Err(expected(self.path, key, value, &format!("a whole number from {least}"))),
        }
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, TextError> {
        let read =
            |value: &Value| value.as_bool().ok_or_else(|| expected(self.path, key, value, "true or false"));
        self.value(key).map(read).transpose()
    }

    /// One id or a list of them.
    fn ids(&self, key: &str, vocab_size: usize) -> Result<Vec<i64>, TextError> {
        let listed = match self.value(key) {
            None => return Ok(Vec::new()),
            Some(Value::Array(ids)) => ids.as_slice(),
            Some(one) => std::slice::from_ref(one),
        };
        let id = |value: &Value| {
            let id = value.as_i64().filter(|id| *id >= 0);
            let id = id.ok_or_else(|| expected(self.path, key, value, "a token id"))?;
            if usize::try_from(id).is_ok_and(|id| id < vocab_size) {
                return Ok(id);
            }
            let message = format!("{key} names token {id}, {}", beyond(vocab_size));
            Err(TextError::File { path: self.path.to_owned(), message })
        };
        listed.iter().map(id).collect()
    }

    /// What else the file asks for.
    fn unread(&self) -> Option<String> {
        let asks = |(key, neutral): &(&str, Neutral)| {
            let value = self.value(key)?;
            let changes = match neutral {
                Neutral::Null => value != &Value::Array(Vec::new()),
                Neutral::False => value != &Value::Bool(false),
                Neutral::Number(neutral) => value.as_f64() != Some(*neutral),
            };
            // The length that counts is that of the new tokens, where one is given.
            let overridden = *key == "max_length" && self.value("max_new_tokens").is_some();
            (changes && !overridden).then(|| format!("{key} {}", shortened(value)))
        };
        let asked: Vec<String> = UNREAD.iter().filter_map(asks).collect();
        (!asked.is_empty())
            .then(|| format!("{FILE} also asks for what photonc does not do: {}", asked.join(", ")))
    }
}

/// A value as JSON, its end left out where it is long.
fn shortened(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None => text,
    }
}

fn expected(path: &Path, key: &str, found: &Value, expected: &str) -> TextError {
    let message = format!("{key} is {}, expected {expected}", shortened(found));
    TextError::File { path: path.to_owned(), message }
}

#[cfg(test)]
mod tests {
    use super::{GenerationDefaults, Keys, Wanted};
    use serde_json::{Value, json};
    use std::path::Path;

    fn read(config: &Value, wanted: Wanted) -> Result<GenerationDefaults, String> {
        let keys = Keys::of(Path::new("g.json"), config).map_err(|error| error.to_string())?;
        keys.read(wanted, 100).map_err(|error| error.to_string())
    }

    #[test]
    fn several_ends_and_every_default_are_read() {
        let config = json!({
            "eos_token_id": [2, 7], "do_sample": true, "temperature": 0.7, "top_k": 20, "top_p": 0.8, "min_p": null,
            "repetition_penalty": 1.05, "max_new_tokens": 300, "transformers_version": "4.51.0", "num_beams": 1,
        });
        let expected = GenerationDefaults {
            eos: vec![2, 7],
            do_sample: Some(true),
            temperature: Some(0.7),
            top_k: Some(20),
            top_p: Some(0.8),
            min_p: None,
            repetition_penalty: Some(1.05),
            max_new_tokens: Some(300),
            notes: Vec::new(),
        };
        assert_eq!(read(&config, Wanted::ALL), Ok(expected));
        assert_eq!(read(&json!({"eos_token_id": 3}), Wanted::ALL).map(|found| found.eos), Ok(vec![3]));
    }

    #[test]
    fn values_of_another_kind_or_range_are_refused_with_their_key() {
        for (config, message) in [
            (json!({"eos_token_id": [1, "two"]}), "g.json: eos_token_id is \"two\", expected a token id"),
            (
                json!({"eos_token_id": 100}),
                "g.json: eos_token_id names token 100, outside the model's vocabulary of 100",
            ),
            (json!({"top_k": 1.5}), "g.json: top_k is 1.5, expected a whole number from 0"),
            (json!({"max_new_tokens": 0}), "g.json: max_new_tokens is 0, expected a whole number from 1"),
            (
                json!({"temperature": -1}),
                "g.json: temperature is -1, expected 0 (greedy) or a positive number",
            ),
            (json!({"top_p": 1.5}), "g.json: top_p is 1.5, expected a number above 0 and up to 1"),
            (json!({"min_p": "NaN"}), "g.json: min_p is \"NaN\", expected a number from 0 to 1"),
            (
                json!({"repetition_penalty": 0}),
                "g.json: repetition_penalty is 0, expected a number from 1e-6 to 1e6",
            ),
            (
                json!({"repetition_penalty": 5e-324}),
                "g.json: repetition_penalty is 5e-324, expected a number from 1e-6 to 1e6",
            ),
            (json!([1]), "g.json: the file is [1], expected an object"),
        ] {
            assert_eq!(read(&config, Wanted::ALL), Err(message.to_owned()));
        }
    }

    /// What the user chose otherwise cannot be wrong.
    #[test]
    fn what_nobody_wants_is_not_read() {
        let wrong = json!({"eos_token_id": "x", "temperature": "NaN", "top_k": -1, "max_new_tokens": -1});
        assert_eq!(read(&wrong, Wanted::default()), Ok(GenerationDefaults::default()));
        let greedy = json!({"do_sample": false, "temperature": -1, "top_k": -1});
        let found = read(&greedy, Wanted::ALL).expect("reads");
        assert_eq!((found.do_sample, found.temperature), (Some(false), None));
    }

    #[test]
    fn what_photonc_does_not_do_is_named() {
        let config = json!({"num_beams": 4, "suppress_tokens": [1], "typical_p": 1.0, "max_length": 20, "bad_words_ids": null});
        assert_eq!(
            read(&config, Wanted::ALL).expect("reads").notes,
            [
                "generation_config.json also asks for what photonc does not do: max_length 20, num_beams 4, suppress_tokens [1]"
            ]
        );
    }
}
