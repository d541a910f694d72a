//! Tokens from logits, as `kernels/sample.cu` draws them, and uniform numbers. A share is a whole number of 2^-40, so that
//! sums of shares are exact and no order of summing can change a token.

use super::lanes::{Form, LANES, Lanes, Work, exp, with};
use super::pool::Pool;
use super::rows::size;
use super::scalar::Scalar;
use super::scratch;
use crate::launch::arguments::{SampleArguments, UniformArguments};
use photonc_runtime::random::uniform;

/// 2^40.
const ONE_SHARE: f32 = 1_099_511_627_776.0;
/// Entries that are sorted first; each next part is larger.
const SORTED: usize = 256;

/// `Uniforms`.
///
/// # Safety
/// The addresses are valid.
pub unsafe fn uniforms(a: &UniformArguments) {
    for r in 0..size(a.rows) {
        // SAFETY: that of the caller.
        unsafe {
            let seed = (a.seed as *const u64).add(r).read_unaligned();
            let sample = (a.sample as *const u64).add(r).read_unaligned();
            let first = (a.first as *const i64).add(r).read_unaligned();
            for i in 0..size(a.count) {
                let number = uniform(seed, sample, first.wrapping_add(i as i64).cast_unsigned());
                (a.out as *mut f32).add(r * size(a.count) + i).write_unaligned(number);
            }
        }
    }
}

/// `Sample`.
///
/// # Safety
/// The addresses are valid.
pub unsafe fn sample<T: Scalar>(form: Form, pool: &Pool, a: &SampleArguments) {
    let count = size(a.vocabulary);
    pool.share(size(a.rows), size(a.rows) * count, &|r| {
        let place = |split: i32, outer: i64, inner: i64| {
            let (r, split) = (r as i64, i64::from(split.max(1)));
            (r / split * outer + r % split * inner) as isize
        };
        let request = r / size(a.rows_per_parameter).max(1);
        let mut logits = scratch::take(count);
        // SAFETY: that of the caller.
        unsafe {
            let first = r as isize * a.logits_stride as isize;
            for (at, logit) in logits.iter_mut().enumerate() {
                let at = first + at as isize;
                *logit = match a.wide {
                    0 => (a.logits as *const T).offset(at).read_unaligned().wide(),
                    _ => (a.logits as *const f32).offset(at).read_unaligned(),
                };
            }
            let float = |base: u64, at: isize| (base as *const f32).offset(at).read_unaligned();
            let own = request as isize;
            let at = place(a.uniforms_split, a.uniforms_outer, a.uniforms_inner);
            let parameters = Parameters {
                temperature: float(a.temperature, own),
                top_k: (a.top_k as *const i64).offset(own).read_unaligned(),
                top_p: float(a.top_p, own),
                min_p: if a.min_p == 0 { 0.0 } else { float(a.min_p, own) },
                uniform: float(a.uniforms, at),
            };
            let id = draw(form, &logits, &parameters);
            let to = place(a.ids_split, a.ids_outer, a.ids_inner);
            (a.ids as *mut i64).offset(to).write_unaligned(id);
        }
    });
}

/// How one token is drawn.
#[derive(Clone, Copy, Debug)]
struct Parameters {
    temperature: f32,
    top_k: i64,
    top_p: f32,
    min_p: f32,
    uniform: f32,
}

/// Whole numbers in the order of the floats; -0 is 0. No float that is a number has key 0.
fn key_of(value: f32) -> u32 {
    let bits = (value + 0.0).to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 0x8000_0000 }
}

fn value_of(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key & 0x7fff_ffff } else { !key })
}

/// Larger for a larger logit, then for a lower id.
fn entry_of(value: f32, id: usize) -> u64 {
    (u64::from(key_of(value)) << 32) | u64::from(!(id as u32))
}

fn id_of(entry: u64) -> i64 {
    i64::from(!(entry as u32))
}

fn whole_share(share: f32) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "shares are from 0 to 1")]
    {
        (share * ONE_SHARE) as u64
    }
}

/// The smallest whole number at or above `x`, from 1 to `most`.
fn least_reaching(x: f64, most: u64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "far below 2^63, not negative"
    )]
    let whole = x.ceil() as u64;
    whole.max(1).min(most)
}

/// The smallest whole number above `x`, at most `most`.
fn least_above(x: f64, most: u64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "far below 2^63, not negative"
    )]
    let whole = x as u64 + 1;
    whole.min(most)
}

/// A part of `whole`.
#[expect(clippy::cast_precision_loss, reason = "as the kernels compute it")]
fn part(of: f32, whole: u64) -> f64 {
    f64::from(of) * whole as f64
}

/// `exp((value - peak) / temperature)` in place.
struct Shares<'v>(&'v mut [f32], f32, f32);

impl Work for Shares<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Shares(values, peak, temperature) = self;
        for part in values.chunks_mut(LANES) {
            let mut lanes = [0.0; LANES];
            lanes[..part.len()].copy_from_slice(part);
            // SAFETY: the array has sixteen elements.
            unsafe {
                let below = L::load(lanes.as_ptr()).sub(L::splat(peak));
                exp(below.div(L::splat(temperature))).store(lanes.as_mut_ptr());
            }
            part.copy_from_slice(&lanes[..part.len()]);
        }
    }
}

/// The sorted candidates, as far as they were asked for.
struct Candidates {
    form: Form,
    /// By falling logit up to `sorted`, then in any order.
    entries: Vec<u64>,
    sorted: usize,
    shares: Vec<f32>,
    peak: f32,
    temperature: f32,
}

impl Candidates {
    /// The share of the `at`-th candidate.
    fn share(&mut self, at: usize) -> f32 {
        while at >= self.sorted {
            let rest = &mut self.entries[self.sorted..];
            let next = (self.sorted * 3).max(SORTED).min(rest.len());
            if next < rest.len() {
                rest.select_nth_unstable_by(next, |a, b| b.cmp(a));
            }
            rest[..next].sort_unstable_by(|a, b| b.cmp(a));
            let first = self.shares.len();
            self.shares.extend(rest[..next].iter().map(|entry| value_of((entry >> 32) as u32)));
            with(self.form, Shares(&mut self.shares[first..], self.peak, self.temperature));
            self.sorted += next;
        }
        self.shares[at]
    }

    /// How many candidates it takes until their shares reach `threshold`, and their sum.
    fn reach(&mut self, threshold: u64) -> (usize, u64) {
        let mut sum = 0;
        for at in 0..self.entries.len() {
            sum += whole_share(self.share(at));
            if sum >= threshold {
                return (at, sum);
            }
        }
        (self.entries.len() - 1, sum)
    }
}

fn draw(form: Form, logits: &[f32], p: &Parameters) -> i64 {
    let mut best = 0;
    for (id, value) in logits.iter().enumerate() {
        if value.is_nan() {
            return -1;
        }
        // Ids rise, so that a level one does not take its place.
        if best == 0 || *value > value_of((best >> 32) as u32) {
            best = entry_of(*value, id);
        }
    }
    if best == 0 {
        return -1;
    }
    if p.temperature == 0.0 {
        return id_of(best);
    }
    let peak = value_of((best >> 32) as u32);
    if !peak.is_finite() {
        return -1;
    }
    let all = |logits: &[f32]| {
        let mut shares = scratch::take(logits.len());
        shares.copy_from_slice(logits);
        with(form, Shares(&mut shares, peak, p.temperature));
        let likely = shares.iter().filter(|share| **share >= p.min_p).map(|share| whole_share(*share)).sum();
        (shares.iter().map(|share| whole_share(*share)).sum::<u64>(), likely)
    };
    let top_k = usize::try_from(p.top_k).unwrap_or(0);
    let few = top_k > 0 && top_k < logits.len();
    let entries = if few { largest(logits, top_k) } else { Vec::new() };
    let mut candidates =
        Candidates { form, entries, sorted: 0, shares: Vec::new(), peak, temperature: p.temperature };
    let (mut mass, likely): (u64, u64) = if few {
        let shares: Vec<f32> = (0..top_k).map(|at| candidates.share(at)).collect();
        let sum = |least: f32| {
            shares.iter().filter(|share| **share >= least).map(|share| whole_share(*share)).sum::<u64>()
        };
        // Those below the k-th are less likely still; where one of them is likely, all the candidates are.
        (sum(0.0), sum(p.min_p))
    } else {
        candidates.entries = logits.iter().enumerate().map(|(id, value)| entry_of(*value, id)).collect();
        all(logits)
    };
    if p.top_p < 1.0 {
        mass = candidates.reach(least_reaching(part(p.top_p, mass), mass)).1;
    }
    // Prefixes of one order: the shortest has the least mass. The largest logit always stays.
    mass = mass.min(likely.max(whole_share(1.0)));
    let (at, _) = candidates.reach(least_above(part(p.uniform, mass), mass));
    id_of(candidates.entries[at])
}

/// The entries of the `count` largest logits, in any order; fewer than there are.
fn largest(logits: &[f32], count: usize) -> Vec<u64> {
    // The count-th largest of the maxima of as many parts bounds the count-th largest of all from below.
    let each = (logits.len() / (4 * count)).max(1);
    let maximum = |part: &[f32]| part.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut maxima: Vec<f32> = logits.chunks(each).map(maximum).collect();
    let (_, bound, _) = maxima.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a));
    let bound = *bound;
    let above = logits.iter().enumerate().filter(|(_, value)| **value >= bound);
    let mut entries: Vec<u64> = above.map(|(id, value)| entry_of(*value, id)).collect();
    if entries.len() > count {
        entries.select_nth_unstable_by(count - 1, |a, b| b.cmp(a));
        entries.truncate(count);
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::{Parameters, draw, largest};
    use crate::cpu::lanes::Form;
    use photonc_runtime::random::uniform;
    use photonc_runtime::sampler::Sampling;

    fn logits(count: usize, seed: u64) -> Vec<f32> {
        // Whole sixteenths: many are level with each other.
        (0..count).map(|at| ((uniform(seed, 0, at as u64) - 0.5) * 200.0).round() / 16.0).collect()
    }

    // The share of each token is a whole number of 2^-40 here and a binary64 there: almost every draw is the same.
    #[test]
    fn tokens_are_those_of_the_host_sampler() {
        let mut different = 0;
        // Miri takes seconds for each.
        let (cases, most) = if cfg!(miri) { (3, 40.0) } else { (2000u64, 700.0) };
        for case in 0..cases {
            let number = |at: u64| uniform(99, case, at);
            let count = 1 + (number(0) * most) as usize;
            let logits = logits(count, case);
            let top_k = if number(1) < 0.4 { 0 } else { (number(2) * 90.0) as usize };
            let top_p = if number(3) < 0.4 { 1.0 } else { number(4).max(0.01) };
            let min_p = if number(5) < 0.6 { 0.0 } else { number(6) };
            let temperature = if number(7) < 0.1 { 0.0 } else { 0.05 + 2.0 * number(8) };
            let host = Sampling {
                temperature: temperature.into(),
                top_k,
                top_p: top_p.into(),
                min_p: min_p.into(),
                seed: 0,
            };
            let wide: Vec<f64> = logits.iter().map(|value| f64::from(*value)).collect();
            let parameters =
                Parameters { temperature, top_k: top_k as i64, top_p, min_p, uniform: number(9) };
            let found = draw(Form::best(), &logits, &parameters);
            for form in Form::usable() {
                assert_eq!(draw(form, &logits, &parameters), found, "{form:?}");
            }
            let expected = host.draw(&wide, number(9).into()).expect("draws");
            different += usize::from(usize::try_from(found) != Ok(expected));
        }
        assert!(different <= 2, "{different} of 2000 tokens differ");
    }

    #[test]
    fn what_is_no_distribution_has_no_token() {
        let p = Parameters { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, uniform: 0.5 };
        assert_eq!(draw(Form::best(), &[1.0, f32::NAN], &p), -1);
        assert_eq!(draw(Form::best(), &[1.0, f32::INFINITY], &p), -1);
        assert_eq!(draw(Form::best(), &[f32::NEG_INFINITY; 3], &p), -1);
        assert_eq!(draw(Form::best(), &[], &p), -1);
        assert_eq!(draw(Form::best(), &[f32::NEG_INFINITY, 0.5], &p), 1);
    }

    #[test]
    fn the_largest_are_found() {
        for seed in 0..if cfg!(miri) { 1 } else { 50 } {
            let logits = logits(1000, seed);
            let mut expected: Vec<u64> =
                logits.iter().enumerate().map(|(id, value)| super::entry_of(*value, id)).collect();
            expected.sort_unstable_by(|a, b| b.cmp(a));
            for count in [1, 7, 64, 400, 999] {
                let mut found = largest(&logits, count);
                found.sort_unstable_by(|a, b| b.cmp(a));
                assert_eq!(found, expected[..count]);
            }
        }
    }
}
