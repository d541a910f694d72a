//! Where Python packages keep the libraries that they bring. Owns the places that every backend with a library outside the
//! program searches; opens nothing.

use std::path::{Path, PathBuf};

/// Where Python may be installed: the active environments, the project's own, the user's, the system's.
pub(super) fn prefixes() -> Vec<PathBuf> {
    let named = |variable: &str| std::env::var_os(variable).map(PathBuf::from);
    let project = named("PHOTONC_DEPS").unwrap_or_else(|| PathBuf::from(".deps")).join("py");
    let user = named("HOME").map(|home| home.join(".local"));
    let active = [named("VIRTUAL_ENV"), named("CONDA_PREFIX")].into_iter().flatten();
    let system = ["/usr/local", "/usr"].map(PathBuf::from);
    active.chain([project]).chain(user).chain(system).collect()
}

/// Folder `inner` of every Python's packages below a prefix, whether it is there or not.
pub(super) fn in_packages(prefix: &Path, inner: &str) -> Vec<PathBuf> {
    let pythons = entries(&prefix.join("lib"), "python3");
    let packages =
        |python: PathBuf| ["site-packages", "dist-packages"].map(|kind| python.join(kind).join(inner));
    pythons.into_iter().flat_map(packages).collect()
}

/// Entries of a folder whose name starts so, last name first: newer versions before older ones.
pub(super) fn entries(folder: &Path, start: &str) -> Vec<PathBuf> {
    let listed = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let fits =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start));
    let mut found: Vec<PathBuf> = listed.map(|entry| entry.path()).filter(fits).collect();
    found.sort();
    found.reverse();
    found
}
