//! A route: what arrives here is styled so and goes there.

use super::error::ServiceError;
use super::ident::{ObjectKey, RouteName, Tenant};
use super::job::OptionsRequest;
use globset::GlobSet;
use restyle_actors::storage::{Folder, Location};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A folder or a prefix of an object store that keys are appended to.
#[derive(Clone)]
pub struct Place {
    text: String,
    store: Folder,
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Place {
    /// Reads a path or a storage URL; relative paths begin at `base`.
    ///
    /// # Errors
    /// [`super::ServiceErrorKind::Invalid`] for what is neither.
    pub fn parse(text: &str, base: &Path) -> Result<Self, ServiceError> {
        let location = Location::parse(text).map_err(|e| ServiceError::invalid(e.to_string()))?;
        match location.as_path() {
            Some(path) => {
                let folder = normal(&base.join(path));
                let text = folder
                    .to_str()
                    .ok_or_else(|| ServiceError::invalid(format!("{text}: names that are not unicode are not served")))?
                    .to_owned();
                Ok(Self { text, store: Folder::new(Location::File(folder)) })
            }
            None => Ok(Self { text: text.trim_end_matches('/').to_owned(), store: Folder::new(location) }),
        }
    }

    /// Returns the folder where this is a local one.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        self.store.location().as_path()
    }

    /// Returns what lists, reads and writes in it.
    #[must_use]
    pub fn store(&self) -> &Folder {
        &self.store
    }

    /// Returns the location of an object in it, as [`crate::Job`] takes it.
    #[must_use]
    pub fn object(&self, key: &str) -> String {
        match self.folder() {
            Some(folder) => folder.join(key).to_string_lossy().into_owned(),
            None => format!("{}/{key}", self.text),
        }
    }

    /// Returns the key of what lies at `object` in here; `None` where it lies elsewhere.
    #[must_use]
    pub fn key_of<'a>(&self, object: &'a str) -> Option<&'a str> {
        object.strip_prefix(self.text.as_str())?.strip_prefix('/').filter(|key| !key.is_empty())
    }

    /// Whether `other` is this place or lies in it.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        self == other || self.key_of(&other.text).is_some()
    }

    /// Returns the place as it was parsed, without query: paths are absolute.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Place({self})")
    }
}

impl std::fmt::Display for Place {
    /// Without what may be a credential.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text.split(['?', '#']).next().unwrap_or_default())
    }
}

/// Takes `.` and `..` out of a path without asking the file system.
fn normal(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

/// Limits of what may wait in a route; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    /// Jobs that wait or run.
    pub jobs_queued: Option<u64>,
    /// Bytes of their inputs.
    pub bytes_queued: Option<u64>,
    /// Frames of their inputs.
    pub frames_queued: Option<u64>,
}

/// One route, checked.
#[derive(Debug, Clone)]
pub struct Route {
    /// Its name.
    pub name: RouteName,
    /// Whose it is.
    pub tenant: Tenant,
    /// Where videos are looked for.
    pub input: Place,
    /// Where results go.
    pub output: Place,
    /// Where logs and reports go.
    pub logs: Place,
    /// What people call its style, or its blend of several.
    pub style: String,
    /// What the pipeline resolves.
    pub style_location: String,
    /// How many styles it blends; 0 where it has one without a share.
    pub blended: usize,
    /// Name and location of its style, or of each that it blends.
    pub style_parts: Vec<(String, String)>,
    /// Which keys are taken.
    pub include: GlobSet,
    /// Which of those are not.
    pub exclude: GlobSet,
    /// How outputs are named.
    pub name_template: NameTemplate,
    /// How often the input location is listed.
    pub poll: Duration,
    /// Priority of its jobs.
    pub priority: i32,
    /// Options of its jobs.
    pub options: OptionsRequest,
    /// How much may wait.
    pub quota: Quota,
    /// Scorers that each of its jobs has at least while capacity lasts.
    pub nodes_min: usize,
    /// Scorers that its jobs have at most, all together.
    pub nodes_max: Option<usize>,
}

impl Route {
    /// Returns the key that the output of `input` gets.
    ///
    /// # Errors
    /// [`super::ServiceErrorKind::Invalid`] when the name it makes is no key.
    pub fn output_key(&self, input: &ObjectKey, style: &str) -> Result<ObjectKey, ServiceError> {
        ObjectKey::parse(&format!("{}{}", input.folder(), self.name_template.fill(input.file_name(), style)))
    }

    /// Whether the watcher takes a key by its name.
    #[must_use]
    pub fn takes(&self, key: &str) -> bool {
        !key.ends_with(SIDECAR_SUFFIX) && self.include.is_match(key) && !self.exclude.is_match(key)
    }
}

/// What is appended to the name of a video for the file that sets its options.
pub const SIDECAR_SUFFIX: &str = ".restyle.toml";

/// Containers that can be written; whatever else comes in leaves as Matroska, which holds everything.
const CONTAINERS: [&str; 4] = ["mp4", "mov", "mkv", "webm"];

/// How outputs are named: text with `{stem}`, `{style}` and `{extension}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameTemplate(String);

impl NameTemplate {
    /// Checks a template.
    ///
    /// # Errors
    /// [`super::ServiceErrorKind::Invalid`] when it holds a slash or an unknown placeholder, lacks `{stem}`, or makes names that
    /// are no keys.
    pub fn parse(text: &str) -> Result<Self, ServiceError> {
        let refused = |why: &str| ServiceError::invalid(format!("name_template \"{text}\" {why}"));
        if !text.contains("{stem}") {
            return Err(refused("lacks {stem}: every output would have the same name"));
        }
        let plain = text.replace("{stem}", "s").replace("{style}", "t").replace("{extension}", "mp4");
        if plain.contains(['{', '}', '/']) {
            return Err(refused("holds a slash or a placeholder other than {stem}, {style}, {extension}"));
        }
        let extension = plain.rsplit_once('.').map(|(_, e)| e).unwrap_or_default();
        if !CONTAINERS.contains(&extension) {
            return Err(refused("must end with .{extension} or .mp4, .mov, .mkv, .webm"));
        }
        ObjectKey::parse(&plain).map_err(|e| refused(&format!("makes no name: {e}")))?;
        Ok(Self(text.to_owned()))
    }

    /// Names the output of a file called `name`.
    #[must_use]
    pub fn fill(&self, name: &str, style: &str) -> String {
        let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
        let extension = extension.to_ascii_lowercase();
        let extension = if CONTAINERS.contains(&extension.as_str()) { extension.as_str() } else { "mkv" };
        // A blend has colons, which the first part of a key may not have.
        let style = style.replace(':', "-");
        // The stem last: a name that holds a placeholder is not filled again.
        let filled = self.0.replace("{style}", &style).replace("{extension}", extension);
        filled.replace("{stem}", stem)
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_name_outputs() {
        let template = NameTemplate::parse("{stem}.{style}.{extension}").unwrap();
        assert_eq!(template.fill("a.b.MP4", "wave"), "a.b.wave.mp4");
        assert_eq!(template.fill("old.avi", "wave"), "old.wave.mkv");
        assert_eq!(template.fill("{style}.mp4", "wave"), "{style}.wave.mp4");
        assert_eq!(template.fill("a.mp4", "wave:0.7,udnie:0.3"), "a.wave-0.7,udnie-0.3.mp4");
        for bad in ["out.mp4", "{stem}", "{stem}/{style}.mp4", "{stem}.{day}.mp4", "../{stem}.mp4", "{stem}.txt"] {
            assert!(NameTemplate::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn places_know_what_lies_in_them() {
        let base = Path::new("/srv");
        let (input, output) = (Place::parse("in", base).unwrap(), Place::parse("./in/../in/out", base).unwrap());
        assert!(input.contains(&output) && !output.contains(&input));
        assert_eq!(input.object("a/b.mp4"), "/srv/in/a/b.mp4");
        assert_eq!(input.key_of("/srv/in/a/b.mp4"), Some("a/b.mp4"));
        assert_eq!(input.key_of("/srv/input/b.mp4"), None);
        let bucket = Place::parse("s3://bucket/prefix/", base).unwrap();
        assert_eq!(bucket.object("k"), "s3://bucket/prefix/k");
    }
}
