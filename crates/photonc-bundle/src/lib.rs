//! What is on disk. Owns bundles with their manifests, what a program is (protocols, signatures, certificates), how files are
//! staged, and where photonc keeps its own.

pub mod bundle;
pub mod cache;
pub mod json;
pub mod places;
pub mod program;
pub mod staging;
