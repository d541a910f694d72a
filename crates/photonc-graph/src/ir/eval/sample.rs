//! Drawing a token from logits: temperature, top-k, then top-p, then the inverse of the cumulative mass.

use super::super::tensor::{Data, Tensor};
use super::{EvalError, Evaluated, floats, ints, unravel, value_error};
use std::cmp::Ordering;

/// How one row of the batch samples.
struct Parameters {
    temperature: f64,
    top_k: usize,
    top_p: f64,
}

pub(super) fn sample(operands: &[&Tensor], candidates: usize) -> Evaluated {
    let [logits, uniforms] = [operands[0], operands[1]];
    let (all, draws) = (floats(logits, "logits")?, floats(uniforms, "uniforms")?);
    let requests = parameters(operands[2], operands[3], operands[4])?;
    let [rows, positions, vocabulary] = [logits.shape[0], logits.shape[1], logits.shape[2]];
    let mut ids = Vec::with_capacity(rows * positions);
    for (place, (logits_at, draw)) in all.chunks_exact(vocabulary).zip(draws).enumerate() {
        let at = || unravel(place, &uniforms.shape);
        if let Some(id) = logits_at.iter().position(|logit| logit.is_nan()) {
            let mut at = at();
            at.push(id);
            return Err(value_error("logit", f64::NAN, at, "a number"));
        }
        if draw.is_nan() {
            return Err(value_error("uniform", draw, at(), "a number"));
        }
        // `R / B` rows share one request; a place exists, so neither is 0.
        let request = &requests[place / positions / (rows / requests.len())];
        let kept = largest(logits_at, candidates.min(request.top_k));
        let Some(id) = choose(logits_at, &kept, request, *draw) else {
            return Err(value_error("largest logit", logits_at[kept[0]], at(), "a finite number"));
        };
        ids.push(i64::try_from(id).unwrap_or(i64::MAX));
    }
    Ok(Tensor { shape: uniforms.shape.clone(), data: Data::int(ids) })
}

/// The ids of the `count` largest logits, largest first, equal ones by id.
fn largest(logits: &[f64], count: usize) -> Vec<usize> {
    let order = |a: &usize, b: &usize| {
        logits[*b].partial_cmp(&logits[*a]).unwrap_or(Ordering::Equal).then_with(|| a.cmp(b))
    };
    let mut ids: Vec<usize> = (0..logits.len()).collect();
    if count < ids.len() {
        ids.select_nth_unstable_by(count, order);
        ids.truncate(count);
    }
    ids.sort_unstable_by(order);
    ids
}

/// The token among `kept` (largest first, not empty); `None` if an infinite largest logit leaves no distribution.
fn choose(logits: &[f64], kept: &[usize], request: &Parameters, draw: f64) -> Option<usize> {
    let first = *kept.first()?;
    let largest = logits[first];
    if !largest.is_finite() {
        return None;
    }
    if request.temperature == 0.0 {
        return Some(first);
    }
    // Subtracting before dividing keeps a tiny temperature from overflowing.
    let shares: Vec<f64> =
        kept.iter().map(|id| ((logits[*id] - largest) / request.temperature).exp()).collect();
    let total: f64 = shares.iter().sum();
    let mut cumulative = Vec::with_capacity(kept.len());
    let mut mass = 0.0;
    for share in &shares {
        if !cumulative.is_empty() && mass >= request.top_p {
            break;
        }
        mass += share / total;
        cumulative.push(mass);
    }
    let chosen = cumulative.iter().position(|upto| *upto > draw * mass).unwrap_or(cumulative.len() - 1);
    Some(kept[chosen])
}

fn parameters(temperatures: &Tensor, top_ks: &Tensor, top_ps: &Tensor) -> Result<Vec<Parameters>, EvalError> {
    let (temperatures, top_ps) = (floats(temperatures, "temperature")?, floats(top_ps, "top-p")?);
    let rows = temperatures.iter().zip(ints(top_ks, "top-k")?).zip(top_ps).enumerate();
    rows.map(|(row, ((temperature, top_k), top_p))| {
        if temperature.is_nan() || *temperature < 0.0 {
            return Err(value_error("temperature", temperature, vec![row], "0 or more"));
        }
        if top_p.is_nan() {
            return Err(value_error("top-p", top_p, vec![row], "a number"));
        }
        match usize::try_from(*top_k) {
            Ok(top_k) if top_k > 0 => Ok(Parameters { temperature: *temperature, top_k, top_p: *top_p }),
            _ => Err(value_error("top-k", top_k, vec![row], "1 or more")),
        }
    })
    .collect()
}
