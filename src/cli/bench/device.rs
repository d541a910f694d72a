//! `photonc bench` of the recorded decoder, on a GPU or the processor: ceilings of the device first, then one decoder for
//! each batch.

use super::measured::Measured;
use super::{Args, ONLY_GPUS, Told, heading};
use crate::bundle::Bundle;
use crate::cli::backends::{BackendName, failed_on_gpu};
use crate::cli::rows::Batch;
use crate::cli::{Failure, Reporter};
use crate::inspect::Subject;
use crate::passes::choose_protocol::Protocol;
use crate::runtime::backend::BackendError;
use crate::runtime::error::RuntimeError;
use crate::runtime::launch::bench::BenchSetting;
use crate::runtime::launch::replicas::RowCount;
use crate::runtime::launch::roofline::{Roofline, RooflineSizes};
use crate::runtime::plan::Program;
use crate::runtime::request::{Request, RunAhead};
use crate::runtime::schedule::Limits;
use serde_json::{Value, json};

/// Most rows that `--batch max` tries: more than kernels count in a grid's rows at one meta-context each.
const MOST_ROWS: usize = 1 << 16;

pub(super) fn run(args: &Args, reporter: &Reporter) -> Result<(Value, Vec<Told>), Failure> {
    let bundle = args.backend.bundle.open(&args.bundle)?;
    let subject = Subject::of_bundle(&args.bundle.display().to_string(), &bundle, false)?;
    let program = Program::from_bundle(&bundle)?;
    check_length(args, &program)?;
    let on_host = args.backend.name == BackendName::Cpu;
    if on_host {
        check_rows(args, &bundle, &program)?;
    }
    let device = args.backend.one_device_of_plans()?;
    let dtype = args.backend.compute_type(&bundle);
    let failed = |error| {
        if on_host { RuntimeError::from(BackendError::from(error)).into() } else { failed_on_gpu(error) }
    };
    let mut sizes = RooflineSizes::for_free(device.free_bytes().map_err(failed)?);
    if on_host {
        sizes = sizes.for_weights(usize::try_from(bundle.manifest().weight_bytes()).unwrap_or(usize::MAX));
    }
    let ceilings = Roofline::measure(&*device, dtype, sizes).map_err(failed)?;
    reporter.detail(&format!(
        "ceilings: read {:.1} GB/s, copy {:.1} GB/s, {dtype} products {:.3} TFLOP/s",
        ceilings.read_bytes_per_s / 1e9,
        ceilings.copy_bytes_per_s / 1e9,
        ceilings.product_flops / 1e12
    ));
    let mut head = heading(args, &bundle);
    head[if on_host { "processor" } else { "gpu" }] = json!(device.properties().name);
    head["compute"] = json!(dtype.name());
    head["ceilings"] = json!({
        "read_bytes_per_second": ceilings.read_bytes_per_s,
        "copy_bytes_per_second": ceilings.copy_bytes_per_s,
        "product_flops": ceilings.product_flops,
    });
    let mut backend = args.backend.load(&bundle, device).map_err(RuntimeError::from)?;
    // What the processor reads as it is stored counts so.
    let counted = (!on_host).then_some(dtype);
    let mut told = Vec::new();
    for batch in &args.batch {
        let setting = setting(args, &program, *batch, args.run.protocol(&bundle));
        let point = backend.bench(&program, setting)?;
        let measured = Measured::of(&subject, setting, point, (ceilings, counted))?;
        told.push(Told {
            batch: measured.batch(),
            tokens_per_second: measured.tokens_per_second(),
            json: measured.json(),
            text: measured.text(args.backend.name),
        });
    }
    Ok((head, told))
}

fn setting(args: &Args, program: &Program, batch: Batch, protocol: Protocol) -> BenchSetting {
    let run_ahead = match args.run.run_ahead() {
        RunAhead::All => args.regime.new_tokens.div_ceil(program.meta_tokens.max(1)),
        RunAhead::MetaContexts(count) => count,
    };
    let rows: RowCount = batch.rows(args.reserve, MOST_ROWS);
    BenchSetting {
        protocol,
        regime: args.regime,
        run_ahead,
        rows,
        repetitions: usize::from(args.repetitions),
    }
}

/// Refuses what the process has no room for, before prompts are made.
fn check_rows(args: &Args, bundle: &Bundle, program: &Program) -> Result<(), Failure> {
    args.batch.iter().try_for_each(|batch| match *batch {
        Batch::Rows(rows) => args.check_memory(bundle, program, rows),
        Batch::Max => Err(Failure::usage(&ONLY_GPUS)),
    })
}

/// As every generation: no longer than the bundle was exported for.
fn check_length(args: &Args, program: &Program) -> Result<(), RuntimeError> {
    let meta_tokens = program.meta_tokens.max(1);
    let prompt_tokens = args.regime.prompt_tokens / meta_tokens * meta_tokens;
    let request = Request::greedy(Protocol::Recgen, vec![0; prompt_tokens], args.regime.new_tokens);
    Limits::of(program).meta_contexts(0, &request, 1)?;
    Ok(())
}
