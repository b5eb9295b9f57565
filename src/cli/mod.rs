//! The command line: verbs over the facade. Nothing in here is needed by an embedder.

mod args;
#[cfg(feature = "serve")]
mod client;
#[cfg(feature = "serve")]
mod client_args;
mod doctor;
mod jobs;
mod output;
mod probe;
mod progress;
#[cfg(feature = "serve")]
mod remote_jobs;
mod run;
#[cfg(feature = "serve")]
mod serve;
#[cfg(feature = "train")]
mod sheet;
mod signals;
mod styles;
#[cfg(feature = "serve")]
mod submit;
#[cfg(feature = "serve")]
mod token;
#[cfg(feature = "train")]
mod train;
mod watch;

use crate::error::Error;
use args::{Cli, Verb};
use clap::{CommandFactory, Parser};
use std::process::ExitCode;

/// Parses the arguments, runs the verb and returns the process's exit code.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(told) => {
            // clap's own code for usage errors is 2, which is ours as well; help and version are 0.
            let code = if told.use_stderr() { 2 } else { 0 };
            let _ = told.print();
            tell_usage_as_json(&told);
            return ExitCode::from(code);
        }
    };
    start_logging(&cli.verb);
    match arm_faults().and_then(|()| dispatch(cli.verb)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&error);
            ExitCode::from(error.kind().exit_code())
        }
    }
}

/// With `--json` the last line is `finished` or `failed`, even where the arguments cannot be read.
fn tell_usage_as_json(told: &clap::Error) {
    let said: Vec<_> = std::env::args_os().collect();
    let tells = said.get(1).is_some_and(|verb| verb == "run" || verb == "train");
    if told.use_stderr() && tells && said.iter().any(|argument| argument == "--json") {
        let text = told.to_string();
        let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        let error = Error::new(crate::error::ErrorKind::Usage, line);
        // Nobody may be reading.
        let _ = output::write_json(&crate::event::Event::Failed(crate::event::Failed::new(None, &error)));
    }
}

/// Puts the script of `RESTYLE_FAULTS` in force, in builds that rehearse faults; others refuse it.
fn arm_faults() -> Result<(), Error> {
    #[cfg(feature = "faults")]
    restyle_engine::fault::arm_from_env()
        .map_err(|e| Error::new(crate::error::ErrorKind::Usage, format!("RESTYLE_FAULTS: {e}")))?;
    #[cfg(not(feature = "faults"))]
    for variable in ["RESTYLE_FAULTS", "RESTYLE_STORE_FAULTS", "RESTYLE_STORE_TIMES"] {
        crate::work_store::rehearsal::refuse(variable)?;
    }
    Ok(())
}

fn dispatch(verb: Verb) -> Result<(), Error> {
    match verb {
        Verb::Run(args) => run::run(*args),
        Verb::Probe(args) => probe::probe(&args),
        Verb::Styles(args) => styles::styles(args.verb),
        #[cfg(feature = "train")]
        Verb::Train(args) => train::train(&args),
        #[cfg(not(feature = "serve"))]
        Verb::Jobs(args) => jobs::jobs(args.verb),
        #[cfg(feature = "serve")]
        Verb::Jobs(args) => match args.verb {
            Some(verb) => jobs::jobs(verb),
            None => remote_jobs::list(&args.list),
        },
        #[cfg(feature = "serve")]
        Verb::Submit(args) => submit::submit(&args),
        #[cfg(feature = "serve")]
        Verb::Status(args) => remote_jobs::status(&args),
        #[cfg(feature = "serve")]
        Verb::Cancel(args) => remote_jobs::steer(&args, "cancel"),
        #[cfg(feature = "serve")]
        Verb::Retry(args) => remote_jobs::steer(&args, "retry"),
        #[cfg(feature = "serve")]
        Verb::Pause(args) => remote_jobs::steer(&args, "pause"),
        #[cfg(feature = "serve")]
        Verb::Resume(args) => remote_jobs::steer(&args, "resume"),
        #[cfg(feature = "serve")]
        Verb::Logs(args) => remote_jobs::logs(&args),
        #[cfg(feature = "serve")]
        Verb::Node(args) => remote_jobs::node(&args.verb),
        #[cfg(feature = "serve")]
        Verb::Serve(args) => serve::serve(&args),
        #[cfg(feature = "serve")]
        Verb::Config { verb } => serve::config(verb),
        #[cfg(feature = "serve")]
        Verb::Token(args) => token::token(args.verb),
        Verb::Doctor(args) => doctor::doctor(&args),
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "restyle", &mut script);
            output::write(&String::from_utf8_lossy(&script))
        }
        Verb::Man => output::write(&manual()),
    }
}

const EXIT_STATUS: &str = ".SH EXIT STATUS\n0 done, 1 the job failed, 2 usage, 3 input unreadable, refused or changed, 4 configuration, \
unknown style or wrong weights, 5 storage, 6 device refused or lost, 75 interrupted. The last two can be resumed.\n";

fn manual() -> String {
    let mut page = Vec::new();
    let mut command = Cli::command();
    command.build();
    // Writing to memory cannot fail.
    let _ = clap_mangen::Man::new(command.clone()).render(&mut page);
    for verb in command.get_subcommands().filter(|v| v.get_name() != "help") {
        page.extend_from_slice(format!(".SH {}\n", verb.get_name().to_uppercase()).as_bytes());
        let man = clap_mangen::Man::new(verb.clone());
        let _ = man.render_synopsis_section(&mut page);
        let _ = man.render_options_section(&mut page);
    }
    page.extend_from_slice(EXIT_STATUS.as_bytes());
    String::from_utf8_lossy(&page).into_owned()
}

/// Logs go to standard error; `RESTYLE_LOG` filters them (`restyle=debug`), warnings and worse by default.
fn start_logging(verb: &Verb) {
    let filter = |default: &str| {
        tracing_subscriber::EnvFilter::try_from_env("RESTYLE_LOG")
            .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default))
    };
    #[cfg(feature = "serve")]
    if let Verb::Serve(args) = verb {
        let daemon =
            tracing_subscriber::fmt().with_env_filter(filter("warn,restyle=info")).with_writer(std::io::stderr);
        let _ = match args.log {
            args::LogFormat::Json => daemon.json().flatten_event(true).try_init(),
            args::LogFormat::Text => daemon.with_ansi(false).try_init(),
        };
        return;
    }
    let _ = verb;
    let colour = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter("warn"))
        .with_writer(std::io::stderr)
        .with_ansi(colour && std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .try_init();
}
