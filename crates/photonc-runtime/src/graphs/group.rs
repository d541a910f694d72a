//! Rows that go through the graphs together. Owns the order of graphs in a burst. Where the protocol is split, the coarse
//! graph runs ahead over the rows and one wide expansion follows for the sequences of each lane, or, where the expansion has
//! a loop of its own, one meta-context after the other; otherwise a lane decodes whole meta-contexts one after the other.

use super::Burst;
use super::draw::{self, Drawing, Drawn};
use super::noted::{Label, keeps_states, note, note_state};
use super::route::Route;
use crate::backend::Buffer;
use crate::decoder::{Admission, Kept};
use crate::draws::SequenceDraws;
use crate::error::RuntimeError;
use crate::logprobs::TokenLogprobs;
use crate::plan::Program;
use crate::session::{Session, State};
use crate::timing::Phase;
use photonc_compiler::passes::compile::Plan;
use std::collections::BTreeMap;

/// What the coarse graph hands over for a run-ahead, by name: `[rows, count * .., ..]` each.
type Cuts = BTreeMap<String, Buffer>;

/// Rows with one batch of the coarse graph, if there is one.
#[derive(Debug)]
pub(super) struct Group {
    /// Its rows want one meta-context.
    pub only_first: bool,
    pub rows: Vec<usize>,
    /// State of the coarse graph, one row each.
    pub ahead: Option<State>,
    pub lanes: Vec<Lane>,
}

/// Sequences that are drawn in the same way.
#[derive(Debug)]
pub(super) struct Lane {
    route: Route,
    /// Whether logits are wanted on the host besides.
    logits: bool,
    sequences: Vec<Member>,
    /// State of the graphs that draw, one row each.
    pub state: State,
}

#[derive(Debug)]
pub(super) struct Member {
    row: usize,
    sequence: usize,
    /// Number within the row.
    number: usize,
    keeps_logits: bool,
    /// Meta-contexts wanted in all: nothing is kept of what a burst draws behind them for the rows beside it.
    wanted: usize,
    /// Meta-contexts drawn.
    drawn: usize,
    pub draws: SequenceDraws,
}

impl Group {
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Keeps the rows that `stays` says.
    pub fn retain(
        &mut self,
        session: &mut Session<'_>,
        stays: &dyn Fn(usize) -> bool,
    ) -> Result<(), RuntimeError> {
        if self.rows.iter().all(|row| stays(*row)) {
            return Ok(());
        }
        let kept: Vec<usize> = (0..self.rows.len()).filter(|at| stays(self.rows[*at])).collect();
        if let (Some(ahead), false) = (&mut self.ahead, kept.is_empty()) {
            session.select(ahead, &kept)?;
        }
        self.rows = kept.iter().map(|at| self.rows[*at]).collect();
        for lane in &mut self.lanes {
            let kept: Vec<usize> =
                (0..lane.sequences.len()).filter(|at| stays(lane.sequences[*at].row)).collect();
            if kept.len() < lane.sequences.len() && !kept.is_empty() {
                session.select(&mut lane.state, &kept)?;
            }
            lane.sequences.retain(|member| stays(member.row));
        }
        self.lanes.retain(|lane| !lane.sequences.is_empty());
        Ok(())
    }

    /// Takes the rows of another group behind its own.
    pub fn merge(&mut self, session: &mut Session<'_>, other: Group) -> Result<(), RuntimeError> {
        self.rows.extend(other.rows);
        self.ahead = match (self.ahead.take(), other.ahead) {
            (Some(mine), Some(theirs)) => Some(session.concat(mine, theirs)?),
            (mine, theirs) => mine.or(theirs),
        };
        for lane in other.lanes {
            match self.lanes.iter_mut().find(|mine| mine.key() == lane.key()) {
                Some(mine) => {
                    let state = std::mem::take(&mut mine.state);
                    mine.state = session.concat(state, lane.state)?;
                    mine.sequences.extend(lane.sequences);
                }
                None => self.lanes.push(lane),
            }
        }
        Ok(())
    }

    /// Generates `count` meta-contexts for every row.
    pub fn burst(
        &mut self,
        session: &mut Session<'_>,
        plan: &Plan,
        count: usize,
        kept: &mut BTreeMap<usize, Kept>,
        burst: &mut Burst,
    ) -> Result<(), RuntimeError> {
        match plan {
            Plan::Distributed { coarse, .. } => {
                let cuts = self.run_ahead(session, coarse, count, kept)?;
                for lane in &mut self.lanes {
                    lane.expand(session, plan, (&self.rows, &cuts), count, kept, burst)?;
                }
                Ok(())
            }
            Plan::Undistributed { reencode, .. } => {
                for lane in &mut self.lanes {
                    lane.decode(session, plan, reencode.as_deref(), count, kept, burst)?;
                }
                Ok(())
            }
        }
    }

    /// What the coarse graph hands over of the next `count` meta-contexts.
    fn run_ahead(
        &mut self,
        session: &mut Session<'_>,
        coarse: &str,
        count: usize,
        kept: &mut BTreeMap<usize, Kept>,
    ) -> Result<Cuts, RuntimeError> {
        let state =
            self.ahead.as_mut().expect("invariant: the groups of a split protocol have a coarse state");
        let members: Vec<&Member> = self.rows.iter().map(|row| member_of(&self.lanes, *row)).collect();
        let labels: Vec<Label> = members.iter().map(|member| member.label(0)).collect();
        let done: Vec<usize> = members.iter().map(|member| member.drawn).collect();
        let mut collected = Cuts::new();
        for step in 0..count {
            let metas: Vec<usize> = done.iter().map(|done| done + step).collect();
            note_state(session, state, &labels, &metas, kept)?;
            let mut results = session.run(coarse, Phase::Coarse, state, &[])?;
            let parts = results.take_values();
            session.advance(&mut results, state)?;
            state.lengths.iter_mut().for_each(|length| *length += 1);
            for (name, part) in parts {
                if labels.iter().any(|label| keeps_states(kept, label.row)) {
                    let values = session.download_floats(&part)?;
                    note(&name, &values, &labels, &metas, kept);
                }
                if count == 1 {
                    collected.insert(name, part);
                    continue;
                }
                let units = part.shape()[1];
                let mut target = match collected.remove(&name) {
                    Some(target) => target,
                    None => {
                        let mut shape = part.shape().to_vec();
                        shape[1] *= count;
                        session.backend.allocate(part.dtype(), &shape)?
                    }
                };
                session.backend.write(&mut target, &part, 1, &vec![step * units; labels.len()])?;
                collected.insert(name, target);
            }
        }
        Ok(collected)
    }
}

/// A sequence of a row. All of them have drawn as much.
fn member_of(lanes: &[Lane], row: usize) -> &Member {
    let mut members = lanes.iter().flat_map(|lane| &lane.sequences);
    members.find(|member| member.row == row).expect("invariant: every row has a sequence")
}

impl Member {
    fn label(&self, number: usize) -> Label {
        Label { row: self.row, number, wanted: self.wanted }
    }

    /// Of `count` meta-contexts that are drawn next, those that are wanted.
    fn of_next(&self, count: usize) -> usize {
        count.min(self.wanted.saturating_sub(self.drawn))
    }
}

impl Lane {
    pub fn new(route: Route, logits: bool) -> Self {
        Lane { route, logits, sequences: Vec::new(), state: State::default() }
    }

    /// What sequences of one lane have in common.
    pub fn key(&self) -> (Route, bool) {
        (self.route, self.logits)
    }

    pub fn push(&mut self, admission: &Admission<'_>, sequence: usize, number: usize, draws: SequenceDraws) {
        self.sequences.push(Member {
            row: admission.row,
            sequence,
            number,
            keeps_logits: admission.keep.logits,
            wanted: admission.meta_contexts,
            drawn: 0,
            draws,
        });
    }

    /// The expansion of a run-ahead, whose rows belong to `rows`.
    fn expand(
        &mut self,
        session: &mut Session<'_>,
        plan: &Plan,
        (rows, cuts): (&[usize], &Cuts),
        count: usize,
        kept: &mut BTreeMap<usize, Kept>,
        burst: &mut Burst,
    ) -> Result<(), RuntimeError> {
        let place = |member: &Member| {
            let found = rows.iter().position(|row| *row == member.row);
            found.expect("invariant: a sequence's row is in its group")
        };
        let places: Vec<usize> = self.sequences.iter().map(place).collect();
        self.store(session, (&places, cuts), count, kept)?;
        let mut own = Cuts::new();
        if !places.iter().copied().eq(0..rows.len()) {
            for (name, value) in cuts {
                own.insert(name.clone(), session.backend.gather(value, &places)?);
            }
        }
        let wide: Vec<(&str, &Buffer)> =
            cuts.iter().map(|(name, value)| (name.as_str(), own.get(name).unwrap_or(value))).collect();
        if plan.expands_in_order() {
            return self.expand_in_order(session, plan, &wide, count, kept, burst);
        }
        let metas: Vec<usize> = self.sequences.iter().map(|member| member.drawn).collect();
        note_state(session, &self.state, &self.labels(), &metas, kept)?;
        let drawn = self.draw(session, plan, &wide, count)?;
        self.deliver(session.program, &drawn, 0, burst);
        self.state.lengths.iter_mut().for_each(|length| *length += count);
        self.sequences.iter_mut().for_each(|member| member.drawn += count);
        Ok(())
    }

    /// An expansion with a loop: what precedes it for all meta-contexts at once, then one after the other.
    fn expand_in_order(
        &mut self,
        session: &mut Session<'_>,
        plan: &Plan,
        cuts: &[(&str, &Buffer)],
        count: usize,
        kept: &mut BTreeMap<usize, Kept>,
        burst: &mut Burst,
    ) -> Result<(), RuntimeError> {
        let mut led = Cuts::new();
        if let Plan::Distributed { lead: Some(lead), .. } = plan {
            let mut results = session.run(lead, Phase::Expand, &self.state, cuts)?;
            led.extend(results.take_values());
            session.advance(&mut results, &mut self.state)?;
        }
        let led = led.iter().map(|(name, value)| (name.as_str(), value));
        let all: Vec<(&str, &Buffer)> = led.chain(cuts.iter().copied()).collect();
        for step in 0..count {
            let mut parts = Vec::with_capacity(all.len());
            for (name, value) in &all {
                let each = value.shape()[1] / count;
                parts.push((*name, session.backend.slice(value, 1, step * each, each)?));
            }
            let given: Vec<(&str, &Buffer)> = parts.iter().map(|(name, part)| (*name, part)).collect();
            let metas: Vec<usize> = self.sequences.iter().map(|member| member.drawn).collect();
            note_state(session, &self.state, &self.labels(), &metas, kept)?;
            let drawn = self.draw(session, plan, &given, 1)?;
            self.deliver(session.program, &drawn, step, burst);
            self.state.lengths.iter_mut().for_each(|length| *length += 1);
            self.sequences.iter_mut().for_each(|member| member.drawn += 1);
        }
        Ok(())
    }

    /// Whole meta-contexts one after the other.
    fn decode(
        &mut self,
        session: &mut Session<'_>,
        plan: &Plan,
        reencode: Option<&str>,
        count: usize,
        kept: &mut BTreeMap<usize, Kept>,
        burst: &mut Burst,
    ) -> Result<(), RuntimeError> {
        for step in 0..count {
            let metas: Vec<usize> = self.sequences.iter().map(|member| member.drawn).collect();
            note_state(session, &self.state, &self.labels(), &metas, kept)?;
            let drawn = self.draw(session, plan, &[], 1)?;
            self.deliver(session.program, &drawn, step, burst);
            if let Some(reencode) = reencode {
                let given = [("ids", &drawn.buffer)];
                let mut results = session.run(reencode, Phase::Reencode, &self.state, &given)?;
                session.advance(&mut results, &mut self.state)?;
            }
            self.state.lengths.iter_mut().for_each(|length| *length += 1);
            self.sequences.iter_mut().for_each(|member| member.drawn += 1);
        }
        Ok(())
    }

    fn draw(
        &mut self,
        session: &mut Session<'_>,
        plan: &Plan,
        given: &[(&str, &Buffer)],
        count: usize,
    ) -> Result<Drawn, RuntimeError> {
        let sequences: Vec<&SequenceDraws> = self.sequences.iter().map(|member| &member.draws).collect();
        let drawing = Drawing::of(plan);
        let wanted = draw::Wanted {
            sequences: &sequences,
            tokens: count * session.program.meta_tokens,
            logits: self.logits,
        };
        let drawn = draw::draw(session, self.route, &drawing, &mut self.state, given, &wanted)?;
        let tokens = count * session.program.meta_tokens;
        for (member, ids) in self.sequences.iter_mut().zip(drawn.ids.chunks_exact(tokens)) {
            member.draws.advance(ids);
        }
        Ok(drawn)
    }

    /// Hands over what was drawn for each sequence, from meta-context `step` of the burst on.
    fn deliver(&self, program: &Program, drawn: &Drawn, step: usize, burst: &mut Burst) {
        let vocab_size = program.vocab_size;
        let tokens = drawn.ids.len() / self.sequences.len();
        for (at, member) in self.sequences.iter().enumerate() {
            let ids = &drawn.ids[at * tokens..(at + 1) * tokens];
            let logits = drawn.logits.as_ref();
            let logits = logits.map(|all| &all[at * tokens * vocab_size..(at + 1) * tokens * vocab_size]);
            let start = member.sequence * burst.tokens + step * tokens;
            burst.ids[start..start + tokens].copy_from_slice(ids);
            let Some(logits) = logits else { continue };
            let extras = burst.extras.entry(member.sequence).or_default();
            if let Some(count) = member.draws.draws.logprobs {
                // Behind a place without a distribution nothing is handed out.
                let known = ids.iter().zip(logits.chunks_exact(vocab_size)).take_while(|(id, _)| **id >= 0);
                extras.logprobs.extend(known.map(|(id, logits)| TokenLogprobs::of(logits, *id, count)));
            }
            if member.keeps_logits {
                let wanted = member.of_next(tokens / program.meta_tokens) * program.meta_tokens;
                extras.logits.extend_from_slice(&logits[..wanted * vocab_size]);
            }
        }
    }

    fn labels(&self) -> Vec<Label> {
        self.sequences.iter().map(|member| member.label(member.number)).collect()
    }

    /// Keeps what expanding these meta-contexts again takes, once for each row.
    fn store(
        &self,
        session: &mut Session<'_>,
        (places, cuts): (&[usize], &Cuts),
        count: usize,
        kept: &mut BTreeMap<usize, Kept>,
    ) -> Result<(), RuntimeError> {
        for (at, member) in self.sequences.iter().enumerate().filter(|(_, member)| member.number == 0) {
            let Some(kept) = kept.get_mut(&member.row) else { continue };
            let Some(trajectory) = &mut kept.trajectory else { continue };
            let Some(value) = cuts.get(&trajectory.cut) else { continue };
            // Carries are the same for all samples of a row: those of the first serve.
            let counts = [count, member.of_next(count)];
            trajectory.push(session, counts, (value, places[at]), (&self.state, at))?;
        }
        Ok(())
    }
}
