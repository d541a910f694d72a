//! The decoder over any backend that runs graphs: rows come and go, graphs run on those that are there. Owns the groups of
//! rows that go through the graphs together; knows graphs by the plan and values by signatures.
//!
//! Invariant: a row's tokens do not depend on the rows beside it.

mod admit;
mod draw;
mod group;
mod noted;
mod route;
mod window;

use super::backend::{Backend, BackendError};
use super::decoder::{Admission, Collected, Decoder, DecoderSetup, Extras, Kept, PrefillTotals};
use super::draws::Draws;
use super::error::RuntimeError;
use super::plan::{Program, SCORE};
use super::session::{Session, State};
use super::timing::{Phase, Timing};
pub(super) use draw::{Drawing, Wanted, draw};
use group::Group;
use photonc_compiler::passes::compile::Plan;
pub(super) use route::Route;
use std::collections::{BTreeMap, VecDeque};

/// A row that is taken.
#[derive(Debug)]
struct Taken {
    sequences: Vec<usize>,
    /// Meta-contexts in the caches.
    length: usize,
    /// Meta-contexts that are wanted still.
    wanted: usize,
    only_first: bool,
}

/// Rows that generate on a backend, graph by graph.
pub struct GraphDecoder<'b> {
    session: Session<'b>,
    plan: Plan,
    setup: DecoderSetup,
    /// Meta-contexts of a burst at most, for now.
    run_ahead: usize,
    rows: Vec<Option<Taken>>,
    kept: BTreeMap<usize, Kept>,
    prefilled: PrefillTotals,
    groups: Vec<Group>,
    /// Bursts that are done and not collected.
    done: VecDeque<Burst>,
    collected: Vec<i64>,
}

/// A finished burst.
#[derive(Debug)]
struct Burst {
    /// `[sequences, tokens]`.
    ids: Vec<i64>,
    tokens: usize,
    extras: BTreeMap<usize, Extras>,
}

impl<'b> GraphDecoder<'b> {
    /// A decoder with all rows empty. `profile`: waits for the device after each graph, so that times are the device's.
    ///
    /// # Errors
    /// The bundle lacks the protocol, or the setup has no room.
    pub fn new(
        backend: &'b mut dyn Backend,
        program: &'b Program,
        setup: DecoderSetup,
        profile: bool,
    ) -> Result<Self, RuntimeError> {
        let plan = program.plan(setup.protocol)?.clone();
        if setup.rows == 0 || setup.sequences < setup.rows || setup.run_ahead == 0 {
            return Err(setup.refuses("rows and run-ahead count from 1, and sequences are no fewer").into());
        }
        // Where nothing runs ahead, waiting for several meta-contexts gains nothing.
        let run_ahead = match &plan {
            Plan::Distributed { .. } => setup.run_ahead,
            Plan::Undistributed { .. } => 1,
        };
        Ok(GraphDecoder {
            session: Session::new(backend, program, profile),
            plan,
            setup: DecoderSetup { run_ahead, ..setup },
            run_ahead,
            rows: (0..setup.rows).map(|_| None).collect(),
            kept: BTreeMap::new(),
            prefilled: PrefillTotals::default(),
            groups: Vec::new(),
            done: VecDeque::new(),
            collected: Vec::new(),
        })
    }

    /// Drops the rows from the batches that nobody has any more.
    fn compact(&mut self) -> Result<(), RuntimeError> {
        let rows = &self.rows;
        for group in &mut self.groups {
            group.retain(&mut self.session, &|row| rows.get(row).is_some_and(Option::is_some))?;
        }
        self.groups.retain(|group| !group.is_empty());
        Ok(())
    }

    fn run(&mut self, count: usize) -> Result<Burst, RuntimeError> {
        let meta_tokens = self.session.program.meta_tokens;
        let tokens = count * meta_tokens;
        let mut burst =
            Burst { ids: vec![0; self.setup.sequences * tokens], tokens, extras: BTreeMap::new() };
        for group in &mut self.groups {
            let count = if group.only_first { 1 } else { count };
            group.burst(&mut self.session, &self.plan, count, &mut self.kept, &mut burst)?;
        }
        // What wants one meta-context has had it.
        self.groups.retain(|group| !group.only_first);
        for taken in self.rows.iter_mut().flatten() {
            taken.length += count;
            taken.wanted = taken.wanted.saturating_sub(count);
        }
        Ok(burst)
    }

    fn failed(error: RuntimeError) -> BackendError {
        match error {
            RuntimeError::Backend(error) => error,
            other => BackendError::Graphs { message: other.to_string() },
        }
    }
}

impl Decoder for GraphDecoder<'_> {
    fn setup(&self) -> DecoderSetup {
        self.setup
    }

    fn depth(&self) -> usize {
        1
    }

    fn draws_on_host(&self, draws: &Draws) -> Result<bool, BackendError> {
        let route = Route::choose(self.session.program, &self.plan, draws).map_err(Self::failed)?;
        Ok(route != Route::Graph)
    }

    fn admit(&mut self, admissions: &[Admission<'_>]) -> Result<(), BackendError> {
        self.check(admissions)?;
        self.compact().and_then(|()| self.encode(admissions)).map_err(Self::failed)
    }

    fn prefilled(&self) -> PrefillTotals {
        self.prefilled
    }

    fn retire(&mut self, row: usize) {
        if let Some(row) = self.rows.get_mut(row) {
            *row = None;
        }
    }

    fn start(&mut self) -> Result<usize, BackendError> {
        if !self.done.is_empty() {
            return Err(self.setup.refuses("a burst is pending: collect it first"));
        }
        self.compact().map_err(Self::failed)?;
        let longest = self.rows.iter().flatten().filter(|taken| !taken.only_first).map(|taken| taken.wanted);
        let count = longest.max().unwrap_or(1).clamp(1, self.run_ahead);
        let full = self.rows.iter().enumerate().find_map(|(row, taken)| {
            let length = taken.as_ref()?.length + count;
            (length > self.setup.capacity && !taken.as_ref()?.only_first).then_some((row, length))
        });
        if let Some((row, length)) = full {
            let room = self.setup.capacity;
            return Err(self
                .setup
                .refuses(format!("row {row} would hold {length} meta-contexts, room is for {room}")));
        }
        let burst = self.run(count).map_err(Self::failed)?;
        self.done.push_back(burst);
        Ok(count)
    }

    fn set_run_ahead(&mut self, meta_contexts: usize) {
        self.run_ahead = meta_contexts.clamp(1, self.setup.run_ahead);
    }

    fn pending(&self) -> usize {
        self.done.len()
    }

    fn collect(&mut self) -> Result<Collected<'_>, BackendError> {
        let burst = self.done.pop_front().ok_or_else(|| self.setup.refuses("no burst is pending"))?;
        self.collected = burst.ids;
        Ok(Collected { ids: &self.collected, extras: burst.extras })
    }

    fn take_kept(&mut self, row: usize) -> Kept {
        self.kept.remove(&row).unwrap_or_default()
    }

    fn score(&mut self, tokens: &[i64]) -> Result<Vec<f64>, BackendError> {
        let score = |session: &mut Session<'_>| -> Result<Vec<f64>, RuntimeError> {
            let ids = session.upload_ints(&[1, tokens.len()], tokens.to_vec())?;
            let length = tokens.len() / session.program.meta_tokens;
            let state = State { lengths: vec![length], ..State::default() };
            let mut results = session.run(SCORE, Phase::Score, &state, &[("ids", &ids)])?;
            let logits = results.take("logits")?;
            session.download_floats(&logits)
        };
        score(&mut self.session).map_err(Self::failed)
    }

    fn take_times(&mut self) -> Timing {
        std::mem::take(&mut self.session.timing)
    }
}
