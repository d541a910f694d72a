//! Every kernel compiles for every generation of GPU, on a machine that has none, and keeps its values in registers.
#![cfg(feature = "cuda")]
#![allow(clippy::panic, clippy::unwrap_used, reason = "a failed test panics")]

use photonc::ir::dtype::Dtype;
use photonc::runtime::cuda::cache::KernelCache;
use photonc::runtime::cuda::kernels::{HEADERS, checked_units};
use photonc::runtime::cuda::launcher::Unit;
use photonc::runtime::cuda::libraries::named_folders;
use photonc::runtime::cuda::nvrtc::{Compiler, Nvrtc};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Compute capabilities times ten: Ampere, Hopper, Blackwell for servers, Blackwell for workstations.
const GENERATIONS: [u32; 4] = [80, 90, 100, 120];

/// Bytes a thread may spill to memory: sixteen registers, of kernels that use all there are.
const MOST_SPILLED_BYTES: usize = 64;

/// NVRTC of `scripts/setup-test-deps.sh`, or where `PHOTONC_CUDA_LIB` says.
fn nvrtc() -> Nvrtc {
    let mut folders = named_folders(&[]);
    let deps = Path::new(env!("CARGO_MANIFEST_DIR")).join(".deps/py/lib");
    let pythons = std::fs::read_dir(deps).into_iter().flatten().flatten();
    folders.extend(pythons.map(|python| python.path().join("site-packages/nvidia/cu13/lib")));
    let found = Nvrtc::find(&folders, i32::MAX);
    found.unwrap_or_else(|error| panic!("{error}\nfor tests: scripts/setup-test-deps.sh"))
}

/// Bytes spilled by each kernel, as ptxas reports them: the kernel's name, then its `bytes spill stores`.
fn spills(log: &str) -> Vec<(String, usize)> {
    let mut kernel = String::new();
    let mut found = Vec::new();
    for line in log.lines() {
        if let Some(rest) = line.split("Function properties for ").nth(1) {
            kernel = rest.trim().to_owned();
        }
        if let Some(before) = line.split(" bytes spill stores").next().filter(|before| *before != line) {
            let bytes = before.rsplit(' ').next().unwrap_or_default().parse().expect("a number of bytes");
            found.push((std::mem::take(&mut kernel), bytes));
        }
    }
    found
}

/// Compiles a unit for a generation; what is wrong with it.
fn complaints(nvrtc: &Nvrtc, unit: Unit, sm: u32) -> Vec<String> {
    let compiler = Compiler { nvrtc: nvrtc.clone(), cache: KernelCache::none(), sm, sources: None };
    let mut options = compiler.options(unit).expect("a type that kernels have");
    options.push("--ptxas-options=-v".to_owned());
    let compiled = match nvrtc.compile(unit.source.name(), unit.source.text(), &HEADERS, &options) {
        Ok(compiled) => compiled,
        Err(error) => return vec![format!("{unit:?} for sm_{sm}: {error}")],
    };
    assert!(compiled.cubin.starts_with(b"\x7fELF"), "{unit:?} for sm_{sm}: not a binary");
    let spills = spills(&compiled.log);
    let kernels = unit.source.text().matches("__global__").count();
    assert!(
        !spills.is_empty() || kernels == 0,
        "{unit:?} for sm_{sm}: no report of spills in\n{}",
        compiled.log
    );
    let too_many = spills.into_iter().filter(|(_, bytes)| *bytes > MOST_SPILLED_BYTES);
    too_many.map(|(kernel, bytes)| format!("{unit:?} for sm_{sm}: {kernel} spills {bytes} bytes")).collect()
}

/// What is compiled: everything for Hopper, and one width of heads in bf16 for the others; everything for all of them
/// where `PHOTONC_FULL` is set, which takes minutes.
fn work() -> Vec<(Unit, u32)> {
    let full = std::env::var_os("PHOTONC_FULL").is_some();
    let wanted = |unit: &Unit, sm: u32| {
        full || sm == 90 || (unit.dtype == Dtype::Bf16 && (!unit.source.of_heads() || unit.size == 56))
    };
    let pairs = checked_units().into_iter().flat_map(|unit| GENERATIONS.map(|sm| (unit, sm)));
    pairs.filter(|(unit, sm)| wanted(unit, *sm)).collect()
}

#[test]
fn every_kernel_compiles_for_every_generation_without_spilling() {
    let nvrtc = nvrtc();
    let work = work();
    let next = AtomicUsize::new(0);
    let run = || {
        let mut found = Vec::new();
        while let Some((unit, sm)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
            found.extend(complaints(&nvrtc, *unit, *sm));
        }
        found
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let found: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(run)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic inside")).collect()
    });
    assert!(found.is_empty(), "{} of {}:\n{}", found.len(), work.len(), found.join("\n"));
}

/// The check above must be able to fail.
#[test]
fn a_kernel_that_spills_is_noticed() {
    let text = r#"
        extern "C" __global__ void __launch_bounds__(1024, 2) crowded(float *out, const float *in) {
            float held[96];
            for (int i = 0; i < 96; i++) held[i] = in[i * 1024 + threadIdx.x];
            __syncthreads();
            float sum = 0;
            for (int j = 0; j < 96; j++)
                for (int i = 0; i < 96; i++) sum = sum * held[i] + held[(i * 7 + j) % 96];
            out[threadIdx.x] = sum;
        }"#;
    let options = ["--gpu-architecture=sm_90", "--ptxas-options=-v"].map(str::to_owned);
    let compiled = nvrtc().compile("crowded.cu", text, &[], &options).expect("compiles");
    let spills = spills(&compiled.log);
    assert_eq!(spills.len(), 1, "{}", compiled.log);
    assert_eq!(spills[0].0, "crowded");
    assert!(spills[0].1 > 0, "{}", compiled.log);
}

/// An error says where and what; the second compilation of a unit comes from the disk, the same byte by byte.
#[test]
fn errors_are_located_and_compiled_units_are_kept() {
    let nvrtc = nvrtc();
    let error =
        nvrtc.compile("broken.cu", "#include \"abi.cuh\"\nint f() { return x; }", &HEADERS, &[]).unwrap_err();
    assert!(error.contains("broken.cu(2): error: identifier \"x\" is undefined"), "{error}");

    let folder = tempfile::tempdir().unwrap();
    let unit = checked_units()[1];
    let compiler = Compiler { nvrtc, cache: KernelCache::at(folder.path()), sm: 90, sources: None };
    let first = compiler.cubins(&[unit, unit]).unwrap();
    let entries: Vec<PathBuf> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(entries.len(), 1);
    assert_eq!(first, [compiler.cubin(unit).unwrap(), first[0].clone()]);
    std::fs::write(&entries[0], b"damaged").unwrap();
    assert_eq!(compiler.cubin(unit).unwrap().len(), first[0].len());
    assert!(compiler.cache.read(entries[0].file_stem().unwrap().to_str().unwrap()).is_some(), "made anew");
}
