//! The text of `photon.json` and its own hash. Owns that a changed manifest is told from a written one: the last entry,
//! `blake3`, is the hash of every byte before its line.

use super::error::BundleError;
use super::hash::Blake3;
use super::manifest::{FORMAT, Manifest};
use serde::Deserialize;
use std::path::Path;

/// What every format of a manifest has.
#[derive(Deserialize)]
struct Head {
    format: Option<u64>,
    photonc: Option<String>,
}

/// The text of a manifest with its hash. Equal manifests give equal texts.
///
/// # Errors
/// The manifest has no JSON form.
pub fn sealed(manifest: &Manifest) -> Result<String, serde_json::Error> {
    Ok(seal(&serde_json::to_string_pretty(manifest)?))
}

/// An object of JSON, spread over lines, with the hash of its text as last entry.
#[must_use]
pub fn seal(text: &str) -> String {
    let text = text.trim_end();
    let body = format!("{},\n", text.strip_suffix('}').unwrap_or(text).trim_end());
    let hash = Blake3::of(body.as_bytes());
    format!("{body}{}", last_entry(&hash))
}

fn last_entry(hash: &Blake3) -> String {
    format!("  \"blake3\": \"{hash}\"\n}}\n")
}

/// The manifest in the bytes of a file at `path`.
pub(super) fn parse(path: &Path, text: &[u8]) -> Result<Manifest, BundleError> {
    let error = |message: String| BundleError::Manifest { path: path.to_owned(), message };
    let head: Head = serde_json::from_slice(text).map_err(|source| error(format!("not JSON: {source}")))?;
    match head.format {
        Some(format) if format == u64::from(FORMAT) => {}
        Some(format) => {
            let writer = head.photonc.unwrap_or_else(|| "of an unknown version".to_owned());
            return Err(error(format!(
                "bundle format {format} (photonc {writer}), this photonc reads {FORMAT}; export the model again"
            )));
        }
        None => return Err(error("not a bundle's manifest: it has no `format`".to_owned())),
    }
    let body =
        text.len().checked_sub(last_entry(&Blake3::of(&[])).len()).and_then(|at| text.split_at_checked(at));
    let Some((body, last)) = body else { return Err(error("its last entry is not `blake3`".to_owned())) };
    let expected = Blake3::of(body);
    if last != last_entry(&expected).as_bytes() {
        let message = format!(
            "was changed after it was written: its last entry is not `blake3` {expected}, the hash of the lines before; export the bundle again"
        );
        return Err(error(message));
    }
    serde_json::from_slice(text).map_err(|source| error(source.to_string()))
}

#[cfg(test)]
mod tests {
    use super::seal;

    #[test]
    fn sealing_adds_the_hash_of_the_lines_before() {
        let sealed = seal("{\n  \"a\": {}\n}\n");
        let (body, last) = sealed.split_at(sealed.find("  \"blake3\"").expect("is there"));
        assert_eq!(body, "{\n  \"a\": {},\n");
        assert_eq!(last, format!("  \"blake3\": \"{}\"\n}}\n", blake3::hash(body.as_bytes()).to_hex()));
    }
}
