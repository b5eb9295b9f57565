//! What the command prints: programs read standard output, people read standard error.

use crate::error::{Error, ErrorKind};
use crate::event::SCHEMA;
use serde::Serialize;
use std::io::Write;

/// Writes text to standard output; a reader that went away is not an error.
pub(super) fn write(text: &str) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::new(ErrorKind::Storage, format!("cannot write to standard output: {e}")))
        }
        _ => Ok(()),
    }
}

#[derive(Serialize)]
struct Line<'a, T> {
    schema: u32,
    #[serde(flatten)]
    value: &'a T,
}

/// Writes one JSON object, which serializes as a map, on a line of its own; the version of its shape goes first.
pub(super) fn write_json(value: &impl Serialize) -> Result<(), Error> {
    let line = serde_json::to_string(&Line { schema: SCHEMA, value })
        .map_err(|e| Error::new(ErrorKind::JobFailed, format!("cannot print as JSON: {e}")))?;
    write(&format!("{line}\n"))
}

/// Writes a line for people.
pub(super) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Writes an error for people: one line, control characters of hostile names made visible.
pub(super) fn complain(error: &Error) {
    let shown: String = error
        .to_string()
        .chars()
        .map(|c| if c.is_control() && c != '\n' { char::REPLACEMENT_CHARACTER } else { c })
        .collect();
    say(&format!("restyle: {shown}"));
}
