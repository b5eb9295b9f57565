//! From what a user calls a style to weights that can be run.

use crate::error::{Error, ErrorKind};
use restyle_actors::storage::{Blob, Location};
use restyle_models::any_style::AnyStyle;
#[cfg(feature = "train")]
use restyle_models::any_style::{AnyStyleFiles, AnyStyleNetwork};
use restyle_models::mix::{BLEND_MAX, StyleSource};
use restyle_models::shipped;
use restyle_models::weights::StyleWeights;
use std::path::Path;
use std::sync::Arc;

/// The short side that a larger style picture is scaled to, in pixels.
#[cfg(feature = "train")]
const STYLE_SIDE_MAX: u32 = 512;
/// The largest weights file that is read; the network of the paper is under 7 MB.
const WEIGHTS_BYTES_MAX: u64 = 256 << 20;

/// Weights and the name they go by: one network, or several with their shares of the picture.
#[derive(Clone)]
pub(crate) struct Style {
    pub(crate) name: String,
    pub(crate) parts: Vec<(StyleSource, f32)>,
}

impl Style {
    /// Loads the styles of `a:0.7,b:0.3`; the shares are relative to each other.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] where the text is no list of styles with shares, else as [`resolve`].
    pub(crate) fn blend(said: &str, network: Option<&Path>) -> Result<Self, Error> {
        let mut parts = Vec::new();
        for part in said.split(',') {
            let (name, share) = share_of(part).ok_or_else(|| not_a_blend(said, part))?;
            parts.push((resolve(name, network)?.parts.swap_remove(0).0, share));
        }
        if parts.len() > BLEND_MAX {
            let message = format!("blend {said} names {} styles, at most {BLEND_MAX} are mixed", parts.len());
            return Err(Error::new(ErrorKind::Usage, message));
        }
        Ok(Self { name: said.to_owned(), parts })
    }

    /// The network where it is the only part and trained on its style.
    pub(crate) fn sole_network(&self) -> Option<&Arc<StyleWeights>> {
        match self.parts.as_slice() {
            [(StyleSource::Trained(weights), _)] => Some(weights),
            _ => None,
        }
    }

    /// What identifies the style: the file's blake3, or those of a blend with their shares of the whole.
    pub(crate) fn digest(&self) -> String {
        if let [(source, _)] = self.parts.as_slice() {
            return source.digest();
        }
        let whole: f32 = self.parts.iter().map(|(_, share)| share).sum();
        let part = |(source, share): &(StyleSource, f32)| format!("{}:{}", source.digest(), share / whole);
        self.parts.iter().map(part).collect::<Vec<_>>().join(",")
    }
}

/// Splits `name:share`, the share a number above 0; the name may hold colons itself.
pub(crate) fn share_of(part: &str) -> Option<(&str, f32)> {
    let (name, share) = part.trim().rsplit_once(':')?;
    let share: f32 = share.parse().ok().filter(|share: &f32| share.is_finite() && *share > 0.0)?;
    (!name.is_empty()).then_some((name, share))
}

fn not_a_blend(said: &str, part: &str) -> Error {
    let message = format!("blend {said}: {part:?} is no style with its share: write it as udnie:0.7,great-wave:0.3");
    Error::new(ErrorKind::Usage, message)
}

/// Loads a built-in style, a `.safetensors` file or a storage URL of one, or encodes a picture with `network`, else with the
/// built-in network for any style.
///
/// # Errors
/// [`ErrorKind::Configuration`] for an unknown name, an unreadable file or tensors that are not a style network; it says which and lists the names.
pub(crate) fn resolve(said: &str, network: Option<&Path>) -> Result<Style, Error> {
    let source = if shipped::find(said).is_none() && looks_like_a_file(said) && is_picture(said) {
        StyleSource::Any(Arc::new(encoded(said, network)?))
    } else {
        StyleSource::Trained(Arc::new(trained(said)?))
    };
    Ok(Style { name: said.to_owned(), parts: vec![(source, 1.0)] })
}

/// Loads a network of one style.
///
/// # Errors
/// As [`resolve`].
pub(crate) fn trained(said: &str) -> Result<StyleWeights, Error> {
    let bytes = match shipped::find(said) {
        Some(style) => style.bytes.to_vec(),
        None => read(said)?,
    };
    StyleWeights::load(&bytes).map_err(|e| refused(said, &e))
}

fn refused(said: &str, error: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::Configuration, format!("style {said}: {error}"))
}

/// Encodes a picture's style.
#[cfg(feature = "train")]
fn encoded(said: &str, network: Option<&Path>) -> Result<AnyStyle, Error> {
    use restyle_models::train::Photo;
    let network = Arc::new(any_network(network)?);
    let photo = Photo::read(Path::new(said), None).map_err(|e| refused(said, &e))?;
    let short = photo.size().0.min(photo.size().1) as u32;
    let photo = if short > STYLE_SIDE_MAX {
        Photo::read(Path::new(said), Some(STYLE_SIDE_MAX)).map_err(|e| refused(said, &e))?
    } else {
        photo
    };
    let picture = photo.to_picture().map_err(|e| refused(said, &e))?;
    AnyStyle::encode(&network, &picture).map_err(|e| refused(said, &e))
}

/// The built-in network for any style, or the user's: one file, or a folder of MicroAST's four.
#[cfg(feature = "train")]
fn any_network(said: Option<&Path>) -> Result<AnyStyleNetwork, Error> {
    let Some(path) = said else {
        return AnyStyleNetwork::load(shipped::ANY.bytes).map_err(|e| refused("of any picture", &e));
    };
    let refused = |path: &Path, e: &dyn std::fmt::Display| {
        Error::new(ErrorKind::Configuration, format!("style network {}: {e}", path.display()))
    };
    let read = |path: &Path| std::fs::read(path).map_err(|e| refused(path, &format!("cannot read it: {e}")));
    if !path.is_dir() {
        return AnyStyleNetwork::load(&read(path)?).map_err(|e| refused(path, &e));
    }
    let part = |name: &str| read(&path.join(format!("{name}.safetensors")));
    let files = [part("content_encoder")?, part("style_encoder")?, part("modulator")?, part("decoder")?];
    let [content_encoder, style_encoder, modulator, decoder] = &files;
    let files = AnyStyleFiles { content_encoder, style_encoder, modulator, decoder };
    AnyStyleNetwork::from_parts(&files).map_err(|e| refused(path, &e))
}

#[cfg(not(feature = "train"))]
fn encoded(said: &str, _: Option<&Path>) -> Result<AnyStyle, Error> {
    Err(refused(said, &"this build reads no pictures: build it with the feature train"))
}

fn read(said: &str) -> Result<Vec<u8>, Error> {
    if !looks_like_a_file(said) {
        let names: Vec<&str> = shipped::ALL.iter().map(|s| s.name).collect();
        let message =
            format!("no style is called {said}; built in are: {}; or name a .safetensors file", names.join(", "));
        return Err(Error::new(ErrorKind::Configuration, message));
    }
    let refused = |e: &dyn std::fmt::Display| refused(said, e);
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
            assert!(resolve(style.name, None).is_ok(), "{}", style.name);
        }
    }

    #[test]
    fn a_blend_is_told_apart_by_parts_and_shares() {
        let name = shipped::ALL[0].name;
        let digest = |said: &str| Style::blend(said, None).unwrap().digest();
        let even = digest(&format!("{name}:1,{name}:1"));
        assert_eq!(even, digest(&format!("{name}:0.5, {name}:0.5")));
        assert_ne!(even, digest(&format!("{name}:0.7,{name}:0.3")));
        assert_eq!(digest(&format!("{name}:0.7")), resolve(name, None).unwrap().digest());
    }

    #[test]
    fn what_is_no_blend_is_a_usage_error() {
        let many = vec!["starry-night:1"; BLEND_MAX + 1].join(",");
        for said in
            ["", "starry-night", "starry-night:", "starry-night:0", "starry-night:-1", ":1", "starry-night:inf", &many]
        {
            let error = Style::blend(said, None).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Usage, "{said:?}: {error}");
        }
        assert_eq!(Style::blend("no-such-style:1", None).err().unwrap().kind(), ErrorKind::Configuration);
    }

    #[test]
    fn what_is_no_network_is_named() {
        for (network, said) in [("no-such-folder", "no-such-folder"), (".", "content_encoder.safetensors")] {
            let error = resolve("painting.jpg", Some(Path::new(network))).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(error.to_string().contains(said), "{error}");
        }
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let error = resolve("no-such-style", None).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains("starry-night"), "{error}");
    }
}
