//! What tests with programs of others share: where those are installed, how what is not there is told, and the trained example
//! as a bundle that chats.

use serde_json::json;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Name of the bundle's directory, and so of the model.
pub const MODEL: &str = "english";

/// The trained example has no template: it knows no chats, and answers as it would go on.
const TEMPLATE: &str = "{% for message in messages %}{{ message.content }}\n{% endfor %}";

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn deps() -> PathBuf {
    std::env::var_os("PHOTONC_DEPS").map_or_else(|| root().join(".deps"), |deps| root().join(deps))
}

/// Past the capture of passing tests.
pub fn skipped(test: &str, what: &str) {
    let told = format!("SKIPPED {test}: {what}\n");
    std::io::stderr().write_all(told.as_bytes()).unwrap();
}

/// The Python of an environment of the dependencies, if it has a package.
pub fn python(environment: &str, package: &str) -> Option<PathBuf> {
    let python = deps().join(environment).join("bin/python");
    let mut has = Command::new(&python);
    has.args(["-c", &format!("import importlib.util as u; exit(u.find_spec('{package}') is None)")]);
    has.output().is_ok_and(|done| done.status.success()).then_some(python)
}

/// The trained example as a bundle with a chat template, and a folder with its tokenizer as transformers reads it; `test` has a
/// place of its own for them.
pub fn bundle(test: &str) -> &'static (PathBuf, PathBuf) {
    static MADE: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
        let (checkpoint, bundle) = (folder.join("checkpoint"), folder.join(MODEL));
        let tokenizer = folder.join("tokenizer");
        fs::create_dir_all(&checkpoint).unwrap();
        fs::create_dir_all(&tokenizer).unwrap();
        for name in ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"] {
            fs::copy(root().join("examples/english").join(name), checkpoint.join(name)).unwrap();
        }
        fs::write(checkpoint.join("chat_template.jinja"), TEMPLATE).unwrap();
        fs::copy(checkpoint.join("tokenizer.json"), tokenizer.join("tokenizer.json")).unwrap();
        let class = json!({"tokenizer_class": "PreTrainedTokenizerFast"});
        fs::write(tokenizer.join("tokenizer_config.json"), class.to_string()).unwrap();
        let mut export = Command::new(env!("CARGO_BIN_EXE_photonc"));
        export.arg("export").arg(&checkpoint).arg("--out").arg(&bundle).arg("--force");
        let done = export.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        (bundle, tokenizer)
    })
}
