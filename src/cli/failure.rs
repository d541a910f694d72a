//! How a run fails: what was being done, what is wrong, what to do, and the exit code. Owns the text and JSON forms of
//! errors and the net under our own bugs.

mod causes;

use super::report::{Reporter, pretty, to_stderr};
use super::visible::{steers, visible};
use super::{memory, stdout};
use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};
use serde_json::json;
use std::fmt;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Mutex, OnceLock};

const BUG_HELP: &str =
    "this is a bug of photonc, not of your input; please report it with the command and this message";

const PROMPT: &str = "the prompt cannot be used";

/// How this run reports, for those who end it from other threads.
static REPORTER: OnceLock<Reporter> = OnceLock::new();

/// Has failures reported as the global options say.
pub(super) fn report_by(reporter: Reporter) {
    // There is one run in a process; a second, in a test, keeps the first one's form.
    let _ = REPORTER.set(reporter);
}

/// Says in one line that a signal ended the run.
pub(super) fn interrupted(signal: &str) {
    let cause = format!("ended by {signal}; nothing that was begun is left");
    match REPORTER.get() {
        Some(reporter) if reporter.json() => {
            to_stderr(&format!(
                "{}\n",
                json!({"error": {"blame": "signal", "title": "interrupted", "message": cause, "help": null}})
            ));
        }
        _ => to_stderr(&format!("photonc: {cause}\n")),
    }
}

/// Who is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The input, or a check of it, failed: exit code 1.
    Input,
    /// The arguments: exit code 2.
    Usage,
    /// Us: exit code 3.
    Bug,
}

impl Blame {
    fn exit_code(self) -> u8 {
        match self {
            Blame::Input => 1,
            Blame::Usage => 2,
            Blame::Bug => 3,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Blame::Input => "input",
            Blame::Usage => "usage",
            Blame::Bug => "bug",
        }
    }
}

/// Why a run failed.
#[derive(Debug)]
pub struct Failure {
    /// Who is to blame.
    pub blame: Blame,
    title: String,
    cause: Cause,
    help: Option<String>,
}

/// Where and what, in the words of the part that found it.
#[derive(Debug)]
struct Cause(String);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Cause {}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.title)
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

impl Diagnostic for Failure {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }
}

impl Failure {
    /// The input is to blame. `cause` says where, what was found and what was expected.
    pub fn input(title: &str, cause: &dyn fmt::Display) -> Self {
        let cause = Cause(shortened(visible(&cause.to_string()).into_owned()));
        Failure { blame: Blame::Input, title: title.to_owned(), cause, help: None }
    }

    /// The arguments, though they parse, do not fit together or the input.
    pub fn usage(cause: &dyn fmt::Display) -> Self {
        Failure { blame: Blame::Usage, ..Failure::input("these arguments do not fit", cause) }
    }

    /// We are to blame.
    pub fn bug(cause: &dyn fmt::Display) -> Self {
        let failure = Failure::input("photonc broke", cause);
        if memory::is_shortage(&failure.cause.0) {
            return memory::out_of_memory(&failure.cause);
        }
        Failure { blame: Blame::Bug, help: Some(BUG_HELP.to_owned()), ..failure }
    }

    /// A result that could not be printed.
    pub fn output(error: &std::io::Error) -> Self {
        Failure::input("the result could not be printed", error)
    }

    /// A prompt that cannot be used, while others can.
    pub fn prompt(cause: &dyn fmt::Display) -> Self {
        Failure::input(PROMPT, cause)
    }

    /// Why a prompt cannot be used, if that is all.
    pub fn into_prompt(self) -> Result<String, Self> {
        if self.title == PROMPT { Ok(self.cause.0) } else { Err(self) }
    }

    /// With what to do.
    #[must_use]
    pub fn help(self, help: &str) -> Self {
        Failure { help: Some(visible(help).into_owned()), ..self }
    }

    /// With what to do, unless that was said already.
    #[must_use]
    pub fn with_help(self, help: &str) -> Self {
        if self.help.is_some() { self } else { self.help(help) }
    }

    /// Prints the failure on stderr.
    pub fn report(&self) -> ExitCode {
        self.say();
        ExitCode::from(self.blame.exit_code())
    }

    /// Prints the failure on stderr, in the form that was asked for.
    pub fn say(&self) {
        match REPORTER.get() {
            Some(reporter) if reporter.json() => to_stderr(&self.to_json()),
            reporter => to_stderr(&self.to_text(reporter.is_some_and(|reporter| reporter.terminal()))),
        }
    }

    fn to_text(&self, coloured: bool) -> String {
        let theme = if coloured { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler =
            GraphicalReportHandler::new_themed(theme).with_wrap_lines(false).with_width(usize::MAX / 2);
        let mut text = String::new();
        match handler.render_report(&mut text, self) {
            Ok(()) => text,
            Err(fmt::Error) => format!("{}: {}\n", self.title, self.cause),
        }
    }

    fn to_json(&self) -> String {
        let document = json!({"error": {
            "blame": self.blame.name(),
            "title": self.title,
            "message": self.cause.0,
            "help": self.help,
        }});
        let mut text = String::new();
        pretty(&document, 0, &mut text);
        text.push('\n');
        text
    }
}

/// Longest cause that is told, in bytes.
const MAX_CAUSE_BYTES: usize = 4096;

/// A text of bounded length: names and values in it come from files.
fn shortened(mut text: String) -> String {
    if text.len() > MAX_CAUSE_BYTES {
        let end = (0..=MAX_CAUSE_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let left_out = text.len() - end;
        text.truncate(end);
        text.push_str(&format!("… ({left_out} more bytes)"));
    }
    text
}

/// Prints what clap has to say: help and version on stdout, anything else is a usage error.
pub(super) fn usage(error: &clap::Error, json: bool) -> ExitCode {
    let text = error.to_string();
    if !error.use_stderr() {
        let printed =
            stdout::check_open().and_then(|()| error.print()).and_then(|()| std::io::stdout().flush());
        return match printed {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Failure::output(&error).report(),
            _ => ExitCode::SUCCESS,
        };
    }
    if json {
        let text = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
        to_stderr(&Failure { title: "the arguments do not parse".into(), ..Failure::usage(&text) }.to_json());
    } else if !std::env::args_os().any(|argument| steers(&argument.to_string_lossy())) {
        // Where it cannot be printed there is nobody to print it for.
        let _unheard = error.print();
    } else {
        to_stderr(&visible(&text));
    }
    ExitCode::from(Blame::Usage.exit_code())
}

/// Runs `work`; a panic in it, or in a thread it waits for, becomes a [`Blame::Bug`].
pub(super) fn catching_bugs<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    static PLACE: Mutex<Option<String>> = Mutex::new(None);
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(|at| format!("{}:{}", at.file(), at.line()));
        if let Ok(mut first) = PLACE.lock() {
            *first = first.take().or(place);
        }
    }));
    let outcome = catch_unwind(AssertUnwindSafe(work));
    drop(std::panic::take_hook());
    outcome.unwrap_or_else(|payload| {
        let message = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let message = message.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
        let place = PLACE.lock().ok().and_then(|mut place| place.take()).unwrap_or_default();
        Err(Failure::bug(&format_args!("{place}: {message}")))
    })
}

#[cfg(test)]
mod tests {
    use super::{Blame, Failure, catching_bugs};

    /// A panic anywhere under the command line is ours, says so, and gives its place.
    #[test]
    fn a_panic_is_reported_as_a_bug() {
        let failure =
            catching_bugs(|| -> Result<(), Failure> { panic!("seven of nine") }).expect_err("it panics");
        assert_eq!(failure.blame, Blame::Bug);
        let text = failure.to_text(false);
        assert!(text.contains("src/cli/failure.rs:") && text.contains("seven of nine"), "{text}");
        assert!(text.contains("this is a bug of photonc"), "{text}");
    }

    #[test]
    fn an_error_in_json_has_every_part() {
        let failure = Failure::input("it failed", &"here: found 1, expected 2").help("make it 2");
        let json: serde_json::Value = serde_json::from_str(&failure.to_json()).expect("JSON");
        let expected = serde_json::json!({"error": {
            "blame": "input", "title": "it failed", "message": "here: found 1, expected 2", "help": "make it 2",
        }});
        assert_eq!(json, expected);
    }
}
