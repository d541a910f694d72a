//! Parameters that all generating endpoints have, and what they mean to the runtime. Owns their names, defaults and ranges;
//! what cannot be met is refused by name.

use super::engine::Engine;
use super::error::{ApiError, shown};
use super::options::RequestLimits;
use photonc_bundle::program::Protocol;
use photonc_runtime::penalties::Penalties;
use photonc_runtime::request::{Request, StopCondition};
use photonc_runtime::sampler::Sampling;
use photonc_text::speech::StopStrings;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;
use utoipa::ToSchema;

/// One text or several that end a sequence.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
pub enum Stop {
    /// One.
    One(String),
    /// Several, 16 at most.
    Many(Vec<String>),
}

/// Stop strings of a request at most.
const MAX_STOPS: usize = 16;

/// Ids of stop tokens and of biases at most.
const MAX_IDS: usize = 1024;

/// Longest name of a user that the log shows whole, in bytes.
const MAX_USER_BYTES: usize = 256;

/// What a stream has besides its tokens.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamWishes {
    /// Whether the last chunk before the end tells how many tokens were used [default: false].
    pub include_usage: Option<bool>,
    /// Whether every chunk tells how many were used so far; needs `include_usage` [default: false].
    pub continuous_usage_stats: Option<bool>,
}

/// Which chunks of a stream tell how many tokens were used.
#[derive(Clone, Copy, Debug, Default)]
pub struct StreamUsage {
    /// The last before the end.
    pub last: bool,
    /// Every one.
    pub always: bool,
}

impl StreamUsage {
    /// What was wished for.
    ///
    /// # Errors
    /// Nothing is streamed, or one wish lacks the other.
    pub fn of(wishes: Option<StreamWishes>, stream: bool) -> Result<Self, ApiError> {
        let Some(wishes) = wishes else { return Ok(StreamUsage::default()) };
        if !stream {
            return Err(ApiError::value("stream_options", "`stream_options` is for `stream: true`"));
        }
        let usage = StreamUsage {
            last: wishes.include_usage == Some(true),
            always: wishes.continuous_usage_stats == Some(true),
        };
        if usage.always && !usage.last {
            let message = "`continuous_usage_stats` needs `include_usage: true`";
            return Err(ApiError::value("stream_options.continuous_usage_stats", message));
        }
        Ok(usage)
    }
}

/// Declares the body of a generating endpoint: its own fields, then those that all have.
macro_rules! generating_body {
    ($(#[$outer:meta])* $name:ident { $($(#[$inner:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$outer])*
        #[derive(Clone, Debug, serde::Deserialize, utoipa::ToSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[$inner])* pub $field: $type,)*
            /// Name of the model; may be left out where there is one.
            pub model: Option<String>,
            /// Divides the logits; 0 is greedy [default: 1].
            #[schema(minimum = 0.0)]
            pub temperature: Option<f64>,
            /// Keeps the most probable tokens that reach this mass [default: 1].
            #[schema(minimum = 0.0, maximum = 1.0)]
            pub top_p: Option<f64>,
            /// Keeps so many of the most probable tokens; 0 or -1 keeps all [default: 0].
            #[schema(minimum = -1)]
            pub top_k: Option<i64>,
            /// Keeps tokens at least this probable relative to the most probable one [default: 0].
            #[schema(minimum = 0.0, maximum = 1.0)]
            pub min_p: Option<f64>,
            /// Key of the random numbers: the same seed gives the same tokens [default: another every time].
            pub seed: Option<i64>,
            /// Taken off the logits of tokens among the new ones [default: 0].
            #[schema(minimum = -2.0, maximum = 2.0)]
            pub presence_penalty: Option<f64>,
            /// The same for each time they occur [default: 0].
            #[schema(minimum = -2.0, maximum = 2.0)]
            pub frequency_penalty: Option<f64>,
            /// Divides the logits above 0 of tokens that occurred, prompt included [default: 1].
            #[schema(minimum = 0.000001, maximum = 1000000.0)]
            pub repetition_penalty: Option<f64>,
            /// Added to the logits of these token ids.
            pub logit_bias: Option<std::collections::BTreeMap<String, f64>>,
            /// Texts that end a sequence and are not part of it.
            pub stop: Option<crate::fields::Stop>,
            /// Token ids that end a sequence and are not part of it.
            pub stop_token_ids: Option<Vec<i64>>,
            /// New tokens before which no id ends a sequence [default: 0].
            pub min_tokens: Option<u32>,
            /// Goes on behind the ids that end a sequence by the model's convention [default: false].
            pub ignore_eos: Option<bool>,
            /// `recgen` or `hiergen`: how states advance [default: recgen where the bundle has it].
            pub protocol: Option<String>,
            /// Requests of a higher priority get free rows first [default: 0].
            pub priority: Option<i32>,
            /// Whether tokens come as they are drawn [default: false].
            pub stream: Option<bool>,
            /// Who asks, for the log.
            pub user: Option<String>,
        }

        impl $name {
            /// What all endpoints have in common.
            #[must_use]
            pub fn common(&self) -> crate::fields::Common {
                let body = self.clone();
                crate::fields::Common {
                    temperature: body.temperature,
                    top_p: body.top_p,
                    top_k: body.top_k,
                    min_p: body.min_p,
                    seed: body.seed,
                    presence_penalty: body.presence_penalty,
                    frequency_penalty: body.frequency_penalty,
                    repetition_penalty: body.repetition_penalty,
                    logit_bias: body.logit_bias,
                    stop: body.stop,
                    stop_token_ids: body.stop_token_ids,
                    min_tokens: body.min_tokens,
                    ignore_eos: body.ignore_eos,
                    protocol: body.protocol,
                    priority: body.priority,
                    user: body.user,
                }
            }
        }
    };
}
pub(super) use generating_body;

/// Parameters that all generating endpoints have.
#[derive(Clone, Debug, Default)]
pub struct Common {
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub top_k: Option<i64>,
    pub min_p: Option<f64>,
    pub seed: Option<i64>,
    pub presence_penalty: Option<f64>,
    pub frequency_penalty: Option<f64>,
    pub repetition_penalty: Option<f64>,
    pub logit_bias: Option<BTreeMap<String, f64>>,
    pub stop: Option<Stop>,
    pub stop_token_ids: Option<Vec<i64>>,
    pub min_tokens: Option<u32>,
    pub ignore_eos: Option<bool>,
    pub protocol: Option<String>,
    pub priority: Option<i32>,
    pub user: Option<String>,
}

/// A request without its prompt, and what its text ends at.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The request; its prompt, samples and length are the caller's.
    pub request: Request,
    /// Stop strings.
    pub stops: Arc<[String]>,
    /// Whether a seed was given: otherwise every prompt has one of its own.
    pub seeded: bool,
}

impl Common {
    /// The request that these parameters describe.
    ///
    /// # Errors
    /// The first parameter that cannot be met.
    pub fn asked(&self, engine: &Engine, limits: &RequestLimits) -> Result<Asked, ApiError> {
        let stops = self.stops(engine)?;
        let vocab_size = engine.program.vocab_size;
        let condition = match stops.is_empty() {
            true => None,
            false => {
                let (tokenizer, stops) = (Arc::clone(engine.language.tokenizer()?), Arc::clone(&stops));
                Some(Arc::new(StopStrings { tokenizer, stops }) as Arc<dyn StopCondition>)
            }
        };
        if let Some(user) = &self.user {
            tracing::info!(user = shown(user, MAX_USER_BYTES), "asks");
        }
        let stop = self.stop_token_ids.clone().unwrap_or_default();
        if stop.len() > MAX_IDS {
            return Err(ApiError::value("stop_token_ids", format!("more than {MAX_IDS} ids")));
        }
        for id in &stop {
            check_id("stop_token_ids", *id, vocab_size)?;
        }
        let eos = if self.ignore_eos == Some(true) { Vec::new() } else { engine.language.eos.clone() };
        let ends: BTreeSet<i64> = stop.iter().chain(&eos).copied().collect();
        let min_new_tokens = self.min_tokens.unwrap_or(0) as usize;
        if min_new_tokens > 0 && ends.len() >= vocab_size {
            let message = "every token ends a sequence, and before `min_tokens` none of those is drawn";
            return Err(ApiError::value("min_tokens", message));
        }
        let request = Request {
            sampling: self.sampling()?,
            penalties: self.penalties()?,
            logit_bias: self.bias(vocab_size)?,
            min_new_tokens,
            stop,
            eos,
            stop_condition: condition,
            priority: self.priority.unwrap_or(0),
            deadline: limits.request_timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
            ..Request::greedy(self.protocol(engine)?, Vec::new(), 1)
        };
        Ok(Asked { request, stops, seeded: self.seed.is_some() })
    }

    /// How tokens are drawn: without a word, from the model's own distribution.
    ///
    /// # Errors
    /// A parameter out of its range.
    pub fn sampling(&self) -> Result<Sampling, ApiError> {
        let top_k = self.top_k.unwrap_or(0);
        if top_k < -1 {
            return Err(ApiError::value("top_k", format!("top_k is {top_k}, expected -1 or more")));
        }
        let sampling = Sampling {
            temperature: self.temperature.unwrap_or(1.0),
            top_k: usize::try_from(top_k).unwrap_or(0),
            // As OpenAI has it, 0 keeps the most probable token.
            top_p: self.top_p.map_or(1.0, |top_p| if top_p == 0.0 { f64::MIN_POSITIVE } else { top_p }),
            min_p: self.min_p.unwrap_or(0.0),
            // Keys are bits: a seed below 0 is as good as any.
            seed: self.seed.map_or_else(super::answer::random_number, i64::cast_unsigned),
        };
        let wrong = |error: photonc_runtime::sampler::SamplingError| {
            ApiError::value(&error.name.replace('-', "_"), error.to_string())
        };
        sampling.check().map_err(wrong)?;
        Ok(sampling)
    }

    /// What is taken off the logits of tokens that occurred.
    ///
    /// # Errors
    /// A parameter out of its range.
    pub fn penalties(&self) -> Result<Penalties, ApiError> {
        for (name, value) in
            [("presence_penalty", self.presence_penalty), ("frequency_penalty", self.frequency_penalty)]
        {
            if let Some(value) = value.filter(|value| !(-2.0..=2.0).contains(value)) {
                return Err(ApiError::value(name, format!("{name} is {value}, expected -2 to 2")));
            }
        }
        let repetition = self.repetition_penalty.unwrap_or(1.0);
        if !Penalties::REPETITION.contains(&repetition) {
            let (least, most) = Penalties::REPETITION.into_inner();
            let message = format!("repetition_penalty is {repetition}, expected {least} to {most}");
            return Err(ApiError::value("repetition_penalty", message));
        }
        let penalties = Penalties {
            repetition,
            presence: self.presence_penalty.unwrap_or(0.0),
            frequency: self.frequency_penalty.unwrap_or(0.0),
        };
        let checked = penalties.check();
        checked.map_err(|error| ApiError::value(&error.name.replace('-', "_"), error.to_string()))?;
        Ok(penalties)
    }

    fn bias(&self, vocab_size: usize) -> Result<Vec<(i64, f64)>, ApiError> {
        let given = self.logit_bias.iter().flatten();
        let bias = given.map(|(id, bias)| {
            let wrong = |message: String| ApiError::value("logit_bias", message);
            let id = id.parse::<i64>().map_err(|_| wrong(format!("`{id}` is no token id")))?;
            check_id("logit_bias", id, vocab_size)?;
            match (-100.0..=100.0).contains(bias) {
                true => Ok((id, *bias)),
                false => Err(wrong(format!("the bias of token {id} is {bias}, expected -100 to 100"))),
            }
        });
        let bias: Vec<(i64, f64)> = bias.collect::<Result<_, ApiError>>()?;
        if bias.len() > MAX_IDS {
            return Err(ApiError::value("logit_bias", format!("more than {MAX_IDS} ids")));
        }
        Ok(bias)
    }

    fn stops(&self, engine: &Engine) -> Result<Arc<[String]>, ApiError> {
        let stops = match &self.stop {
            None => Vec::new(),
            Some(Stop::One(one)) => vec![one.clone()],
            Some(Stop::Many(many)) => many.clone(),
        };
        if stops.iter().any(String::is_empty) {
            return Err(ApiError::value("stop", "a stop string is empty, and every text reaches that"));
        }
        if stops.len() > MAX_STOPS {
            return Err(ApiError::value("stop", format!("more than {MAX_STOPS} stop strings")));
        }
        if !stops.is_empty() && engine.language.tokenizer().is_err() {
            return Err(ApiError::value("stop", "the model has no tokenizer; use stop_token_ids"));
        }
        Ok(stops.into())
    }

    fn protocol(&self, engine: &Engine) -> Result<Protocol, ApiError> {
        let protocols = &engine.program.protocols;
        let names = || protocols.keys().map(|known| known.name()).collect::<Vec<_>>().join(", ");
        match &self.protocol {
            None => {
                let first = engine.language.first_protocol(&engine.program);
                first.ok_or_else(|| ApiError::internal("the bundle has no protocol"))
            }
            Some(name) => protocols.keys().find(|known| known.name() == name).copied().ok_or_else(|| {
                let message = format!("the model has no protocol `{name}`; it has {}", names());
                ApiError::value("protocol", message)
            }),
        }
    }
}

/// Refuses ids that the model lacks.
///
/// # Errors
/// It lacks this one.
pub fn check_id(param: &str, id: i64, vocab_size: usize) -> Result<(), ApiError> {
    match usize::try_from(id).is_ok_and(|id| id < vocab_size) {
        true => Ok(()),
        false => {
            let message =
                format!("token {id} is not in the vocabulary; the model has the ids 0 to {}", vocab_size - 1);
            Err(ApiError::value(param, message))
        }
    }
}
