//! The styles that jobs may ask for: built in, in the operator's folder, or named by a route. Clients bring none.

use super::blend::{self, Choice};
use super::config::ServeConfig;
use super::error::ServiceError;
use super::view::StyleView;
use restyle_models::shipped;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const EXTENSION: &str = "safetensors";
const BUILT_IN: &str = "built-in";
/// Largest contact sheet of an operator's that is read.
const SHEET_BYTES_MAX: u64 = 4 << 20;

/// Contact sheets of the built-in styles, JPEG: painting and photos above, the photos styled below.
const SHEETS: [(&str, &[u8]); 7] = [
    ("composition-vii", include_bytes!("../../docs/styles/composition-vii.jpg")),
    ("great-wave", include_bytes!("../../docs/styles/great-wave.jpg")),
    ("great-wave-quick", include_bytes!("../../docs/styles/great-wave-quick.jpg")),
    ("starry-night", include_bytes!("../../docs/styles/starry-night.jpg")),
    ("the-scream", include_bytes!("../../docs/styles/the-scream.jpg")),
    ("udnie", include_bytes!("../../docs/styles/udnie.jpg")),
    ("wheat-field", include_bytes!("../../docs/styles/wheat-field.jpg")),
];

/// Returns the contact sheet of a style as JPEG; blocks on the disk.
///
/// # Errors
/// `NotFound` for a style that is not there or has none, `Storage` for one that cannot be read.
pub(super) fn sheet(config: &ServeConfig, name: &str) -> Result<Vec<u8>, ServiceError> {
    let missing = || ServiceError::not_found(format!("there is no contact sheet of a style {name}"));
    let (view, location) = all(config).remove(name).ok_or_else(missing)?;
    if view.origin == BUILT_IN {
        return SHEETS.iter().find(|(own, _)| *own == name).map(|(_, bytes)| bytes.to_vec()).ok_or_else(missing);
    }
    let path = sheet_beside(&location);
    let size = std::fs::metadata(&path).ok().filter(std::fs::Metadata::is_file).ok_or_else(missing)?.len();
    if size > SHEET_BYTES_MAX {
        return Err(missing());
    }
    std::fs::read(&path).map_err(|e| ServiceError::storage(format!("cannot read the contact sheet of {name}: {e}")))
}

/// Finds the style that a client names, or those it blends.
///
/// # Errors
/// `Invalid`, listing the names there are; what else [`Choice::blend`] refuses.
pub(super) fn choose(config: &ServeConfig, said: &str) -> Result<Choice, ServiceError> {
    let all = all(config);
    let find = |name: &str| match all.get(name) {
        Some((_, location)) => Ok((name.to_owned(), location.clone())),
        None => Err(unknown(all.keys())),
    };
    match blend::parts(said) {
        // A style of that very name goes first: an operator may call a file so.
        Some(parts) if !all.contains_key(said) => Choice::blend(&parts, find),
        _ => find(said).map(|(name, location)| Choice::alone(&name, &location)),
    }
}

/// Says what there is, and nothing of what was asked for.
fn unknown<'a>(names: impl Iterator<Item = &'a String>) -> ServiceError {
    let names: Vec<&str> = names.map(String::as_str).collect();
    let message = format!("no style is called so; there are: {}; several are blended as a:0.7,b:0.3", names.join(", "));
    ServiceError::invalid(message)
}

/// Lists the styles by name.
pub(super) fn list(config: &ServeConfig) -> Vec<StyleView> {
    all(config).into_values().map(|(view, _)| view).collect()
}

fn all(config: &ServeConfig) -> BTreeMap<String, (StyleView, String)> {
    let mut found = BTreeMap::new();
    for (name, location) in config.routes.iter().flat_map(|r| &r.style_parts).filter(|(name, at)| name != at) {
        found.insert(name.clone(), operators(name, location.clone()));
    }
    let folder = config.styles.as_deref().and_then(|folder| std::fs::read_dir(folder).ok());
    for path in folder.into_iter().flatten().flatten().map(|entry| entry.path()) {
        if path.extension().is_some_and(|e| e == EXTENSION)
            && let Some(stem) = path.file_stem().and_then(|s| s.to_str())
        {
            found.insert(stem.to_owned(), operators(stem, path.to_string_lossy().into_owned()));
        }
    }
    for style in shipped::ALL {
        let view = StyleView {
            name: style.name.to_owned(),
            painting: style.painting.to_owned(),
            origin: BUILT_IN.to_owned(),
            digest: Some(style.digest.to_owned()),
            has_sheet: SHEETS.iter().any(|(name, _)| *name == style.name),
        };
        found.insert(style.name.to_owned(), (view, style.name.to_owned()));
    }
    found
}

/// Where the contact sheet of an operator's style is looked for: beside its weights.
fn sheet_beside(location: &str) -> PathBuf {
    Path::new(location).with_extension("jpg")
}

fn operators(name: &str, location: String) -> (StyleView, String) {
    let has_sheet = sheet_beside(&location).is_file();
    let view = StyleView {
        name: name.to_owned(),
        painting: String::new(),
        origin: "operator".to_owned(),
        digest: None,
        has_sheet,
    };
    (view, location)
}
