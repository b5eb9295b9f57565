//! A job of the service: what was asked for, what happened, and what may happen next.

use super::ident::{ClientJobId, ObjectKey, RouteName, Tenant};
use super::view::{ErrorView, NodeSeconds};
use crate::config::JobOptions;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a client asks for. Unknown fields are refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobRequest {
    /// The route; may be left out where the tenant has one only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<RouteName>,
    /// Key of the video inside the route's input location.
    pub input: ObjectKey,
    /// A built-in style or one of the operator's, or several with their shares as `a:0.7,b:0.3`; the route's where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub style: Option<String>,
    /// Key of the result inside the route's output location; by the route's name template where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<ObjectKey>,
    /// Higher goes first among a tenant's jobs; the route's where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// What the result is like; what is left out is the route's.
    #[serde(default)]
    pub options: OptionsRequest,
}

/// The scalar options that a request, a route or a sidecar file may set; none of them names a file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OptionsRequest {
    /// Width in pixels at which frames are scored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u32>,
    /// Share of the style in the result, 0 (the source) to 1; 1 where nobody says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 1)]
    pub strength: Option<f32>,
    /// Whether the source's colours stay and only light and dark come from the style.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preserve_color: Option<bool>,
    /// Video codec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codec: Option<String>,
    /// Constant rate factor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crf: Option<f32>,
    /// Speed preset of the encoder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// Whether damaged frames are concealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conceal: Option<bool>,
}

impl OptionsRequest {
    /// Fills what `self` leaves unsaid from `below`.
    #[must_use]
    pub fn or(self, below: &Self) -> Self {
        Self {
            size: self.size.or(below.size),
            strength: self.strength.or(below.strength),
            preserve_color: self.preserve_color.or(below.preserve_color),
            codec: self.codec.or_else(|| below.codec.clone()),
            crf: self.crf.or(below.crf),
            preset: self.preset.or_else(|| below.preset.clone()),
            conceal: self.conceal.or(below.conceal),
        }
    }

    /// Checks every value.
    ///
    /// # Errors
    /// A [`super::ServiceErrorKind::Invalid`] naming the value.
    pub fn check(&self) -> Result<(), super::ServiceError> {
        let raw = crate::config::RawConfig { size: self.size, strength: self.strength, ..Default::default() };
        raw.check().map_err(|e| super::ServiceError::invalid(e.to_string()))?;
        if self.crf.is_some_and(|crf| !(0.0..=63.0).contains(&crf)) {
            return Err(super::ServiceError::invalid("crf is out of range, expected 0 to 63"));
        }
        for (name, word) in [("codec", &self.codec), ("preset", &self.preset)] {
            let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
            if word.as_ref().is_some_and(|w| w.is_empty() || w.len() > 32 || !w.bytes().all(legal)) {
                return Err(super::ServiceError::invalid(format!(
                    "{name} is not a word, expected a name such as h264"
                )));
            }
        }
        Ok(())
    }

    /// Whether stylized pictures are mixed with the source's, which takes memory of its own.
    pub(super) fn mixes(&self) -> bool {
        self.strength.is_some_and(|strength| strength != 1.0) || self.preserve_color == Some(true)
    }

    /// Returns them as the pipeline takes them.
    fn job_options(&self) -> JobOptions {
        JobOptions {
            size: self.size,
            strength: self.strength,
            preserve_color: self.preserve_color.unwrap_or(false),
            codec: self.codec.clone(),
            crf: self.crf,
            preset: self.preset.clone(),
            conceal: self.conceal.unwrap_or(false),
            ..JobOptions::default()
        }
    }
}

/// Where a job is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// It waits.
    Queued,
    /// It runs.
    Running,
    /// It waits to be resumed.
    Paused,
    /// Its output stands.
    Finished,
    /// It came to an end without output.
    Failed,
    /// It was told to end.
    Cancelled,
}

impl JobState {
    /// Returns the word that JSON and people see.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing happens any more unless somebody asks for it.
    #[must_use]
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Finished | Self::Failed | Self::Cancelled)
    }
}

/// The accepted request, complete: nothing of it depends on a configuration that may change later.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Accepted {
    pub(super) id: ClientJobId,
    pub(super) tenant: Tenant,
    pub(super) route: RouteName,
    /// As the client sent it, to tell the same request from another one.
    pub(super) request: JobRequest,
    pub(super) input: ObjectKey,
    /// The whole location of the input.
    pub(super) input_location: String,
    pub(super) output: ObjectKey,
    pub(super) output_location: String,
    /// What people call the style.
    pub(super) style: String,
    /// What the pipeline resolves: a built-in name or a file of the operator's, or several of these with their shares.
    pub(super) style_location: String,
    /// How many styles are blended; 0 for one without a share, as in records from before there were blends.
    #[serde(default)]
    pub(super) blended: usize,
    pub(super) priority: i32,
    pub(super) options: OptionsRequest,
    /// Bytes of the input when it was accepted, for quotas.
    pub(super) bytes: u64,
    /// Frames of the input when it was accepted, where a quota asked for them.
    pub(super) frames: Option<u64>,
    pub(super) created_at: String,
    /// What told this version of the input from others when it was accepted.
    pub(super) version: String,
    /// Whether the watcher found it; else a client asked for it.
    pub(super) is_watched: bool,
    /// Why it cannot be done, known from the beginning: a sidecar file that asks for what it may not.
    pub(super) refused: Option<ErrorView>,
}

impl Accepted {
    /// Returns what makes the job, as the pipeline takes it.
    pub(super) fn job_options(&self) -> JobOptions {
        // The default tenant's jobs are those of the command line.
        let tenant = Some(self.tenant.as_str().to_owned()).filter(|_| self.tenant != Tenant::default());
        let said = Some(self.style_location.clone());
        let (style, blend) = if self.blended == 0 { (said, None) } else { (None, said) };
        JobOptions { tenant, style, blend, ..self.options.job_options() }
    }
}

/// Something that happened to a job and is on record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Happening {
    pub(super) at: String,
    #[serde(flatten)]
    pub(super) what: Transition,
}

/// What can happen to a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub(super) enum Transition {
    /// An attempt begins.
    Started,
    /// The process died while an attempt ran: it waits again.
    Died,
    /// An attempt ended before its time, by no fault of the job: it waits again.
    Interrupted { used: NodeSeconds },
    /// The output stands.
    Finished { used: NodeSeconds, done: Box<Done> },
    /// It came to an end without output.
    Failed { used: NodeSeconds, error: ErrorView },
    /// Somebody told it to end.
    Cancelled { used: NodeSeconds },
    /// Somebody told it to wait.
    Paused { used: NodeSeconds },
    /// Somebody told it to go on.
    Resumed,
    /// Somebody told it to try again.
    Retried,
}

/// What an attempt that succeeded did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Done {
    pub(super) job: String,
    pub(super) frames: u64,
    pub(super) frames_scored: u64,
    pub(super) frames_reused: u64,
    pub(super) frames_redone: u64,
    pub(super) segments: u64,
    pub(super) bytes: u64,
    pub(super) blake3: String,
    pub(super) wall_seconds: f64,
}

impl Transition {
    /// Returns the state that follows, or `None` where this cannot happen to a job in `state`.
    pub(super) fn after(&self, state: JobState) -> Option<JobState> {
        use JobState as S;
        match (state, self) {
            (S::Queued, Self::Started) => Some(S::Running),
            (S::Running, Self::Interrupted { .. } | Self::Died) => Some(S::Queued),
            (S::Running, Self::Finished { .. }) => Some(S::Finished),
            (S::Running | S::Queued, Self::Failed { .. }) => Some(S::Failed),
            (S::Queued | S::Running | S::Paused, Self::Cancelled { .. }) => Some(S::Cancelled),
            (S::Queued | S::Running, Self::Paused { .. }) => Some(S::Paused),
            (S::Paused, Self::Resumed) | (S::Failed | S::Cancelled, Self::Retried) => Some(S::Queued),
            _ => None,
        }
    }

    /// Returns what the attempt that ends with this used.
    fn used(&self) -> NodeSeconds {
        match self {
            Self::Interrupted { used }
            | Self::Finished { used, .. }
            | Self::Failed { used, .. }
            | Self::Cancelled { used }
            | Self::Paused { used } => *used,
            Self::Started | Self::Died | Self::Resumed | Self::Retried => NodeSeconds::default(),
        }
    }
}

/// A job as its journal tells it.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) accepted: Accepted,
    pub(super) state: JobState,
    /// Happenings so far; the number of the next one.
    pub(super) happenings: u32,
    pub(super) attempts: u32,
    /// Attempts since the last end that somebody explained: a process that dies of a job leaves these behind.
    pub(super) deaths: u32,
    pub(super) started_at: Option<String>,
    pub(super) ended_at: Option<String>,
    pub(super) error: Option<ErrorView>,
    pub(super) used: NodeSeconds,
    pub(super) done: Option<Box<Done>>,
}

impl Record {
    /// A job that was accepted just now.
    pub(super) fn new(accepted: Accepted) -> Self {
        Self {
            accepted,
            state: JobState::Queued,
            happenings: 0,
            attempts: 0,
            deaths: 0,
            started_at: None,
            ended_at: None,
            error: None,
            used: NodeSeconds::default(),
            done: None,
        }
    }

    /// Applies what happened; false where it cannot have happened.
    pub(super) fn apply(&mut self, happening: &Happening) -> bool {
        let Some(state) = happening.what.after(self.state) else { return false };
        self.happenings += 1;
        self.state = state;
        let used = happening.what.used();
        self.used.dedicated += used.dedicated;
        self.used.low_priority += used.low_priority;
        let at = happening.at.clone();
        match &happening.what {
            Transition::Started => {
                self.attempts += 1;
                self.deaths += 1;
                (self.started_at, self.ended_at, self.error) = (Some(at), None, None);
            }
            Transition::Finished { done, .. } => {
                (self.done, self.ended_at, self.deaths) = (Some(done.clone()), Some(at), 0);
            }
            Transition::Failed { error, .. } => {
                (self.error, self.ended_at, self.deaths) = (Some(error.clone()), Some(at), 0);
            }
            Transition::Cancelled { .. } => (self.ended_at, self.deaths) = (Some(at), 0),
            Transition::Died => {}
            Transition::Interrupted { .. } | Transition::Paused { .. } | Transition::Resumed => self.deaths = 0,
            Transition::Retried => (self.ended_at, self.error, self.deaths) = (None, None, 0),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::journal::tests::accepted;

    fn every_transition() -> Vec<Transition> {
        let used = NodeSeconds::default();
        let error = ErrorView { kind: "job_failed".into(), message: "x".into(), frames: vec![] };
        let done = Done {
            job: String::new(),
            frames: 1,
            frames_scored: 1,
            frames_reused: 0,
            frames_redone: 0,
            segments: 1,
            bytes: 1,
            blake3: String::new(),
            wall_seconds: 1.0,
        };
        vec![
            Transition::Started,
            Transition::Died,
            Transition::Interrupted { used },
            Transition::Finished { used, done: Box::new(done) },
            Transition::Failed { used, error },
            Transition::Cancelled { used },
            Transition::Paused { used },
            Transition::Resumed,
            Transition::Retried,
        ]
    }

    #[test]
    fn a_finished_job_stays_finished() {
        assert!(every_transition().iter().all(|t| t.after(JobState::Finished).is_none()));
    }

    #[test]
    fn whatever_ended_otherwise_can_be_tried_again_and_nothing_else() {
        for state in [JobState::Failed, JobState::Cancelled] {
            let possible: Vec<_> = every_transition().into_iter().filter(|t| t.after(state).is_some()).collect();
            assert_eq!(possible, [Transition::Retried]);
        }
    }

    #[test]
    fn happenings_read_back_as_they_were_written() {
        for what in every_transition() {
            let happening = Happening { at: "2026-01-01T00:00:00.000Z".into(), what };
            let text = serde_json::to_vec(&happening).unwrap();
            assert_eq!(serde_json::from_slice::<Happening>(&text).unwrap(), happening);
        }
    }

    #[test]
    fn requests_name_no_unknown_field() {
        let refused = serde_json::from_str::<JobRequest>(r#"{"input":"a.mp4","weights":"/etc/passwd"}"#);
        assert!(refused.unwrap_err().to_string().contains("weights"));
    }

    fn options(text: &str) -> OptionsRequest {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn what_a_request_leaves_out_is_the_routes() {
        let route = options("size = 320\nstrength = 0.5\npreserve_color = true");
        assert_eq!(OptionsRequest::default().or(&route), route);
        let merged = options("strength = 1.0\npreserve_color = false").or(&route);
        assert_eq!((merged.size, merged.strength, merged.preserve_color), (Some(320), Some(1.0), Some(false)));
    }

    #[test]
    fn values_out_of_range_are_refused_with_the_range() {
        for (text, named) in [
            ("strength = 1.5", "strength is 1.5, expected 0 to 1"),
            ("strength = -0.1", "strength is -0.1, expected 0 to 1"),
            ("strength = nan", "strength is NaN, expected 0 to 1"),
            ("size = 1", "size is 1, expected"),
            ("crf = 64.0", "crf is out of range, expected 0 to 63"),
        ] {
            let error = options(text).check().unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
        for text in ["", "strength = 0.0", "strength = 1.0\npreserve_color = true"] {
            assert!(options(text).check().is_ok(), "{text}");
        }
    }

    #[test]
    fn the_pipeline_gets_what_was_said_and_nothing_else() {
        let accepted = |text: &str| Accepted { options: options(text), ..accepted("default", "r", "one") };
        let plain = accepted("").job_options();
        assert_eq!((plain.tenant, plain.style.as_deref(), plain.blend), (None, Some("starry-night"), None));
        assert_eq!((plain.strength, plain.preserve_color), (None, false));
        let said = accepted("strength = 0.25\npreserve_color = true").job_options();
        assert_eq!((said.strength, said.preserve_color), (Some(0.25), true));
        let blend = Accepted { blended: 2, style_location: "udnie:1,wheat-field:1".into(), ..accepted("") };
        let blend = blend.job_options();
        assert_eq!((blend.style, blend.blend.as_deref()), (None, Some("udnie:1,wheat-field:1")));
    }

    #[test]
    fn records_from_before_there_were_blends_are_read() {
        let mut record = serde_json::to_value(accepted("t", "r", "one")).unwrap();
        assert_eq!(record.as_object_mut().unwrap().remove("blended"), Some(0.into()));
        assert_eq!(serde_json::from_value::<Accepted>(record).unwrap(), accepted("t", "r", "one"));
    }
}
