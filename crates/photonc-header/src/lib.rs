//! The header of the C library is compared with its code by `tests/header.rs`; there is nothing else here.
