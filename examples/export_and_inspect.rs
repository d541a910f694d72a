//! Exports a checkpoint and says what the bundle holds.
use photonc::export::{ExportOptions, export};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(model), Some(out)) = (arguments.next(), arguments.next()) else {
        return Err("usage: export_and_inspect MODEL BUNDLE".into());
    };
    let options = ExportOptions { force: true, ..ExportOptions::new(model, out) };
    let report = export(&options, &|_| {})?;
    let lines: Vec<String> =
        report.nodes.iter().map(|(name, nodes)| format!("{name}: {nodes} nodes")).collect();
    std::io::Write::write_all(&mut std::io::stdout(), (lines.join("\n") + "\n").as_bytes())?;
    Ok(())
}
