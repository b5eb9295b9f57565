//! The styles that jobs may ask for: built in, in the operator's folder, or named by a route. Clients bring none.

use super::config::ServeConfig;
use super::error::ServiceError;
use super::view::StyleView;
use restyle_models::shipped;
use std::collections::BTreeMap;

const EXTENSION: &str = "safetensors";

/// Returns what the pipeline resolves for a style's name.
///
/// # Errors
/// `Invalid`, listing the names there are.
pub(super) fn location(config: &ServeConfig, said: &str) -> Result<String, ServiceError> {
    let all = all(config);
    let Some((_, location)) = all.get(said) else {
        let names: Vec<&str> = all.keys().map(String::as_str).collect();
        return Err(ServiceError::invalid(format!("no style is called so; there are: {}", names.join(", "))));
    };
    Ok(location.clone())
}

/// Lists the styles by name.
pub(super) fn list(config: &ServeConfig) -> Vec<StyleView> {
    all(config).into_values().map(|(view, _)| view).collect()
}

fn all(config: &ServeConfig) -> BTreeMap<String, (StyleView, String)> {
    let mut found = BTreeMap::new();
    for route in config.routes.iter().filter(|r| r.style != r.style_location) {
        found.insert(route.style.clone(), operators(&route.style, route.style_location.clone()));
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
            origin: "built-in".to_owned(),
            digest: Some(style.digest.to_owned()),
            has_sheet: false,
        };
        found.insert(style.name.to_owned(), (view, style.name.to_owned()));
    }
    found
}

fn operators(name: &str, location: String) -> (StyleView, String) {
    let view = StyleView {
        name: name.to_owned(),
        painting: String::new(),
        origin: "operator".to_owned(),
        digest: None,
        has_sheet: false,
    };
    (view, location)
}
