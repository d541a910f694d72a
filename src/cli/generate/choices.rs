//! How tokens are drawn and where sequences end: the user's choices before the checkpoint's, those before photonc's own.

use crate::cli::language::Language;
use crate::cli::prompts::{Ids, ids};
use crate::cli::{Failure, Reporter};
use crate::runtime::penalties::Penalties;
use crate::runtime::request::StopCondition;
use crate::runtime::sampler::Sampling;
use crate::text::defaults::{GenerationDefaults, Wanted};
use crate::text::speech::StopStrings;
use std::sync::Arc;

/// New tokens where nobody says how many.
const MAX_NEW_TOKENS: usize = 64;

/// How tokens are drawn. Without any of them: as the checkpoint's generation_config.json says, otherwise from the model's
/// own distribution.
#[derive(Clone, Copy, Debug, clap::Args)]
#[command(next_help_heading = "Sampling")]
pub struct SamplingArgs {
    /// Take the most probable token every time
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "top_p", "min_p"])]
    greedy: bool,
    /// Divides the logits; 0 is greedy [default: 1, or the checkpoint's]
    #[arg(long, value_name = "T")]
    temperature: Option<f64>,
    /// Keep the K most probable tokens; up to 64 the graphs sample themselves, otherwise the host does, slower [default:
    /// all, or the checkpoint's]
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Keep the most probable tokens that together reach this probability [default: 1, or the checkpoint's]
    #[arg(long, value_name = "P")]
    top_p: Option<f64>,
    /// Keep tokens at least this probable relative to the most probable one [default: 0, or the checkpoint's]
    #[arg(long, value_name = "P")]
    min_p: Option<f64>,
    /// Divide the logits above 0, and multiply those below, of tokens that occurred, prompt included [default: 1, or the
    /// checkpoint's]
    #[arg(long, value_name = "X")]
    repetition_penalty: Option<f64>,
    /// Take X off the logits of tokens among the new ones
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    presence_penalty: f64,
    /// Take X off the logits of tokens among the new ones for each time they occur
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    frequency_penalty: f64,
    /// Key of the random numbers; the same seed gives the same tokens, whatever the batch or the run-ahead
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Do not read what generation_config.json says of sampling and length
    #[arg(long)]
    no_defaults: bool,
}

/// Where sequences end.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Ends")]
pub struct EndArgs {
    /// New tokens per sequence, at most [default: the checkpoint's max_new_tokens, or 64]
    #[arg(short = 'n', long, value_name = "N")]
    pub max_new_tokens: Option<usize>,
    /// End a sequence where its text reaches TEXT, which is not printed; give it several times for several
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
    /// Token ids that end a sequence
    #[arg(long, value_name = "IDS", value_parser = ids)]
    stop_ids: Option<Ids>,
    /// Go on after the end-of-sequence ids that the checkpoint names
    #[arg(long)]
    ignore_eos: bool,
}

impl SamplingArgs {
    /// What of the checkpoint's files counts beside these choices.
    pub fn wanted(&self, ends: &EndArgs) -> Wanted {
        let sampling = !self.no_defaults && !self.greedy;
        Wanted {
            eos: !ends.ignore_eos,
            do_sample: sampling && !self.asks(),
            temperature: sampling && self.temperature.is_none(),
            top_k: sampling && self.top_k.is_none(),
            top_p: sampling && self.top_p.is_none(),
            min_p: sampling && self.min_p.is_none(),
            repetition_penalty: sampling && self.repetition_penalty.is_none(),
            max_new_tokens: !self.no_defaults && ends.max_new_tokens.is_none(),
            unread: !self.no_defaults,
        }
    }

    /// Whether the user says how tokens are drawn.
    fn asks(&self) -> bool {
        let Self { temperature, top_k, top_p, min_p, .. } = *self;
        temperature.is_some() || top_k.is_some() || top_p.is_some() || min_p.is_some()
    }

    /// The parameters, and what of them the checkpoint chose.
    pub fn sampling(&self, checkpoint: &GenerationDefaults) -> (Sampling, Vec<String>) {
        let seed = self.seed;
        let Self { temperature, top_k, top_p, min_p, .. } = *self;
        let none = GenerationDefaults::default();
        let theirs = if self.no_defaults { &none } else { checkpoint };
        if self.greedy {
            return (Sampling { seed, ..Sampling::greedy() }, Vec::new());
        }
        if theirs.do_sample == Some(false) && !self.asks() {
            return (Sampling { seed, ..Sampling::greedy() }, vec!["greedy".to_owned()]);
        }
        let mut told = Vec::new();
        let temperature = pick("temperature", temperature, theirs.temperature, 1.0, &mut told);
        let top_k = pick("top-k", top_k, theirs.top_k, 0, &mut told);
        let top_p = pick("top-p", top_p, theirs.top_p, 1.0, &mut told);
        let min_p = pick("min-p", min_p, theirs.min_p, 0.0, &mut told);
        (Sampling { temperature, top_k, top_p, min_p, seed }, told)
    }

    /// The parameters; tells of those that the checkpoint chose.
    pub fn told(&self, checkpoint: &GenerationDefaults, reporter: &Reporter) -> Sampling {
        let (sampling, mut told) = self.sampling(checkpoint);
        let repetition = self.penalties(checkpoint).repetition;
        if self.repetition_penalty.is_none() && repetition != 1.0 {
            told.push(format!("repetition-penalty {repetition}"));
        }
        checkpoint.notes.iter().for_each(|note| reporter.note(note));
        if !told.is_empty() {
            reporter.note(&format!("as generation_config.json says: {}", told.join(", ")));
        }
        sampling
    }

    /// What tokens that occurred lose, and whether the checkpoint chose it.
    pub fn penalties(&self, checkpoint: &GenerationDefaults) -> Penalties {
        let theirs = checkpoint.repetition_penalty.filter(|_| !self.no_defaults && !self.greedy);
        Penalties {
            repetition: self.repetition_penalty.or(theirs).unwrap_or(1.0),
            presence: self.presence_penalty,
            frequency: self.frequency_penalty,
        }
    }

    /// How long sequences get at most: as long as asked, or as the checkpoint says where there is `room` for it.
    pub fn max_new_tokens(&self, ends: &EndArgs, checkpoint: &GenerationDefaults, room: usize) -> usize {
        let theirs =
            checkpoint.max_new_tokens.filter(|_| !self.no_defaults).map(|theirs| theirs.min(room.max(1)));
        ends.max_new_tokens.or(theirs).unwrap_or(MAX_NEW_TOKENS)
    }
}

fn pick<T: Copy + PartialEq + std::fmt::Display>(
    name: &str,
    asked: Option<T>,
    theirs: Option<T>,
    ours: T,
    told: &mut Vec<String>,
) -> T {
    match (asked, theirs) {
        (Some(asked), _) => asked,
        (None, Some(theirs)) => {
            if theirs != ours {
                told.push(format!("{name} {theirs}"));
            }
            theirs
        }
        (None, None) => ours,
    }
}

impl EndArgs {
    /// Whether ends are told by text.
    pub fn need_text(&self) -> bool {
        !self.stop.is_empty()
    }

    /// The stop strings.
    pub fn stops(&self) -> Result<Arc<[String]>, Failure> {
        if self.stop.iter().any(String::is_empty) {
            return Err(Failure::usage(&"--stop is empty, and every text reaches that"));
        }
        Ok(self.stop.clone().into())
    }

    /// Ids that end a sequence on the user's behalf; the model has `vocab_size`.
    pub fn stop_ids(&self, vocab_size: usize) -> Result<Vec<i64>, Failure> {
        let ids = self.stop_ids.as_ref().map(|ids| ids.0.clone()).unwrap_or_default();
        match ids.iter().find(|id| usize::try_from(**id).map_or(true, |id| id >= vocab_size)) {
            Some(id) => Err(Failure::usage(&format_args!(
                "--stop-ids names token {id}, and the model has the ids 0 to {}",
                vocab_size.saturating_sub(1)
            ))),
            None => Ok(ids),
        }
    }

    /// What ends sequences at stop strings; `None` without any.
    pub fn stop_condition(&self, language: &Language) -> Result<Option<Arc<dyn StopCondition>>, Failure> {
        if !self.need_text() {
            return Ok(None);
        }
        let tokenizer = Arc::clone(language.needed()?);
        Ok(Some(Arc::new(StopStrings { tokenizer, stops: self.stops()? })))
    }
}

#[cfg(test)]
mod tests {
    use super::{GenerationDefaults, Sampling, SamplingArgs};

    const SILENT: SamplingArgs = SamplingArgs {
        greedy: false,
        temperature: None,
        top_k: None,
        top_p: None,
        min_p: None,
        repetition_penalty: None,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        seed: 3,
        no_defaults: false,
    };

    /// What the user says goes before what the checkpoint says, which goes before the model's own distribution.
    #[test]
    fn the_user_chooses_before_the_checkpoint() {
        let ours = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 3 };
        let theirs = GenerationDefaults { temperature: Some(0.7), top_k: Some(20), ..Default::default() };
        let told = |told: &[&str]| told.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(SILENT.sampling(&GenerationDefaults::default()), (ours, vec![]));
        let both = Sampling { temperature: 0.7, top_k: 20, ..ours };
        assert_eq!(SILENT.sampling(&theirs), (both, told(&["temperature 0.7", "top-k 20"])));
        let asked = SamplingArgs { temperature: Some(0.9), ..SILENT };
        assert_eq!(asked.sampling(&theirs), (Sampling { temperature: 0.9, ..both }, told(&["top-k 20"])));
        assert_eq!(SamplingArgs { no_defaults: true, ..SILENT }.sampling(&theirs), (ours, vec![]));
        let greedy = SamplingArgs { greedy: true, ..SILENT }.sampling(&theirs);
        assert_eq!(greedy, (Sampling { seed: 3, ..Sampling::greedy() }, vec![]));
        let not_sampled = GenerationDefaults { do_sample: Some(false), ..theirs };
        assert!(SILENT.sampling(&not_sampled).0.is_greedy());
        assert!(!asked.sampling(&not_sampled).0.is_greedy());
    }
}
