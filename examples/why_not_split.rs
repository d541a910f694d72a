//! Asks the compiler why a protocol runs one meta-context at a time, and prints the path that forbids the split.
use photonc::model::preset::preset;
use photonc::passes::choose_protocol::Protocol;
use photonc::passes::compile::{Plan, compile};
use std::error::Error;
use std::io::Write as _;

fn main() -> Result<(), Box<dyn Error>> {
    let config = preset("tiny").ok_or("no such preset")?;
    let compiled = compile(&config, &[Protocol::Recgen, Protocol::Hiergen])?;
    for (protocol, plan) in &compiled.plans {
        match plan {
            Plan::Distributed { certificate, .. } => {
                let cut: Vec<&str> = certificate.cut.iter().map(|value| value.name.as_str()).collect();
                writeln!(std::io::stdout(), "{protocol}: split at {}", cut.join(", "))?;
            }
            Plan::Undistributed { declined, .. } => writeln!(std::io::stdout(), "{protocol}: {declined}")?,
        }
    }
    Ok(())
}
