//! A package for Docker: an image with the bundle in it, and how it is run.

use super::{Facts, PackageFile};

pub fn files(facts: &Facts) -> Vec<PackageFile> {
    vec![
        ("Dockerfile", facts.filled(include_str!("docker.Dockerfile"))),
        ("compose.yaml", facts.filled(include_str!("docker.compose.yaml"))),
    ]
}
