//! Graphs on a device as a backend. Owns the choice between recorded bursts and graphs one by one, and that errors bear the
//! name of the device's backend.

use super::backend::{LaunchBackend, failed, failed_in};
use super::decode::RecordedDecoder;
use photonc_bundle::program::Plan;
use photonc_graph::ir::dtype::Dtype;
use photonc_graph::ir::tensor::Tensor;
use photonc_runtime::backend::{Backend, BackendError, Buffer, Outputs};
use photonc_runtime::decoder::{Decoder, DecoderSetup};
use photonc_runtime::plan::Program;

impl Backend for LaunchBackend {
    fn name(&self) -> &'static str {
        self.device().backend()
    }

    fn allocate(&mut self, dtype: Dtype, shape: &[usize]) -> Result<Buffer, BackendError> {
        let name = self.name();
        self.zeroed(dtype, shape).map_err(|error| error.of(name))
    }

    fn upload(&mut self, tensor: &Tensor, dtype: Dtype) -> Result<Buffer, BackendError> {
        let name = self.name();
        self.uploaded(tensor, dtype).map_err(|error| error.of(name))
    }

    fn download(&mut self, buffer: &Buffer) -> Result<Tensor, BackendError> {
        let name = self.name();
        self.downloaded(buffer).map_err(|error| error.of(name))
    }

    fn write(
        &mut self,
        target: &mut Buffer,
        source: &Buffer,
        axis: usize,
        offsets: &[usize],
    ) -> Result<(), BackendError> {
        let name = self.name();
        self.written(target, source, axis, offsets).map_err(|error| error.of(name))
    }

    fn gather(&mut self, source: &Buffer, rows: &[usize]) -> Result<Buffer, BackendError> {
        let name = self.name();
        self.gathered(source, rows).map_err(|error| error.of(name))
    }

    fn slice(
        &mut self,
        source: &Buffer,
        axis: usize,
        start: usize,
        len: usize,
    ) -> Result<Buffer, BackendError> {
        let name = self.name();
        self.sliced(source, axis, start, len).map_err(|error| error.of(name))
    }

    fn run(&mut self, graph: &str, inputs: &[(&str, &Buffer)]) -> Result<Outputs, BackendError> {
        let name = self.name();
        self.ran(graph, inputs).map_err(|error| error.of(name))
    }

    fn prepare(&mut self, graph: &str) -> Result<(), BackendError> {
        let name = self.name();
        self.loaded.graph(graph).map(|_| ()).map_err(|error| failed_in(graph, error).of(name))
    }

    fn least_prompt(&self) -> usize {
        self.device().least_prompt()
    }

    fn decodes(&self, program: &Program, setup: DecoderSetup) -> bool {
        // Bursts are recorded whole; an expansion with a loop of its own runs graph by graph.
        let in_order = program.plan(setup.protocol).is_ok_and(Plan::expands_in_order);
        // A recorded burst computes every row, taken or not.
        !in_order && (setup.rows == 1 || self.device().has_room_for_idle_rows())
    }

    fn decoder<'b>(
        &'b mut self,
        program: &Program,
        setup: DecoderSetup,
    ) -> Option<Result<Box<dyn Decoder + 'b>, BackendError>> {
        if !self.decodes(program, setup) {
            return None;
        }
        let name = self.name();
        let decoder = RecordedDecoder::new(&mut self.loaded, program, setup);
        let boxed = decoder.map(|decoder| Box::new(decoder) as Box<dyn Decoder + 'b>);
        Some(boxed.map_err(|error| error.of(name)))
    }

    fn synchronize(&mut self) -> Result<(), BackendError> {
        let name = self.name();
        self.device().synchronize().map_err(|error| failed(error).of(name))
    }
}
