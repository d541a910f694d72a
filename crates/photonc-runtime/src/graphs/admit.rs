//! Prompts into rows: one encoding for prompts of like lengths, its results as the state of the rows.

use super::group::{Group, Lane};
use super::route::Route;
use super::{GraphDecoder, Taken};
use crate::backend::BackendError;
use crate::decoder::{Admission, Kept, SharedPrompt};
use crate::draws::SequenceDraws;
use crate::error::RuntimeError;
use crate::prompt::pad_right;
use crate::session::{Results, State};
use crate::timing::Phase;
use crate::trajectory::Trajectory;
use photonc_compiler::passes::compile::Plan;

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
        for only_first in [false, true] {
            let of = admissions.iter().filter(|admission| admission.only_first == only_first);
            let prompts = SharedPrompt::of(of);
            let mut rest = prompts.as_slice();
            while !rest.is_empty() {
                let fits = |at: usize, prompt: &[i64]| at == 0 || (at + 1) * prompt.len() <= PREFILL_TOKENS;
                let count = rest.iter().enumerate().take_while(|(at, one)| fits(*at, one.prompt)).count();
                let (part, others) = rest.split_at(count);
                self.encode_together(part, only_first)?;
                rest = others;
            }
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

    fn encode_together(
        &mut self,
        part: &[SharedPrompt<'_, '_>],
        only_first: bool,
    ) -> Result<(), RuntimeError> {
        let meta_tokens = self.session.program.meta_tokens;
        let prompts: Vec<&[i64]> = part.iter().map(|shared| shared.prompt).collect();
        // A row without a meta-context has one of padding: the encoder reads nothing of it.
        let (longest, ids) = pad_right(&prompts, self.session.backend.least_prompt() * meta_tokens);
        let lengths: Vec<usize> = prompts.iter().map(|prompt| prompt.len() / meta_tokens).collect();
        let ids = self.session.upload_ints(&[prompts.len(), longest], ids)?;
        let state = State { lengths: lengths.clone(), ..State::default() };
        let prefill =
            self.session.run(self.setup.protocol.encode(), Phase::Prefill, &state, &[("ids", &ids)])?;
        part.iter().for_each(|shared| self.prefilled.count(shared));
        let new = Group { only_first, ..self.group(part, &prefill, &lengths)? };
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
        part: &[SharedPrompt<'_, '_>],
        prefill: &Results,
        lengths: &[usize],
    ) -> Result<Group, RuntimeError> {
        let capacity = self.setup.capacity;
        let program = self.session.program;
        let mut lanes: Vec<(Lane, Vec<usize>)> = Vec::new();
        let admissions =
            || part.iter().enumerate().flat_map(|(at, one)| one.admissions.iter().map(move |of| (at, *of)));
        for (place, admission) in admissions() {
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
        let rows = admissions().map(|(_, admission)| admission.row).collect();
        let (ahead, graphs): (Option<State>, Vec<&str>) = match &self.plan {
            Plan::Distributed { coarse, lead, expand, .. } => {
                let places: Vec<usize> = admissions().map(|(place, _)| place).collect();
                let ahead = self.session.begin(&[coarse], prefill, &places, lengths, capacity)?;
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
        Ok(Group { only_first: false, rows, ahead, lanes: ready })
    }
}
