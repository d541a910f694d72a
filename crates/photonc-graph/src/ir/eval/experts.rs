//! Routing and expert feed-forward. Owns the order in which experts are chosen and added up: chosen by biased score,
//! ties by number; added by number. An expert whose gate is 0 is not computed.

use super::super::attr::Scores;
use super::super::tensor::{Data, Tensor};
use super::elementwise::{sigmoid, silu};
use super::{Evaluated, floats, unravel, value_error};
use std::cmp::Ordering;

/// Which experts a row chooses.
pub(super) struct Choice {
    pub scores: Scores,
    pub top_k: usize,
    /// How many groups there are, and how many stand to choice.
    pub groups: [usize; 2],
}

pub(super) fn route(operands: &[&Tensor], choice: &Choice, normalize: bool, factor: f64) -> Evaluated {
    let logits = operands[0];
    let count = logits.shape.last().copied().unwrap_or(0).max(1);
    let bias = operands.get(1).map(|bias| floats(bias, "bias of experts")).transpose()?;
    let all = floats(logits, "logits of experts")?;
    let mut values = vec![0.0; all.len()];
    for (row, (logits_at, gates)) in all.chunks_exact(count).zip(values.chunks_exact_mut(count)).enumerate() {
        let scores = scores(choice.scores, logits_at);
        let biased: Vec<f64> = match bias {
            Some(bias) => scores.iter().zip(bias).map(|(score, bias)| score + bias).collect(),
            None => scores.clone(),
        };
        if let Some(expert) = biased.iter().position(|score| score.is_nan()) {
            let at = unravel(row * count + expert, &logits.shape);
            return Err(value_error("score of an expert", f64::NAN, at, "a number"));
        }
        let chosen = chosen(&biased, choice);
        let sum: f64 = if normalize { chosen.iter().map(|expert| scores[*expert]).sum() } else { 1.0 };
        for expert in chosen {
            gates[expert] = scores[expert] / sum * factor;
        }
    }
    Ok(Tensor { shape: logits.shape.clone(), data: Data::float(values) })
}

fn scores(kind: Scores, logits: &[f64]) -> Vec<f64> {
    match kind {
        Scores::Sigmoid => logits.iter().map(|logit| sigmoid(*logit)).collect(),
        Scores::Softmax => {
            let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let shares: Vec<f64> = logits.iter().map(|logit| (logit - largest).exp()).collect();
            let mass: f64 = shares.iter().sum();
            shares.into_iter().map(|share| share / mass).collect()
        }
    }
}

/// The chosen experts in ascending order.
fn chosen(biased: &[f64], choice: &Choice) -> Vec<usize> {
    let [groups, kept] = choice.groups;
    let size = biased.len() / groups.max(1);
    let mut candidates: Vec<usize> = (0..biased.len()).collect();
    if groups > 1 {
        let of_group: Vec<f64> = biased
            .chunks_exact(size)
            .map(|group| best(group.len(), 2, |i| group[i]).into_iter().map(|i| group[i]).sum())
            .collect();
        let stay = best(groups, kept, |group| of_group[group]);
        candidates.retain(|expert| stay.contains(&(expert / size)));
    }
    let mut chosen: Vec<usize> = best(candidates.len(), choice.top_k, |at| biased[candidates[at]])
        .into_iter()
        .map(|at| candidates[at])
        .collect();
    chosen.sort_unstable();
    chosen
}

/// Places of the `count` largest of `len` values, largest first, equal ones by place.
fn best(len: usize, count: usize, value: impl Fn(usize) -> f64) -> Vec<usize> {
    let mut places: Vec<usize> = (0..len).collect();
    places
        .sort_by(|a, b| value(*b).partial_cmp(&value(*a)).unwrap_or(Ordering::Equal).then_with(|| a.cmp(b)));
    places.truncate(count);
    places
}

pub(super) fn experts(x: &Tensor, gates: &Tensor, up: &Tensor, down: &Tensor) -> Evaluated {
    let (count, inner, width) = (down.shape[0], down.shape[1], down.shape[2]);
    let (xs, gs) = (floats(x, "experts operand")?, floats(gates, "gates")?);
    let (ups, downs) = (floats(up, "gate and up maps")?, floats(down, "down maps")?);
    let mut values = vec![0.0; xs.len()];
    if values.is_empty() {
        return Ok(Tensor { shape: x.shape.clone(), data: Data::float(values) });
    }
    let rows = values.chunks_exact_mut(width).zip(xs.chunks_exact(width)).zip(gs.chunks_exact(count));
    for ((out, x), gates) in rows {
        for (expert, gate) in gates.iter().enumerate().filter(|(_, gate)| **gate != 0.0) {
            let wide = map(x, &ups[expert * width * 2 * inner..][..width * 2 * inner], 2 * inner);
            let hidden: Vec<f64> = (0..inner).map(|i| silu(wide[i]) * wide[inner + i]).collect();
            let part = map(&hidden, &downs[expert * inner * width..][..inner * width], width);
            for (out, part) in out.iter_mut().zip(part) {
                *out += gate * part;
            }
        }
    }
    Ok(Tensor { shape: x.shape.clone(), data: Data::float(values) })
}

/// `x W` of an input-major `W [inputs, outputs]`.
fn map(x: &[f64], weights: &[f64], outputs: usize) -> Vec<f64> {
    let mut result = vec![0.0; outputs];
    for (x, row) in x.iter().zip(weights.chunks_exact(outputs)) {
        for (out, weight) in result.iter_mut().zip(row) {
            *out += x * weight;
        }
    }
    result
}
