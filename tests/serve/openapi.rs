//! The interface that the documentation shows is the server's.

use crate::bundle;
use crate::served::Served;
use std::fs;
use std::path::Path;

/// `docs/http-api.md` is made of this file by `docs/reference.py`, and clients may be generated from it.
#[test]
fn the_documented_interface_is_that_of_the_server() {
    let (_folder, bundle) = bundle();
    let served = Served::start(&bundle, &[]);
    let answered = serde_json::to_string_pretty(&served.get("/openapi.json").json()).expect("JSON") + "\n";
    let documented = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    if fs::read_to_string(&documented).ok().as_ref() != Some(&answered) {
        let written = Path::new(env!("CARGO_TARGET_TMPDIR")).join("openapi.json");
        fs::write(&written, answered).expect("writes");
        panic!(
            "docs/openapi.json is not what the server answers: copy {} there, run docs/reference.py, and read the difference",
            written.display()
        );
    }
}
