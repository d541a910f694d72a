//! Level-1 windows position by position, each token drawn on the host and fed back. Owns the order of positions:
//! prefix vectors first, then the tokens drawn from the elements before (PHOTON.md section 4).

use super::draw::{Drawn, Wanted, upload};
use crate::backend::Buffer;
use crate::error::RuntimeError;
use crate::penalties::Seen;
use crate::plan::{CacheAxis, WINDOW};
use crate::session::{Session, State};
use crate::timing::Phase;
use photonc_graph::ir::dim::{Bindings, Symbol};
use photonc_graph::ir::tensor::Tensor;

/// Draws the tokens of windows whose prefix vectors are `conditions [rows * windows, R, W]`, rows outermost, or the same with
/// windows and prefix in one axis (where a meta-context is one window, meta-contexts lie there). All at once,
/// or with penalties one meta-context after the other: what a token sees does not depend on how many are drawn together.
pub(super) fn draw(
    session: &mut Session<'_>,
    conditions: Buffer,
    wanted: &Wanted<'_>,
) -> Result<Drawn, RuntimeError> {
    let sizes = Sizes::of(session, &conditions, wanted)?;
    let conditions = conditions.reshaped(&[sizes.windows, sizes.prefix, sizes.width])?;
    let rows = wanted.sequences.len();
    let ids = vec![0i64; rows * wanted.tokens];
    let vocab_size = session.program.vocab_size;
    let kept = if wanted.logits { vec![0.0; ids.len() * vocab_size] } else { Vec::new() };
    let seen = wanted.sequences.iter().map(|sequence| sequence.seen.clone()).collect();
    let mut drawing = Windows { wanted, sizes, seen, ids, kept };
    if wanted.sequences.iter().all(|sequence| sequence.draws.penalties.are_none()) {
        let all: Vec<usize> = (0..drawing.sizes.windows).collect();
        drawing.draw(session, &conditions, &all)?;
    } else {
        let (per_row, step) =
            (wanted.tokens / drawing.sizes.chunk, session.program.meta_tokens / drawing.sizes.chunk);
        for first in (0..per_row).step_by(step) {
            let of_row = |row: usize| (first..first + step).map(move |window| row * per_row + window);
            let windows: Vec<usize> = (0..rows).flat_map(of_row).collect();
            let part = session.backend.gather(&conditions, &windows)?;
            drawing.draw(session, &part, &windows)?;
            drawing.see(first * drawing.sizes.chunk, session.program.meta_tokens);
        }
    }
    let Windows { ids, kept, .. } = drawing;
    let buffer = upload(session, wanted, &ids)?;
    Ok(Drawn { ids, buffer, logits: wanted.logits.then_some(kept) })
}

/// Windows on their way to tokens.
struct Windows<'w> {
    wanted: &'w Wanted<'w>,
    sizes: Sizes,
    /// What penalties count, per row.
    seen: Vec<Seen>,
    /// `[rows, tokens]`; negative where logits are no distribution.
    ids: Vec<i64>,
    /// Logits `[rows, tokens, V]`, if they are wanted.
    kept: Vec<f64>,
}

impl Windows<'_> {
    /// Draws the windows of these places; `conditions` are theirs.
    fn draw(
        &mut self,
        session: &mut Session<'_>,
        conditions: &Buffer,
        windows: &[usize],
    ) -> Result<(), RuntimeError> {
        let Sizes { prefix, chunk, width, .. } = self.sizes;
        let count = windows.len();
        let mut state = window_caches(session, count)?;
        let blank = Tensor::zeros(conditions.dtype(), &[count, width]);
        let blank = session.backend.upload(&blank, conditions.dtype())?;
        for position in 0..prefix + chunk - 1 {
            let vector = match position < prefix {
                true => {
                    let vector = session.backend.slice(conditions, 1, position, 1)?;
                    Some(vector.reshaped(&[count, width])?)
                }
                false => None,
            };
            // The element before this position; among the prefix vectors the id is not read.
            let fed: Vec<i64> = match position.checked_sub(prefix) {
                Some(element) => {
                    windows.iter().map(|window| self.ids[window * chunk + element].max(0)).collect()
                }
                None => vec![0; count],
            };
            let fed = session.upload_ints(&[count], fed)?;
            let at = session.upload_ints(&[count], vec![position as i64; count])?;
            let given = [("vector", vector.as_ref().unwrap_or(&blank)), ("ids", &fed), ("position", &at)];
            let mut results = session.run(WINDOW, Phase::HostSampling, &state, &given)?;
            state.lengths = vec![position; count];
            session.advance(&mut results, &mut state)?;
            let Some(element) = (position + 1).checked_sub(prefix) else { continue };
            let logits = results.take("logits")?;
            let logits = session.download_floats(&logits)?;
            self.take(windows, element, &logits);
        }
        Ok(())
    }

    /// Draws element `element` of these windows from logits `[windows, V]`.
    fn take(&mut self, windows: &[usize], element: usize, logits: &[f64]) {
        let (wanted, chunk) = (self.wanted, self.sizes.chunk);
        let vocab_size = logits.len() / windows.len();
        for (window, logits) in windows.iter().zip(logits.chunks_exact(vocab_size)) {
            // Windows of a row follow each other, so a window's tokens do too.
            let token = window * chunk + element;
            let (row, at) = (token / wanted.tokens, token % wanted.tokens);
            let near = &self.ids[window * chunk..token];
            let drawn = wanted.sequences[row].draw(&self.seen[row], near, at, logits);
            self.ids[token] = drawn.unwrap_or(-1);
            if wanted.logits {
                self.kept[token * vocab_size..(token + 1) * vocab_size].copy_from_slice(logits);
            }
        }
    }

    /// Lets later windows see `tokens` tokens of each row from `first` on.
    fn see(&mut self, first: usize, tokens: usize) {
        let rows = self.ids.chunks_exact(self.wanted.tokens);
        for ((sequence, seen), ids) in self.wanted.sequences.iter().zip(&mut self.seen).zip(rows) {
            sequence.see(seen, first, &ids[first..first + tokens]);
        }
    }
}

/// Sizes of the windows of one draw.
#[derive(Clone, Copy)]
struct Sizes {
    windows: usize,
    /// Prefix vectors, `R_1`.
    prefix: usize,
    /// Tokens of a window, `C_1`.
    chunk: usize,
    /// Width of the decoder, `W_1`.
    width: usize,
}

impl Sizes {
    fn of(session: &Session<'_>, conditions: &Buffer, wanted: &Wanted<'_>) -> Result<Self, RuntimeError> {
        let error = |message: String| RuntimeError::signature(WINDOW, message);
        let [outer, inner, width] = conditions.shape()[..] else {
            return Err(error(format!("conditions are {:?}, expected three axes", conditions.shape())));
        };
        let caches = session.program.signature(WINDOW)?.inputs.iter().filter(|(name, _)| is_cache(name));
        let slots = caches.filter_map(|(_, ty)| ty.shape.0.get(2)?.as_const()).next();
        let (tokens, vectors) = (wanted.sequences.len() * wanted.tokens, outer * inner);
        let windows = match slots {
            // A window of `R + C - 1` slots has `R` vectors and `C` tokens.
            Some(slots) => (vectors + tokens) / (slots + 1),
            // A stack without layers has no cache to tell the window's length from.
            None => outer,
        };
        let whole =
            |count: usize| count.checked_div(windows).filter(|each| *each > 0 && each * windows == count);
        // Several meta-contexts taken for one window would draw something, but not what the model says.
        let chunk = whole(tokens).filter(|chunk| session.program.meta_tokens.is_multiple_of(*chunk));
        let (Some(prefix), Some(chunk)) = (whole(vectors), chunk) else {
            return Err(error(format!("{vectors} prefix vectors do not make {tokens} tokens")));
        };
        Ok(Sizes { windows, prefix, chunk, width })
    }
}

fn is_cache(name: &str) -> bool {
    name.ends_with(".key") || name.ends_with(".value")
}

/// Empty caches of the windows; slots are read only once written.
fn window_caches(session: &mut Session<'_>, windows: usize) -> Result<State, RuntimeError> {
    let mut state = State { lengths: vec![0; windows], ..State::default() };
    let mut bindings = Bindings::default();
    bindings.bind(Symbol::Batch, windows);
    let program = session.program;
    for (name, ty) in program.signature(WINDOW)?.inputs.iter().filter(|(name, _)| is_cache(name)) {
        let unbound = || RuntimeError::signature(WINDOW, format!("`{name}` has the type {ty}"));
        let shape = ty.shape.eval(&bindings).ok_or_else(unbound)?;
        state.buffers.insert(name.clone(), session.backend.allocate(ty.dtype, &shape)?);
        state.caches.insert(name.clone(), CacheAxis { axis: 2, units: 1 });
    }
    Ok(state)
}
