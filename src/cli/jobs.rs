//! `restyle jobs`: what the work folder holds.

use super::args::JobsVerb;
use super::output;
use crate::config::default_work_dir;
use crate::error::Error;
use crate::jobs::{JobSummary, list, prune};
use std::path::PathBuf;

pub(super) fn jobs(verb: JobsVerb) -> Result<(), Error> {
    match verb {
        JobsVerb::List { work_dir, json } => {
            for job in list(&folder(work_dir)?)? {
                if json { output::write_json(&job)? } else { output::write(&line(&job))? }
            }
            Ok(())
        }
        JobsVerb::Prune { work_dir, all } => {
            let pruned = prune(&folder(work_dir)?, all)?;
            output::say(&format!("{} jobs deleted, {} kept", pruned.deleted, pruned.kept));
            Ok(())
        }
    }
}

fn folder(said: Option<PathBuf>) -> Result<PathBuf, Error> {
    said.map_or_else(default_work_dir, Ok)
}

fn line(job: &JobSummary) -> String {
    format!("{}  {:<9}  {} segments  {} -> {}\n", &job.job[..16], job.state, job.segments, job.input, job.output)
}
