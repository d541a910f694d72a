//! The two ways of generation. Distributed: the coarse graph runs ahead, one wide expansion follows, samples of a prompt
//! share its trajectory. Undistributed: whole meta-contexts one after the other.

use super::backend::Buffer;
use super::draw::{Drawing, Drawn, draw};
use super::error::RuntimeError;
use super::generator::Run;
use super::request::RunAhead;
use super::session::{Results, State};
use super::timing::Phase;
use super::trajectory::Trajectory;

impl Run<'_> {
    pub(super) fn distributed(
        &mut self,
        coarse: &str,
        drawing: &Drawing<'_>,
        prefill: Results,
    ) -> Result<(), RuntimeError> {
        let (lengths, capacity) = (self.lengths.clone(), self.capacity);
        let mut prompts: Vec<usize> = (0..lengths.len()).collect();
        let mut ahead = self.session.begin(&[coarse], &prefill, &prompts, &lengths, capacity)?;
        let expansions = self.batch.prompts();
        let mut carried = self.session.begin(&[drawing.graph], &prefill, &expansions, &lengths, capacity)?;
        drop(prefill);
        self.trajectory = self.request.keep.trajectory.then(Trajectory::default);
        let mut done = 0;
        while !self.batch.is_done() && !self.cancel.is_cancelled() {
            let count = self.ahead_of(done);
            let Some(reconstruction) = self.run_ahead(coarse, &mut ahead, &prompts, done, count)? else {
                break;
            };
            let rows = self.rows_of(&prompts);
            self.store(&reconstruction, &carried, &prompts, &rows, (done, count))?;
            let labels: Vec<(usize, usize)> =
                self.batch.prompts().into_iter().zip(self.batch.samples()).collect();
            self.record(&carried, &labels, done)?;
            let shared = rows.iter().copied().eq(0..prompts.len());
            let wide = match shared {
                true => reconstruction,
                false => self.session.backend.gather(&reconstruction, &rows)?,
            };
            let Drawn { ids, logits, .. } =
                self.draw(drawing, &mut carried, &[("reconstruction", &wide)], done, count)?;
            done += count;
            let before = rows.len();
            let going_on = self.deliver(&ids, logits.as_deref());
            if going_on.len() < before && !going_on.is_empty() {
                self.session.select(&mut carried, &going_on)?;
                self.drop_prompts(&mut ahead, &mut prompts)?;
            }
        }
        Ok(())
    }

    pub(super) fn undistributed(
        &mut self,
        drawing: &Drawing<'_>,
        reencode: Option<&str>,
        prefill: Results,
    ) -> Result<(), RuntimeError> {
        let (lengths, capacity) = (self.lengths.clone(), self.capacity);
        let rows = self.batch.prompts();
        let graphs: Vec<&str> = [Some(drawing.graph), reencode].into_iter().flatten().collect();
        let mut state = self.session.begin(&graphs, &prefill, &rows, &lengths, capacity)?;
        drop(prefill);
        let mut done = 0;
        while !self.batch.is_done() && !self.cancel.is_cancelled() {
            let labels: Vec<(usize, usize)> =
                self.batch.prompts().into_iter().zip(self.batch.samples()).collect();
            self.record(&state, &labels, done)?;
            let Drawn { ids, buffer, logits } = self.draw(drawing, &mut state, &[], done, 1)?;
            let going_on = self.deliver(&ids, logits.as_deref());
            done += 1;
            if going_on.is_empty() {
                break;
            }
            // Finished rows still go through `reencode`: their cut comes after, with one selection of everything.
            if let Some(reencode) = reencode {
                let given = [("ids", &buffer)];
                let mut results = self.session.run(reencode, Phase::Reencode, &state, &given)?;
                self.session.advance(&mut results, &mut state)?;
            }
            state.lengths.iter_mut().for_each(|length| *length += 1);
            if going_on.len() < labels.len() {
                self.session.select(&mut state, &going_on)?;
            }
        }
        Ok(())
    }

    fn draw(
        &mut self,
        drawing: &Drawing<'_>,
        state: &mut State,
        given: &[(&str, &Buffer)],
        first: usize,
        count: usize,
    ) -> Result<Drawn, RuntimeError> {
        // Cloned, because the session is borrowed for the draw.
        let request = self.request;
        let wanted = super::draw::Wanted { sampling: &request.sampling, ..self.wanted(first, count) };
        let drawn = draw(&mut self.session, self.route, drawing, state, given, &wanted);
        drawn.map_err(|error| match error {
            RuntimeError::NotADistribution { row, token } => {
                RuntimeError::NotADistribution { row: self.batch.place(row), token }
            }
            other => other,
        })
    }

    fn ahead_of(&self, done: usize) -> usize {
        let left = self.steps.saturating_sub(done).max(1);
        match self.request.run_ahead {
            RunAhead::All => left,
            RunAhead::MetaContexts(count) => count.clamp(1, left),
        }
    }

    /// Reconstructions `[prompts, C_L * count, W_L]` of the next `count` meta-contexts; `None` if cancelled.
    fn run_ahead(
        &mut self,
        coarse: &str,
        state: &mut State,
        prompts: &[usize],
        done: usize,
        count: usize,
    ) -> Result<Option<Buffer>, RuntimeError> {
        let labels: Vec<(usize, usize)> = prompts.iter().map(|prompt| (*prompt, 0)).collect();
        let mut collected: Option<Buffer> = None;
        for step in 0..count {
            if self.cancel.is_cancelled() {
                return Ok(None);
            }
            self.record(state, &labels, done + step)?;
            let mut results = self.session.run(coarse, Phase::Coarse, state, &[])?;
            let part = results.take("reconstruction")?;
            self.session.advance(&mut results, state)?;
            state.lengths.iter_mut().for_each(|length| *length += 1);
            if self.request.keep.states {
                let values = self.session.download_floats(&part)?;
                self.note("reconstruction", &values, &labels, done + step);
            }
            if count == 1 {
                return Ok(Some(part));
            }
            let units = part.shape().get(1).copied().unwrap_or(0);
            let mut target = match collected.take() {
                Some(target) => target,
                None => {
                    let mut shape = part.shape().to_vec();
                    shape.iter_mut().skip(1).take(1).for_each(|size| *size *= count);
                    self.session.backend.allocate(part.dtype(), &shape)?
                }
            };
            self.session.backend.write(&mut target, &part, 1, &vec![step * units; prompts.len()])?;
            collected = Some(target);
        }
        Ok(collected)
    }

    /// Row of `prompts` that each expansion row belongs to.
    fn rows_of(&self, prompts: &[usize]) -> Vec<usize> {
        let row = |prompt: usize| prompts.iter().position(|other| *other == prompt).unwrap_or(0);
        self.batch.prompts().into_iter().map(row).collect()
    }

    fn store(
        &mut self,
        reconstruction: &Buffer,
        carried: &State,
        prompts: &[usize],
        rows: &[usize],
        (first, count): (usize, usize),
    ) -> Result<(), RuntimeError> {
        let Some(mut trajectory) = self.trajectory.take() else { return Ok(()) };
        // Carries are the same for all samples of a prompt: any expansion row of it serves.
        let of_prompt = (0..prompts.len())
            .filter_map(|row| rows.iter().position(|other| *other == row))
            .collect::<Vec<_>>();
        let segment = (first, count, prompts);
        trajectory.push(&mut self.session, segment, reconstruction, carried, &of_prompt)?;
        self.trajectory = Some(trajectory);
        Ok(())
    }

    /// Drops prompts without a growing sequence from the coarse batch.
    fn drop_prompts(&mut self, ahead: &mut State, prompts: &mut Vec<usize>) -> Result<(), RuntimeError> {
        let growing = self.batch.prompts();
        let kept: Vec<usize> = (0..prompts.len()).filter(|row| growing.contains(&prompts[*row])).collect();
        if kept.len() < prompts.len() {
            self.session.select(ahead, &kept)?;
            *prompts = kept.iter().map(|row| prompts[*row]).collect();
        }
        Ok(())
    }
}
