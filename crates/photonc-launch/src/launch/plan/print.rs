//! A plan as text, for snapshots and people: one line a step, addresses as buffers.

use super::view::located;
use super::{Call, Contents, Plan};
use crate::launch::arguments::{Access, LinearArguments};
use crate::launch::codes::scheme_number;
use photonc_graph::ir::attr::Scheme;
use std::fmt;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "plan {} {} arena {} bytes, {} steps",
            self.graph,
            self.dtype,
            self.arena_bytes,
            self.steps.len()
        )?;
        let mut scope = "";
        for step in &self.steps {
            if step.scope.as_str() != scope {
                scope = step.scope.as_str();
                writeln!(f, "\n@{scope}")?;
            }
            let (mut reads, mut writes) = (Vec::new(), Vec::new());
            step.call.clone().addresses(&mut |address: &mut u64, access: Access| {
                let Some(text) = self.place(*address) else { return };
                match access {
                    Access::Read => reads.push(text),
                    Access::Write => writes.push(text),
                }
            });
            writeln!(f, "  {} {} -> {}", step.call.title(), reads.join(" "), writes.join(" "))?;
        }
        Ok(())
    }
}

impl Plan {
    fn place(&self, address: u64) -> Option<String> {
        let (index, byte) = located(address)?;
        let buffer = &self.buffers[index];
        let name = match &buffer.contents {
            Contents::Input { name } => format!("in:{name}"),
            Contents::Output { name } => format!("out:{name}"),
            Contents::Weights { pack } => format!("w{pack}"),
            Contents::Constant(_) => format!("const{index}"),
            Contents::Rotation { half, .. } => format!("rotation{half}"),
            Contents::Arena { offset_bytes } => {
                return Some(format!("%{:x}", offset_bytes + usize::try_from(byte).ok()?));
            }
        };
        Some(if byte == 0 { name } else { format!("{name}+{byte:x}") })
    }
}

/// What a product does besides, and its sizes.
fn linear_title(a: &LinearArguments) -> String {
    let norm = if a.norm == 0 { "" } else { " norm" };
    let mode = if a.mode == 0 { "" } else { " swiglu" };
    let residual = if a.residual.base == 0 { "" } else { " residual" };
    format!("{norm}{mode}{residual} [{} x {}] x {}", a.rows, a.k, a.n)
}

fn scheme_title(number: i32) -> &'static str {
    let is_it = |scheme: &&Scheme| i32::from(scheme_number(**scheme)) == number;
    Scheme::ALL.iter().find(is_it).map_or("codes", |scheme| scheme.name())
}

impl Call {
    /// The kernel and its sizes.
    #[must_use]
    pub fn title(&self) -> String {
        match self {
            Call::Linear(a) => format!("linear{}", linear_title(a)),
            Call::Codes(a) => format!("linear of {}{}", scheme_title(a.scheme), linear_title(&a.linear)),
            Call::Dequantize(a) => format!("dequantize {} [{} x {}]", scheme_title(a.scheme), a.rows, a.k),
            Call::MatMul(a) => {
                let residual = if a.residual == 0 { "" } else { " residual" };
                format!("matmul{residual} [{} x {}] x {}", a.m, a.k, a.n)
            }
            Call::Norm(a) => format!("rms_norm [{} x {}]", a.rows, a.width),
            Call::Swiglu(a) => format!("swiglu [{} x {}]", a.rows, a.width),
            Call::Embed(a) => format!("embed [{} x {}]", a.rows, a.width),
            Call::AttendWindow(a, width) => {
                format!(
                    "attend_window [{} x {} x {} x {width}] past {} new {}",
                    a.rows, a.heads, a.queries, a.past_base, a.keys
                )
            }
            Call::AttendCache(a, width) => {
                format!("attend_cache [{} x {} x {} x {width}] new {}", a.rows, a.heads, a.queries, a.keys)
            }
            Call::AttendStream(a, width) => {
                format!("attend_stream [{} x {} x {} x {width}]", a.rows, a.heads, a.queries)
            }
            Call::AppendKeys(a, width) => {
                format!("append_keys [{} x {} x {} x {width}]", a.rows, a.kv_heads, a.keys)
            }
            Call::Sample(a) => format!("sample [{} x {}]", a.rows, a.vocabulary),
            Call::Element(a) => format!("elementwise {} {:?}", a.operation, a.size),
            Call::Gather(a) => format!("gather_rows [{} x {} x {}]", a.batch, a.count, a.width),
            Call::Iota(a) => format!("iota [{}]", a.count),
            Call::Uniforms(a) => format!("uniforms [{} x {}]", a.rows, a.count),
            Call::Read(a) => format!("read_words [{}]", a.words),
            Call::Rope(a) => format!("rope [{} x {} x {} x {}]", a.rows, a.heads, a.count, a.width),
            Call::AttendGeneral(a) => {
                let cached = if a.lengths == 0 { "" } else { " cached" };
                let [queries, keys, width, value_width] = [a.queries, a.keys, a.width, a.value_width];
                format!(
                    "attend_general{cached} [{} x {} x {queries}] x {keys} of {width}, {value_width}",
                    a.rows, a.heads
                )
            }
            Call::Append(a) => format!("append [{} x {} x {} x {}]", a.rows, a.heads, a.count, a.width),
            Call::Route(a) => format!("route [{} x {}] to {}", a.rows, a.experts, a.top_k),
            Call::ExpertsUp(a) => format!("experts_up [{} x {} x {}]", a.rows, a.top_k, a.inner),
            Call::ExpertsDown(a) => format!("experts_down [{} x {} x {}]", a.rows, a.top_k, a.width),
        }
    }
}
