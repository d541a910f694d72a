//! Chat templates: messages to the text that a model was trained on. Owns where a template is found and which variables it
//! has; what it means is `jinja`'s affair.

use super::TextError;
use super::files::{carried, json, token_text};
use super::jinja::{self, Date, Kind};
use photonc_bundle::bundle::Bundle;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

const FILE: &str = "chat_template.jinja";
const CONFIG: &str = "tokenizer_config.json";

/// What somebody said: an object with a `role`, as a template is given it, its keys in their order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>")]
pub struct Message(Map<String, Value>);

impl Message {
    /// Words of somebody.
    #[must_use]
    pub fn new(role: &str, content: &str) -> Self {
        Message(Map::from_iter([("role".to_owned(), role.into()), ("content".to_owned(), content.into())]))
    }

    /// Bytes of its texts: role, content and whatever else is one.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        self.0.values().filter_map(Value::as_str).map(str::len).sum()
    }
}

impl TryFrom<Map<String, Value>> for Message {
    type Error = String;

    fn try_from(message: Map<String, Value>) -> Result<Self, String> {
        match message.get("role") {
            Some(Value::String(_)) => Ok(Message(message)),
            Some(other) => Err(format!("role is {other}, expected a string")),
            None => Err("missing field `role`".to_owned()),
        }
    }
}

/// What templates are given beside the messages.
#[derive(Clone, Debug, Default)]
pub struct ChatOptions {
    /// The tools that the model may call, as a list; `null` without any.
    pub tools: Value,
    /// What `strftime_now` says; templates that ask for it are refused without.
    pub date: Option<Date>,
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
        let tokens = config.as_ref().map(|(_, config)| tokens_in(config)).unwrap_or_default();
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

    /// A template that stands at `path`, with the tokens it may name.
    #[must_use]
    pub fn new(path: &Path, source: &str, tokens: Map<String, Value>) -> Self {
        ChatTemplate { path: path.to_owned(), source: source.to_owned(), tokens }
    }

    /// The template itself.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The text of `messages`, ready for the assistant's answer.
    ///
    /// # Errors
    /// A template that does not parse, or that refuses the messages.
    pub fn render(&self, messages: &[Message], options: &ChatOptions) -> Result<String, TextError> {
        let mut variables = self.tokens.clone();
        let messages = messages.iter().map(|message| Value::Object(message.0.clone())).collect();
        variables.insert("messages".into(), Value::Array(messages));
        variables.insert("tools".into(), options.tools.clone());
        variables.insert("documents".into(), Value::Null);
        variables.insert("add_generation_prompt".into(), true.into());
        jinja::render(&self.source, &variables, options.date).map_err(|fault| {
            let (path, message) = (self.path.clone(), fault.to_string());
            match fault.kind {
                Kind::Syntax => {
                    let message = format!("the chat template does not parse: {message}");
                    TextError::File { path, message }
                }
                Kind::Runtime | Kind::Limit => TextError::Refused { path, message },
                Kind::NoDate => TextError::NoDate { path, message },
            }
        })
    }
}

/// The tokens that a bundle names, as text: `bos_token`, `eos_token` and the like.
///
/// # Errors
/// A `tokenizer_config.json` that cannot be read.
pub fn named_tokens(bundle: &Bundle) -> Result<Map<String, Value>, TextError> {
    Ok(json(bundle, CONFIG)?.map(|(_, config)| tokens_in(&config)).unwrap_or_default())
}

/// Every key of the configuration that is a token, as text, and the further ones as a list.
fn tokens_in(config: &Value) -> Map<String, Value> {
    let keys = config.as_object().into_iter().flatten();
    let mut tokens: Map<String, Value> = Map::new();
    for (key, token) in keys {
        if key.ends_with("_token") {
            tokens.extend(token_text(token).map(|text| (key.clone(), text.into())));
        } else if key == "additional_special_tokens" {
            let texts: Option<Vec<Value>> =
                token.as_array().map(|list| list.iter().filter_map(token_text).map(Value::from).collect());
            tokens.extend(texts.map(|texts| (key.clone(), Value::Array(texts))));
        }
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::{ChatOptions, ChatTemplate, Message};
    use serde_json::{Map, json};
    use std::path::Path;

    fn template(source: &str) -> ChatTemplate {
        let tokens: Map<_, _> = [("bos_token".to_owned(), json!("<s>"))].into_iter().collect();
        ChatTemplate::new(Path::new("chat_template.jinja"), source, tokens)
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
        let rendered = template(source).render(&said, &ChatOptions::default()).expect("renders");
        assert_eq!(rendered, "<s><USER>hello\n<ASSISTANT>");
    }

    #[test]
    fn what_a_template_refuses_is_told_with_its_line() {
        let refusal = |source: &str| {
            let said = [Message::new("user", "x")];
            template(source).render(&said, &ChatOptions::default()).expect_err("refused").to_string()
        };
        assert_eq!(
            refusal("a\n{{ raise_exception('roles must alternate') }}"),
            "chat_template.jinja: the chat template refuses the messages: line 2: roles must alternate"
        );
        assert!(refusal("{% for x in %}").contains("does not parse: line 1"));
        let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
        assert!(refusal(endless).contains("too many steps"), "{}", refusal(endless));
        let dated = refusal("{{ strftime_now('%Y') }}");
        assert!(dated.contains("today's date") && dated.contains("--date"), "{dated}");
    }

    /// Templates see what they are given in its order, and nothing where nothing was given.
    #[test]
    fn messages_keep_their_keys_and_tools_are_none() {
        let said: Vec<Message> =
            serde_json::from_value(json!([{"content": null, "role": "user", "b": 1.5, "a": true}]))
                .expect("reads");
        let render =
            |source: &str, options: &ChatOptions| template(source).render(&said, options).expect("renders");
        let none = ChatOptions::default();
        assert_eq!(
            render("{{ messages[0]|tojson }} {{ messages[0] }} {{ tools }} {{ documents is none }}", &none),
            "{\"content\": null, \"role\": \"user\", \"b\": 1.5, \"a\": true} \
             {'content': None, 'role': 'user', 'b': 1.5, 'a': True} None True"
        );
        let options =
            ChatOptions { tools: json!([{"name": "f"}]), date: Some("2026-02-01".parse().expect("a date")) };
        assert_eq!(render("{{ tools[0].name }} {{ strftime_now('%d %b %Y') }}", &options), "f 01 Feb 2026");
        assert!(serde_json::from_value::<Message>(json!({"content": "x"})).is_err(), "no role");
    }
}
