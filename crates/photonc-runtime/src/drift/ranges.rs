//! Means over a range of distances from the prompt: what tables and plots show.

use super::sums::{LevelSums, Mean, Sums, TokenSums};
use serde::Serialize;

/// Measures over tokens `first + 1 ..= last` after the prompts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Range {
    /// Tokens before the range.
    pub first: usize,
    /// Its last token, counted from 1.
    pub last: usize,
    /// Tokens measured, over all prompts.
    pub tokens: usize,
    /// Part of them at which both protocols have the same most probable token.
    pub greedy_agreement: f64,
    /// Part of them that both draw alike when each goes on greedily from its own tokens, if that was measured.
    pub free_agreement: Option<f64>,
    /// Mean divergence of RecGen's distributions from HierGen's, in nats per token.
    pub kl: f64,
    /// Perplexity of the text's own tokens under HierGen.
    pub perplexity_hiergen: f64,
    /// The same under RecGen.
    pub perplexity_recgen: f64,
    /// Cosines of reconstructions and encoder states, bottom level first.
    pub levels: Vec<LevelCosine>,
}

/// Mean cosine of what a level is reconstructed as and the encoder's state of the text.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LevelCosine {
    /// The level.
    pub level: usize,
    /// Of reconstructions from the encoder's own states; the top level has none.
    pub hiergen: Option<f64>,
    /// Of what RecGen has, its state advanced open-loop.
    pub recgen: Option<f64>,
}

/// A drift by distance.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ranges {
    /// From one distance to the next.
    pub parts: Vec<Range>,
    /// Over all.
    pub whole: Range,
}

impl Range {
    pub(super) fn of(sums: &Sums, first: usize, last: usize, meta_tokens: usize) -> Self {
        let own = sums.tokens.get(first..last).unwrap_or_default();
        let sum = |part: fn(&TokenSums) -> f64| own.iter().map(part).sum::<f64>();
        let count = sum(|sums| sums.count);
        let free = sum(|sums| sums.free_count);
        let metas = (0..sums.levels.len()).filter(|meta| (first..last).contains(&(meta * meta_tokens)));
        let metas: Vec<&Vec<LevelSums>> = metas.filter_map(|meta| sums.levels.get(meta)).collect();
        let cosine = |level: usize, part: fn(&LevelSums) -> Mean| {
            let means = metas.iter().filter_map(|levels| levels.get(level)).map(part);
            let (sum, count) =
                means.fold((0.0, 0.0), |(sum, count), mean| (sum + mean.sum, count + mean.count));
            (count > 0.0).then_some(sum / count)
        };
        let levels = 0..metas.first().map_or(0, |levels| levels.len());
        Range {
            first,
            last,
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
            tokens: count as usize,
            greedy_agreement: sum(|sums| sums.agree) / count,
            free_agreement: (free > 0.0).then_some(sum(|sums| sums.free_agree) / free),
            kl: sum(|sums| sums.kl) / count,
            perplexity_hiergen: (sum(|sums| sums.hiergen) / count).exp(),
            perplexity_recgen: (sum(|sums| sums.recgen) / count).exp(),
            levels: levels
                .map(|level| LevelCosine {
                    level: level + 1,
                    hiergen: cosine(level, |sums| sums.hiergen),
                    recgen: cosine(level, |sums| sums.recgen),
                })
                .collect(),
        }
    }
}
