//! Memory that a kernel needs for itself. Owns what each thread keeps of it from one call to the next.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// Most f32 numbers of a piece that is kept.
const KEPT: usize = 8 << 20;

thread_local! {
    static FREE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Memory with unspecified contents, given back when dropped.
pub struct Scratch {
    memory: Vec<f32>,
    len: usize,
}

/// `len` f32 numbers.
#[must_use]
pub fn take(len: usize) -> Scratch {
    let mut memory = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
    if memory.len() < len {
        memory.resize(len, 0.0);
    }
    Scratch { memory, len }
}

impl Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.memory[..self.len]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.memory[..self.len]
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        if memory.len() <= KEPT {
            FREE.with_borrow_mut(|free| free.push(memory));
        }
    }
}
