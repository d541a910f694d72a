//! Prompts into rows: one encoding for prompts of like lengths, its results as the state of the rows.

use super::group::{Group, Lane};
use super::route::Route;
use super::{GraphDecoder, Taken};
use crate::passes::compile::Plan;
use crate::runtime::backend::BackendError;
use crate::runtime::decoder::{Admission, Kept};
use crate::runtime::draws::SequenceDraws;
use crate::runtime::error::RuntimeError;
use crate::runtime::prompt::pad_right;
use crate::runtime::session::{Results, State};
use crate::runtime::timing::Phase;
use crate::runtime::trajectory::Trajectory;

/// Tokens, padding included, that one run of the encoder takes; a longer prompt goes alone.
const PREFILL_TOKENS: usize = 1 << 16;

impl GraphDecoder<'_> {
    pub(super) fn check(&self, admissions: &[Admission<'_>]) -> Result<(), BackendError> {
        let meta_tokens = self.session.program.meta_tokens;
        for admission in admissions {
            let Admission { row, sequences, prompt, .. } = *admission;
            let length = prompt.len() / meta_tokens;
            let taken = self.rows.get(row).is_none_or(Option::is_some);
            let twice = self
                .rows
                .iter()
                .flatten()
                .any(|taken| sequences.iter().any(|sequence| taken.sequences.contains(sequence)));
            if taken || twice || sequences.is_empty() || length * meta_tokens != prompt.len() {
                return Err(self.setup.refuses(format!(
                    "row {row} or one of its sequences is taken or unknown, or its {} tokens are not whole meta-contexts",
                    prompt.len()
                )));
            }
            if length + 1 > self.setup.capacity {
                return Err(self.setup.refuses(format!(
                    "row {row} would hold {} meta-contexts, room is for {}",
                    length + 1,
                    self.setup.capacity
                )));
            }
        }
        Ok(())
    }

    /// Encodes prompts, those of like lengths together: padding is work.
    pub(super) fn encode(&mut self, admissions: &[Admission<'_>]) -> Result<(), RuntimeError> {
        let mut order: Vec<&Admission<'_>> = admissions.iter().collect();
        order.sort_by_key(|admission| (admission.only_first, admission.prompt.len(), admission.row));
        let mut rest = order.as_slice();
        while let Some(first) = rest.first() {
            let fits = |(at, admission): (usize, &&&Admission<'_>)| {
                admission.only_first == first.only_first
                    && (at == 0 || (at + 1) * admission.prompt.len() <= PREFILL_TOKENS)
            };
            let count = rest.iter().enumerate().take_while(|(at, admission)| fits((*at, admission))).count();
            let (part, others) = rest.split_at(count);
            self.encode_together(part)?;
            rest = others;
        }
        for admission in admissions {
            self.rows[admission.row] = Some(Taken {
                sequences: admission.sequences.to_vec(),
                length: admission.prompt.len() / self.session.program.meta_tokens,
                wanted: admission.meta_contexts,
                only_first: admission.only_first,
            });
            if admission.keep.states || admission.keep.trajectory {
                let cut = self.stored_cut().filter(|_| admission.keep.trajectory);
                let trajectory = cut.map(|cut| Trajectory::new(admission.prompt.len(), cut));
                self.kept
                    .insert(admission.row, Kept { states: admission.keep.states.then(Vec::new), trajectory });
            }
        }
        Ok(())
    }

    /// The value that a trajectory stores: what the coarse graph hands over, if that is one value, and if an expansion of any
    /// place reads nothing of the tokens before it.
    fn stored_cut(&self) -> Option<&str> {
        match &self.plan {
            Plan::Distributed { certificate, .. } if certificate.loops.is_empty() => {
                match &certificate.cut[..] {
                    [cut] => Some(cut.name.as_str()),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn encode_together(&mut self, part: &[&Admission<'_>]) -> Result<(), RuntimeError> {
        let meta_tokens = self.session.program.meta_tokens;
        let prompts: Vec<&[i64]> = part.iter().map(|admission| admission.prompt).collect();
        // A row without a meta-context has one of padding: the encoder reads nothing of it.
        let (longest, ids) = pad_right(&prompts, meta_tokens);
        let lengths: Vec<usize> = prompts.iter().map(|prompt| prompt.len() / meta_tokens).collect();
        let ids = self.session.upload_ints(&[prompts.len(), longest], ids)?;
        let state = State { lengths: lengths.clone(), ..State::default() };
        let prefill =
            self.session.run(self.setup.protocol.encode(), Phase::Prefill, &state, &[("ids", &ids)])?;
        let new = self.group(part, &prefill, &lengths)?;
        match self.groups.iter_mut().find(|group| group.only_first == new.only_first) {
            Some(group) => Ok(group.merge(&mut self.session, new)?),
            None => {
                self.groups.push(new);
                Ok(())
            }
        }
    }

    /// The rows of one prefill, a lane for each way of drawing.
    fn group(
        &mut self,
        part: &[&Admission<'_>],
        prefill: &Results,
        lengths: &[usize],
    ) -> Result<Group, RuntimeError> {
        let capacity = self.setup.capacity;
        let program = self.session.program;
        let mut lanes: Vec<(Lane, Vec<usize>)> = Vec::new();
        for (place, admission) in part.iter().enumerate() {
            let route = Route::choose(program, &self.plan, admission.draws)?;
            let logits = admission.keep.logits || admission.draws.logprobs.is_some();
            let key = (route, logits);
            let found = lanes.iter().position(|(lane, _)| lane.key() == key);
            let at = found.unwrap_or_else(|| {
                lanes.push((Lane::new(route, logits), Vec::new()));
                lanes.len() - 1
            });
            let (lane, places) = &mut lanes[at];
            for (number, sequence) in admission.sequences.iter().enumerate() {
                let sample = admission.first_sample + number as u64;
                let draws = SequenceDraws::new(admission.draws, sample, admission.prompt, admission.forced);
                lane.push(admission, *sequence, number, draws);
                places.push(place);
            }
        }
        let rows = part.iter().map(|admission| admission.row).collect();
        let only_first = part.iter().all(|admission| admission.only_first);
        let (ahead, graphs): (Option<State>, Vec<&str>) = match &self.plan {
            Plan::Distributed { coarse, lead, expand, .. } => {
                let all: Vec<usize> = (0..part.len()).collect();
                let ahead = self.session.begin(&[coarse], prefill, &all, lengths, capacity)?;
                (Some(ahead), lead.as_deref().into_iter().chain([&**expand]).collect())
            }
            Plan::Undistributed { decode, reencode, .. } => {
                (None, [Some(&**decode), reencode.as_deref()].into_iter().flatten().collect())
            }
        };
        let mut ready = Vec::with_capacity(lanes.len());
        for (mut lane, places) in lanes {
            lane.state = self.session.begin(&graphs, prefill, &places, lengths, capacity)?;
            ready.push(lane);
        }
        Ok(Group { only_first, rows, ahead, lanes: ready })
    }
}
