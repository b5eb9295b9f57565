//! The names of a job's objects, and back from a name to what it means.

use crate::item::{Generation, JobId, SegmentIndex};

/// What one object of a job is, by its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectName {
    /// `job.json`
    Job(Generation),
    /// `plan.json`
    Plan(Generation),
    /// `calibration.json`
    Calibration(Generation),
    /// `publish.json`
    Intent(Generation),
    /// `out.json`
    Out(Generation),
    /// `s/<k>/seg`
    Segment(SegmentIndex, Generation),
    /// `s/<k>/pack-<first>-<generation>-<writer>`, sealed
    Pack(SegmentIndex, PackName),
    /// The same with `.open` behind it: a log that still grows, or whose writer died.
    OpenPack(SegmentIndex, PackName),
    /// `s/<k>/try-<n>`
    Try(SegmentIndex, u32),
    /// `s/<k>/fail-<n>`
    Fail(SegmentIndex, u32),
    /// `s/<k>/dead`
    Dead(SegmentIndex),
}

/// The name of a pack.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PackName {
    /// Index in the segment of the first item put into it.
    pub first: u32,
    /// Distinguishes packs that begin alike.
    pub generation: Generation,
    /// Who wrote it; letters, digits and underscores.
    pub writer: String,
}

const OPEN: &str = ".open";

/// The folder of all jobs.
pub const JOBS: &str = "jobs/";

/// Key prefix of everything that belongs to a job.
pub fn job_prefix(job: &JobId) -> String {
    format!("{JOBS}{job}/")
}

/// Key prefix of everything that belongs to a segment.
pub fn segment_prefix(job: &JobId, segment: SegmentIndex) -> String {
    format!("{JOBS}{job}/s/{}/", segment.0)
}

/// Whether text can name a writer: 1 to 64 letters, digits and underscores.
pub fn is_writer(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

impl ObjectName {
    /// The key of this object of a job.
    pub fn key(&self, job: &JobId) -> String {
        let name = match self {
            Self::Job(generation) => with_generation("job.json", *generation),
            Self::Plan(generation) => with_generation("plan.json", *generation),
            Self::Calibration(generation) => with_generation("calibration.json", *generation),
            Self::Intent(generation) => with_generation("publish.json", *generation),
            Self::Out(generation) => with_generation("out.json", *generation),
            Self::Segment(k, generation) => format!("s/{}/{}", k.0, with_generation("seg", *generation)),
            Self::Pack(k, pack) => format!("s/{}/{}", k.0, pack.text()),
            Self::OpenPack(k, pack) => format!("s/{}/{}{OPEN}", k.0, pack.text()),
            Self::Try(k, n) => format!("s/{}/try-{n}", k.0),
            Self::Fail(k, n) => format!("s/{}/fail-{n}", k.0),
            Self::Dead(k) => format!("s/{}/dead", k.0),
        };
        format!("{JOBS}{job}/{name}")
    }

    /// What a key below [`job_prefix`] names; `None` for anything this program does not write.
    pub fn parse(job: &JobId, key: &str) -> Option<Self> {
        let name = key.strip_prefix(&job_prefix(job))?;
        let Some(rest) = name.strip_prefix("s/") else {
            return Self::parse_top(name);
        };
        let (k, name) = rest.split_once('/')?;
        let k = SegmentIndex(parse_number(k)?);
        if name == "dead" {
            Some(Self::Dead(k))
        } else if let Some(n) = name.strip_prefix("try-") {
            Some(Self::Try(k, parse_number(n)?))
        } else if let Some(n) = name.strip_prefix("fail-") {
            Some(Self::Fail(k, parse_number(n)?))
        } else if let Some(pack) = name.strip_prefix("pack-") {
            match pack.strip_suffix(OPEN) {
                Some(pack) => Some(Self::OpenPack(k, PackName::parse(pack)?)),
                None => Some(Self::Pack(k, PackName::parse(pack)?)),
            }
        } else {
            Some(Self::Segment(k, parse_generation(name, "seg")?))
        }
    }

    fn parse_top(name: &str) -> Option<Self> {
        let named = |base| parse_generation(name, base);
        named("job.json")
            .map(Self::Job)
            .or_else(|| named("plan.json").map(Self::Plan))
            .or_else(|| named("calibration.json").map(Self::Calibration))
            .or_else(|| named("publish.json").map(Self::Intent))
            .or_else(|| named("out.json").map(Self::Out))
    }
}

impl PackName {
    fn text(&self) -> String {
        format!("pack-{}-{}-{}", self.first, self.generation.0, self.writer)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '-');
        let first = parse_number(parts.next()?)?;
        let generation = Generation(parse_number(parts.next()?)?);
        let writer = parts.next()?.to_owned();
        is_writer(&writer).then_some(Self { first, generation, writer })
    }
}

fn with_generation(base: &str, generation: Generation) -> String {
    match generation.0 {
        0 => base.to_owned(),
        n => format!("{base}.{n}"),
    }
}

fn parse_generation(name: &str, base: &str) -> Option<Generation> {
    match name.strip_prefix(base)? {
        "" => Some(Generation(0)),
        rest => parse_number(rest.strip_prefix('.')?).filter(|n| *n > 0).map(Generation),
    }
}

/// Accepts a number only as this module writes it, so that a name means one object.
fn parse_number(text: &str) -> Option<u32> {
    let number: u32 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back() {
        let job = JobId::new([7; 32]);
        let pack = || PackName { first: 12, generation: Generation(1), writer: "w_1".to_owned() };
        let k = SegmentIndex(40);
        for name in [
            ObjectName::Job(Generation(0)),
            ObjectName::Plan(Generation(2)),
            ObjectName::Calibration(Generation(1)),
            ObjectName::Intent(Generation(0)),
            ObjectName::Out(Generation(11)),
            ObjectName::Segment(k, Generation(0)),
            ObjectName::Segment(k, Generation(1)),
            ObjectName::Pack(k, pack()),
            ObjectName::OpenPack(k, pack()),
            ObjectName::Try(k, 1),
            ObjectName::Fail(k, 3),
            ObjectName::Dead(k),
        ] {
            let key = name.key(&job);
            super::super::store::check_key(&key, super::super::store::StoreOperation::Get).unwrap();
            assert_eq!(ObjectName::parse(&job, &key), Some(name), "{key}");
        }
    }

    #[test]
    fn names_of_others_mean_nothing() {
        let job = JobId::new([7; 32]);
        let prefix = job_prefix(&job);
        for name in [
            "lock",
            "s/1",
            "s/x/seg",
            "s/01/seg",
            "s/1/seg.0",
            "s/1/seg.x",
            "s/1/segment",
            "s/1/pack-1-0-",
            "s/1/pack-1-0-a-b",
            "plan.json.00",
        ] {
            assert_eq!(ObjectName::parse(&job, &format!("{prefix}{name}")), None, "{name}");
        }
        assert_eq!(ObjectName::parse(&JobId::new([8; 32]), &format!("{prefix}s/1/seg")), None);
    }
}
