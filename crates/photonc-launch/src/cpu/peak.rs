//! The most that a processor computes: fused multiply-adds on numbers in registers. Owns that measurement; no product
//! reaches it, since operands must be loaded as well.

use super::lanes::{Form, LANES, Lanes, Work, with};
use super::pool::Pool;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Measured runs; the median counts.
const RUNS: usize = 9;
/// One run takes longer than this.
const LEAST: Duration = Duration::from_millis(2);

/// Operations a second of all threads together, a fused multiply-add counted as two.
pub fn peak_flops(form: Form, pool: &Pool) -> f64 {
    let once = |rounds: usize| {
        let operations = AtomicUsize::new(0);
        let began = Instant::now();
        pool.share(pool.threads(), usize::MAX, &|_| {
            operations.fetch_add(with(form, Chains(rounds)), Ordering::Relaxed);
        });
        (operations.into_inner(), began.elapsed())
    };
    let mut rounds = 1 << 10;
    while rounds < 1 << 30 && once(rounds).1 < LEAST {
        rounds *= 2;
    }
    let mut rates: Vec<f64> = (0..RUNS)
        .map(|_| {
            let (operations, time) = once(rounds);
            operations as f64 / time.as_secs_f64()
        })
        .collect();
    rates.sort_by(f64::total_cmp);
    rates[RUNS / 2]
}

/// Sums that wait for nothing but themselves, as many as hide how long one takes; yields the operations.
struct Chains(usize);

impl Work for Chains {
    type Output = usize;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> usize {
        // SAFETY: that of the caller.
        unsafe {
            // What a form keeps as the sums of a tile, it has registers for.
            if const { L::TILE[0] * L::TILE[1] >= 16 } {
                chains::<L, 12>(self.0)
            } else {
                chains::<L, 4>(self.0)
            }
        }
    }
}

#[inline(always)]
unsafe fn chains<L: Lanes, const SUMS: usize>(rounds: usize) -> usize {
    // SAFETY: that of the caller; the array has sixteen elements.
    unsafe {
        // Towards 1, so that nothing overflows or becomes too small for full speed.
        let (by, plus) = (L::splat(black_box(0.5)), L::splat(black_box(0.5)));
        let mut sums = [L::splat(black_box(2.0)); SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = sum.fma(by, plus);
            }
        }
        let mut values = [0.0f32; LANES];
        for sum in sums {
            sum.store(values.as_mut_ptr());
            black_box(&values);
        }
    }
    2 * LANES * SUMS * rounds
}

#[cfg(test)]
mod tests {
    use super::{Chains, LANES};
    use crate::cpu::lanes::{Form, with};

    #[test]
    fn operations_are_counted_in_every_form() {
        for form in Form::usable() {
            let done = with(form, Chains(10));
            assert!(done == 2 * LANES * 4 * 10 || done == 2 * LANES * 12 * 10, "{form:?}: {done}");
        }
    }
}
