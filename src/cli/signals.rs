//! Ends from outside: SIGINT, SIGTERM, SIGHUP. Owns that such an end is prompt, says one line, leaves nothing behind and has
//! the exit code that shells expect, 128 and the signal's number.

use super::failure::{self, Failure};
use crate::staging;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;
use signal_hook::{flag, low_level};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Stack of the thread that waits for signals: it does little, and the limit on address space counts it.
const STACK_BYTES: usize = 256 << 10;

/// Set once the process is ending: nobody else says anything then.
static ENDING: AtomicBool = AtomicBool::new(false);

/// Answers signals from now on. Where the system gives no thread for it, they end the process as they always do.
pub fn install() {
    survive_file_limit();
    // Shells ignore SIGINT on behalf of jobs in the background, and whoever sends it to one means it. SIGHUP is ignored on
    // behalf of `nohup`, which means it too.
    let mut heard = vec![SIGINT, SIGTERM];
    if !is_ignored(SIGHUP) {
        heard.push(SIGHUP);
    }
    let again = Arc::new(AtomicBool::new(false));
    for signal in &heard {
        // A second one does not wait for what the first has removed.
        let _ = flag::register_conditional_shutdown(*signal, 128 + signal, Arc::clone(&again));
        let _ = flag::register(*signal, Arc::clone(&again));
    }
    let Ok(mut signals) = Signals::new(&heard) else { return };
    let wait = move || {
        if let Some(signal) = signals.forever().next() {
            ENDING.store(true, Ordering::SeqCst);
            staging::clear();
            failure::interrupted(name(signal));
            low_level::exit(128 + signal);
        }
    };
    let thread = std::thread::Builder::new().name("signals".to_owned()).stack_size(STACK_BYTES);
    if thread.spawn(wait).is_err() {
        for signal in &heard {
            let _ =
                flag::register_conditional_shutdown(*signal, 128 + signal, Arc::new(AtomicBool::new(true)));
        }
    }
}

/// With a handler of any kind a file that grows past its limit is an error of the write, and no end of the process.
fn survive_file_limit() {
    let _ = flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)));
}

/// Answers signals on behalf of a server from now on: the first SIGINT or SIGTERM drains it, the second ends the process,
/// SIGHUP loads its bundles again.
#[cfg(feature = "serve")]
pub fn drain(control: crate::server::Control) {
    survive_file_limit();
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP]) else { return };
    let wait = move || {
        let mut draining = false;
        for signal in signals.forever() {
            match signal {
                SIGHUP => control.reload(),
                _ if draining => {
                    control.stop();
                    ENDING.store(true, Ordering::SeqCst);
                    failure::interrupted(name(signal));
                    low_level::exit(128 + signal);
                }
                _ => {
                    draining = true;
                    control.drain();
                }
            }
        }
    };
    // Where the system gives no thread for it, signals end the process as they always do.
    let _ = std::thread::Builder::new().name("signals".to_owned()).stack_size(STACK_BYTES).spawn(wait);
}

/// Ends the process at once, with nothing left behind.
pub fn end(code: i32) -> ! {
    ENDING.store(true, Ordering::SeqCst);
    staging::clear();
    low_level::exit(code)
}

/// Says why and ends the process, with nothing left behind.
pub fn say_and_end(failure: &Failure, code: i32) -> ! {
    ENDING.store(true, Ordering::SeqCst);
    staging::clear();
    failure.say();
    low_level::exit(code)
}

/// Waits for the end where one is on its way, so that its one line is the only one.
pub fn give_way() {
    while ENDING.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Whether the process was started with a signal ignored.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

fn name(signal: i32) -> &'static str {
    match signal {
        SIGINT => "SIGINT",
        SIGTERM => "SIGTERM",
        _ => "SIGHUP",
    }
}
