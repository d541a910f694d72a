//! Fuzzes `photonc_fuzz::tokenizer`. The library behind it panics on some files, which photonc catches: the hook by which the
//! fuzzer ends the process at every panic is taken out, and one that is not caught ends it all the same.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    static HOOK: std::sync::Once = std::sync::Once::new();
    HOOK.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    photonc_fuzz::tokenizer(input);
});

photonc_fuzz::structured_mutator!("tokenizer");
