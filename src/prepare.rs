//! Everything that is decided before the first frame: what the source holds, how the output will be made, which job this is.

use crate::calibrate::Precision;
use crate::config::Config;
use crate::error::{Error, ErrorKind};
use crate::job::{Identity, Job, PIPELINE_VERSION, Parameters};
use crate::styles::{self, Style};
use restyle_actors::encode::{self, EncodeRequest, EncoderSettings};
use restyle_actors::ffmpeg::hardware::CardDecoder;
use restyle_actors::source::probe;
use restyle_actors::source_info::SourceInfo;
use restyle_actors::storage::{Blob, Location};
use restyle_actors::{join, publish};
use restyle_engine::item::JobId;
use restyle_models::device::DeviceChoice;
use restyle_models::mix::Controls;
use restyle_models::style::StylizeOptions;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Seconds of video in a segment: short enough that little is lost, long enough that keyframes cost little.
const SEGMENT_SECONDS: f64 = 2.0;

/// What the plan object of a job holds; every worker and every later run reads it instead of deciding again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// What the source holds.
    pub(crate) source: SourceInfo,
    /// How segments are encoded.
    pub(crate) encoder: EncoderSettings,
    /// Length of a segment in ticks of the video stream's time base.
    pub(crate) segment_ticks: i64,
    /// Width at which frames are scored.
    pub(crate) score_width: Option<u32>,
    /// What is done with stylized frames.
    #[serde(default)]
    pub(crate) controls: Controls,
    /// Whether damaged frames are concealed.
    pub(crate) conceal: bool,
    /// With what precision frames are scored, where a calibration accepts it.
    #[serde(default, skip_serializing_if = "Precision::is_full")]
    pub(crate) precision: Precision,
    /// What may differ between machines: device kind, precision, kernels, libraries.
    pub(crate) numeric_class: String,
}

/// A job that can begin.
pub(crate) struct Prepared {
    pub(crate) id: JobId,
    pub(crate) blob: Arc<Blob>,
    pub(crate) output: Location,
    pub(crate) style: Style,
    /// Where frames are scored: the configured device, or another one that scores the style.
    pub(crate) device: DeviceChoice,
    pub(crate) plan: Plan,
    /// The card that decodes for this process, by its number; else the processor does.
    pub(crate) decode_on: Option<usize>,
    pub(crate) warnings: Vec<String>,
    /// Whether what would be a warning is an error.
    pub(crate) strict: bool,
}

impl Prepared {
    /// Opens the source and the style and decides the plan; changes nothing anywhere.
    ///
    /// # Errors
    /// Whatever makes the job impossible, before any work is done.
    pub(crate) fn open(config: &Config, job: &Job) -> Result<Self, Error> {
        let output = absolute(Location::parse(&job.output)?)?;
        let blob = Arc::new(Blob::open(&resolved(Location::parse(&job.input)?))?);
        refuse_same(&blob, &output, job)?;
        let network = job.options.style_network.as_deref();
        let style = match (&job.options.style, &job.options.blend) {
            (_, Some(blend)) => Style::blend(blend, network)?,
            (Some(name), None) => styles::resolve(name, network)?,
            (None, None) => return Err(no_style()),
        };
        let (device, moved) = scoring_device(config.device, config.device_is_automatic, style.is_cpu_only())?;
        let source = probe(&blob)?;
        let request = EncodeRequest {
            codec: job.options.codec.clone(),
            crf: job.options.crf,
            preset: job.options.preset.clone(),
            pix_fmt: job.options.pix_fmt.clone(),
            container: output.extension().unwrap_or_default(),
            strict: job.options.strict,
        };
        let (encoder, chosen) = encode::settle(&source, &request)?;
        let mut warnings = source.warnings.clone();
        warnings.extend(chosen);
        warnings.extend(style.unused_network(network));
        warnings.extend(moved);
        let (decode_on, refused) = decoder_card(config, &source);
        warnings.extend(refused);
        warnings.extend(join::preview(&blob, &source, &encoder)?);
        publish::check_writable(&output)?;
        let id = job_id(job, &blob, &style, &output)?;
        let plan = Plan {
            segment_ticks: segment_ticks(&source),
            precision: job.options.precision,
            numeric_class: numeric_class(device, job.options.precision, decode_on, &encoder),
            source,
            encoder,
            score_width: job.options.size,
            controls: Controls {
                strength: job.options.strength.unwrap_or(1.0),
                preserve_color: job.options.preserve_color,
            },
            conceal: job.options.conceal,
        };
        Ok(Self { id, blob, output, style, device, plan, decode_on, warnings, strict: job.options.strict })
    }

    /// Returns how the network is to be run.
    pub(crate) fn stylize_options(&self) -> StylizeOptions {
        StylizeOptions { score_width: self.plan.score_width, output: self.plan.encoder.format }
    }
}

/// The same file by another path is the same job. What cannot be resolved is left for opening it to complain about.
fn resolved(input: Location) -> Location {
    let resolved = input.as_path().and_then(|path| path.canonicalize().ok());
    resolved.map_or(input, Location::File)
}

/// A relative output means another file in another folder: the job's identity needs the whole path.
fn absolute(output: Location) -> Result<Location, Error> {
    match output.as_path() {
        Some(path) => std::path::absolute(path)
            .map(Location::File)
            .map_err(|e| Error::new(ErrorKind::Usage, format!("output {}: {e}", path.display()))),
        None => Ok(output),
    }
}

fn job_id(job: &Job, blob: &Blob, style: &Style, output: &Location) -> Result<JobId, Error> {
    let identity = Identity {
        tenant: job.options.tenant.as_deref().unwrap_or_default(),
        source: blob.identity(),
        model: &style.digest(),
        parameters: Parameters::from(&job.options),
        output: &output.to_string(),
        pipeline_version: PIPELINE_VERSION,
    };
    identity.job_id().map_err(|e| Error::new(ErrorKind::JobFailed, format!("cannot write the job's identity: {e}")))
}

fn no_style() -> Error {
    Error::new(
        ErrorKind::Usage,
        "no style is named: add --style NAME (see `restyle styles list`), --style weights.safetensors or --style picture.jpg",
    )
}

fn refuse_same(blob: &Blob, output: &Location, job: &Job) -> Result<(), Error> {
    let same = match (blob.location().as_path(), output.as_path()) {
        (Some(input), Some(output)) => input.canonicalize().ok().is_some_and(|i| output.canonicalize().ok() == Some(i)),
        _ => blob.location().to_string() == output.to_string(),
    };
    if same {
        return Err(Error::new(
            ErrorKind::Usage,
            format!("input and output are both {}: name another output", job.input),
        ));
    }
    Ok(())
}

fn segment_ticks(source: &SourceInfo) -> i64 {
    let tick = source.video.time_base.as_f64();
    // A time base of zero is refused by the probe; a segment is at least one tick long.
    ((SEGMENT_SECONDS / tick).round() as i64).max(1)
}

/// Chooses the device that scores, beside it why it is not the configured one: a picture as style is scored on the processor
/// alone, which may be chosen where nobody named a device.
fn scoring_device(
    configured: DeviceChoice,
    is_automatic: bool,
    is_cpu_only: bool,
) -> Result<(DeviceChoice, Option<String>), Error> {
    if configured == DeviceChoice::Cpu || !is_cpu_only {
        return Ok((configured, None));
    }
    if is_automatic {
        let why = format!("a picture as style is scored on the processor, not on {configured}");
        return Ok((DeviceChoice::Cpu, Some(why)));
    }
    let message = format!(
        "a picture as style is scored on the processor only, and the device is {configured}: use --device cpu, or cpu as the device of the service"
    );
    Err(Error::new(ErrorKind::Usage, message))
}

/// Chooses the card that decodes, where one is to; beside it why none does although it was asked for.
fn decoder_card(config: &Config, source: &SourceInfo) -> (Option<usize>, Option<String>) {
    if !config.decodes_on_card {
        return (None, None);
    }
    let ordinal = if let DeviceChoice::Cuda(ordinal) = config.device { ordinal } else { 0 };
    let codec = &source.video.codec;
    let opened = if CardDecoder::serves(codec) {
        CardDecoder::open(ordinal).map_err(|error| error.to_string())
    } else {
        Err(format!("{codec} is not decoded on a card"))
    };
    match opened {
        Ok(_) => (Some(ordinal), None),
        Err(why) => (None, Some(format!("{why}; the processor decodes instead"))),
    }
}

/// Names what the bytes of the output depend on besides the job itself. A card's decoder conceals damage in its own way, and
/// its encoder writes other bytes than any other.
fn numeric_class(
    device: DeviceChoice,
    precision: Precision,
    decode_on: Option<usize>,
    encoder: &EncoderSettings,
) -> String {
    let ffmpeg = restyle_actors::ffmpeg::capabilities::Capabilities::read();
    format!(
        "{}{}{}{} avcodec-{} avfilter-{} swscale-{}",
        restyle_models::device::numeric_class(device),
        if precision.is_full() { "" } else { " reduced" },
        if decode_on.is_some() { " nvdec" } else { "" },
        if encoder.codec.is_on_card() { " nvenc" } else { "" },
        ffmpeg.avcodec,
        ffmpeg.avfilter,
        ffmpeg.swscale
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_as_style_takes_the_processor_where_no_device_was_named() {
        for card in [DeviceChoice::Cuda(0), DeviceChoice::CudaAll] {
            let (device, why) = scoring_device(card, true, true).unwrap();
            assert_eq!(device, DeviceChoice::Cpu);
            assert!(why.is_some_and(|why| why.contains(&card.to_string())), "{card}: the change is told");
            let error = scoring_device(card, false, true).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert!(error.to_string().contains("--device cpu"), "{error}");
        }
        for is_automatic in [true, false] {
            assert_eq!(scoring_device(DeviceChoice::Cpu, is_automatic, true).unwrap(), (DeviceChoice::Cpu, None));
            for device in [DeviceChoice::Cpu, DeviceChoice::Cuda(1), DeviceChoice::CudaAll] {
                assert_eq!(scoring_device(device, is_automatic, false).unwrap(), (device, None));
            }
        }
    }
}
