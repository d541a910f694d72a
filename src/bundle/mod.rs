//! What export writes and runtime reads.
