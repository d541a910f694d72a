//! Where things stand in a bundle: the only place that names its directories.

/// Paths inside a bundle, with `/` between parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout;

impl Layout {
    /// The manifest.
    pub const MANIFEST: &'static str = "photon.json";
    /// Files of a checkpoint that are carried unchanged where it has them.
    pub const CARRIED: [&'static str; 5] = [
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "generation_config.json",
        "chat_template.jinja",
    ];

    /// Text of a graph.
    #[must_use]
    pub fn graph(name: &str) -> String {
        format!("graphs/{name}.pho")
    }

    /// ONNX model of a graph for a target.
    #[must_use]
    pub fn onnx(target: &str, name: &str) -> String {
        format!("onnx/{target}/{name}.onnx")
    }

    /// A weights file. ONNX Runtime reads nothing outside the model's own folder, so the weights of a target stand
    /// beside its models.
    #[must_use]
    pub fn weights(target: &str, file: &str) -> String {
        format!("onnx/{target}/{file}")
    }
}
