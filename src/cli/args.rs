//! The command line, as clap sees it; a contract: options are added, none changes its meaning.

#[cfg(feature = "serve")]
use super::client_args::{JobArgs, LogsArgs, NodeArgs, SubmitArgs};
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
    /// Train a style from a painting; running the same command again resumes
    #[cfg(feature = "train")]
    Train(Box<TrainArgs>),
    /// The jobs of a running service, or with `list` and `prune` those in a work store
    Jobs(JobsArgs),
    /// Have a running service style a video: a file that is sent, or a key of its input
    #[cfg(feature = "serve")]
    Submit(SubmitArgs),
    /// Tell how far a job of a running service is
    #[cfg(feature = "serve")]
    Status(JobArgs),
    /// Have a job of a running service end; what is finished is kept
    #[cfg(feature = "serve")]
    Cancel(JobArgs),
    /// Have a job that failed or was cancelled try again
    #[cfg(feature = "serve")]
    Retry(JobArgs),
    /// Have a job of a running service wait until it is resumed
    #[cfg(feature = "serve")]
    Pause(JobArgs),
    /// Have a paused job go on
    #[cfg(feature = "serve")]
    Resume(JobArgs),
    /// Print what happened to a job of a running service
    #[cfg(feature = "serve")]
    Logs(LogsArgs),
    /// List and steer the scorer nodes of a running service
    #[cfg(feature = "serve")]
    Node(NodeArgs),
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
    /// A built-in style (see `restyle styles list`), a .safetensors file, a storage URL of one, or a picture (PNG or JPEG)
    #[arg(long, short)]
    pub(crate) style: Option<String>,
    /// Several styles in one picture, each with its share: a:0.7,b:0.3
    #[arg(long, value_name = "STYLES", conflicts_with = "style")]
    pub(crate) blend: Option<String>,
    /// Network that reads a picture given to --style: a file of `restyle train --any`, or a folder of MicroAST's four
    /// (content_encoder, style_encoder, modulator and decoder.safetensors) [default: the built-in one]
    #[arg(long, value_name = "PATH")]
    pub(crate) style_network: Option<PathBuf>,
    /// Share of the style in the result, 0 (the source) to 1
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true, value_parser = parse_share)]
    pub(crate) strength: Option<f32>,
    /// Keep the source's colours: only light and dark come from the style
    #[arg(long)]
    pub(crate) preserve_color: bool,
    /// Where frames are scored: auto, cpu or cuda:N
    #[arg(long)]
    pub(crate) device: Option<String>,
    /// Where frames are decoded: cpu, or cuda for H.264, HEVC and VP9 on a card's decoder (NVDEC) [default: cpu]
    #[arg(long, value_parser = ["cpu", "cuda"])]
    pub(crate) decode: Option<String>,
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
    /// Score at this width in pixels: smaller gives larger strokes; the output keeps the source's size
    #[arg(long, value_name = "WIDTH", value_parser = clap::value_parser!(u32).range(SIZES))]
    pub(crate) size: Option<u32>,
    /// Precision of scoring: full, or reduced where the clip shows that it stays close [default: full]
    #[arg(long, value_parser = ["full", "reduced"])]
    pub(crate) precision: Option<String>,
    /// Video codec: h264, hevc, vp9, av1, ffv1, prores, mjpeg, utvideo, and h264_nvenc, hevc_nvenc on a card [default: the
    /// container's]
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

pub(super) fn parse_share(said: &str) -> Result<f32, String> {
    said.parse()
        .ok()
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| "expected a number from 0 to 1".to_owned())
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
    /// Load every built-in style and check its BLAKE3 against the one that the program was made with
    Verify,
    /// Lay out a photo in every style
    #[cfg(feature = "train")]
    Sheet(super::sheet::SheetArgs),
    /// Convert a PyTorch checkpoint (.pth) or an ONNX graph of this network to a .safetensors file
    Convert {
        /// The .pth or .onnx file
        input: PathBuf,
        /// Where the .safetensors file goes
        output: PathBuf,
        /// Replace an OUTPUT that is there
        #[arg(long)]
        overwrite: bool,
    },
}

#[cfg(feature = "train")]
#[derive(Debug, Args)]
pub(crate) struct TrainArgs {
    /// Train a network for any picture as a style, instead of a style
    #[arg(long)]
    pub(crate) any: bool,
    /// The painting: a PNG or JPEG file; with --any a folder of them, to which the photos are added
    #[arg(long, value_name = "PICTURE")]
    pub(crate) style: PathBuf,
    /// Folder of content photos, PNG or JPEG
    #[arg(long, value_name = "FOLDER")]
    pub(crate) photos: PathBuf,
    /// Feature network: VGG-19 to relu3_1 or relu4_1, a .safetensors file
    #[arg(long, value_name = "FILE")]
    pub(crate) features: PathBuf,
    /// Where the style or network goes, a .safetensors file; the checkpoint lies beside it
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Name on the card [default: the output's]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// A style of the same width, or the checkpoint of a stopped training, to start from, instead of at random
    #[arg(long, value_name = "FILE")]
    pub(crate) start: Option<PathBuf>,
    /// Channels of the first layer: 8 quarter, 16 half, 32 full width; for any picture 12
    #[arg(long, default_value_t = 8)]
    pub(crate) width: usize,
    /// Side of the views that are trained on, in pixels
    #[arg(long, default_value_t = 192)]
    pub(crate) crop: usize,
    /// Short side of the painting in pixels: larger gives larger strokes
    #[arg(long, default_value_t = 384, conflicts_with = "any")]
    pub(crate) style_size: u32,
    /// Iterations of the main stage
    #[arg(long, default_value_t = 3000)]
    pub(crate) iterations: u32,
    /// Iterations of the second stage, which steadies the style between frames
    #[arg(long, default_value_t = 1000)]
    pub(crate) steady_iterations: u32,
    /// Train about this long, instead of a number of iterations
    #[arg(long, conflicts_with_all = ["iterations", "steady_iterations"])]
    pub(crate) minutes: Option<f64>,
    /// Seed of everything random
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Highest learning rate of the main stage
    #[arg(long, default_value_t = 3e-3)]
    pub(crate) rate: f64,
    /// Highest learning rate of the steadying stage
    #[arg(long, default_value_t = 1e-3)]
    pub(crate) steady_rate: f64,
    /// Weight of the content term
    #[arg(long, default_value_t = 1.0)]
    pub(crate) content_weight: f64,
    /// Weight of the style term
    #[arg(long, default_value_t = 10.0)]
    pub(crate) style_weight: f64,
    /// Weights of the feature levels in the style term, fine to coarse [default: 1 for each level of the feature network]
    #[arg(long, value_delimiter = ',')]
    pub(crate) style_levels: Vec<f64>,
    /// Weight of the total-variation term
    #[arg(long, default_value_t = 10.0)]
    pub(crate) variation_weight: f64,
    /// Weight of the term that keeps colours in range
    #[arg(long, default_value_t = 1.0)]
    pub(crate) range_weight: f64,
    /// Weight of the steadiness term
    #[arg(long, default_value_t = 150.0)]
    pub(crate) steadiness_weight: f64,
    /// Largest deviation of the noise, in blocks of 1, 2, 4 and 8 pixels each, of the moved view that the steadiness term compares; its light flickers by up to three times as much. Colours 0..1
    #[arg(long, default_value_t = 0.01)]
    pub(crate) steadiness_noise: f64,
    /// Iterations between checkpoints; 0 for none
    #[arg(long, default_value_t = 200)]
    pub(crate) checkpoint_every: u32,
    /// A photo that is stylized now and then, beside the output
    #[arg(long, value_name = "PICTURE")]
    pub(crate) preview: Option<PathBuf>,
    /// Iterations between previews
    #[arg(long, default_value_t = 200)]
    pub(crate) preview_every: u32,
    /// Where it is trained: cpu, cuda:N, or auto, a card if there is one. The same bytes come out on one kind of processor only, and a
    /// training goes on where it began
    #[arg(long, default_value = "cpu")]
    pub(crate) device: String,
    /// Forget the checkpoint of an earlier run
    #[arg(long)]
    pub(crate) fresh: bool,
    /// Print one JSON object a line on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[cfg_attr(feature = "serve", command(args_conflicts_with_subcommands = true))]
pub(crate) struct JobsArgs {
    #[command(subcommand)]
    #[cfg(feature = "serve")]
    pub(crate) verb: Option<JobsVerb>,
    #[command(subcommand)]
    #[cfg(not(feature = "serve"))]
    pub(crate) verb: JobsVerb,
    #[command(flatten)]
    #[cfg(feature = "serve")]
    pub(crate) list: super::client_args::ListArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum JobsVerb {
    /// List the jobs and how far they are
    List {
        /// Work store: a folder or a storage URL
        #[arg(long, value_name = "PLACE")]
        work_dir: Option<PathBuf>,
        /// Show them and how far they are until told to end
        #[arg(long, conflicts_with = "json")]
        watch: bool,
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
