//! The words of a node that DOT, JSON and differences share.

use super::sheet::Row;

impl Row {
    /// Operation with its attributes: `rms_norm{eps=1e-5}`.
    #[must_use]
    pub fn head(&self) -> String {
        let attributes: Vec<String> =
            self.attributes.iter().map(|(name, text)| format!("{name}={text}")).collect();
        match attributes.is_empty() {
            true => self.op.to_owned(),
            false => format!("{}{{{}}}", self.op, attributes.join(", ")),
        }
    }

    /// The attribute of that name.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| *known == name).map(|(_, text)| text.as_str())
    }
}
