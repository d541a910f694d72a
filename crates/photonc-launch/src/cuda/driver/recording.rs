//! Events, and recorded sequences as CUDA graphs. Owns the reuse of events: a run of any length needs a fixed number.

use super::context::{Context, call, check};
use crate::launch::device::{DeviceError, EVENTS_KNOWN, Event, Recording};
use cudarc::driver::sys;
use std::sync::Arc;

/// The last `EVENTS_KNOWN` events; number `n` lies at `n % EVENTS_KNOWN`.
pub(super) struct Events {
    ring: Vec<sys::CUevent>,
    next: u64,
    context: Arc<Context>,
}

impl Events {
    pub fn new(context: &Arc<Context>) -> Self {
        Events { ring: Vec::new(), next: 0, context: Arc::clone(context) }
    }

    /// The event, unless it is so old that its place was taken; it had been reached then.
    pub fn get(&self, event: Event) -> Option<sys::CUevent> {
        let known = EVENTS_KNOWN as u64;
        let recent = event.0 < self.next && event.0 + known >= self.next;
        let at = usize::try_from(event.0 % known).ok()?;
        recent.then(|| self.ring.get(at).copied()).flatten()
    }

    pub fn record(&mut self, stream: sys::CUstream) -> Result<Event, DeviceError> {
        let at = usize::try_from(self.next % EVENTS_KNOWN as u64).unwrap_or(0);
        // SAFETY: the context is current; events are destroyed when dropped.
        unsafe {
            if at == self.ring.len() {
                let mut event = std::ptr::null_mut();
                check("cuEventCreate", sys::cuEventCreate(&raw mut event, 0))?;
                self.ring.push(event);
            } else if sys::cuEventQuery(self.ring[at]) == sys::CUresult::CUDA_ERROR_NOT_READY {
                check("cuEventSynchronize", sys::cuEventSynchronize(self.ring[at]))?;
            }
            check("cuEventRecord", sys::cuEventRecord(self.ring[at], stream))?;
        }
        self.next += 1;
        Ok(Event(self.next - 1))
    }

    pub fn wait(&self, stream: sys::CUstream, event: Event) -> Result<(), DeviceError> {
        match self.get(event) {
            // SAFETY: an event and a stream of the context, which is current.
            Some(event) => check("cuStreamWaitEvent", unsafe { sys::cuStreamWaitEvent(stream, event, 0) }),
            None => Ok(()),
        }
    }

    pub fn elapsed_ms(&self, from: Event, to: Event) -> Result<f32, DeviceError> {
        let (Some(from), Some(to)) = (self.get(from), self.get(to)) else {
            return Err(call("elapsed_ms", "an event so old that its time is forgotten"));
        };
        let mut milliseconds = 0.0;
        // SAFETY: events of the context, which is current.
        let asked = unsafe { sys::cuEventElapsedTime_v2(&raw mut milliseconds, from, to) };
        check("cuEventElapsedTime", asked)?;
        Ok(milliseconds)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        if self.context.make_current().is_ok() {
            for event in &self.ring {
                // SAFETY: created by `record`, destroyed once.
                let _destroyed = unsafe { sys::cuEventDestroy_v2(*event) };
            }
        }
    }
}

/// An instantiated graph.
struct Graph {
    executable: sys::CUgraphExec,
    context: Arc<Context>,
}

// SAFETY: a handle that may be used from every thread on which the context is current.
unsafe impl Send for Graph {}

impl Drop for Graph {
    fn drop(&mut self) {
        if self.context.make_current().is_ok() {
            // SAFETY: instantiated by `end`, destroyed once; the driver keeps it until running replays have ended.
            let _destroyed = unsafe { sys::cuGraphExecDestroy(self.executable) };
        }
    }
}

pub(super) fn end(context: &Arc<Context>, stream: sys::CUstream) -> Result<Recording, DeviceError> {
    let mut graph = std::ptr::null_mut();
    let mut executable = std::ptr::null_mut();
    // SAFETY: a stream of the context, which is current; the graph is destroyed once its executable form exists.
    unsafe {
        check("cuStreamEndCapture", sys::cuStreamEndCapture(stream, &raw mut graph))?;
        let made = sys::cuGraphInstantiateWithFlags(&raw mut executable, graph, 0);
        let _destroyed = sys::cuGraphDestroy(graph);
        check("cuGraphInstantiate", made)?;
        let graph = Graph { executable, context: Arc::clone(context) };
        // So that the first replay is as fast as the others.
        check("cuGraphUpload", sys::cuGraphUpload(graph.executable, stream))?;
        Ok(Recording(Box::new(graph)))
    }
}

pub(super) fn replay(stream: sys::CUstream, recording: &Recording) -> Result<(), DeviceError> {
    let graph = recording.0.downcast_ref::<Graph>();
    let graph = graph.ok_or_else(|| call("replay", "a recording of another device"))?;
    // SAFETY: a graph whose addresses lie in allocations that outlive the work, as the caller promises.
    check("cuGraphLaunch", unsafe { sys::cuGraphLaunch(graph.executable, stream) })
}
