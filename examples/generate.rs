//! Compiles a checkpoint, generates greedily under RecGen with a run-ahead, and prints tokens as they come.
use photonc::bundle::Bundle;
use photonc::export::{ExportOptions, export};
use photonc::passes::choose_protocol::Protocol;
use photonc::runtime::generator::Generator;
use photonc::runtime::request::{Batch, Cancel, Request, RunAhead};
use photonc::runtime::tract::Tract;
use std::error::Error;
use std::io::Write as _;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(model), Some(out)) = (arguments.next(), arguments.next()) else {
        return Err("usage: generate MODEL BUNDLE".into());
    };
    let options = ExportOptions { force: true, ..ExportOptions::new(model, out) };
    export(&options, &|_| {})?;
    let bundle = Bundle::open(&options.out)?;
    let mut generator = Generator::of_bundle(&bundle, Box::new(Tract::of_bundle(bundle.clone())))?;
    let prompt = (1..=32).collect();
    let request = Request::greedy(Protocol::Recgen, prompt, 32);
    let batch = Batch { run_ahead: RunAhead::MetaContexts(1), ..Batch::new(vec![request]) };
    let mut bursts = Vec::new();
    generator.generate(&batch, &mut |burst| bursts.push(burst.tokens.to_vec()), &Cancel::default())?;
    for burst in bursts {
        let tokens: Vec<String> = burst.iter().map(i64::to_string).collect();
        writeln!(std::io::stdout(), "{}", tokens.join(" "))?;
    }
    Ok(())
}
