//! Loaded models and streams of tokens. Owns that the interpreter runs on while we compute, and that Ctrl-C ends a call.

use crate::array::Array;
use crate::convert::{
    Params, PromptArgument, RawLogprobs, RawOutput, RawPiece, asked, load_options, logits, logprobs, output,
    piece, positive,
};
use crate::errors::Raised;
use crate::ready::Ready;
use crate::trajectory::Trajectory;
use photonc::api::{Error, Next};
use pyo3::prelude::{Py, PyResult, Python, pyclass, pymethods};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long Python's signals wait for us.
const POLL: Duration = Duration::from_millis(50);

/// A loaded model.
#[pyclass(frozen, module = "photonc._photonc")]
pub struct Model(photonc::api::Model);

/// Whether a signal that came in means that a call is to end; asks the interpreter.
fn signals() -> Result<(), Raised> {
    Ok(Python::attach(|py| py.check_signals())?)
}

#[pymethods]
impl Model {
    #[staticmethod]
    #[pyo3(signature = (path, *, backend, device, threads, verify, rows, max_tokens, run_ahead, batch_invariant))]
    #[expect(clippy::too_many_arguments, reason = "they are Python's keywords")]
    fn load(
        py: Python<'_>,
        path: PathBuf,
        backend: &str,
        device: usize,
        threads: Option<usize>,
        verify: bool,
        rows: Option<usize>,
        max_tokens: Option<usize>,
        run_ahead: usize,
        batch_invariant: bool,
    ) -> PyResult<Self> {
        let mut options = load_options(backend, device, threads, verify)?;
        options.rows = rows.map(|count| positive("rows", count)).transpose()?;
        options.max_tokens = max_tokens.map(|count| positive("max_tokens", count)).transpose()?;
        options.run_ahead = positive("run_ahead", run_ahead)?;
        options.batch_invariant = batch_invariant;
        let loaded = py.detach(|| photonc::api::Model::load(&path, &options));
        Ok(Model(loaded.map_err(Raised::from)?))
    }

    #[getter]
    fn backend(&self) -> &'static str {
        self.0.backend().name()
    }

    #[getter]
    fn vocab_size(&self) -> usize {
        self.0.program().vocab_size
    }

    #[getter]
    fn meta_tokens(&self) -> usize {
        self.0.program().meta_tokens
    }

    #[getter]
    fn max_tokens(&self) -> usize {
        self.0.program().max_tokens
    }

    #[getter]
    fn protocols(&self) -> Vec<&'static str> {
        self.0.program().protocols.keys().map(|protocol| protocol.name()).collect()
    }

    #[getter]
    fn eos_token_ids(&self) -> Vec<i64> {
        self.0.eos().to_vec()
    }

    #[getter]
    fn has_tokenizer(&self) -> bool {
        self.0.tokenizer().is_ok()
    }

    fn encode(&self, py: Python<'_>, text: &str, add_special_tokens: bool) -> PyResult<Vec<i64>> {
        let encoded = py.detach(|| {
            self.0.tokenizer().and_then(|one| one.encode(text, add_special_tokens).map_err(Error::from))
        });
        Ok(encoded.map_err(Raised::from)?.ids)
    }

    fn decode(&self, py: Python<'_>, ids: Vec<i64>) -> PyResult<String> {
        let decoded = py.detach(|| self.0.tokenizer().and_then(|one| one.decode(&ids).map_err(Error::from)));
        Ok(decoded.map_err(Raised::from)?)
    }

    /// The text of a conversation; messages and tools are JSON.
    fn chat(&self, py: Python<'_>, messages: &str, tools: Option<&str>) -> PyResult<String> {
        Ok(py.detach(|| self.0.chat(messages, tools)).map_err(Raised::from)?)
    }

    /// The tokens of a prompt.
    fn prompt_ids(&self, py: Python<'_>, prompt: PromptArgument) -> PyResult<Vec<i64>> {
        let prompt = prompt.into();
        Ok(py.detach(|| self.0.ids(&prompt)).map_err(Raised::from)?)
    }

    #[expect(clippy::too_many_arguments, reason = "they are Python's keywords")]
    fn generate(
        &self,
        py: Python<'_>,
        prompts: Vec<PromptArgument>,
        params: Params,
        protocol: Option<&str>,
        run_ahead: Option<usize>,
        return_logits: bool,
        return_states: bool,
    ) -> PyResult<Vec<RawOutput>> {
        let asked = asked(prompts, params, protocol, run_ahead, (return_logits, return_states))?;
        let outputs = py.detach(|| self.0.stream(&asked)?.collect(&mut signals))?;
        let vocab_size = self.0.program().vocab_size;
        outputs.into_iter().map(|one| output(py, one, vocab_size)).collect()
    }

    fn stream(
        &self,
        py: Python<'_>,
        prompts: Vec<PromptArgument>,
        params: Params,
        protocol: Option<&str>,
        run_ahead: Option<usize>,
    ) -> PyResult<Stream> {
        let asked = asked(prompts, params, protocol, run_ahead, (false, false))?;
        let stream = py.detach(|| self.0.stream(&asked)).map_err(Raised::from)?;
        Ok(Stream { stream: Mutex::new(Some(stream)), ready: Mutex::new(None) })
    }

    fn score(&self, py: Python<'_>, tokens: Vec<i64>, top: usize) -> PyResult<Vec<RawLogprobs>> {
        Ok(logprobs(py.detach(|| self.0.score(&tokens, top, &mut signals))?.logprobs))
    }

    fn score_logits(&self, py: Python<'_>, tokens: Vec<i64>) -> PyResult<Py<Array>> {
        let values = py.detach(|| self.0.score_logits(&tokens)).map_err(Raised::from)?;
        logits(py, &values, self.0.program().vocab_size)
    }

    fn trajectory(&self, py: Python<'_>, prompt: PromptArgument, params: Params) -> PyResult<Trajectory> {
        let (prompt, params) = (prompt.into(), params.into());
        let made = py.detach(|| self.0.trajectory(&prompt, &params));
        Ok(Trajectory::new(made.map_err(Raised::from)?))
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.0.close());
    }
}

/// Tokens on their way.
#[pyclass(frozen, module = "photonc._photonc")]
pub struct Stream {
    stream: Mutex<Option<photonc::api::Stream>>,
    ready: Mutex<Option<Ready>>,
}

impl Stream {
    fn lock(&self) -> MutexGuard<'_, Option<photonc::api::Stream>> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What comes next within a time; a stream that was closed is over.
    fn take(&self, timeout: Duration) -> Result<Next, Raised> {
        Ok(self.lock().as_mut().map_or(Ok(Next::Over), |stream| stream.next(timeout))?)
    }
}

#[pymethods]
impl Stream {
    /// Waits for the next piece; `None` is the end.
    fn next(&self, py: Python<'_>) -> PyResult<Option<RawPiece>> {
        loop {
            match py.detach(|| self.take(POLL))? {
                Next::Piece(one) => return Ok(Some(piece(one))),
                Next::Over => return Ok(None),
                Next::Ended(_) => {}
                Next::Waiting => {
                    if let Err(interrupted) = py.check_signals() {
                        self.close();
                        return Err(interrupted);
                    }
                }
            }
        }
    }

    /// The next piece if there is one; `False` where nothing has come, `None` at the end.
    fn poll(&self, py: Python<'_>) -> PyResult<(bool, Option<RawPiece>)> {
        loop {
            match py.detach(|| self.take(Duration::ZERO))? {
                Next::Piece(one) => return Ok((true, Some(piece(one)))),
                Next::Over => return Ok((true, None)),
                Next::Ended(_) => {}
                Next::Waiting => return Ok((false, None)),
            }
        }
    }

    /// A file that can be read when there is something.
    fn fileno(&self) -> PyResult<i32> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ready) = &*ready {
            return Ok(ready.fd());
        }
        let (reader, wake) = Ready::new()?;
        let fd = reader.fd();
        if let Some(stream) = &*self.lock() {
            stream.on_ready(wake);
        }
        *ready = Some(reader);
        Ok(fd)
    }

    /// Takes what the file has.
    fn drain(&self) {
        if let Some(ready) = &*self.ready.lock().unwrap_or_else(PoisonError::into_inner) {
            ready.drain();
        }
    }

    /// Cancels what is under way.
    fn close(&self) {
        // Dropped outside the lock: it waits for nobody, but what it frees may.
        let stream = self.lock().take();
        drop(stream);
    }
}
