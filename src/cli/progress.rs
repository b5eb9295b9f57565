//! Progress for people: a bar on a terminal, plain lines elsewhere.

use super::args::ProgressMode;
use super::output::say;
use crate::event::{Planned, Progress};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;

/// Shows a job's progress on standard error.
pub(super) enum Display {
    /// A bar that is redrawn in place.
    Bar(ProgressBar),
    /// One line each time the whole percentage or the phase changes.
    Plain {
        /// Percentage and phase of the last line.
        last: Option<(u64, &'static str)>,
    },
    /// Nothing.
    Silent,
}

impl Display {
    /// Chooses the display: `auto` is a bar only where standard error is a terminal.
    pub(super) fn new(mode: ProgressMode) -> Self {
        let colour = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        match mode {
            ProgressMode::None => Self::Silent,
            ProgressMode::Auto if std::io::stderr().is_terminal() => {
                let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
                let template = if colour { "{bar:30.cyan/blue} {msg}" } else { "{bar:30} {msg}" };
                // The template is a constant; an error would be a bug seen by the first run.
                bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
                Self::Bar(bar)
            }
            _ => Self::Plain { last: None },
        }
    }

    /// Tells the plan.
    pub(super) fn planned(&self, planned: &Planned) {
        if matches!(self, Self::Silent) {
            return;
        }
        let frames = planned.frames_about.map_or_else(|| "an unknown number of".to_owned(), |n| format!("about {n}"));
        let reused = match planned.frames_reused {
            0 => String::new(),
            n => format!(", {n} of them finished before"),
        };
        self.line(&format!(
            "{}x{}, {frames} frames{reused}; {} scorers on {}; {}",
            planned.size.0, planned.size.1, planned.workers, planned.device, planned.encoder
        ));
    }

    /// Shows where the job is.
    pub(super) fn progress(&mut self, progress: &Progress) {
        let text = describe(progress);
        match self {
            Self::Silent => {}
            Self::Bar(bar) => {
                if let Some(total) = progress.frames_about {
                    bar.set_length(total.max(progress.frames_done));
                }
                bar.set_position(progress.frames_done);
                bar.set_message(text);
            }
            Self::Plain { last } => {
                let now = (percent(progress).unwrap_or(progress.frames_done / 100), progress.phase);
                if *last != Some(now) {
                    *last = Some(now);
                    say(&text);
                }
            }
        }
    }

    /// Writes a line beside the bar.
    pub(super) fn line(&self, text: &str) {
        match self {
            Self::Bar(bar) => bar.suspend(|| say(text)),
            _ => say(text),
        }
    }

    /// Takes the bar away.
    pub(super) fn end(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn percent(progress: &Progress) -> Option<u64> {
    let total = progress.frames_about?.max(progress.frames_done).max(1);
    Some(progress.frames_done * 100 / total)
}

/// Writes progress as `frame 812/5310 15% 61.2 fps 2.4x ETA 1:13`.
fn describe(progress: &Progress) -> String {
    let mut text = format!("frame {}", progress.frames_done);
    if let (Some(total), Some(percent)) = (progress.frames_about, percent(progress)) {
        text += &format!("/{} {percent}%", total.max(progress.frames_done));
    }
    text += &format!(" {:.1} fps", progress.fps);
    if let Some(speed) = progress.speed {
        text += &format!(" {speed:.2}x");
    }
    if let Some(eta) = progress.eta_seconds {
        text += &format!(" ETA {}", clock(eta));
    }
    if progress.phase != "scoring" {
        text += &format!(" {}", progress.phase);
    }
    text
}

fn clock(seconds: f64) -> String {
    // A negative or absurd estimate saturates.
    let seconds = seconds.round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, minutes, seconds) => format!("{minutes}:{seconds:02}"),
        (hours, minutes, seconds) => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_reads_as_the_contract_says() {
        let progress = Progress {
            frames_done: 812,
            frames_about: Some(5310),
            fps: 61.24,
            speed: Some(2.4),
            eta_seconds: Some(73.2),
            phase: "scoring",
        };
        assert_eq!(describe(&progress), "frame 812/5310 15% 61.2 fps 2.40x ETA 1:13");
    }
}
