//! Reduced precision of a job: a few frames of its source are scored both ways, and what was found is one object of the
//! ledger that every worker and every later run reads.

use crate::config::cores;
use crate::course::interrupted;
use crate::error::{Error, ErrorKind};
use crate::prepare::{Plan, Prepared};
use restyle_actors::decode::{DecodeOptions, FrameDecoder};
use restyle_engine::CancelToken;
use restyle_engine::fault;
use restyle_engine::ledger::Ledger;
use restyle_models::calibrate::{Calibration, PSNR_MIN, calibrate, has_texture};
use restyle_models::device::DeviceChoice;
use restyle_models::pixels::Picture;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Frames that are compared: one of so many, within bounds, so that a short clip does not spend its time on them.
const CLIP_FRAMES_PER_FRAME: u64 = 60;
const FRAMES_MIN: u64 = 2;
const FRAMES_MAX: u64 = 4;
/// They are spread over so many of the first frames: what lies further back is not worth decoding twice.
const REACH_FRAMES: u64 = 240;

/// With what precision a network computes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// f32 everywhere.
    #[default]
    Full,
    /// 16-bit integers in the products of the 3x3 convolutions, where frames of the clip show that the pictures stay
    /// close (40 dB); else full.
    Reduced,
}

impl Precision {
    /// Reads `full` or `reduced`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for anything else.
    pub fn parse(said: &str) -> Result<Self, Error> {
        match said {
            "full" => Ok(Self::Full),
            "reduced" => Ok(Self::Reduced),
            _ => Err(Error::new(ErrorKind::Usage, format!("precision is {said:?}, expected full or reduced"))),
        }
    }

    /// Tells whether this is the precision of jobs that name none.
    #[must_use]
    pub fn is_full(&self) -> bool {
        *self == Self::Full
    }
}

/// What a job of reduced precision scores with, and what to say about it.
#[derive(Debug)]
pub(crate) struct Calibrated {
    /// The object that stands, whoever wrote it.
    pub(crate) calibration: Arc<Calibration>,
    /// Why full precision is used after all.
    pub(crate) warning: Option<String>,
}

/// Returns the calibration that stands, or makes it; `None` for jobs of full precision.
///
/// # Errors
/// What decoding, scoring and the store meet; `Configuration` where reduced precision is refused and `strict` asks for it.
pub(crate) fn fixed(
    ledger: &Ledger,
    prepared: &Prepared,
    plan: &Plan,
    device: DeviceChoice,
    cancel: &CancelToken,
) -> Result<Option<Calibrated>, Error> {
    if plan.precision.is_full() {
        return Ok(None);
    }
    if device != DeviceChoice::Cpu {
        let message = "reduced precision is of the processor: a card computes in bfloat16 anyway; leave it out, or add --device cpu";
        return Err(Error::new(ErrorKind::Usage, message));
    }
    let weights = prepared.style.sole_network().ok_or_else(|| {
        let message =
            "reduced precision is calibrated on one trained network: leave it out for blends and for pictures as style";
        Error::new(ErrorKind::Usage, message)
    })?;
    let standing = match ledger.calibration()? {
        Some(standing) => standing,
        None => {
            let pictures = sample(prepared, plan, cancel)?;
            let found = calibrate(weights, cores(), &pictures, plan.score_width, &|| !cancel.is_cancelled())
                .map_err(|e| Error::from(restyle_actors::ActorError::from(e)))?
                .ok_or_else(interrupted)?;
            fault::point("calibrate:before");
            let standing = ledger.fix_calibration(&found)?.value;
            fault::point("calibrate:after");
            standing
        }
    };
    let calibration: Calibration = standing.content()?;
    let warning = (!calibration.accepted).then(|| refusal(&calibration));
    match warning {
        Some(message) if prepared.strict => Err(Error::new(ErrorKind::Configuration, message)),
        warning => Ok(Some(Calibrated { calibration: Arc::new(calibration), warning })),
    }
}

fn refusal(found: &Calibration) -> String {
    let psnr = found.psnr_db.map_or_else(|| "nothing that can be compared".to_owned(), |db| format!("{db:.1} dB"));
    format!(
        "reduced precision gives {psnr} on {} frames of this clip, expected at least {PSNR_MIN} dB: full precision is used",
        found.frames
    )
}

/// Decodes frames spread over the beginning of the clip.
fn sample(prepared: &Prepared, plan: &Plan, cancel: &CancelToken) -> Result<Vec<Picture>, Error> {
    let options = DecodeOptions { conceal: plan.conceal, cancel: cancel.clone(), ..DecodeOptions::default() };
    let mut decoder = FrameDecoder::open(Arc::clone(&prepared.blob), &plan.source, options)?;
    let reach = plan.source.video.frames_about.unwrap_or(REACH_FRAMES).clamp(FRAMES_MIN, REACH_FRAMES);
    let wanted = (reach / CLIP_FRAMES_PER_FRAME).clamp(FRAMES_MIN, FRAMES_MAX);
    let mut pictures = Vec::new();
    let mut due = 0;
    for number in 0..reach {
        // Damage further on is for the job itself to report.
        let frame = match decoder.next_frame() {
            Ok(Some(frame)) => frame,
            Ok(None) => break,
            Err(_) if !pictures.is_empty() && !cancel.is_cancelled() => break,
            Err(error) => return Err(error.into()),
        };
        // A black beginning says nothing: the next frame that shows something stands in.
        if number >= due && has_texture(&frame.picture) {
            pictures.push(frame.picture);
            due += reach / wanted;
        }
    }
    Ok(pictures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precisions_are_named() {
        assert_eq!(Precision::parse("full").unwrap(), Precision::default());
        assert_eq!(Precision::parse("reduced").unwrap(), Precision::Reduced);
        assert_eq!(Precision::parse("int8").unwrap_err().kind(), ErrorKind::Usage);
    }
}
