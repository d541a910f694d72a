//! text placeholder
