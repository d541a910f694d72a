//! How many bytes of keys and values a sequence takes, by what has to be kept and for how long. Owns the two definitions
//! that papers use: what persists, and everything that exists at some time.

use super::super::loaded_model::LoadedModel;
use super::super::plan::{Call, Plan};
use super::layout::Layout;
use photonc_runtime::backend::BackendError;
use photonc_runtime::plan::Program;
use std::collections::BTreeMap;

/// Bytes of keys and values of one sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvBytes {
    /// Caches that gain one entry a meta-context: those of the top encoder.
    pub top: usize,
    /// Every cache that lives as long as the sequence.
    pub persistent: usize,
    /// What encoding the prompt makes beyond its part of the caches: lower levels and the windows that end the prompt.
    pub prompt: usize,
    /// Windows of the decoders, of one burst.
    pub windows: usize,
}

impl KvBytes {
    /// Everything that exists at some time.
    #[must_use]
    pub fn all(self) -> usize {
        self.persistent + self.prompt + self.windows
    }
}

impl Layout {
    /// Keys and values of one sequence of `prompt` and then `new` meta-contexts.
    ///
    /// # Errors
    /// The prompt has no plan.
    pub fn kv_bytes(
        &self,
        loaded: &LoadedModel,
        program: &Program,
        [prompt, new]: [usize; 2],
    ) -> Result<KvBytes, BackendError> {
        let mut bytes = KvBytes::default();
        let (mut at_top, mut in_prompt) = (0, 0);
        for name in &self.caches {
            let all = *self.state.get(name).expect("invariant: every cache is state");
            let slot = all / self.setup.capacity;
            let axes = self.plans().filter_map(|plan| program.cache_axis(&plan.graph, name).ok().flatten());
            if axes.into_iter().next().is_some_and(|axis| axis.units == 1) {
                at_top += slot;
            }
            in_prompt += slot;
        }
        // Where the samples of a prompt share a trajectory, they share its caches.
        let sequences = self.sequences();
        bytes.top = at_top * (prompt + new) / sequences;
        bytes.persistent = in_prompt * (prompt + new) / sequences;
        let encode = self.prefill_plan(loaded, program, 1, prompt)?;
        let kept = in_prompt * prompt / (if self.is_split() { self.setup.rows } else { sequences });
        bytes.prompt = attended_bytes(&encode).saturating_sub(kept);
        bytes.windows = self.plans().map(attended_bytes).sum::<usize>() / sequences;
        Ok(bytes)
    }
}

/// Bytes of the keys and values that the attentions of a plan read beside caches. The attentions of a scope are the
/// positions of one window, of which the last sees the most.
fn attended_bytes(plan: &Plan) -> usize {
    let mut scopes: BTreeMap<&str, usize> = BTreeMap::new();
    for step in &plan.steps {
        let (Call::AttendWindow(a, width) | Call::AttendStream(a, width)) = &step.call else { continue };
        let size = |count: i32| usize::try_from(count).expect("invariant: plans count from 0");
        let keys = size(a.past_base) + size(a.keys);
        let bytes = 2 * size(a.rows) * size(a.kv_heads) * keys * width * plan.dtype.size_bytes();
        let most = scopes.entry(step.scope.as_str()).or_default();
        *most = (*most).max(bytes);
    }
    scopes.values().sum()
}
