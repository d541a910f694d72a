//! Where the libraries are that backends load when they are used: where an option or a variable says, in Python packages,
//! where the system looks. Owns the search, its order and what to say when nothing fits; opens nothing itself.

use std::fmt;
use std::path::{Path, PathBuf};

/// A library that is not part of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What people call it.
    pub name: &'static str,
    /// Its file's name without a version: `libonnxruntime.so`.
    pub file: &'static str,
    /// The major version by which the system knows it.
    pub major: u32,
    /// Folders of the Python packages that bring it, below `site-packages`.
    pub packages: &'static [&'static str],
    /// The option that names it or its folder.
    pub option: &'static str,
    /// The variable of the same meaning.
    pub variable: &'static str,
    /// The command that installs it.
    pub install: &'static str,
}

/// A library that was not found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotFound {
    /// What was sought.
    pub wanted: &'static Wanted,
    /// Every place that was tried, and what is wrong with it.
    pub tried: Vec<String>,
}

impl Wanted {
    /// The library from the first place where `accept` takes it: the file or folder `named`, else that of the variable, and
    /// only there; if neither is given, in Python packages and wherever the system looks.
    ///
    /// # Errors
    /// There is none that can be used.
    pub fn find<T>(
        &'static self,
        named: Option<&Path>,
        accept: impl Fn(&Path) -> Result<T, String>,
    ) -> Result<T, NotFound> {
        let variable = std::env::var_os(self.variable).filter(|value| !value.is_empty()).map(PathBuf::from);
        let mut tried = Vec::new();
        let places = match named.map(Path::to_owned).or(variable) {
            Some(named) => self.named_places(&named, &mut tried),
            None => self.usual_places(&mut tried),
        };
        for place in places {
            match accept(&place) {
                Ok(taken) => return Ok(taken),
                Err(reason) if reason.contains(&*place.to_string_lossy()) => tried.push(reason),
                Err(reason) => tried.push(format!("{}: {reason}", place.display())),
            }
        }
        Err(NotFound { wanted: self, tried })
    }

    /// A file itself, or the libraries in a folder.
    fn named_places(&self, named: &Path, tried: &mut Vec<String>) -> Vec<PathBuf> {
        if !named.is_dir() {
            return vec![named.to_owned()];
        }
        let found = entries(named, self.file);
        if found.is_empty() {
            tried.push(format!("{}: the folder has no {}*", named.display(), self.file));
        }
        found
    }

    fn usual_places(&self, tried: &mut Vec<String>) -> Vec<PathBuf> {
        let mut places = Vec::new();
        for (prefix, package) in
            prefixes().iter().flat_map(|prefix| self.packages.iter().map(move |package| (prefix, package)))
        {
            let folders = in_packages(prefix, package);
            let found: Vec<PathBuf> = folders.iter().flat_map(|folder| entries(folder, self.file)).collect();
            if found.is_empty() {
                let folder = prefix.join("lib/python3*/site-packages").join(package);
                tried.push(format!("{}: not there", folder.display()));
            }
            places.extend(found);
        }
        places.extend([format!("{}.{}", self.file, self.major), self.file.to_owned()].map(PathBuf::from));
        places
    }
}

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Wanted { name, file, option, variable, install, .. } = *self.wanted;
        write!(
            f,
            "the library of {name}, {file}, cannot be used; tried\n  {}\nInstall it with `{install}`, or name the library or its folder with {option} or {variable}",
            self.tried.join("\n  ")
        )
    }
}

/// Where Python may be installed: the active environments, the user's, the system's.
pub fn prefixes() -> Vec<PathBuf> {
    let named = |variable: &str| std::env::var_os(variable).map(PathBuf::from);
    let active = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(named);
    let user = named("HOME").map(|home| home.join(".local"));
    let system = ["/usr/local", "/usr"].map(PathBuf::from);
    active.chain(user).chain(system).collect()
}

/// Folder `inner` of every Python's packages below a prefix, whether it is there or not.
pub fn in_packages(prefix: &Path, inner: &str) -> Vec<PathBuf> {
    let pythons = entries(&prefix.join("lib"), "python3");
    let packages =
        |python: PathBuf| ["site-packages", "dist-packages"].map(|kind| python.join(kind).join(inner));
    pythons.into_iter().flat_map(packages).collect()
}

/// Entries of a folder whose name starts so, newer versions before older ones: 1.10 before 1.9.
pub fn entries(folder: &Path, start: &str) -> Vec<PathBuf> {
    let listed = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let fits =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start));
    let mut found: Vec<PathBuf> = listed.map(|entry| entry.path()).filter(fits).collect();
    found.sort_by_cached_key(|path| {
        std::cmp::Reverse(path.file_name().map(|name| by_version(&name.to_string_lossy())))
    });
    found
}

/// A part of a name: text, or a number, which is compared by its length in digits before its digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Piece {
    Text(String),
    Number(usize, String),
}

/// What orders names as people do: 10 after 9.
fn by_version(name: &str) -> Vec<Piece> {
    let pieces = name.as_bytes().chunk_by(|left, right| left.is_ascii_digit() == right.is_ascii_digit());
    let piece = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        if !bytes.iter().all(u8::is_ascii_digit) {
            return Piece::Text(text.into_owned());
        }
        let digits = text.trim_start_matches('0');
        Piece::Number(digits.len(), digits.to_owned())
    };
    pieces.map(piece).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test panics")]
    use super::*;

    static WANTED: Wanted = Wanted {
        name: "Nothing",
        file: "libnothing.so",
        major: 3,
        packages: &["nothing/lib"],
        option: "--nothing-lib",
        variable: "PHOTONC_TEST_NO_SUCH_VARIABLE",
        install: "pip install nothing",
    };

    // A user who names a place means that one: another version from elsewhere must not stand in.
    #[test]
    fn a_named_place_is_the_only_one() {
        let refused = WANTED.find(Some(Path::new("/some/file")), |_| Err::<(), _>("too old".to_owned()));
        assert_eq!(refused.unwrap_err().tried, ["/some/file: too old"]);
    }

    #[test]
    fn a_folder_stands_for_the_newest_library_in_it() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["libnothing.so.3.1", "libnothing.so.3.2", "libother.so.9"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let found = WANTED.find(Some(folder.path()), |place| Ok(place.to_owned()));
        assert_eq!(found.unwrap(), folder.path().join("libnothing.so.3.2"));
    }

    #[test]
    fn versions_are_numbers_and_not_text() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["libnothing.so.10", "libnothing.so.9.11", "libnothing.so.9.2", "libnothing.so"];
        for name in names.iter().rev() {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let found = entries(folder.path(), "libnothing.so");
        let found: Vec<_> = found.iter().map(|path| path.file_name().unwrap().to_string_lossy()).collect();
        assert_eq!(found, names);
    }

    #[test]
    fn the_system_is_asked_last_and_the_error_says_what_to_do() {
        let text = WANTED.find(None, |_| Err::<(), _>("refused".to_owned())).unwrap_err().to_string();
        assert!(text.contains("\n  libnothing.so.3: refused\n  libnothing.so: refused\n"), "{text}");
        assert!(text.contains("site-packages/nothing/lib: not there"), "{text}");
        let end = "Install it with `pip install nothing`, or name the library or its folder with --nothing-lib or PHOTONC_TEST_NO_SUCH_VARIABLE";
        assert!(text.ends_with(end), "{text}");
    }
}
