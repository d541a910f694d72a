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

    /// Name of an input, weight or delay, without its quotes.
    #[must_use]
    pub fn own_name(&self) -> Option<&str> {
        let (_, text) = self.attributes.iter().find(|(known, _)| *known == "name")?;
        Some(text.trim_matches('"'))
    }

    /// What others call its value: its label, or its own name.
    #[must_use]
    pub fn called(&self) -> Option<&str> {
        self.label.as_deref().or(self.own_name())
    }
}
