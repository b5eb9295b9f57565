//! Configuration in two layers: a raw mirror of file and flags, and a checked type whose existence proves it valid.

use crate::calibrate::Precision;
use crate::error::{Error, ErrorKind};
use crate::work_store::WorkPlace;
use restyle_actors::storage::{HOW_TO_GIVE_KEYS, Location};
use restyle_models::device::DeviceChoice;
use serde::Deserialize;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

/// What a file or the flags say, unchecked; `None` means not said. Unknown keys are refused.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawConfig {
    /// Built-in style name, `.safetensors` file or storage URL.
    pub style: Option<String>,
    /// Several styles in one picture, as `a:0.7,b:0.3`; in place of `style`.
    pub blend: Option<String>,
    /// Network that encodes a picture as style, a file or a folder of MicroAST's four parts.
    pub style_network: Option<PathBuf>,
    /// Share of the style in the result, 0 to 1.
    pub strength: Option<f32>,
    /// Whether the source's colours stay.
    pub preserve_color: Option<bool>,
    /// `auto`, `cpu` or `cuda:N`.
    pub device: Option<String>,
    /// `cpu` or `cuda`.
    pub decode: Option<String>,
    /// Number of scorer nodes.
    pub workers: Option<usize>,
    /// Folder or storage URL of the work store.
    pub work_dir: Option<PathBuf>,
    /// Width in pixels at which frames are scored.
    pub size: Option<u32>,
    /// `full` or `reduced`.
    pub precision: Option<String>,
    /// Video codec of the output.
    pub codec: Option<String>,
    /// Constant rate factor of the encoder.
    pub crf: Option<f32>,
    /// Speed preset of the encoder.
    pub preset: Option<String>,
    /// Pixel format of the output, in FFmpeg's name.
    pub pix_fmt: Option<String>,
    /// Whether what cannot be carried over is an error.
    pub strict: Option<bool>,
    /// Whether damaged frames are replaced by their nearest good neighbour.
    pub conceal: Option<bool>,
    /// Seconds without progress after which a scorer that has work is replaced.
    pub hang_seconds: Option<u64>,
    /// How many of the scorer nodes may be taken away at any moment.
    pub low_priority: Option<usize>,
    /// Seconds after which a pre-empted node comes back by itself; 0: only when it is resumed.
    pub return_seconds: Option<u64>,
}

impl RawConfig {
    /// Reads a TOML file's text; `origin` names it in errors.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] with the line when the text is not TOML, or names a key that does not exist.
    pub fn from_toml(text: &str, origin: &str) -> Result<Self, Error> {
        toml::from_str(text).map_err(|e| {
            let what = e.message().lines().next().unwrap_or_default();
            let hint = if names_a_key(what) { format!("; {HOW_TO_GIVE_KEYS}") } else { String::new() };
            Error::new(ErrorKind::Configuration, format!("{origin}{}: {what}{hint}", place(text, &e)))
        })
    }

    /// Fills what `self` leaves unsaid from `below`.
    #[must_use]
    pub fn or(self, below: Self) -> Self {
        // A style named here takes the place of a blend named below, and the other way round.
        let (style, blend) = match (self.style, self.blend) {
            (None, None) => (below.style, below.blend),
            said => said,
        };
        Self {
            style,
            blend,
            style_network: self.style_network.or(below.style_network),
            strength: self.strength.or(below.strength),
            preserve_color: self.preserve_color.or(below.preserve_color),
            device: self.device.or(below.device),
            decode: self.decode.or(below.decode),
            workers: self.workers.or(below.workers),
            work_dir: self.work_dir.or(below.work_dir),
            size: self.size.or(below.size),
            precision: self.precision.or(below.precision),
            codec: self.codec.or(below.codec),
            crf: self.crf.or(below.crf),
            preset: self.preset.or(below.preset),
            pix_fmt: self.pix_fmt.or(below.pix_fmt),
            strict: self.strict.or(below.strict),
            conceal: self.conceal.or(below.conceal),
            hang_seconds: self.hang_seconds.or(below.hang_seconds),
            low_priority: self.low_priority.or(below.low_priority),
            return_seconds: self.return_seconds.or(below.return_seconds),
        }
    }

    /// Checks every value and fills the defaults.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] naming the value, its range and where it comes from.
    pub fn check(self) -> Result<(Config, JobOptions), Error> {
        let said = self.device.as_deref().unwrap_or(AUTO);
        let device_is_automatic = said == AUTO;
        let device = DeviceChoice::parse(said).map_err(|e| Error::new(ErrorKind::Usage, e.to_string()))?;
        let decodes_on_card = decodes_on_card(self.decode.as_deref())?;
        let workers = match self.workers {
            None => None,
            Some(n) if n > WORKERS_MAX => return Err(out_of_range("workers", n, 1, WORKERS_MAX)),
            Some(n) => Some(NonZeroUsize::new(n).ok_or_else(|| out_of_range("workers", n, 1, WORKERS_MAX))?),
        };
        if let Some(width) = self.size
            && !(SIZE_MIN..=SIZE_MAX).contains(&width)
        {
            return Err(out_of_range("size", width, SIZE_MIN, SIZE_MAX));
        }
        if self.style.is_some() && self.blend.is_some() {
            return Err(Error::new(ErrorKind::Usage, "both a style and a blend are named: name one of them"));
        }
        if let Some(strength) = self.strength
            && !(0.0..=1.0).contains(&strength)
        {
            return Err(out_of_range("strength", strength, 0, 1));
        }
        let hang_seconds = self.hang_seconds.unwrap_or(HANG_SECONDS);
        if !(1..=HANG_SECONDS_MAX).contains(&hang_seconds) {
            return Err(out_of_range("hang-seconds", hang_seconds, 1, HANG_SECONDS_MAX));
        }
        let return_seconds = self.return_seconds.unwrap_or(RETURN_SECONDS);
        if return_seconds > HANG_SECONDS_MAX {
            return Err(out_of_range("return-seconds", return_seconds, 0, HANG_SECONDS_MAX));
        }
        let low_priority = self.low_priority.unwrap_or(0);
        if low_priority > WORKERS_MAX {
            return Err(out_of_range("low-priority", low_priority, 0, WORKERS_MAX));
        }
        let work = WorkPlace::parse(self.work_dir.as_deref())?;
        let config = Config {
            device,
            device_is_automatic,
            decodes_on_card,
            workers,
            work_dir: work.folder,
            work_store: work.remote,
            collects: true,
            hang_after: Duration::from_secs(hang_seconds),
            low_priority,
            preempted_return_after: (return_seconds > 0).then(|| Duration::from_secs(return_seconds)),
        };
        let options = JobOptions {
            tenant: None,
            style: self.style,
            blend: self.blend,
            style_network: self.style_network,
            strength: self.strength,
            preserve_color: self.preserve_color.unwrap_or(false),
            size: self.size,
            precision: self.precision.as_deref().map_or(Ok(Precision::Full), Precision::parse)?,
            codec: self.codec,
            crf: self.crf,
            preset: self.preset,
            pix_fmt: self.pix_fmt,
            strict: self.strict.unwrap_or(false),
            conceal: self.conceal.unwrap_or(false),
        };
        Ok((config, options))
    }
}

fn decodes_on_card(said: Option<&str>) -> Result<bool, Error> {
    match said {
        None | Some("cpu") => Ok(false),
        Some("cuda") => Ok(true),
        Some(other) => Err(Error::new(ErrorKind::Usage, format!("decode is {other:?}, expected cpu or cuda"))),
    }
}

/// The device that stands for the best one.
const AUTO: &str = "auto";
/// A frame of 4K takes minutes on a slow core; what takes longer than this is taken for hung.
const HANG_SECONDS: u64 = 600;
const HANG_SECONDS_MAX: u64 = 86_400;
/// Capacity that was taken away is seldom back sooner.
const RETURN_SECONDS: u64 = 30;
/// Returns the line of an error, as `:12`.
fn place(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().and_then(|span| text.get(..span.start)).map(|before| before.lines().count().max(1));
    line.map_or_else(String::new, |line| format!(":{line}"))
}

/// Whether an unknown setting is somebody's attempt to write down a credential.
fn names_a_key(message: &str) -> bool {
    let unknown = message.split('`').nth(1).unwrap_or_default().to_ascii_lowercase();
    message.starts_with("unknown field")
        && ["key", "secret", "password", "token", "credential", "sas", "connection"].iter().any(|w| unknown.contains(w))
}

pub(crate) const WORKERS_MAX: usize = 256;
pub(crate) const SIZE_MIN: u32 = 32;
pub(crate) const SIZE_MAX: u32 = 8192;

fn out_of_range(
    name: &str,
    value: impl std::fmt::Display,
    low: impl std::fmt::Display,
    high: impl std::fmt::Display,
) -> Error {
    Error::new(ErrorKind::Configuration, format!("{name} is {value}, expected {low} to {high}"))
}

/// How this process behaves: nothing in here changes a pixel of any output.
#[derive(Debug, Clone)]
pub struct Config {
    /// The device that scores.
    pub device: DeviceChoice,
    /// Whether nobody named the device: a job whose style the best one cannot score then takes the processor.
    pub device_is_automatic: bool,
    /// Whether frames are decoded by a card's own decoder (NVDEC) where it serves the source.
    pub decodes_on_card: bool,
    /// Scorer nodes; `None` lets the pipeline choose from cores, frame size and free memory.
    pub workers: Option<NonZeroUsize>,
    /// Folder of the work store, created when missing; with `work_store`, of what lies beside it.
    pub work_dir: PathBuf,
    /// Prefix of an object store that holds the work store instead of the folder.
    pub work_store: Option<Location>,
    /// Whether a job that finishes deletes the segments of every other finished job of the work store.
    pub collects: bool,
    /// A scorer that shows no progress for so long while it has work is replaced.
    pub hang_after: Duration,
    /// How many of the scorer nodes, from the last, may be taken away at any moment; for onlookers and schedulers.
    pub low_priority: usize,
    /// When a pre-empted node comes back by itself; `None`: when it is resumed.
    pub preempted_return_after: Option<Duration>,
}

impl Config {
    /// Returns the number of scorer nodes: as asked, else one a core on a CPU and one a GPU. A job on a CPU may begin with
    /// fewer where its frames are large.
    #[must_use]
    pub fn worker_count(&self) -> usize {
        self.workers.map_or_else(|| self.device.nodes(cores()), NonZeroUsize::get)
    }

    /// Returns how many threads each scorer may use, so that all of them together use every core once.
    #[must_use]
    pub fn threads_per_worker(&self) -> usize {
        (cores() / self.worker_count()).max(1)
    }

    /// Returns how many segments are encoded at once: the next one begins while the last is flushed and committed.
    #[must_use]
    pub fn assembler_count(&self) -> usize {
        (cores() / 2).clamp(2, 16)
    }
}

pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// What a job is, apart from its input and output: every field is part of the job's id, and all but the first may change
/// the output.
#[derive(Debug, Clone, Default)]
pub struct JobOptions {
    /// Whose it is: the same request of two tenants is two jobs, and neither takes up what the other finished.
    pub tenant: Option<String>,
    /// Built-in style name, `.safetensors` file or storage URL.
    pub style: Option<String>,
    /// Several styles in one picture, as `a:0.7,b:0.3`; in place of `style`.
    pub blend: Option<String>,
    /// Network that encodes a picture as style: a file, or a folder of MicroAST's four parts; `None` is the built-in one.
    pub style_network: Option<PathBuf>,
    /// Share of the style in the result, 0 to 1; `None` is 1.
    pub strength: Option<f32>,
    /// Whether the source's colours stay and only luma is the style's.
    pub preserve_color: bool,
    /// Width in pixels at which frames are scored; `None` is the source's own.
    pub size: Option<u32>,
    /// With what precision frames are scored.
    pub precision: Precision,
    /// Video codec; `None` is the container's default.
    pub codec: Option<String>,
    /// Constant rate factor; `None` is the codec's default.
    pub crf: Option<f32>,
    /// Encoder preset; `None` is the codec's default.
    pub preset: Option<String>,
    /// Output pixel format; `None` keeps the source's.
    pub pix_fmt: Option<String>,
    /// Whether what cannot be carried over is an error instead of a warning.
    pub strict: bool,
    /// Whether damaged frames are concealed instead of failing the job.
    pub conceal: bool,
}

/// Returns the state folder after the XDG base directory specification: `$XDG_STATE_HOME/restyle`, else `~/.local/state/restyle`.
///
/// # Errors
/// [`ErrorKind::Configuration`] when neither variable is set to an absolute path.
pub fn default_work_dir() -> Result<PathBuf, Error> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .map(|state| state.join("restyle"))
        .ok_or_else(|| {
            Error::new(
                ErrorKind::Configuration,
                "neither XDG_STATE_HOME nor HOME is set: name a work folder with --work-dir",
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file() {
        let file = RawConfig::from_toml("size = 320\nworkers = 3", "f.toml").unwrap();
        let flags = RawConfig { size: Some(640), ..RawConfig::default() };
        let merged = flags.or(file);
        assert_eq!((merged.size, merged.workers), (Some(640), Some(3)));
    }

    #[test]
    fn a_style_and_a_blend_take_each_others_place() {
        let file = || RawConfig::from_toml("style = 'a'", "f.toml").unwrap();
        let flags = RawConfig { blend: Some("a:1,b:1".into()), ..RawConfig::default() };
        let merged = flags.clone().or(file());
        assert_eq!((merged.style, merged.blend.as_deref()), (None, Some("a:1,b:1")));
        let both = RawConfig { style: Some("a".into()), ..flags };
        assert_eq!(both.check().unwrap_err().kind(), ErrorKind::Usage);
    }

    #[test]
    fn a_device_is_automatic_where_none_is_named() {
        let is_automatic = |device: Option<&str>| {
            let raw = RawConfig { device: device.map(Into::into), work_dir: Some("/w".into()), ..RawConfig::default() };
            raw.check().unwrap().0.device_is_automatic
        };
        assert!(is_automatic(None) && is_automatic(Some("auto")) && !is_automatic(Some("cpu")));
    }

    #[test]
    fn unknown_keys_are_refused_by_name() {
        let error = RawConfig::from_toml("sise = 320", "f.toml").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains("sise"), "{error}");
    }

    #[test]
    fn written_down_keys_are_refused_with_the_way_to_do_it() {
        for name in ["account-key", "aws_secret_access_key", "sas-token"] {
            let error = RawConfig::from_toml(&format!("{name} = \"plantedsecret\""), "f.toml").unwrap_err().to_string();
            assert!(error.contains("AZURE_STORAGE_SAS_TOKEN") && !error.contains("plantedsecret"), "{error}");
        }
        let raw = RawConfig { work_dir: Some("s3://key:plantedsecret@b/p".into()), ..RawConfig::default() };
        let error = raw.check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(!error.to_string().contains("plantedsecret"), "{error}");
    }

    #[test]
    fn the_work_store_may_be_an_object_store() {
        let (config, _) = RawConfig { work_dir: Some("s3://films/a/".into()), ..RawConfig::default() }.check().unwrap();
        assert_eq!(config.work_store.unwrap().to_string(), "s3://films/a/");
        let (config, _) = RawConfig { work_dir: Some("/w".into()), ..RawConfig::default() }.check().unwrap();
        assert!(config.work_store.is_none() && config.work_dir == std::path::Path::new("/w"));
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for text in ["size = 1", "workers = 0", "workers = 1000", "strength = 1.5", "strength = -0.1", "strength = nan"]
        {
            let raw = RawConfig::from_toml(text, "f.toml").unwrap();
            assert_eq!(raw.check().unwrap_err().kind(), ErrorKind::Configuration, "{text}");
        }
    }
}
