//! A package for Triton: a model repository whose one model asks a `photonc serve` beside it.

use super::{Facts, PackageFile};

pub fn files(facts: &Facts) -> Vec<PackageFile> {
    vec![
        ("README.md", facts.filled(include_str!("triton.md"))),
        ("repository/photon/config.pbtxt", facts.filled(include_str!("triton.pbtxt"))),
        (
            "repository/photon/1/model.py",
            include_str!("../../../examples/cluster/triton/model.py").to_owned(),
        ),
    ]
}
