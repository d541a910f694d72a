//! One point of a benchmark: a decoder of some rows under a regime, its times, its memory. Owns what is asked of the
//! device; units and shares of roofline are the caller's.

use super::backend::LaunchBackend;
use super::decode::{KvBytes, Layout, RecordedDecoder};
use super::replicas::RowCount;
use photonc_compiler::passes::choose_protocol::Protocol;
use photonc_runtime::decoder::{Decoder as _, DecoderSetup};
use photonc_runtime::error::RuntimeError;
use photonc_runtime::measure::{Regime, Speed, repeat};
use photonc_runtime::plan::Program;
use photonc_runtime::schedule::Limits;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BenchSetting {
    /// How states advance.
    pub protocol: Protocol,
    /// Lengths of prompts and of what is drawn.
    pub regime: Regime,
    /// Meta-contexts of one burst; a regime that draws fewer has bursts of what it draws.
    pub run_ahead: usize,
    /// Prompts at once.
    pub rows: RowCount,
    /// Measured runs.
    pub repetitions: usize,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct BenchPoint {
    /// Shape of the decoder.
    pub setup: DecoderSetup,
    /// Meta-contexts of each prompt.
    pub prompt_meta_contexts: usize,
    /// Meta-contexts drawn for each sequence, whole bursts counted.
    pub new_meta_contexts: usize,
    /// Every run, fastest first.
    pub speeds: Vec<Speed>,
    /// Keys and values of one sequence.
    pub kv: KvBytes,
    /// Bytes of weights on the device.
    pub weight_bytes: usize,
    /// Bytes of device memory that the decoder took besides weights and tables.
    pub decoder_bytes: usize,
}

impl BenchPoint {
    /// The median run.
    #[must_use]
    pub fn median(&self) -> Option<&Speed> {
        self.speeds.get(self.speeds.len() / 2)
    }
}

impl LaunchBackend {
    /// Measures one point. Everything that was loaded stays, the decoder goes.
    ///
    /// # Errors
    /// The rows do not fit, or the device failed.
    pub fn bench(&mut self, program: &Program, setting: BenchSetting) -> Result<BenchPoint, RuntimeError> {
        let meta_tokens = program.meta_tokens;
        let (protocol, regime) = (setting.protocol, setting.regime.in_meta_contexts(meta_tokens));
        let run_ahead = setting.run_ahead.clamp(1, regime.bursts(meta_tokens, 1).max(1));
        let capacity = regime.capacity(meta_tokens, run_ahead);
        let one = DecoderSetup { protocol, rows: 1, sequences: 1, capacity, run_ahead };
        let rows = self.rows(program, one, setting.rows)?;
        let setup = DecoderSetup { rows, sequences: rows, ..one };
        let prompt = regime.prompt_meta_contexts(meta_tokens);
        let new = regime.bursts(meta_tokens, run_ahead) * run_ahead;
        let loaded = self.loaded();
        let layout = Layout::new(loaded, program, setup)?;
        let (kv, weight_bytes, decoder_bytes) = (
            layout.kv_bytes(loaded, program, [prompt, new])?,
            layout.weight_bytes(loaded),
            layout.own_bytes(loaded),
        );
        let prompts = regime.prompts(setup.rows, program.vocab_size);
        let mut decoder = RecordedDecoder::new(loaded, program, setup)?;
        decoder.measure();
        let limits = Limits { max_tokens: usize::MAX, ..Limits::of(program) };
        let speeds = repeat(&mut decoder, regime, limits, &prompts, setting.repetitions)?;
        Ok(BenchPoint {
            setup,
            prompt_meta_contexts: prompt,
            new_meta_contexts: new,
            speeds,
            kv,
            weight_bytes,
            decoder_bytes,
        })
    }
}
