//! From what a user calls a style to weights that can be run.

use crate::error::{Error, ErrorKind};
use restyle_actors::storage::{Blob, Location};
use restyle_models::any_style::AnyStyle;
#[cfg(feature = "train")]
use restyle_models::any_style::{AnyStyleFiles, AnyStyleNetwork, FILE_BYTES_MAX};
use restyle_models::mix::{BLEND_MAX, StyleSource};
use restyle_models::shipped;
use restyle_models::weights::StyleWeights;
#[cfg(feature = "train")]
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

/// The short side that a larger style picture is scaled to, in pixels.
#[cfg(feature = "train")]
const STYLE_SIDE_MAX: u32 = 512;
/// The most pixels of a style picture after that: encoding holds about a kilobyte for each.
#[cfg(feature = "train")]
const STYLE_PIXELS_MAX: usize = 1 << 21;
/// The largest file of a style picture, in bytes.
#[cfg(feature = "train")]
const PICTURE_BYTES_MAX: u64 = 64 << 20;
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
        let shares = shares(said)?;
        // Before any is loaded.
        if shares.len() > BLEND_MAX {
            let message = format!("blend {said} names {} styles, at most {BLEND_MAX} are mixed", shares.len());
            return Err(Error::new(ErrorKind::Usage, message));
        }
        let load = |(name, share): (&str, f32)| Ok((resolve(name, network)?.parts.swap_remove(0).0, share));
        Ok(Self { name: said.to_owned(), parts: shares.into_iter().map(load).collect::<Result<_, Error>>()? })
    }

    /// The network where it is the only part and trained on its style.
    pub(crate) fn sole_network(&self) -> Option<&Arc<StyleWeights>> {
        match self.parts.as_slice() {
            [(StyleSource::Trained(weights), _)] => Some(weights),
            _ => None,
        }
    }

    /// Whether a part of it is a picture, which no card scores.
    pub(crate) fn is_cpu_only(&self) -> bool {
        self.parts.iter().any(|(source, _)| matches!(source, StyleSource::Any(_)))
    }

    /// Says that the network for pictures is of no use to a style without one, where that is so.
    pub(crate) fn unused_network(&self, network: Option<&Path>) -> Option<String> {
        let path = network?.display();
        let why = format!("style network {path} is not used: it reads pictures, and {} names none", self.name);
        (!self.is_cpu_only()).then_some(why)
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

/// Splits `a:0.7,b:0.3`.
///
/// # Errors
/// [`ErrorKind::Usage`] where the text is no list of styles with shares.
pub(crate) fn shares(said: &str) -> Result<Vec<(&str, f32)>, Error> {
    said.split(',').map(|part| share_of(part).ok_or_else(|| not_a_blend(said, part))).collect()
}

/// Shares that a blend may name: beyond them sums overflow or a style does not show.
const SHARES: RangeInclusive<f32> = 1e-3..=1e3;

/// Splits `name:share`, the share a number from 0.001 to 1000; the name may hold colons itself.
pub(crate) fn share_of(part: &str) -> Option<(&str, f32)> {
    let (name, share) = part.trim().rsplit_once(':')?;
    let share: f32 = share.parse().ok().filter(|share| SHARES.contains(share))?;
    (!name.is_empty()).then_some((name, share))
}

fn not_a_blend(said: &str, part: &str) -> Error {
    let message = format!(
        "blend {said}: {part:?} is no style with its share, 0.001 to 1000: write it as udnie:0.7,great-wave:0.3"
    );
    Error::new(ErrorKind::Usage, message)
}

/// Loads a built-in style, a `.safetensors` file, or encodes a picture with `network`, else with the built-in network for any
/// style; files may be named by a storage URL.
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
        None => read(said, WEIGHTS_BYTES_MAX)?,
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
    let bytes = read(said, PICTURE_BYTES_MAX)?;
    let photo = Photo::from_bytes(Path::new(said), &bytes, STYLE_SIDE_MAX).map_err(|e| refused(said, &e))?;
    let (width, height) = photo.size();
    if width * height > STYLE_PIXELS_MAX {
        let why =
            format!("{width}x{height} pixels, expected at most {STYLE_PIXELS_MAX} after scaling: crop the picture");
        return Err(refused(said, &why));
    }
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
    let read = |path: &Path| at_most(path, FILE_BYTES_MAX).map_err(|e| refused(path, &format!("cannot read it: {e}")));
    if !path.is_dir() {
        return AnyStyleNetwork::load(&read(path)?).map_err(|e| refused(path, &e));
    }
    let part = |name: &str| read(&path.join(format!("{name}.safetensors")));
    let files = [part("content_encoder")?, part("style_encoder")?, part("modulator")?, part("decoder")?];
    let [content_encoder, style_encoder, modulator, decoder] = &files;
    let files = AnyStyleFiles { content_encoder, style_encoder, modulator, decoder };
    AnyStyleNetwork::from_parts(&files).map_err(|e| refused(path, &e))
}

/// Reads a file, and of one that is larger than `bytes_max` one byte more, for its reader to refuse.
#[cfg(feature = "train")]
fn at_most(path: &Path, bytes_max: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(not(feature = "train"))]
fn encoded(said: &str, _: Option<&Path>) -> Result<AnyStyle, Error> {
    Err(refused(said, &"this build reads no pictures: build it with the feature train"))
}

/// Reads a style's file, wherever it lies.
fn read(said: &str, bytes_max: u64) -> Result<Vec<u8>, Error> {
    if !looks_like_a_file(said) {
        let names: Vec<&str> = shipped::ALL.iter().map(|s| s.name).collect();
        let message =
            format!("no style is called {said}; built in are: {}; or name a .safetensors file", names.join(", "));
        return Err(Error::new(ErrorKind::Configuration, message));
    }
    let refused = |e: &dyn std::fmt::Display| refused(said, e);
    let blob = Location::parse(said).and_then(|l| Blob::open(&l)).map_err(|e| refused(&e))?;
    if blob.size() > bytes_max {
        return Err(refused(&format!("{} bytes, expected at most {bytes_max}", blob.size())));
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
        let many = ["starry-night:1"; BLEND_MAX + 1].join(",");
        for said in
            ["", "starry-night", "starry-night:", "starry-night:0", "starry-night:-1", ":1", "starry-night:3e38", &many]
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
    fn a_network_without_a_picture_is_told() {
        let style = resolve("starry-night", None).unwrap();
        assert_eq!(style.unused_network(None), None);
        let told = style.unused_network(Some(Path::new("no-such-folder"))).unwrap();
        assert!(told.contains("no-such-folder is not used") && told.contains("starry-night"), "{told}");
    }

    /// Writes a PNG of `size` and returns its path.
    #[cfg(feature = "train")]
    fn painting(folder: &Path, name: &str, (width, height): (usize, usize)) -> std::path::PathBuf {
        let path = folder.join(name);
        let rgb = (0..3 * width * height).map(|at| (at * 7 % 251) as u8).collect();
        restyle_models::train::Photo::from_rgb(width, height, rgb).save(&path).unwrap();
        path
    }

    #[cfg(feature = "train")]
    #[test]
    fn a_picture_is_read_by_path_and_by_url() {
        let folder = tempfile::tempdir().unwrap();
        let path = painting(folder.path(), "painting.png", (40, 36));
        let by_path = resolve(path.to_str().unwrap(), None).unwrap();
        let by_url = resolve(&format!("file://{}", path.display()), None).unwrap();
        assert_eq!(by_path.digest(), by_url.digest());
        assert!(by_path.is_cpu_only() && by_path.unused_network(Some(Path::new("any"))).is_none());
    }

    #[cfg(feature = "train")]
    #[test]
    fn a_picture_that_is_too_long_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = painting(folder.path(), "scroll.png", (300, STYLE_PIXELS_MAX / 300 + 1));
        let error = resolve(path.to_str().unwrap(), None).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains("crop the picture"), "{error}");
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let error = resolve("no-such-style", None).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains("starry-night"), "{error}");
    }
}
