//! `restyle jobs --watch` and `restyle jobs list --watch`: every job and how far it is, drawn again in place on a terminal, plain lines elsewhere.

use super::output;
use crate::error::Error;
use crate::jobs::JobSummary;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use restyle_engine::clock::{Clock, SystemClock};
use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

/// How often jobs are looked at; a look at a work store reads it.
const LOOK: Duration = Duration::from_secs(2);

/// A job as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// Tells it from others; shown as well.
    name: String,
    state: String,
    done: u64,
    about: Option<u64>,
    /// Speed and time left, or why it failed.
    note: String,
}

/// Shows what `look` finds until the process is ended, or it fails.
pub(super) fn watch(mut look: impl FnMut() -> Result<Vec<Row>, Error>) -> Result<(), Error> {
    let mut screen = Screen::new();
    let clock = SystemClock::new();
    loop {
        screen.show(&look()?)?;
        clock.sleep(LOOK);
    }
}

/// A job of a work store.
pub(super) fn of_ledger(job: &JobSummary) -> Row {
    let is_finished = job.state == "finished";
    // The segments of a finished job are deleted by and by: what they held was everything.
    let done = if is_finished { job.frames_about.unwrap_or(job.frames) } else { job.frames };
    let name = Path::new(&job.output).file_name().map_or_else(|| job.output.clone(), |n| n.to_string_lossy().into());
    Row {
        name: format!("{} {name}", &job.job[..8]),
        state: job.state.to_owned(),
        done,
        about: if is_finished { Some(done) } else { job.frames_about },
        note: String::new(),
    }
}

/// A job of a service.
#[cfg(feature = "serve")]
pub(super) fn of_service(job: &serde_json::Value) -> Row {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let progress = &job["progress"];
    let name = match (text(&job["tenant"]), text(&job["id"])) {
        (tenant, id) if tenant == "default" => id,
        (tenant, id) => format!("{tenant}/{id}"),
    };
    let mut note = text(&job["error"]["message"]);
    if let Some(fps) = progress["fps"].as_f64().filter(|fps| *fps > 0.0) {
        note = format!("{fps:.1} fps");
    }
    if let Some(left) = progress["eta_seconds"].as_f64() {
        note += &format!(", {}:{:02} left", left as u64 / 60, left as u64 % 60);
    }
    Row {
        name,
        state: text(&job["state"]),
        done: progress["frames_done"].as_u64().unwrap_or(0),
        about: progress["frames_about"].as_u64(),
        note,
    }
}

impl Row {
    fn percent(&self) -> Option<u64> {
        let about = self.about.filter(|about| *about > 0)?;
        Some((self.done * 100 / about).min(100))
    }

    /// The row without its name; names come from clients, and a terminal must not obey them.
    fn words(&self) -> String {
        let percent = self.percent().map_or_else(|| "   -".to_owned(), |percent| format!("{percent:3}%"));
        let about = self.about.map_or_else(String::new, |about| format!("/{about}"));
        visible(&format!("{percent} {:<9} {}{about} frames {}", self.state, self.done, self.note)).trim_end().to_owned()
    }
}

fn visible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Where rows are shown.
enum Screen {
    /// Bars that are redrawn in place, the newest job first.
    Terminal { all: MultiProgress, bars: BTreeMap<String, ProgressBar>, style: Box<ProgressStyle> },
    /// A line each time a job's state or whole percentage changes.
    Plain { last: BTreeMap<String, (String, Option<u64>)> },
}

impl Screen {
    fn new() -> Self {
        if !std::io::stdout().is_terminal() {
            return Self::Plain { last: BTreeMap::new() };
        }
        let colour = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        let template = if colour { "{prefix:32!} {bar:24.cyan/blue} {msg}" } else { "{prefix:32!} {bar:24} {msg}" };
        // The template is a constant; an error would be a bug seen by the first run.
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
        Self::Terminal { all, bars: BTreeMap::new(), style: Box::new(style) }
    }

    fn show(&mut self, rows: &[Row]) -> Result<(), Error> {
        match self {
            Self::Plain { last } => {
                for row in rows {
                    let now = (row.state.clone(), row.percent());
                    if last.get(&row.name) != Some(&now) {
                        output::write(&format!("{:<32} {}\n", visible(&row.name), row.words()))?;
                        last.insert(row.name.clone(), now);
                    }
                }
            }
            Self::Terminal { all, bars, style } => {
                let names: BTreeSet<&String> = rows.iter().map(|row| &row.name).collect();
                bars.retain(|name, bar| {
                    names.contains(name) || {
                        all.remove(bar);
                        false
                    }
                });
                // From the oldest on, so that each new one goes above those before it.
                for row in rows.iter().rev() {
                    let bar = bars.entry(row.name.clone()).or_insert_with(|| {
                        all.insert(
                            0,
                            ProgressBar::new(1).with_style(ProgressStyle::clone(style)).with_prefix(visible(&row.name)),
                        )
                    });
                    bar.set_length(row.about.unwrap_or(row.done).max(1));
                    bar.set_position(row.done);
                    bar.set_message(row.words());
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_say_how_far_a_job_is_and_obey_no_name() {
        let row = Row { name: "a".into(), state: "running".into(), done: 34, about: Some(100), note: "2.0 fps".into() };
        assert_eq!(row.words(), " 34% running   34/100 frames 2.0 fps");
        let unknown = Row { about: None, note: "\u{1b}[2J".into(), ..row };
        assert_eq!(unknown.words(), "   - running   34 frames \u{fffd}[2J");
    }
}
