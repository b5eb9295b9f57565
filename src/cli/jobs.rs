//! `restyle jobs`: what the work folder holds.

use super::args::JobsVerb;
use super::output;
use super::watch::{of_ledger, watch};
use crate::error::Error;
use crate::jobs::{JobSummary, list, prune};
use crate::work_store::WorkPlace;

pub(super) fn jobs(verb: JobsVerb) -> Result<(), Error> {
    match verb {
        JobsVerb::List { work_dir, watch: true, .. } => {
            let place = WorkPlace::parse(work_dir.as_deref())?;
            watch(|| Ok(list(place.clone())?.iter().map(of_ledger).collect()))
        }
        JobsVerb::List { work_dir, json, .. } => {
            for job in list(WorkPlace::parse(work_dir.as_deref())?)? {
                if json { output::write_json(&job)? } else { output::write(&line(&job))? }
            }
            Ok(())
        }
        JobsVerb::Prune { work_dir, all } => {
            let pruned = prune(WorkPlace::parse(work_dir.as_deref())?, all)?;
            output::say(&format!("{} jobs deleted, {} kept", pruned.deleted, pruned.kept));
            Ok(())
        }
    }
}

fn line(job: &JobSummary) -> String {
    format!("{}  {:<9}  {} segments  {} -> {}\n", &job.job[..16], job.state, job.segments, job.input, job.output)
}
