//! Where things stand in a bundle: the only place that names its directories.

/// Paths inside a bundle, with `/` between parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout;

impl Layout {
    /// The manifest.
    pub const MANIFEST: &'static str = "photon.json";
    /// Files of a checkpoint that are carried unchanged where it has them.
    pub const CARRIED: [&'static str; 6] = [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "generation_config.json",
        "chat_template.jinja",
    ];

    /// Folder of the ONNX models; paths of weights in them count from it.
    pub const ONNX: &'static str = "onnx";

    /// What is recorded of engines, in their folder.
    pub const ENGINE_RECORD: &'static str = "record.json";

    /// Engines of a vendor, a folder for every set of GPUs. Not part of what the manifest counts: a bundle is whole without
    /// them.
    #[must_use]
    pub fn engines(vendor: &str) -> String {
        format!("engines/{vendor}")
    }

    /// Text of a graph.
    #[must_use]
    pub fn graph(name: &str) -> String {
        format!("graphs/{name}.pho")
    }

    /// ONNX model of a graph for a target.
    #[must_use]
    pub fn onnx(target: &str, name: &str) -> String {
        format!("onnx/{name}.{target}.onnx")
    }

    /// A weights file. ONNX runtimes read nothing outside a model's own folder, so the weights that all targets share
    /// stand below it.
    #[must_use]
    pub fn weights(file: &str) -> String {
        format!("onnx/weights/{file}")
    }

    /// The path of a weights file as an ONNX model of the bundle names it.
    #[must_use]
    pub fn beside_onnx(weights: &str) -> String {
        weights.strip_prefix("onnx/").unwrap_or(weights).to_owned()
    }
}
