//! Limits and refusals; that templates mean what Jinja2 makes of them is compared with Jinja2 itself in `tests/chat.rs`.

use super::{Kind, render};
use serde_json::{Map, Value, json};

fn with(template: &str, variables: &Value) -> Result<String, super::Fault> {
    let Value::Object(variables) = variables else { panic!("variables are an object") };
    render(template, variables, None)
}

fn refusal(template: &str) -> String {
    render(template, &Map::new(), None).expect_err(template).to_string()
}

#[test]
fn what_would_be_too_large_is_refused_before_it_is_made() {
    for template in [
        "{{ 'a' * 10**12 }}",
        "{{ [0] * 10**9 }}",
        "{{ ([1, 0] * 10**8)|sort }}",
        "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(40) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(40) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x='a') %}{% for i in range(12) %}{% set ns.x = ns.x|replace('a', 'aaaaaaaaaa') %}{% endfor %}",
        "{% set ns = namespace(x='a') %}{% for i in range(12) %}{% set ns.x = ns.x.replace('', ns.x) %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(40) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x=[]) %}{% for i in range(1000) %}{% set ns.x = ns.x + ['a' * 1000000] %}{% endfor %}",
        "{{ ('a\\n' * 100000)|indent(1000000) }}",
        "{{ {'a': [[1]]}|tojson(indent=10**9) }}",
        "{% set x = 'a' * 1000000 %}{% for i in range(5000) %}{{ x }}{% endfor %}",
        "{{ 'a'.center(10**12) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%.1000000000f' % 1 }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ 'a'.join(['b' * 1000000] * 1000) }}",
        "{{ range(100001)|list }}",
        "{{ [1]|batch(10**12, 'x')|list }}",
        "{{ [1]|slice(10**12)|list }}",
        "{{ 10**100 }}",
        "{{ ('a' * 1000000).split('') }}",
        "{{ ('a,' * 1000000).split(',') }}",
    ] {
        let refused = refusal(template);
        assert!(!refused.contains("does not parse"), "{template}: {refused}");
    }
}

#[test]
fn what_would_never_end_is_refused() {
    for template in [
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro m(x) %}{{ m(x + 1) }}{{ m(x + 1) }}{% endmacro %}{{ m(0) }}",
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
        "{% set x = 'a' * 1000000 %}{% for a in range(99999) %}{% if 'b' in x %}{% endif %}{% endfor %}",
        "{% set x = 'a' * 1000000 %}{% for a in range(99999) %}{% if x == x ~ '' %}{% endif %}{% endfor %}",
        "{% set x = 'a' * 1000000 %}{% for a in range(99999) %}{{ x.upper()|length }}{% endfor %}",
        "{% set x = 'a' * 1000000 %}{% for a in range(99999) %}{{ x[999999] }}{% endfor %}",
        "{% set x = 'a' * 1000000 %}{% for a in range(99999) %}{{ x.strip('abc')|length }}{% endfor %}",
        "{% set x = 'a' * 1000000 %}{% for a in range(99999) %}{{ x.isalpha() }}{% endfor %}",
    ] {
        let refused = refusal(template);
        assert!(refused.contains("steps") || refused.contains("deeply"), "{template}: {refused}");
    }
}

#[test]
fn depth_is_bounded_in_templates_and_values() {
    let nested = |before: &str, inner: &str, after: &str| {
        format!("{{{{ {}{inner}{} }}}}", before.repeat(50_000), after.repeat(50_000))
    };
    for template in [
        nested("(", "1", ")"),
        nested("[", "1", "]"),
        nested("not ", "1", ""),
        nested("-", "1", ""),
        nested("", "1", " + 1"),
        nested("", "1", " ~ 1 + 1"),
        nested("", "x", ".a"),
        nested("", "x", "[0]"),
        nested("", "x", "()"),
        nested("", "x", "|abs"),
        nested("", "x", " and x"),
        nested("1 if ", "1", " else 1"),
        nested("", "1", " if 1 else 1"),
        nested("", "1", " is none"),
        nested("{'a': ", "1", "}"),
        "{% if 1 %}".repeat(50_000),
        "{% for x in [1] %}".repeat(50_000),
        "{% macro m() %}".repeat(50_000),
    ] {
        let fault = render(&template, &Map::new(), None).expect_err(&template[..30]);
        assert_eq!(fault.kind, Kind::Syntax, "{}: {fault}", &template[..30]);
    }
    let growing =
        "{% set ns = namespace(x=[]) %}{% for i in range(9000) %}{% set ns.x = [ns.x] %}{% endfor %}";
    assert!(refusal(growing).contains("nested"));
    let growing =
        "{% set ns = namespace(x={}) %}{% for i in range(9000) %}{% set ns.x = {'a': ns.x} %}{% endfor %}";
    assert!(refusal(growing).contains("nested"));
}

#[test]
fn what_is_not_supported_is_refused_and_not_guessed() {
    for template in [
        "{% include 'a' %}",
        "{% extends 'a' %}",
        "{{ 'a<'|escape }}",
        "{{ [1]|random }}",
        "{{ [1]|map('upper') }}",
        "{{ 'a'.encode() }}",
        "{{ lipsum() }}",
        "{{ [1].append(2) }}",
        "{{ {}.update(a=1) }}",
        "{{ x.y }}",
        "{{ x() }}",
        "{{ 1 + 'a' }}",
        "{{ 'a'|nothing }}",
        "{{ 1 is nothing }}",
        "{% break %}",
        "{% for x in [1] %}{% generation %}{% break %}{% endgeneration %}{% endfor %}",
    ] {
        refusal(template);
    }
    assert!(with("{{ n }}", &json!({"n": 1e300})).is_err(), "an integer or a float");
}

/// A long conversation is no attack.
#[test]
fn large_inputs_render() {
    let messages: Vec<Value> = (0..2000)
        .map(|at| json!({"role": "user", "content": "words ".repeat(500) + &at.to_string()}))
        .collect();
    let template = "{% set ns = namespace(all='') %}{% for m in messages %}{{ m.role + ': ' + m.content|trim }}\n\
                    {% endfor %}";
    let rendered = with(template, &json!({"messages": messages})).expect("renders");
    assert!(rendered.len() > 6_000_000);
}
