//! Routing and expert feed-forward. Owns the order of sums: experts by number, inputs by number inside an expert.

use super::lanes::{Form, LANES, Lanes, Work, silu, with};
use super::pool::Pool;
use super::rows::{Place, row, size};
use super::scalar::{Scalar, load_part, store_part};
use crate::launch::arguments::{ExpertsArguments, RouteArguments};

/// Vectors of results that are summed at once.
const SUMMED: usize = 4;
/// Results of a piece of work.
const PIECE: usize = SUMMED * LANES;

/// `Route`.
///
/// # Safety
/// The addresses are valid.
pub unsafe fn route<T: Scalar>(pool: &Pool, a: &RouteArguments) {
    let (logits, out, experts) = (Place::<T>::of(&a.logits), Place::<T>::of(&a.out), size(a.experts));
    pool.share(size(a.rows), size(a.rows) * experts * 20, &|r| {
        // SAFETY: that of the caller.
        unsafe {
            let (from, to) = (row(&logits, r), row(&out, r));
            let logits = (0..experts).map(|e| f64::from(from.add(e).read_unaligned().wide())).collect();
            let scores = scores(a.softmax != 0, logits);
            let bias = |e: usize| match a.bias {
                0 => 0.0,
                bias => f64::from((bias as *const T).add(e).read_unaligned().wide()),
            };
            let biased: Vec<f64> = scores.iter().enumerate().map(|(e, score)| score + bias(e)).collect();
            let chosen = chosen(&biased, [size(a.top_k), size(a.groups), size(a.kept_groups)]);
            let kept = || scores.iter().zip(&chosen).filter(|(_, chosen)| **chosen).map(|(score, _)| score);
            let sum: f64 = if a.normalize == 0 { 1.0 } else { kept().sum() };
            for (e, (score, chosen)) in scores.iter().zip(&chosen).enumerate() {
                let gate = if *chosen { (score / sum * a.factor) as f32 } else { 0.0 };
                to.add(e).write_unaligned(T::narrow(gate));
            }
        }
    });
}

fn scores(softmax: bool, mut logits: Vec<f64>) -> Vec<f64> {
    if !softmax {
        logits.iter_mut().for_each(|logit| *logit = 1.0 / (1.0 + (-*logit).exp()));
        return logits;
    }
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    logits.iter_mut().for_each(|logit| *logit = (*logit - largest).exp());
    let mass: f64 = logits.iter().sum();
    logits.iter_mut().for_each(|share| *share /= mass);
    logits
}

/// Which experts are chosen: the largest of those groups that are kept, equal ones by number.
fn chosen(biased: &[f64], [top_k, groups, kept_groups]: [usize; 3]) -> Vec<bool> {
    let groups = groups.max(1);
    let width = biased.len() / groups;
    let mut open = vec![true; biased.len()];
    if groups > 1 {
        let of_group: Vec<f64> = (0..groups)
            .map(|group| {
                let own = &biased[group * width..(group + 1) * width];
                let best = largest(own, 2, |_| true);
                own.iter().zip(best).filter(|(_, best)| *best).map(|(score, _)| score).sum()
            })
            .collect();
        let kept = largest(&of_group, kept_groups, |_| true);
        open.iter_mut().enumerate().for_each(|(expert, open)| *open = kept[expert / width]);
    }
    largest(biased, top_k, |expert| open[expert])
}

/// Marks the `count` largest of the values that are open, equal ones by place.
fn largest(values: &[f64], count: usize, open: impl Fn(usize) -> bool) -> Vec<bool> {
    let mut places: Vec<usize> = (0..values.len()).filter(|at| open(*at)).collect();
    places.sort_by(|a, b| values[*b].total_cmp(&values[*a]).then_with(|| a.cmp(b)));
    let mut marks = vec![false; values.len()];
    places.iter().take(count).for_each(|at| marks[*at] = true);
    marks
}

/// `ExpertsUp`.
///
/// # Safety
/// The addresses are valid.
pub unsafe fn up<T: Scalar, W: Scalar>(form: Form, pool: &Pool, a: &ExpertsArguments) {
    let (x, gates, out) = (Place::<T>::of(&a.x), Place::<T>::of(&a.gates), Place::<f32>::of(&a.out));
    let (rows, top_k, inner, width) = (size(a.rows), size(a.top_k), size(a.inner), size(a.width));
    let parts = inner.div_ceil(PIECE);
    pool.share(rows * top_k * parts, rows * top_k * inner * width / 8, &|piece| {
        let (r, slot, at) = (piece / parts / top_k, piece / parts % top_k, piece % parts * PIECE);
        let count = PIECE.min(inner - at);
        // SAFETY: that of the caller; rows of the result are `top_k` times `inner` wide or `inner`, one after another.
        unsafe {
            let to = row(&out, r * top_k + slot).add(at);
            match expert(row(&gates, r), size(a.experts), slot) {
                None => std::ptr::write_bytes(to.cast::<u8>(), 0, count * size_of::<f32>()),
                Some((expert, _)) => {
                    let weight = (a.weight as *const W).add(expert * width * 2 * inner + at);
                    let x = row(&x, r).cast_const();
                    with(form, Up { x, weight, out: to, count, inner, width });
                }
            }
        }
    });
}

/// The `slot`-th expert whose gate is not 0, and the gate.
///
/// # Safety
/// There are so many gates.
unsafe fn expert<T: Scalar>(gates: *const T, experts: usize, slot: usize) -> Option<(usize, f32)> {
    // SAFETY: that of the caller.
    let gate = |e: usize| unsafe { gates.add(e).read_unaligned() }.wide();
    (0..experts).map(|e| (e, gate(e))).filter(|(_, gate)| *gate != 0.0).nth(slot)
}

/// Hidden values of an expert.
struct Up<T, W> {
    x: *const T,
    /// The gate map from the first value on.
    weight: *const W,
    out: *mut f32,
    count: usize,
    inner: usize,
    width: usize,
}

impl<T: Scalar, W: Scalar> Work for Up<T, W> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Up { x, weight, out, count, inner, width } = self;
        // SAFETY: that of the caller of `up`.
        unsafe {
            let input = |i: usize| x.add(i).read_unaligned().wide();
            let gate = products::<W, L>(weight, [2 * inner, count, width], input);
            let up = products::<W, L>(weight.add(inner), [2 * inner, count, width], input);
            for (part, at) in (0..count).step_by(LANES).enumerate() {
                let value = silu(gate[part]).mul(up[part]);
                store_part::<f32, L>(out.add(at), value, LANES.min(count - at));
            }
        }
    }
}

/// `count` results of `inputs` through a map whose rows, one an input, are `stride` apart.
#[inline(always)]
unsafe fn products<W: Scalar, L: Lanes>(
    weight: *const W,
    [stride, count, inputs]: [usize; 3],
    input: impl Fn(usize) -> f32,
) -> [L; SUMMED] {
    // SAFETY: that of the caller.
    unsafe {
        let mut sums = [L::splat(0.0); SUMMED];
        for i in 0..inputs {
            let value = L::splat(input(i));
            for (sum, at) in sums.iter_mut().zip((0..count).step_by(LANES)) {
                let weights = load_part::<W, L>(weight.add(i * stride + at), LANES.min(count - at));
                *sum = value.fma(weights, *sum);
            }
        }
        sums
    }
}

/// `ExpertsDown`.
///
/// # Safety
/// The addresses are valid.
pub unsafe fn down<T: Scalar, W: Scalar>(form: Form, pool: &Pool, a: &ExpertsArguments) {
    let (gates, out) = (Place::<T>::of(&a.gates), Place::<T>::of(&a.out));
    let (rows, width) = (size(a.rows), size(a.width));
    let parts = width.div_ceil(PIECE);
    pool.share(rows * parts, rows * size(a.top_k) * size(a.inner) * width / 16, &|piece| {
        let (r, at) = (piece / parts, piece % parts * PIECE);
        // SAFETY: that of the caller.
        unsafe {
            let (gates, out) = (row(&gates, r).cast_const(), row(&out, r).add(at));
            let weights = std::marker::PhantomData::<W>;
            with(form, Down { arguments: a, gates, out, row: r, at, count: PIECE.min(width - at), weights });
        }
    });
}

/// Part of a row's sum over experts.
struct Down<'a, T, W> {
    arguments: &'a ExpertsArguments,
    gates: *const T,
    out: *mut T,
    row: usize,
    at: usize,
    count: usize,
    weights: std::marker::PhantomData<W>,
}

impl<T: Scalar, W: Scalar> Work for Down<'_, T, W> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Down { arguments: a, count, .. } = self;
        let (top_k, inner, width) = (size(a.top_k), size(a.inner), size(a.width));
        let hidden = Place::<f32>::of(&a.x);
        // SAFETY: that of the caller of `down`.
        unsafe {
            let mut sums = [L::splat(0.0); SUMMED];
            for slot in 0..top_k {
                let Some((expert, gate)) = expert(self.gates, size(a.experts), slot) else { break };
                let weight = (a.weight as *const W).add(expert * inner * width + self.at);
                let values = row(&hidden, self.row * top_k + slot);
                let parts =
                    products::<W, L>(weight, [width, count, inner], |i| values.add(i).read_unaligned());
                for (sum, part) in sums.iter_mut().zip(parts) {
                    *sum = L::splat(gate).fma(part, *sum);
                }
            }
            for (sum, at) in sums.iter().zip((0..count).step_by(LANES)) {
                store_part::<T, L>(self.out.add(at), *sum, LANES.min(count - at));
            }
        }
    }
}
