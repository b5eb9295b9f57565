//! What a job is, and the id that follows from it.

use crate::calibrate::Precision;
use crate::config::JobOptions;
use restyle_engine::item::JobId;
use serde::Serialize;

/// Raised whenever a new build would give other bytes for the same request, so that old work is never mixed with new.
pub const PIPELINE_VERSION: u32 = 1;

/// A request: one video in, one styled video out.
#[derive(Debug, Clone)]
pub struct Job {
    /// Path or storage URL of the video.
    pub input: String,
    /// Path or storage URL of the result; its extension names the container.
    pub output: String,
    /// What may change the output.
    pub options: JobOptions,
    /// Whether finished work of earlier runs is thrown away first.
    pub fresh: bool,
    /// What happens to an output that this job did not make.
    pub overwrite: Overwrite,
}

/// What happens to an OUTPUT that stands there already and is not this job's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    /// The job is refused as a usage error.
    Refused,
    /// The output is replaced atomically.
    Allowed,
}

/// Everything that may change a byte of the output, and nothing else: workers, device and work folder are not in it.
#[derive(Debug, Serialize)]
pub(crate) struct Identity<'a, Source: Serialize> {
    pub(crate) tenant: &'a str,
    pub(crate) source: &'a Source,
    pub(crate) model: &'a str,
    pub(crate) parameters: Parameters<'a>,
    pub(crate) output: &'a str,
    pub(crate) pipeline_version: u32,
}

/// The output-affecting parameters of a request.
#[derive(Debug, Serialize)]
pub(crate) struct Parameters<'a> {
    // Left out where they change nothing, so that a job keeps the id it had before they existed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) strength: Option<f32>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) preserve_color: bool,
    pub(crate) size: Option<u32>,
    /// Left out where it is full, so that jobs from before there was a choice keep their ids.
    #[serde(skip_serializing_if = "Precision::is_full")]
    pub(crate) precision: Precision,
    pub(crate) codec: Option<&'a str>,
    pub(crate) crf: Option<f32>,
    pub(crate) preset: Option<&'a str>,
    pub(crate) pix_fmt: Option<&'a str>,
    pub(crate) strict: bool,
    pub(crate) conceal: bool,
}

impl<'a> From<&'a JobOptions> for Parameters<'a> {
    fn from(options: &'a JobOptions) -> Self {
        Self {
            strength: options.strength.filter(|strength| *strength != 1.0),
            preserve_color: options.preserve_color,
            size: options.size,
            precision: options.precision,
            codec: options.codec.as_deref(),
            crf: options.crf,
            preset: options.preset.as_deref(),
            pix_fmt: options.pix_fmt.as_deref(),
            strict: options.strict,
            conceal: options.conceal,
        }
    }
}

impl<Source: Serialize> Identity<'_, Source> {
    /// Returns the id: blake3 of the identity's canonical JSON.
    pub(crate) fn job_id(&self) -> Result<JobId, serde_json::Error> {
        let canonical = serde_json::to_vec(self)?;
        Ok(JobId::new(*blake3::hash(&canonical).as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(change: impl FnOnce(&mut Identity<'_, &str>)) -> JobId {
        let options = JobOptions::default();
        let mut identity = Identity {
            tenant: "",
            source: &"source",
            model: "digest",
            parameters: Parameters::from(&options),
            output: "/out.mp4",
            pipeline_version: 1,
        };
        change(&mut identity);
        identity.job_id().unwrap()
    }

    #[test]
    fn every_parameter_makes_another_job() {
        let base = id(|_| {});
        assert_eq!(base, id(|_| {}));
        for other in [
            id(|i| i.tenant = "t"),
            id(|i| i.source = &"other"),
            id(|i| i.model = "other"),
            id(|i| i.output = "/other.mp4"),
            id(|i| i.pipeline_version = 2),
            id(|i| i.parameters.strength = Some(0.5)),
            id(|i| i.parameters.preserve_color = true),
            id(|i| i.parameters.size = Some(320)),
            id(|i| i.parameters.precision = Precision::Reduced),
            id(|i| i.parameters.codec = Some("ffv1")),
            id(|i| i.parameters.crf = Some(18.0)),
            id(|i| i.parameters.preset = Some("fast")),
            id(|i| i.parameters.pix_fmt = Some("gbrp")),
            id(|i| i.parameters.strict = true),
            id(|i| i.parameters.conceal = true),
        ] {
            assert_ne!(base, other);
        }
    }
}
