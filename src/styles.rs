//! From what a user calls a style to weights that can be run.

use crate::error::{Error, ErrorKind};
use restyle_actors::storage::{Blob, Location};
use restyle_models::shipped;
use restyle_models::weights::StyleWeights;
use std::sync::Arc;

/// The largest weights file that is read; the network of the paper is under 7 MB.
const WEIGHTS_BYTES_MAX: u64 = 256 << 20;

/// Weights and the name they go by.
#[derive(Clone)]
pub(crate) struct Style {
    pub(crate) name: String,
    pub(crate) weights: Arc<StyleWeights>,
}

/// Loads a built-in style, a `.safetensors` file, or a storage URL of one.
///
/// # Errors
/// [`ErrorKind::Configuration`] for an unknown name, an unreadable file or tensors that are not a style network; it says which and lists the names.
pub(crate) fn resolve(said: &str) -> Result<Style, Error> {
    let bytes = match shipped::find(said) {
        Some(style) => style.bytes.to_vec(),
        None => read(said)?,
    };
    let weights =
        StyleWeights::load(&bytes).map_err(|e| Error::new(ErrorKind::Configuration, format!("style {said}: {e}")))?;
    Ok(Style { name: said.to_owned(), weights: Arc::new(weights) })
}

fn read(said: &str) -> Result<Vec<u8>, Error> {
    if !looks_like_a_file(said) {
        let names: Vec<&str> = shipped::ALL.iter().map(|s| s.name).collect();
        let message =
            format!("no style is called {said}; built in are: {}; or name a .safetensors file", names.join(", "));
        return Err(Error::new(ErrorKind::Configuration, message));
    }
    if is_picture(said) {
        let message =
            format!("style {said} is a picture: this build needs a network trained on it, a .safetensors file");
        return Err(Error::new(ErrorKind::Configuration, message));
    }
    let refused = |e: &dyn std::fmt::Display| Error::new(ErrorKind::Configuration, format!("style {said}: {e}"));
    let blob = Location::parse(said).and_then(|l| Blob::open(&l)).map_err(|e| refused(&e))?;
    if blob.size() > WEIGHTS_BYTES_MAX {
        return Err(refused(&format!("{} bytes, expected at most {WEIGHTS_BYTES_MAX}", blob.size())));
    }
    let mut bytes = vec![0; blob.size() as usize];
    let mut filled = 0;
    while filled < bytes.len() {
        match blob.read_at(filled as u64, &mut bytes[filled..]).map_err(|e| refused(&e))? {
            0 => return Err(refused(&"it ends early")),
            read => filled += read,
        }
    }
    Ok(bytes)
}

fn looks_like_a_file(said: &str) -> bool {
    said.contains(['/', '\\', ':']) || std::path::Path::new(said).extension().is_some()
}

fn is_picture(said: &str) -> bool {
    let extension = std::path::Path::new(said).extension().map(|e| e.to_ascii_lowercase());
    extension.is_some_and(|e| ["jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff"].iter().any(|p| e == *p))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_style_loads() {
        for style in shipped::ALL {
            assert!(resolve(style.name).is_ok(), "{}", style.name);
        }
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let error = resolve("no-such-style").err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains("starry-night"), "{error}");
    }
}
