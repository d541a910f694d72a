//! Time from a configuration to every optimised graph, at the paper's sizes. `cargo bench --bench compile`.

#![allow(missing_docs, reason = "criterion_group makes functions without documentation")]

use criterion::{Criterion, criterion_group, criterion_main};
use photonc::model::preset::preset;
use photonc::passes::choose_protocol::Protocol;
use photonc::passes::compile::compile;

fn compilation(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compile");
    group.sample_size(10);
    for name in ["tiny", "paper-600m", "paper-1.2b"] {
        let config = preset(name).expect("a preset");
        group.bench_function(name, |bencher| {
            bencher.iter(|| compile(&config, &[Protocol::Recgen, Protocol::Hiergen]).expect("compiles"));
        });
    }
    group.finish();
}

criterion_group!(benches, compilation);
criterion_main!(benches);
