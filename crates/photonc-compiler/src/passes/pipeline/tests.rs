//! That the runner finds passes out that do not do what they say.

use super::{Fault, Runner};
use crate::passes::{Form, Pass, PassError, Rewrites};
use photonc_graph::graph::{Graph, Scope};
use photonc_graph::ir::attr::{Role, UnaryFn};
use photonc_graph::ir::op::Op;
use photonc_graph::ir::shape::Type;

fn graph() -> Graph {
    let (mut graph, scope) = (Graph::new("g"), Scope::new("s"));
    let op =
        Op::Input { name: "x".into(), ty: Type::parse("f32[batch]").expect("parses"), role: Role::Argument };
    let x = graph.add(op, &[], &scope).expect("types");
    let y = graph.add(Op::Unary { function: UnaryFn::Neg }, &[x], &scope).expect("types");
    graph.set_output("y", y);
    graph
}

/// Adds a node for each rewrite it makes, asks for some and reports some.
struct Growing {
    made: usize,
    asked: usize,
    reported: usize,
}

impl Pass for Growing {
    fn name(&self) -> &'static str {
        "growing"
    }

    fn requires(&self) -> Form {
        Form::Any
    }

    fn run(&self, graph: &mut Graph) -> Result<Rewrites, PassError> {
        let x = graph.inputs()[0];
        for _ in 0..self.asked {
            let _granted = graph.may_rewrite();
        }
        for _ in 0..self.made {
            graph.add(Op::Unary { function: UnaryFn::Neg }, &[x], &Scope::new("s"))?;
        }
        Ok(Rewrites::of(self.reported))
    }
}

fn fault(made: usize, asked: usize, reported: usize) -> Option<Fault> {
    let passes: Vec<Box<dyn Pass>> = vec![Box::new(Growing { made, asked, reported })];
    Runner::default().run(&mut graph(), &passes).err().map(|error| error.fault)
}

#[test]
fn a_pass_that_changes_in_silence_is_found_out() {
    assert!(matches!(fault(1, 0, 0), Some(Fault::Dishonest)));
    assert!(fault(0, 0, 0).is_none() && fault(2, 2, 2).is_none());
}

// A pass that does not ask cannot be stopped between two rewrites, so bisection would name the wrong one.
#[test]
fn a_pass_that_does_not_ask_is_found_out() {
    assert!(matches!(fault(2, 1, 2), Some(Fault::Uncounted { asked: 1, reported: 2 })));
    assert!(matches!(fault(1, 2, 1), Some(Fault::Uncounted { asked: 2, reported: 1 })));
}

#[test]
fn a_pass_that_always_finds_work_does_not_run_for_ever() {
    let passes: Vec<Box<dyn Pass>> = vec![Box::new(Growing { made: 1, asked: 1, reported: 1 })];
    let error = Runner::default().run_to_fixpoint(&mut graph(), &passes).expect_err("never settles");
    assert!(matches!(error.fault, Fault::Unsettled));
    let mut stopped = graph();
    let records = Runner::new(None, Some(3)).run_to_fixpoint(&mut stopped, &passes).expect("is stopped");
    assert_eq!((records.len(), stopped.len()), (3, 5));
}
