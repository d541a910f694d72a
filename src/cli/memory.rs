//! Memory that runs out. Owns that this is an error with figures and never an abort: before the work where it can be foreseen,
//! at the allocation where it cannot.

use super::backends::BackendName;
use super::failure::Failure;
use super::signals;
use crate::bundle::Bundle;
use crate::ir::dim::{Bindings, Symbol};
use crate::passes::choose_protocol::Protocol;
use crate::passes::compile::Plan;
use crate::runtime::plan::Program;
use crate::runtime::request::{Batch, Request};
use rustix::process::{Resource, getrlimit};
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Given back when memory has run out, so that there is some to say so with.
static RESERVE: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
const RESERVE_LAYOUT: Layout = Layout::new::<[u8; 2 << 20]>();
static OUT: AtomicBool = AtomicBool::new(false);

/// Bytes of a sequence beside its tokens: its record, and what is known of its end.
const SEQUENCE_BYTES: u64 = 160;

/// The system's allocator; where it has nothing left the program ends with exit code 1 and says what was asked for.
#[derive(Debug)]
pub struct ReportingAllocator;

// SAFETY: every call is the system allocator's own, with the arguments given; a null pointer never comes back, because the
// process ends instead.
unsafe impl GlobalAlloc for ReportingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's layout is passed on.
        given(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's layout is passed on.
        given(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the pointer came from this allocator, which is the system's.
        given(unsafe { System.realloc(pointer, layout, size) }, size)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from this allocator, which is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn given(pointer: *mut u8, bytes: usize) -> *mut u8 {
    if pointer.is_null() {
        ran_out(bytes);
    }
    pointer
}

#[cold]
fn ran_out(bytes: usize) -> ! {
    if OUT.swap(true, Ordering::SeqCst) {
        // Another thread is saying so, or this one could not.
        std::thread::sleep(Duration::from_secs(5));
        signals::end(1);
    }
    let reserve = RESERVE.swap(std::ptr::null_mut(), Ordering::SeqCst);
    if !reserve.is_null() {
        // SAFETY: `prepare` allocated it with this layout, and the swap hands it to one thread alone.
        unsafe { System.dealloc(reserve, RESERVE_LAYOUT) };
    }
    let in_use =
        status_bytes("VmSize:").map_or_else(String::new, |size| format!(", with {} in use", mib(size)));
    let room = Room::now().map_or_else(String::new, |room| format!("; {}", room.limit));
    let cause = format!("{} more were needed{in_use}{room}", mib(bytes as u64));
    signals::say_and_end(&out_of_memory(&cause), 1)
}

/// The failure of memory that ran out.
pub fn out_of_memory(cause: &dyn std::fmt::Display) -> Failure {
    Failure::input("there is not enough memory", cause).help(
        "ask for less at once (shorter sequences, fewer of them, a smaller --batch), or raise the limit",
    )
}

/// Keeps something back for the case, and has the threads of the work made while there is room for them: under a limit on
/// address space there may be none later.
///
/// # Errors
/// There is not even room for those.
pub fn prepare() -> Result<(), Failure> {
    // SAFETY: the layout is not empty.
    RESERVE.store(unsafe { System.alloc(RESERVE_LAYOUT) }, Ordering::SeqCst);
    if getrlimit(Resource::As).current.is_none() {
        return Ok(());
    }
    share_one_heap();
    let wanted = std::thread::available_parallelism().map_or(1, usize::from);
    let pool = rayon::ThreadPoolBuilder::new();
    let pool = match can_have(wanted) {
        true => pool.num_threads(wanted),
        false => pool.num_threads(1).use_current_thread(),
    };
    pool.build_global().map_err(|error| out_of_memory(&format_args!("no threads can be made: {error}")))
}

/// Whether so many threads fit at once. The pool of all work cannot be made a second time, so they are tried alone.
fn can_have(threads: usize) -> bool {
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock();
    let wait = |gate: Arc<Mutex<()>>| move || drop(gate.lock());
    let tried: Vec<_> =
        (0..threads).map(|_| std::thread::Builder::new().spawn(wait(Arc::clone(&gate)))).collect();
    drop(closed);
    // What they had is there again once all of them are gone.
    let ended: Vec<bool> =
        tried.into_iter().map(|thread| thread.is_ok_and(|thread| thread.join().is_ok())).collect();
    ended.into_iter().all(|ended| ended)
}

/// Has all threads allocate from one heap: each of their own reserves 64 MiB of the address space that is short.
fn share_one_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const ARENA_MAX: std::ffi::c_int = -8;
        unsafe extern "C" {
            fn mallopt(parameter: std::ffi::c_int, value: std::ffi::c_int) -> std::ffi::c_int;
        }
        // SAFETY: a function of the C library that std links; it takes two numbers and may be called at any time.
        unsafe { mallopt(ARENA_MAX, 1) };
    }
}

/// Memory that the process may still take.
struct Room {
    bytes: u64,
    /// What bounds it, as half a sentence.
    limit: String,
}

impl Room {
    /// The smallest of what the limits and the machine leave; `None` where nothing is known.
    fn now() -> Option<Self> {
        let address_space = getrlimit(Resource::As).current.map(|limit| Room {
            bytes: limit.saturating_sub(status_bytes("VmSize:").unwrap_or(0)),
            limit: format!("the limit on address space (ulimit -v) is {}", mib(limit)),
        });
        let available = kibibytes("/proc/meminfo", "MemAvailable:");
        let swap = kibibytes("/proc/meminfo", "SwapFree:").unwrap_or(0);
        let machine = available
            .map(|bytes| bytes.saturating_add(swap))
            .map(|bytes| Room { bytes, limit: format!("the machine has {} available", mib(bytes)) });
        [address_space, group(), machine].into_iter().flatten().min_by_key(|room| room.bytes)
    }
}

/// What the control groups of the process leave.
fn group() -> Option<Room> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let root = Path::new("/sys/fs/cgroup");
    let number = |path: &Path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let room = |folder: &Path| {
        let limit = number(&folder.join("memory.max"))?;
        let used = number(&folder.join("memory.current")).unwrap_or(0);
        // Pages of files in memory go when others need them.
        let stat = std::fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let cached =
            stat.lines().find_map(|line| line.strip_prefix("file ")?.parse::<u64>().ok()).unwrap_or(0);
        let bytes = limit.saturating_sub(used.saturating_sub(cached));
        Some(Room { bytes, limit: format!("the limit of its control group is {}", mib(limit)) })
    };
    let own = root.join(path.trim_start_matches('/'));
    let folders = own.ancestors().take_while(|folder| folder.starts_with(root));
    folders.filter_map(room).min_by_key(|room| room.bytes)
}

/// Refuses work that needs more than there is.
fn check(what: &str, bytes: u64) -> Result<(), Failure> {
    match Room::now() {
        Some(room) if bytes > room.bytes => {
            let (needed, left) = (mib(bytes), mib(room.bytes));
            Err(out_of_memory(&format_args!(
                "{what} need {needed} at least, {left} are left: {}",
                room.limit
            )))
        }
        _ => Ok(()),
    }
}

/// Refuses a bundle whose weights cannot be in memory; `element_bytes` where the backend keeps them in a type of its own.
pub fn check_weights(bundle: &Bundle, element_bytes: Option<u64>) -> Result<(), Failure> {
    let manifest = bundle.manifest();
    let bytes = match element_bytes {
        Some(element_bytes) => {
            let elements =
                |shape: &[usize]| shape.iter().fold(1, |all: u64, size| all.saturating_mul(*size as u64));
            let all = manifest.weights.values().map(|weight| elements(&weight.shape));
            all.fold(0, u64::saturating_add).saturating_mul(element_bytes)
        }
        None => manifest.weight_bytes(),
    };
    check("the weights", bytes)
}

/// Refuses requests whose tokens or caches cannot be in memory; one that is too long is refused for that, later.
pub fn check_batch(bundle: &Bundle, batch: &Batch, backend: BackendName) -> Result<(), Failure> {
    let program = Program::from_bundle(bundle)?;
    let Some(first) = batch.requests.first() else { return Ok(()) };
    let most = |count: &dyn Fn(&Request) -> usize| batch.requests.iter().map(count).fold(0, usize::max);
    let longest = most(&|request| request.prompt.len());
    let new_tokens = most(&|request| request.max_new_tokens).min(program.max_tokens.saturating_sub(longest));
    let rows = batch.rows.unwrap_or(usize::MAX).min(batch.requests.len());
    let count = (rows, most(&|request| request.samples));
    check_sequences(&program, first.protocol, count, (longest, new_tokens), backend)
}

/// Refuses sequences whose tokens or caches cannot be in memory. `prompt_tokens` is the longest prompt.
pub fn check_sequences(
    program: &Program,
    protocol: Protocol,
    (prompts, samples): (usize, usize),
    (prompt_tokens, new_tokens): (usize, usize),
    backend: BackendName,
) -> Result<(), Failure> {
    let rows = prompts as u128 * samples as u128;
    // A step has the logits of one token of every sequence at once, on a GPU in its own memory.
    let logits = if backend.is_host() { 4 * program.vocab_size as u128 } else { 0 };
    let each = u128::from(SEQUENCE_BYTES) + 8 * new_tokens as u128 + logits;
    let tokens = rows.saturating_mul(each);
    let bytes = |bytes: u128| u64::try_from(bytes).unwrap_or(u64::MAX);
    check(&format!("{rows} sequences of {new_tokens} tokens"), bytes(tokens))?;
    if !backend.is_host() {
        return Ok(());
    }
    let (graph, rows) = match program.plan(protocol)? {
        Plan::Distributed { coarse, .. } => (coarse, prompts as u128),
        Plan::Undistributed { decode, .. } => (decode, rows),
    };
    let meta_tokens = program.meta_tokens.max(1);
    let capacity = (prompt_tokens / meta_tokens).saturating_add(new_tokens.div_ceil(meta_tokens));
    let mut one = Bindings::default();
    for symbol in [Symbol::Batch, Symbol::Meta, Symbol::Capacity] {
        one.bind(symbol, 1);
    }
    let caches = program.signature(graph)?.inputs.values().filter(|ty| ty.shape.contains(Symbol::Capacity));
    let per_slot: u128 =
        caches
            .filter_map(|ty| {
                let sizes = ty.shape.eval(&one)?.into_iter();
                let elements = sizes.fold(1u128, |all, size| all.saturating_mul(size as u128));
                Some(elements.saturating_mul(u128::from(
                    backend.element_bytes().unwrap_or(ty.dtype.size_bytes() as u64),
                )))
            })
            .fold(0, u128::saturating_add);
    let caches = per_slot.saturating_mul(rows).saturating_mul(capacity as u128);
    let length = capacity.saturating_mul(meta_tokens);
    check(&format!("the caches of {rows} sequences of {length} tokens"), bytes(caches))
}

/// Whether a failure deep down is one of memory: libraries report it in the system's words.
pub fn is_shortage(message: &str) -> bool {
    [
        "os error 12",
        "Cannot allocate memory",
        "memory allocation of",
        "std::bad_alloc",
        // A thread for whose stack there is no room.
        "failed to spawn thread",
        "allocate an alternative stack",
    ]
    .iter()
    .any(|words| message.contains(words))
}

fn status_bytes(key: &str) -> Option<u64> {
    kibibytes("/proc/self/status", key)
}

fn kibibytes(file: &str, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes << 10)
}

fn mib(bytes: u64) -> String {
    if bytes < 10 << 20 { format!("{bytes} bytes") } else { format!("{} MiB", bytes >> 20) }
}
