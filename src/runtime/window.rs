//! Level-1 windows position by position, each token drawn on the host and fed back. Owns the order of positions:
//! prefix vectors first, then the tokens drawn from the elements before (PHOTON.md section 4).

use super::backend::Buffer;
use super::draw::{Drawn, Wanted, host_token};
use super::error::RuntimeError;
use super::plan::WINDOW;
use super::session::{Session, State};
use super::timing::Phase;
use crate::ir::dim::{Bindings, Symbol};
use crate::ir::tensor::Tensor;

/// Draws the tokens of windows whose prefix vectors are `conditions [rows * windows, R, W]`, rows outermost.
pub(super) fn draw(
    session: &mut Session<'_>,
    conditions: Buffer,
    wanted: &Wanted<'_>,
) -> Result<Drawn, RuntimeError> {
    let sizes = Sizes::of(session, &conditions, wanted)?;
    let mut state = window_caches(session, sizes.windows)?;
    let mut ids = vec![0i64; wanted.rows() * wanted.tokens];
    let vocab_size = session.program.vocab_size;
    let mut kept = if wanted.keep_logits { Some(vec![0.0; ids.len() * vocab_size]) } else { None };
    let blank = Tensor::zeros(conditions.dtype(), &[sizes.windows, sizes.width]);
    let blank = session.backend.upload(&blank, conditions.dtype())?;
    for position in 0..sizes.prefix + sizes.chunk - 1 {
        let vector = match position < sizes.prefix {
            true => {
                let vector = session.backend.slice(&conditions, 1, position, 1)?;
                Some(vector.reshaped(&[sizes.windows, sizes.width])?)
            }
            false => None,
        };
        // The element before this position; among the prefix vectors the id is not read.
        let fed: Vec<i64> = match position.checked_sub(sizes.prefix) {
            Some(element) => (0..sizes.windows).map(|window| ids[window * sizes.chunk + element]).collect(),
            None => vec![0; sizes.windows],
        };
        let fed = session.upload_ints(&[sizes.windows], fed)?;
        let at = vec![i64::try_from(position).unwrap_or(i64::MAX); sizes.windows];
        let at = session.upload_ints(&[sizes.windows], at)?;
        let given = [("vector", vector.as_ref().unwrap_or(&blank)), ("ids", &fed), ("position", &at)];
        let mut results = session.run(WINDOW, Phase::HostSampling, &state, &given)?;
        state.lengths = vec![position; sizes.windows];
        session.advance(&mut results, &mut state)?;
        let Some(element) = (position + 1).checked_sub(sizes.prefix) else { continue };
        let logits = results.take("logits")?;
        let logits = session.download_floats(&logits)?;
        for (window, logits) in logits.chunks_exact(vocab_size).enumerate() {
            // Windows of a row follow each other, so a window's tokens do too.
            let token = window * sizes.chunk + element;
            ids[token] = host_token(wanted, token / wanted.tokens, token % wanted.tokens, logits)?;
            if let Some(kept) = &mut kept {
                kept[token * vocab_size..(token + 1) * vocab_size].copy_from_slice(logits);
            }
        }
    }
    let buffer = session.upload_ints(&[wanted.rows(), wanted.tokens], ids.clone())?;
    Ok(Drawn { ids, buffer, logits: kept })
}

/// Sizes of the windows of one draw.
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
        let [windows, prefix, width] = conditions.shape()[..] else {
            return Err(error(format!("conditions are {:?}, expected three axes", conditions.shape())));
        };
        let caches = session.program.signature(WINDOW)?.inputs.iter().filter(|(name, _)| is_cache(name));
        let slots = caches.filter_map(|(_, ty)| ty.shape.0.get(2)?.as_const()).next();
        let tokens = wanted.rows() * wanted.tokens;
        // A stack without layers has no cache to tell the window's length from.
        let chunk = match slots {
            Some(slots) => (slots + 1).saturating_sub(prefix),
            None => tokens / windows.max(1),
        };
        if prefix == 0 || chunk == 0 || chunk * windows != tokens {
            return Err(error(format!("{windows} windows of {chunk} tokens do not make {tokens} tokens")));
        }
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
        state.caches.insert(name.clone(), super::plan::CacheAxis { axis: 2, units: 1 });
    }
    Ok(state)
}
