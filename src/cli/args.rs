//! The command line, as clap sees it; a contract: options are added, none changes its meaning.

use crate::config::{SIZE_MAX, SIZE_MIN, WORKERS_MAX};
use clap::{Args, Parser, Subcommand, ValueEnum};
use restyle_actors::preempt::NoticeSource;
use std::path::PathBuf;

/// Applies a neural style to every frame of a video; running the same command again resumes.
#[derive(Debug, Parser)]
#[command(name = "restyle", version, about, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Style a video: INPUT in, OUTPUT out, nothing lost
    Run(Box<RunArgs>),
    /// Tell what an input holds
    Probe(ProbeArgs),
    /// The styles this build carries
    Styles(StylesArgs),
    /// The jobs in the work folder
    Jobs(JobsArgs),
    /// Style whatever is uploaded: watch the routes of a configuration file until told to end
    #[cfg(feature = "serve")]
    Serve(ServeArgs),
    /// Check a configuration of the daemon
    #[cfg(feature = "serve")]
    Config {
        #[command(subcommand)]
        verb: ConfigVerb,
    },
    /// Make, list and revoke the tokens of callers of the service
    #[cfg(feature = "serve")]
    Token(TokenArgs),
    /// Check FFmpeg, codecs, CPU, CUDA and the work folder
    Doctor(DoctorArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The video: a path or a storage URL (file:, s3:, azblob:, gs:)
    pub(crate) input: String,
    /// Where the styled video goes: a path or a storage URL; its extension names the container (mp4, mov, mkv, webm)
    pub(crate) output: String,
    /// A built-in style (see `restyle styles list`), a .safetensors file, or a storage URL of one
    #[arg(long, short)]
    pub(crate) style: Option<String>,
    /// Where frames are scored: auto, cpu or cuda:N
    #[arg(long)]
    pub(crate) device: Option<String>,
    /// Scorer nodes: a number, or auto
    #[arg(long, value_parser = parse_workers)]
    pub(crate) workers: Option<Workers>,
    /// Work store, which a resumed run needs: a folder or a storage URL [default: state folder after XDG]
    #[arg(long, value_name = "PLACE")]
    pub(crate) work_dir: Option<PathBuf>,
    /// Forget what earlier runs of this job finished
    #[arg(long)]
    pub(crate) fresh: bool,
    /// Replace an OUTPUT that this job did not make
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Plan and check everything, score nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print one JSON object a line on standard output
    #[arg(long)]
    pub(crate) json: bool,
    /// How progress is shown on standard error
    #[arg(long, value_enum, default_value_t = ProgressMode::Auto)]
    pub(crate) progress: ProgressMode,
    /// Score at this width in pixels; the output keeps the source's size
    #[arg(long, value_name = "WIDTH", value_parser = clap::value_parser!(u32).range(SIZES))]
    pub(crate) size: Option<u32>,
    /// Precision of scoring: full, or reduced where the clip shows that it stays close [default: full]
    #[arg(long, value_parser = ["full", "reduced"])]
    pub(crate) precision: Option<String>,
    /// Video codec: h264, hevc, vp9, av1, ffv1, prores, mjpeg, utvideo [default: the container's]
    #[arg(long)]
    pub(crate) codec: Option<String>,
    /// Quality of the encoder: lower is better and larger
    #[arg(long)]
    pub(crate) crf: Option<f32>,
    /// Speed preset of the encoder
    #[arg(long)]
    pub(crate) preset: Option<String>,
    /// Pixel format of the output in FFmpeg's name [default: the source's]
    #[arg(long)]
    pub(crate) pix_fmt: Option<String>,
    /// Fail where something cannot be carried over, instead of warning
    #[arg(long)]
    pub(crate) strict: bool,
    /// Repeat the nearest good frame for damaged ones, instead of failing
    #[arg(long)]
    pub(crate) conceal: bool,
    /// Drain when this machine is about to be taken away: file:PATH (appears), azure, aws or gcp
    #[arg(long, value_name = "SOURCE", value_parser = NoticeSource::parse)]
    pub(crate) preempt_notice: Option<NoticeSource>,
    /// A TOML file with defaults for these options
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// Widths at which frames may be scored, in pixels.
const SIZES: std::ops::RangeInclusive<i64> = SIZE_MIN as i64..=SIZE_MAX as i64;

/// `--workers`: a count or the pipeline's own choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Workers {
    Auto,
    Count(usize),
}

fn parse_workers(said: &str) -> Result<Workers, String> {
    match said {
        "auto" => Ok(Workers::Auto),
        _ => match said.parse() {
            Ok(count @ 1..=WORKERS_MAX) => Ok(Workers::Count(count)),
            _ => Err(format!("expected 1 to {WORKERS_MAX}, or auto")),
        },
    }
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressMode {
    /// A bar on a terminal, plain lines elsewhere
    Auto,
    /// Plain lines
    Plain,
    /// Nothing
    None,
}

#[derive(Debug, Args)]
pub(crate) struct ProbeArgs {
    /// The video: a path or a storage URL
    pub(crate) input: String,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StylesArgs {
    #[command(subcommand)]
    pub(crate) verb: StylesVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StylesVerb {
    /// List the built-in styles
    List {
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Show one style: network, parameters, digest, card
    Show {
        /// A built-in name or a .safetensors file
        style: String,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Load every built-in style and check its digest
    Verify,
}

#[derive(Debug, Args)]
pub(crate) struct JobsArgs {
    #[command(subcommand)]
    pub(crate) verb: JobsVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum JobsVerb {
    /// List the jobs and how far they are
    List {
        /// Work store: a folder or a storage URL
        #[arg(long, value_name = "PLACE")]
        work_dir: Option<PathBuf>,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Delete finished jobs' records, and with --all unfinished work too
    Prune {
        /// Work store: a folder or a storage URL
        #[arg(long, value_name = "PLACE")]
        work_dir: Option<PathBuf>,
        /// Delete unfinished jobs as well: their frames will be scored again
        #[arg(long)]
        all: bool,
    },
}

#[cfg(feature = "serve")]
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// The configuration file; five lines are enough: [[route]] with input, output, logs and style
    #[arg(long, value_name = "FILE", default_value = "serve.toml")]
    pub(crate) config: PathBuf,
    /// How the service's own log is written to standard error
    #[arg(long, value_enum, default_value_t = LogFormat::Json)]
    pub(crate) log: LogFormat,
}

/// How log lines are written.
#[cfg(feature = "serve")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// One JSON object a line
    Json,
    /// For people
    Text,
}

#[cfg(feature = "serve")]
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigVerb {
    /// Tell whether a file is valid, and what it says
    Check {
        /// The file
        file: PathBuf,
    },
}

#[cfg(feature = "serve")]
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    pub(crate) verb: TokenVerb,
}

#[cfg(feature = "serve")]
#[derive(Debug, Subcommand)]
pub(crate) enum TokenVerb {
    /// Make a token and print it, this once; the file keeps its hash alone
    New {
        /// Names the holder: letters, digits, dots, dashes, underscores
        name: String,
        /// What the holder may do: viewer, submitter, operator or admin
        #[arg(long, default_value = "submitter")]
        role: crate::serve::access::Role,
        /// Whose jobs the holder sees; without it the tenant "default", or every tenant for operators and admins
        #[arg(long)]
        tenant: Option<String>,
        /// How long it is accepted, such as 90d or 12h; `never` for without end
        #[arg(long, default_value = "90d", value_parser = parse_lifetime)]
        expires: Lifetime,
        /// The token file that the service names as `tokens`
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
    },
    /// List what is known of the tokens
    List {
        /// The token file
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Refuse a token from now on
    Revoke {
        /// The name it was made with
        name: String,
        /// The token file
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
    },
}

/// `--expires`: a time, or without end.
#[cfg(feature = "serve")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lifetime(pub(crate) Option<std::time::Duration>);

#[cfg(feature = "serve")]
fn parse_lifetime(said: &str) -> Result<Lifetime, String> {
    match said {
        "never" => Ok(Lifetime(None)),
        _ => humantime::parse_duration(said)
            .map(|d| Lifetime(Some(d)))
            .map_err(|e| format!("{e}; write 90d, 12h or never")),
    }
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Work store: a folder or a storage URL
    #[arg(long, value_name = "PLACE")]
    pub(crate) work_dir: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
