//! Arguments of the verbs that ask a running service.

use super::args::parse_share;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Which service is asked, and as whom. The token is in the environment or in a file, never an argument.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServerArgs {
    /// The service [default: $RESTYLE_SERVER, else http://127.0.0.1:8080]
    #[arg(long, value_name = "URL")]
    pub(crate) server: Option<String>,
    /// File that holds the token [default: the token in $RESTYLE_TOKEN]
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// PEM file of an authority that the service's certificate may come from, besides the system's
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Whose jobs are meant, for callers who see every tenant's
    #[arg(long)]
    pub(crate) tenant: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct SubmitArgs {
    /// A video file to send, or the key of one that lies in the route's input already
    pub(crate) input: String,
    /// The route; may be left out where there is one only
    #[arg(long)]
    pub(crate) route: Option<String>,
    /// A style of the service [default: the route's]
    #[arg(long, short)]
    pub(crate) style: Option<String>,
    /// Several styles of the service in one picture, each with its share: a:0.7,b:0.3
    #[arg(long, value_name = "STYLES", conflicts_with = "style")]
    pub(crate) blend: Option<String>,
    /// Key that a file gets in the route's input [default: its name]
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// Key of the result in the route's output [default: by the route's template]
    #[arg(long)]
    pub(crate) output: Option<String>,
    /// The job's id: the same command with the same id makes one job [default: made up]
    #[arg(long)]
    pub(crate) id: Option<String>,
    /// Higher goes first among a tenant's jobs
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) priority: Option<i32>,
    /// Score at this width in pixels
    #[arg(long, value_name = "WIDTH")]
    pub(crate) size: Option<u32>,
    /// Share of the style in the result, 0 (the source) to 1 [default: the route's]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true, value_parser = parse_share)]
    pub(crate) strength: Option<f32>,
    /// Keep the source's colours: only light and dark come from the style
    #[arg(long)]
    pub(crate) preserve_color: bool,
    /// Wait for the job's end; the exit code is the job's
    #[arg(long)]
    pub(crate) wait: bool,
    /// Print the job as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Args)]
pub(crate) struct JobArgs {
    /// The job's id
    pub(crate) id: String,
    /// Print the job as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The job's id
    pub(crate) id: String,
    /// Go on printing what happens until the job ends
    #[arg(long, short)]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// Which jobs of a service are listed.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only these states, joined by commas
    #[arg(long)]
    pub(crate) state: Option<String>,
    /// Only those that failed
    #[arg(long, conflicts_with = "state")]
    pub(crate) failed: bool,
    /// Only this route's
    #[arg(long)]
    pub(crate) route: Option<String>,
    /// Jobs at most, the newest first
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
    /// Show them and how far they are until told to end
    #[arg(long, conflicts_with = "json")]
    pub(crate) watch: bool,
    /// Print one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    #[command(subcommand)]
    pub(crate) verb: NodeVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeVerb {
    /// List the scorer nodes of running jobs
    List {
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Tell a node that it will be taken away: others take over, and it comes back by the configuration
    Preempt {
        /// The node, as `node list` names it
        node: String,
        /// Seconds that it has to finish what it holds
        #[arg(long, value_name = "SECONDS", default_value_t = 30)]
        notice: u64,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Have a node finish what it has and wait
    Drain {
        /// The node, as `node list` names it
        node: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Have a node that was drained or pre-empted work again
    Resume {
        /// The node, as `node list` names it
        node: String,
        #[command(flatten)]
        server: ServerArgs,
    },
}
