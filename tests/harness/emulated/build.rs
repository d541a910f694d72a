//! Compiles kernels for the CPU: preprocesses a unit, finds its kernels, adds an entry point for each, builds a shared
//! object. Owns the compiler's options and the cache of objects below `target`; refuses to run them.

use libloading::Library;
use photonc::runtime::cuda::launcher::Unit;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex, OnceLock};

/// A launch as `emulate::Launch` of emulate.h has it.
#[repr(C)]
pub struct Request {
    pub arguments: *const u8,
    pub argument_bytes: u64,
    pub grid: [u32; 3],
    pub threads: u32,
    pub shared_bytes: u32,
    pub workers: u32,
    pub seed: u64,
    pub message: *mut u8,
    pub message_bytes: u64,
}

/// Runs a kernel; not 0 if it failed, and then the message says why.
pub type Entry = unsafe extern "C" fn(*const Request) -> i32;

/// What a unit is compiled from.
#[derive(Clone, Debug)]
pub struct Text {
    /// For the compiler's messages.
    pub name: String,
    pub source: String,
    /// Names in `#include` and texts.
    pub headers: Vec<(String, String)>,
    /// `-DNAME=value`.
    pub macros: Vec<String>,
}

const OPTIONS: [&str; 12] = [
    "-std=c++20",
    "-O2",
    "-march=native",
    "-ffp-contract=off",
    "-fno-strict-aliasing",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-gnu-unique",
    "-fsanitize=alignment,bounds,null",
    "-fno-sanitize-recover=all",
    "-g1",
    "-w",
];

/// Kernels of a unit. The library is never unloaded: its threads and signal handlers outlive any one device.
#[derive(Clone, Debug)]
pub struct Kernels {
    library: &'static Library,
    pub names: Vec<String>,
}

impl Kernels {
    /// The entry point of a kernel.
    pub fn entry(&self, name: &str) -> Option<Entry> {
        let symbol = format!("emulated_{name}");
        // SAFETY: `build` gives every symbol of this form the type `Entry`.
        unsafe { self.library.get::<Entry>(symbol.as_bytes()).ok().map(|entry| *entry) }
    }
}

type Built = std::sync::Arc<OnceLock<Result<Kernels, String>>>;
static BUILT: LazyLock<Mutex<HashMap<String, Built>>> = LazyLock::new(Mutex::default);

/// Builds a unit, or takes what this or an earlier run has built.
pub fn build(unit: Unit, text: &Text) -> Result<Kernels, String> {
    let key = key(unit, text);
    let slot = BUILT.lock().expect("no panic inside").entry(key.clone()).or_default().clone();
    slot.get_or_init(|| make(&key, text)).clone()
}

fn key(unit: Unit, text: &Text) -> String {
    let machine = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = machine.lines().find(|line| line.starts_with("flags") || line.starts_with("Features"));
    let parts = format!("{unit:?} {text:?} {OPTIONS:?} {} {flags:?}", include_str!("../emulate.h"));
    blake3::hash(parts.as_bytes()).to_hex()[..32].to_owned()
}

fn make(key: &str, text: &Text) -> Result<Kernels, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulated");
    let object = folder.join(format!("{key}.so"));
    let listing = folder.join(format!("{key}.names"));
    if !object.exists() || !listing.exists() {
        std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        compile(&folder, &object, &listing, text)?;
    }
    let names = std::fs::read_to_string(&listing).map_err(|error| error.to_string())?;
    // SAFETY: loading runs only the constructors of our own header, which has none with effects.
    let library = unsafe { Library::new(&object) }.map_err(|error| error.to_string())?;
    Ok(Kernels { library: Box::leak(Box::new(library)), names: names.lines().map(str::to_owned).collect() })
}

/// Everything is made in a folder of its own and renamed, so that processes may build the same unit at once.
fn compile(folder: &Path, object: &Path, listing: &Path, text: &Text) -> Result<(), String> {
    let error = |error: std::io::Error| error.to_string();
    let work = tempfile::tempdir_in(folder).map_err(error)?;
    let at = |name: &str| work.path().join(name);
    std::fs::write(at("emulate.h"), include_str!("../emulate.h")).map_err(error)?;
    for (name, header) in &text.headers {
        std::fs::write(at(name), header).map_err(error)?;
    }
    std::fs::write(at(&text.name), &text.source).map_err(error)?;

    let mut preprocess = compiler();
    preprocess.args(OPTIONS).arg("-DPHOTONC_EMULATE").args(&text.macros);
    preprocess.arg("-I").arg(work.path()).args(["-x", "c++", "-include"]).arg(at("emulate.h"));
    preprocess.arg("-E").arg(at(&text.name));
    let (source, kernels) = with_entries(&run(&mut preprocess)?)?;
    std::fs::write(at("unit.ii"), source).map_err(error)?;

    run(compiler().args(OPTIONS).arg("-c").arg(at("unit.ii")).arg("-o").arg(at("unit.o")))?;
    // Linked without the sanitizers' options: emulate.h has their handlers.
    run(compiler()
        .args(["-shared", "-pthread", "-Wl,-z,defs"])
        .arg(at("unit.o"))
        .arg("-o")
        .arg(at("unit.so")))?;
    std::fs::write(at("names"), kernels.join("\n")).map_err(error)?;
    std::fs::rename(at("unit.so"), object).map_err(error)?;
    std::fs::rename(at("names"), listing).map_err(error)
}

fn compiler() -> Command {
    Command::new(std::env::var_os("CXX").map_or_else(|| PathBuf::from("c++"), PathBuf::from))
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{:?}: {error}", command.get_program()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(words.lines().take(40).collect::<Vec<_>>().join("\n"))
}

/// The preprocessed text with `__global__` and launch bounds removed and an entry point for each kernel.
fn with_entries(text: &str) -> Result<(String, Vec<String>), String> {
    let mut plain = String::with_capacity(text.len());
    let mut entries = String::new();
    let mut names = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("__global__") {
        plain.push_str(&rest[..at]);
        rest = &rest[at + "__global__".len()..];
        let mut threads = "1024";
        let name = loop {
            let word_at =
                rest.find(|next: char| next.is_alphanumeric() || next == '_').ok_or("no kernel name")?;
            let word_end = rest[word_at..]
                .find(|next: char| !next.is_alphanumeric() && next != '_')
                .ok_or("no kernel name")?;
            let word = &rest[word_at..word_at + word_end];
            let after = &rest[word_at + word_end..];
            if word == "__launch_bounds__" {
                let open = after.find('(').ok_or("__launch_bounds__ without arguments")?;
                let inside = balanced(&after[open..])?;
                threads = inside.split(',').next().unwrap_or(inside).trim();
                plain.push_str(&rest[..word_at]);
                rest = &after[open + inside.len() + 2..];
            } else if after.trim_start().starts_with('(') {
                break word.to_owned();
            } else {
                plain.push_str(&rest[..word_at + word_end]);
                rest = after;
            }
        };
        let _infallible = writeln!(
            entries,
            "extern \"C\" __attribute__((visibility(\"default\"))) int emulated_{name}(const emulate::Launch *request) \
             {{ return emulate::launch(&{name}, {threads}, *request); }}"
        );
        names.push(name);
    }
    plain.push_str(rest);
    plain.push('\n');
    plain.push_str(&entries);
    Ok((plain, names))
}

/// What stands between the parenthesis that `text` starts with and its partner.
fn balanced(text: &str) -> Result<&str, String> {
    let mut depth = 0;
    for (at, next) in text.char_indices() {
        depth += i32::from(next == '(') - i32::from(next == ')');
        if depth == 0 {
            return Ok(&text[1..at]);
        }
    }
    Err("a parenthesis is not closed".to_owned())
}
