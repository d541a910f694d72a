//! Memory that a kernel needs for itself. Owns what each thread keeps of it from one call to the next, and its alignment:
//! vectors that straddle two lines of the cache take twice as long to load, and products load little else.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// f32 numbers of a line of the cache.
const LINE: usize = 16;

/// A line of the cache.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

/// Most f32 numbers of a piece that is kept.
const KEPT: usize = 8 << 20;

thread_local! {
    static FREE: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// Memory with unspecified contents, given back when dropped.
pub struct Scratch {
    memory: Vec<Line>,
    len: usize,
}

/// `len` f32 numbers, the first at the start of a line of the cache.
#[must_use]
pub fn take(len: usize) -> Scratch {
    let mut memory = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
    let lines = len.div_ceil(LINE);
    if memory.len() < lines {
        memory.resize(lines, Line([0.0; LINE]));
    }
    Scratch { memory, len }
}

impl Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: lines are `len` numbers or more behind one another, without padding.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above, and borrowed for change.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_mut_ptr().cast(), self.len) }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        if memory.len() * LINE <= KEPT {
            FREE.with_borrow_mut(|free| free.push(memory));
        }
    }
}
