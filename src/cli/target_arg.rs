//! `--target` of `export`: whom ONNX models are written for, and what engines are built of them.

use crate::engine::EngineTarget;
use crate::onnx::target::Target;

/// What an export is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets {
    /// Whom files are written for, each once.
    pub written: Vec<Target>,
    /// What engines are built for.
    pub engines: Vec<EngineTarget>,
}

/// Reads `portable,tensorrt-rtx:89,120`: names with commas between them; numbers after a colon are compute capabilities.
pub fn targets(text: &str) -> Result<Targets, String> {
    let mut items: Vec<String> = Vec::new();
    for item in text.split(',') {
        let is_number = !item.is_empty() && item.chars().all(|c| c.is_ascii_digit());
        match items.last_mut().filter(|last| is_number && last.contains(':')) {
            Some(last) => last.push_str(&format!(",{item}")),
            None => items.push(item.to_owned()),
        }
    }
    let mut targets = Targets { written: Vec::new(), engines: Vec::new() };
    for item in items {
        let name = item.split(':').next().unwrap_or_default();
        let known = || Target::ALL.map(Target::name).join(", ");
        let target = Target::from_name(name)
            .ok_or_else(|| format!("there is no target `{name}`, expected some of {}", known()))?;
        targets.written.push(target);
        if item.contains(':') {
            targets.engines.push(EngineTarget::parse(&item).map_err(|error| error.to_string())?);
        }
    }
    targets.written.sort_unstable();
    targets.written.dedup();
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use super::targets;
    use crate::engine::EngineTarget;
    use crate::onnx::target::Target;

    // The same comma stands between targets and between compute capabilities.
    #[test]
    fn numbers_belong_to_the_name_before_them() {
        let read = targets("tensorrt-rtx:89,120,portable").expect("reads");
        assert_eq!(read.written, [Target::Portable, Target::TensorrtRtx]);
        assert_eq!(read.engines, [EngineTarget::parse("tensorrt-rtx:89,120").expect("a target")]);
        assert!(targets("tensorrt-rtx").expect("reads").engines.is_empty());
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for text in ["", "89", "portable,89", "portable:89", "tensorrt-rtx:90", "onnx"] {
            assert!(targets(text).is_err(), "{text}");
        }
    }
}
