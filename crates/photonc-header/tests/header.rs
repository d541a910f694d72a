//! The committed header is the one that the code gives.

use std::path::Path;

/// Whoever changes an exported function or structure sees the change of the header with it:
/// `PHOTONC_WRITE_HEADER=1 cargo test -p photonc-header` writes it anew.
#[test]
fn the_committed_header_is_that_of_the_code() {
    let root = &Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("photonc-c");
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).expect("a configuration");
    let made = cbindgen::Builder::new().with_crate(root).with_config(config).generate().expect("a header");
    let mut bytes = Vec::new();
    made.write(&mut bytes);
    let text = String::from_utf8(bytes).expect("UTF-8");
    let path = root.join("include/photonc.h");
    if std::env::var_os("PHOTONC_WRITE_HEADER").is_some() {
        std::fs::write(&path, &text).expect("writes");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == text, "include/photonc.h differs; PHOTONC_WRITE_HEADER=1 writes it anew");
}
