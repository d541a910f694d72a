//! Chat templates: messages to the text that a model was trained on. The only place that names the template engine. Owns
//! where a template is found and what it may use: no files, no clock, a bounded number of steps.

use super::TextError;
use super::files::{carried, json, token_text};
use crate::bundle::Bundle;
use minijinja::{Environment, ErrorKind, Value as Jinja};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::PathBuf;

const FILE: &str = "chat_template.jinja";
const CONFIG: &str = "tokenizer_config.json";

/// Steps that rendering may take: far more than any template needs, few enough to end one that never would.
const MAX_STEPS: u64 = 5_000_000;

/// What somebody said. Templates may read more keys than these two, such as calls of tools.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who: `system`, `user`, `assistant`, ..
    pub role: String,
    /// What.
    pub content: Value,
    /// Whatever else the template reads.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl Message {
    /// Words of somebody.
    #[must_use]
    pub fn new(role: &str, content: &str) -> Self {
        Message { role: role.to_owned(), content: content.into(), more: Map::new() }
    }
}

/// A template, with the tokens it may name.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    path: PathBuf,
    source: String,
    /// `bos_token` and the like, as text.
    tokens: Map<String, Value>,
}

impl ChatTemplate {
    /// The template of a bundle: `chat_template.jinja`, or `chat_template` in `tokenizer_config.json`, of several the one
    /// named `default`.
    ///
    /// # Errors
    /// No template, or a file that cannot be read.
    pub fn needed(bundle: &Bundle) -> Result<Self, TextError> {
        let config = json(bundle, CONFIG)?;
        let tokens = config.as_ref().map(|(_, config)| named_tokens(config)).unwrap_or_default();
        if let Some((path, bytes)) = carried(bundle, FILE)? {
            let source = String::from_utf8(bytes);
            let source =
                source.map_err(|_| TextError::File { path: path.clone(), message: "not UTF-8".into() })?;
            return Ok(ChatTemplate { path, source, tokens });
        }
        let found = config.and_then(|(path, config)| {
            let template = config.get("chat_template")?;
            let named_default = |list: &Value| {
                list.as_array()?.iter().find(|entry| entry["name"] == "default")?.get("template").cloned()
            };
            let source = named_default(template).unwrap_or_else(|| template.clone());
            Some(ChatTemplate { path, source: source.as_str()?.to_owned(), tokens })
        });
        let what = "chat template (chat_template.jinja, or chat_template in tokenizer_config.json)";
        found.ok_or_else(|| TextError::Absent { path: bundle.root().to_owned(), what })
    }

    /// The text of `messages`, ready for the assistant's answer.
    ///
    /// # Errors
    /// A template that does not parse, or that refuses the messages.
    pub fn render(&self, messages: &[Message]) -> Result<String, TextError> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_fuel(Some(MAX_STEPS));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<Jinja, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        let mut values = self.tokens.clone();
        let messages = serde_json::to_value(messages);
        let messages = messages.map_err(|error| self.file_error(&error))?;
        values.insert("messages".into(), messages);
        values.insert("add_generation_prompt".into(), true.into());
        let template = environment.template_from_str(&self.source);
        let template = template.map_err(|error| self.file_error(&format_args!("{}", with_line(&error))))?;
        template
            .render(Jinja::from_serialize(&values))
            .map_err(|error| TextError::Refused { path: self.path.clone(), message: with_line(&error) })
    }

    fn file_error(&self, cause: &dyn std::fmt::Display) -> TextError {
        TextError::File {
            path: self.path.clone(),
            message: format!("the chat template does not parse: {cause}"),
        }
    }
}

/// Every key of the configuration that is a token, as text.
fn named_tokens(config: &Value) -> Map<String, Value> {
    let tokens = config.as_object().into_iter().flatten().filter(|(key, _)| key.ends_with("_token"));
    tokens.filter_map(|(key, token)| Some((key.clone(), token_text(token)?.into()))).collect()
}

fn with_line(error: &minijinja::Error) -> String {
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    error.line().map_or_else(|| what.clone(), |line| format!("line {line}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::{ChatTemplate, Message};
    use serde_json::{Map, json};

    fn template(source: &str) -> ChatTemplate {
        let tokens: Map<_, _> = [("bos_token".to_owned(), json!("<s>"))].into_iter().collect();
        ChatTemplate { path: "chat_template.jinja".into(), source: source.to_owned(), tokens }
    }

    /// Blocks on lines of their own leave no blank lines, strings have Python's methods, tokens are named.
    #[test]
    fn templates_are_read_as_their_makers_write_them() {
        let source = "{{ bos_token }}
{%- for message in messages %}
    {%- if message['role'] == 'system' %}{% continue %}{% endif %}
    {{- '<' + message.role.upper() + '>' + message['content'].strip() + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}<ASSISTANT>{% endif %}";
        let said = [Message::new("system", "short"), Message::new("user", " hello ")];
        assert_eq!(template(source).render(&said).expect("renders"), "<s><USER>hello\n<ASSISTANT>");
    }

    #[test]
    fn what_a_template_refuses_is_told_with_its_line() {
        let refusal = |source: &str| {
            template(source).render(&[Message::new("user", "x")]).expect_err("refused").to_string()
        };
        assert_eq!(
            refusal("a\n{{ raise_exception('roles must alternate') }}"),
            "chat_template.jinja: the chat template refuses the messages: line 2: roles must alternate"
        );
        assert!(refusal("{% for x in %}").contains("does not parse: line 1"));
        let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
        assert!(refusal(endless).contains("fuel"), "{}", refusal(endless));
    }
}
