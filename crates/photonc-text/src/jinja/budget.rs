//! What rendering may use: steps, bytes alive at once, the size of one value. Owns the counts, which belong to the thread
//! that renders.
//!
//! Invariant: nothing is made whose size was not asked for first.

use super::error::{Outcome, exceeds};
use std::cell::Cell;

/// Evaluations and copies of [`BYTES_PER_STEP`] bytes: far more than any template needs, few enough to end in a second or
/// two one that never would.
const MAX_STEPS: u64 = 4_000_000;

/// Bytes whose copy or comparison counts as one evaluation.
const BYTES_PER_STEP: usize = 512;

/// Bytes that all values of a template may have at once, beside its input.
const MAX_LIVE_BYTES: usize = 64 << 20;

/// Bytes of one text, beside the input's.
const MAX_TEXT_BYTES: usize = 16 << 20;

/// Elements of one list.
const MAX_ITEMS: usize = 400_000;

struct Meter {
    steps: Cell<u64>,
    live: Cell<usize>,
    input: Cell<usize>,
}

thread_local! {
    static METER: Meter =
        const { Meter { steps: Cell::new(0), live: Cell::new(0), input: Cell::new(0) } };
}

/// Begins anew on this thread, for an input of so many bytes.
pub fn start(input_bytes: usize) {
    METER.with(|meter| {
        meter.steps.set(0);
        meter.live.set(0);
        meter.input.set(input_bytes);
    });
}

/// Counts evaluations.
pub fn steps(count: usize) -> Outcome<()> {
    METER.with(|meter| {
        let taken = meter.steps.get().saturating_add(count as u64);
        meter.steps.set(taken);
        // A long conversation takes more.
        if taken > MAX_STEPS + meter.input.get() as u64 / 8 {
            return exceeds("too many steps: the template may never end");
        }
        Ok(())
    })
}

/// Counts bytes that are copied or compared.
pub fn bytes(count: usize) -> Outcome<()> {
    steps(count / BYTES_PER_STEP)
}

/// Whether a text may have so many bytes.
pub fn text_fits(bytes: usize) -> Outcome<()> {
    let limit = METER.with(|meter| MAX_TEXT_BYTES.saturating_add(meter.input.get().saturating_mul(3)));
    if bytes > limit {
        return exceeds(format!("a text of {bytes} bytes, more than the {limit} that are allowed"));
    }
    Ok(())
}

/// Whether a list may have so many elements.
pub fn items_fit(count: usize) -> Outcome<()> {
    let limit = METER.with(|meter| MAX_ITEMS.saturating_add(meter.input.get() / 8));
    if count > limit {
        return exceeds(format!("a list of {count} elements, more than the {limit} that are allowed"));
    }
    Ok(())
}

/// Bytes that a value holds as long as it lives.
#[derive(Debug)]
pub struct Held(usize);

impl Held {
    /// Takes them, if there is room.
    pub fn take(bytes: usize) -> Outcome<Held> {
        METER.with(|meter| {
            let live = meter.live.get().saturating_add(bytes);
            if live > MAX_LIVE_BYTES.saturating_add(meter.input.get().saturating_mul(20)) {
                return exceeds("too much memory: the template's values are too large together");
            }
            meter.live.set(live);
            Ok(Held(bytes))
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        METER.with(|meter| meter.live.set(meter.live.get().saturating_sub(self.0)));
    }
}

/// A text that grows within what is allowed.
#[derive(Debug, Default)]
pub struct Buffer {
    text: String,
    held: Option<Held>,
}

impl Buffer {
    /// Makes room for more bytes.
    fn reserve(&mut self, more: usize) -> Outcome<()> {
        let wanted = self.text.len().saturating_add(more);
        text_fits(wanted)?;
        if wanted > self.text.capacity() {
            let capacity = wanted.saturating_mul(2).max(64);
            self.held = None;
            self.held = Some(Held::take(capacity)?);
            self.text.reserve_exact(capacity - self.text.len());
        }
        Ok(())
    }

    /// Adds to the end.
    pub fn push(&mut self, text: &str) -> Outcome<()> {
        self.reserve(text.len())?;
        bytes(text.len())?;
        self.text.push_str(text);
        Ok(())
    }

    /// Adds one character.
    pub fn push_char(&mut self, character: char) -> Outcome<()> {
        self.reserve(character.len_utf8())?;
        if self.text.len().is_multiple_of(BYTES_PER_STEP) {
            steps(1)?;
        }
        self.text.push(character);
        Ok(())
    }

    /// Adds a text several times.
    pub fn push_times(&mut self, text: &str, count: usize) -> Outcome<()> {
        let all = text.len().saturating_mul(count);
        self.reserve(all)?;
        bytes(all)?;
        for _ in 0..if text.is_empty() { 0 } else { count } {
            self.text.push_str(text);
        }
        Ok(())
    }

    /// The text.
    pub fn into_string(self) -> String {
        self.text
    }
}
