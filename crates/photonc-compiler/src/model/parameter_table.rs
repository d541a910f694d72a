//! The per-module parameter table. Owns its rows, totals and text; counts come from `parameters`.

use std::fmt;

use serde::Serialize;

use crate::model::config::{Chunker, ConverterLayout, Feedback, ModelConfig, StackConfig};
use crate::model::parameters::parameters;

/// Parameters of a model by module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ParameterTable {
    /// One row per module in the order of the equations; modules without weights count 0.
    pub rows: Vec<Row>,
    /// Parameters in the sense of the paper's tables: start latents are left out.
    pub total: usize,
    /// Learned start latents, outside the total.
    pub start_latents: usize,
}

/// One module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Scope path, `level1.encoder`.
    pub module: String,
    /// Its shape in words.
    pub shape: String,
    /// Layers of a stack; `None` for other modules.
    pub layers: Option<usize>,
    /// Number of elements of all its tensors.
    pub parameters: usize,
}

impl ParameterTable {
    /// Counts the parameters of a model, module by module.
    ///
    /// Source: PHOTON paper (Ichikawa et al., arXiv 2512.20687), tables 10-12.
    #[must_use]
    pub fn new(config: &ModelConfig) -> Self {
        let list = parameters(config);
        let count = |module: &str| {
            list.iter()
                .filter(|parameter| parameter.module == module)
                .map(|parameter| parameter.elements())
                .sum()
        };
        let rows: Vec<Row> = modules(config)
            .into_iter()
            .map(|(module, shape, layers)| Row { parameters: count(&module), module, shape, layers })
            .collect();
        let (counted, starts): (Vec<_>, Vec<_>) = list.iter().partition(|parameter| parameter.counted);
        ParameterTable {
            rows,
            total: counted.iter().map(|parameter| parameter.elements()).sum(),
            start_latents: starts.iter().map(|parameter| parameter.elements()).sum(),
        }
    }
}

fn modules(config: &ModelConfig) -> Vec<(String, String, Option<usize>)> {
    let mut rows = vec![("embed".to_owned(), format!("[{}, {}]", config.vocab_size, config.embed_dim), None)];
    for (index, level) in config.levels.iter().enumerate() {
        let (below, dim, width) = (config.dim(index), level.dim, level.decoder_dim);
        let name = |part: &str| format!("level{}.{part}", index + 1);
        let chunker = match level.chunker {
            Chunker::NormedEach => {
                format!("normed linear {} x {below} -> {dim}, norm", level.chunk_size)
            }
            Chunker::Concat => format!("concat {} x {below} -> {dim}", level.chunk_size),
            Chunker::Linear { norm, bias } => format!(
                "{}linear {} x {below} -> {dim}{}",
                if norm { "norm, " } else { "" },
                level.chunk_size,
                if bias { ", bias" } else { "" }
            ),
        };
        let bias = if level.converter.bias { ", bias" } else { "" };
        rows.push((name("chunker"), chunker, None));
        rows.push((name("encoder"), stack(dim, &level.encoder), Some(level.encoder.layers)));
        let kind = match level.converter.layout {
            ConverterLayout::Convolved { .. } => "norm, convolved ",
            ConverterLayout::Linear | ConverterLayout::ConvTranspose | ConverterLayout::Narrowed { .. } => "",
        };
        let converter = match level.converter.layout {
            ConverterLayout::Narrowed { inner } => {
                format!(
                    "linear {dim} -> {inner}, norm, linear -> {} x {inner}, bias, linear -> {width}",
                    level.prefix
                )
            }
            _ => format!("{kind}linear {dim} -> {} x {width}{bias}", level.prefix),
        };
        rows.push((name("converter"), converter, None));
        rows.push((name("decoder"), stack(width, &level.decoder), Some(level.decoder.layers)));
    }
    if let (Some(predictor), Some(top)) = (config.predictor(), config.levels.last()) {
        rows.push(("predictor".to_owned(), stack(top.dim, &predictor), Some(predictor.layers)));
    }
    if config.wiring.final_norm {
        rows.push(("final_norm".to_owned(), "norm".to_owned(), None));
    }
    if let Some(first) = config.levels.first() {
        let table = format!("[{}, {}]", config.vocab_size, first.decoder_dim);
        if first.feedback == Feedback::Token {
            rows.push(("decoder_embed".to_owned(), table.clone(), None));
        }
        rows.push((
            "lm_head".to_owned(),
            match (config.tied_head, config.wiring.tied_decoder_head) {
                (true, _) => "tied to embed".to_owned(),
                (false, true) => "tied to decoder_embed".to_owned(),
                (false, false) => table,
            },
            None,
        ));
    }
    rows
}

fn stack(width: usize, stack: &StackConfig) -> String {
    let groups =
        if stack.kv_heads == stack.heads { String::new() } else { format!(" ({} kv)", stack.kv_heads) };
    let latent = stack.options.latent.map_or_else(String::new, |latent| {
        format!(" (latent {} + {}, values {})", latent.kv_rank, latent.rope, latent.value)
    });
    let groups = if stack.options.latent.is_some() { latent } else { groups };
    let experts = stack.options.experts.map_or_else(String::new, |experts| {
        let from = experts.first_layer + 1;
        format!(", experts {} x {} (top {}) from layer {from}", experts.count, experts.inner, experts.top_k)
    });
    format!("width {width}, heads {}{groups} x {}, ffn {}{experts}", stack.heads, stack.head_dim, stack.ffn)
}

/// A count in groups of three: `13 312 000`.
#[must_use]
pub fn grouped(count: usize) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

impl fmt::Display for ParameterTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = vec![["module", "shape", "layers", "parameters"].map(str::to_owned)];
        for row in &self.rows {
            let layers = row.layers.map_or_else(String::new, |layers| layers.to_string());
            lines.push([row.module.clone(), row.shape.clone(), layers, grouped(row.parameters)]);
        }
        lines.push(["total".into(), String::new(), String::new(), grouped(self.total)]);
        lines.push([
            "start latents".into(),
            "not in the total".into(),
            String::new(),
            grouped(self.start_latents),
        ]);
        let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
        let widths = [width(0), width(1), width(2), width(3)];
        for [module, shape, layers, parameters] in &lines {
            let [a, b, c, d] = widths;
            writeln!(f, "{module:<a$}  {shape:<b$}  {layers:>c$}  {parameters:>d$}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::preset::preset;

    fn table(name: &str) -> ParameterTable {
        ParameterTable::new(&preset(name).expect("a preset"))
    }

    /// The paper's tables 10-12, module by module for the smallest size.
    #[test]
    fn the_600m_modules_count_as_in_the_paper() {
        let table = table("paper-600m");
        let counts: Vec<(&str, usize)> =
            table.rows.iter().map(|row| (row.module.as_str(), row.parameters)).collect();
        assert_eq!(
            counts,
            [
                ("embed", 13_312_000),
                ("level1.chunker", 0),
                ("level1.encoder", 126_106_240),
                ("level1.converter", 5_541_120),
                ("level1.decoder", 126_106_240),
                ("level2.chunker", 11_083_904),
                ("level2.encoder", 126_106_240),
                ("level2.converter", 5_541_120),
                ("level2.decoder", 126_106_240),
                ("decoder_embed", 53_248_000),
                ("lm_head", 53_248_000),
            ]
        );
        assert_eq!(table.start_latents, 2 * 1664);
    }

    #[test]
    fn totals_equal_the_papers() {
        assert_eq!(table("paper-600m").total, 646_399_104);
        assert_eq!(table("paper-900m").total, 907_162_368);
        assert_eq!(table("paper-1.2b").total, 1_229_531_520);
    }

    /// A row left out, or counted twice, would show here.
    #[test]
    fn rows_sum_to_the_total() {
        for name in crate::model::preset::PRESETS {
            let table = table(name);
            assert_eq!(table.rows.iter().map(|row| row.parameters).sum::<usize>(), table.total, "{name}");
        }
    }

    #[test]
    fn text_aligns_counts_and_keeps_start_latents_apart() {
        let text = table("paper-600m").to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "embed             [32000, 416]                                  13 312 000");
        assert!(
            lines[lines.len() - 2].starts_with("total ") && lines[lines.len() - 2].ends_with("646 399 104")
        );
        assert!(
            lines[lines.len() - 1].starts_with("start latents     not in the total")
                && text.ends_with(" 3 328\n")
        );
    }
}
