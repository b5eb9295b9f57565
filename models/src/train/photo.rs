//! Content photos and paintings: reading, and the random views of them that training sees.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use image::{ImageReader, Limits};

use super::disturbance::{Disturbance, SHIFT_MAX};
use super::error::TrainError;
use super::random::Random;
use crate::ModelError;
use crate::pixels::{DIMENSION_MAX, Picture, PixelFormat, Samples};

/// Short side that a content photo is scaled down to on loading, where views are not larger; bounds the memory of a photo set.
const SHORT_SIDE_MAX: u32 = 360;
/// Short side that a preview is scaled down to: its activations are all held at once.
pub(super) const PREVIEW_SIDE_MAX: u32 = 360;
/// Largest picture that is taken on, pixels, once scaled: a small file can hold a long strip of one colour.
const PIXELS_MAX: u64 = 1 << 25;
/// The most memory that decoding a picture may take, in bytes: 100 megapixels and some room.
const DECODED_BYTES_MAX: u64 = 512 << 20;

/// A decoded picture, RGB 8 bit, rows top down.
#[derive(Debug, Clone)]
pub struct Photo {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

impl Photo {
    /// Reads a PNG or JPEG file and scales it so that its short side is `short_side` (where given).
    ///
    /// # Errors
    /// When the file cannot be read or decoded, or the picture would be larger than 32 megapixels.
    pub fn read(path: &Path, short_side: Option<u32>) -> Result<Self, TrainError> {
        let bytes = std::fs::read(path).map_err(|source| TrainError::io(path, source))?;
        Self::decode(path, &bytes, |short| short_side.unwrap_or(short))
    }

    /// Reads a PNG or JPEG file and scales it down where its short side is above `short_side_max`.
    ///
    /// # Errors
    /// As [`Photo::read`].
    pub fn read_at_most(path: &Path, short_side_max: u32) -> Result<Self, TrainError> {
        let bytes = std::fs::read(path).map_err(|source| TrainError::io(path, source))?;
        Self::from_bytes(path, &bytes, short_side_max)
    }

    /// Decodes a PNG or JPEG file that was read from `name` and scales it so that its short side is `short_side_max` at most.
    ///
    /// # Errors
    /// When the bytes cannot be decoded, or only with sides or memory above what is sensible.
    pub fn from_bytes(name: &Path, bytes: &[u8], short_side_max: u32) -> Result<Self, TrainError> {
        Self::decode(name, bytes, |short| short.min(short_side_max))
    }

    fn decode(path: &Path, bytes: &[u8], short_side: impl Fn(u32) -> u32) -> Result<Self, TrainError> {
        let picture =
            decoded(bytes).map_err(|error| TrainError::Picture { path: path.to_owned(), reason: error.to_string() })?;
        let (width, height) = picture.dimensions();
        let short = width.min(height).max(1);
        let wanted = short_side(short).max(1);
        let scaled = |side: u32| (f64::from(side) * f64::from(wanted) / f64::from(short)).round().max(1.0) as u32;
        let pixels = u64::from(scaled(width)) * u64::from(scaled(height));
        if pixels > PIXELS_MAX {
            let reason = format!("{width}x{height} would be {pixels} pixels, above the limit of {PIXELS_MAX}");
            return Err(TrainError::Picture { path: path.to_owned(), reason });
        }
        let picture = if wanted == short {
            picture
        } else {
            let filter = image::imageops::FilterType::CatmullRom;
            image::imageops::resize(&picture, scaled(width), scaled(height), filter)
        };
        let (width, height) = picture.dimensions();
        Ok(Self { width: width as usize, height: height as usize, rgb: picture.into_raw() })
    }

    /// A picture from its samples.
    ///
    /// # Panics
    /// When there are not `3 * width * height` samples.
    pub fn from_rgb(width: usize, height: usize, rgb: Vec<u8>) -> Self {
        assert_eq!(rgb.len(), 3 * width * height, "three samples a pixel");
        Self { width, height, rgb }
    }

    /// The samples: red, green and blue of each pixel, rows top down.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// BLAKE3 of size and samples, as hex.
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(self.width as u64).to_le_bytes());
        hasher.update(&self.rgb);
        hasher.finalize().to_hex().to_string()
    }

    /// The samples as a picture.
    ///
    /// # Errors
    /// When a side is above what pictures may have.
    pub fn to_picture(&self) -> Result<Picture, ModelError> {
        let mut picture = Picture::zeroed(PixelFormat::RGB8, self.width as u32, self.height as u32)?;
        for (channel, plane) in picture.planes.iter_mut().enumerate() {
            plane.samples = Samples::U8(self.rgb.iter().skip(channel).step_by(3).copied().collect());
        }
        Ok(picture)
    }

    /// Writes the picture as a PNG or JPEG file, as the extension says.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), TrainError> {
        image::save_buffer(path, &self.rgb, self.width as u32, self.height as u32, image::ExtendedColorType::Rgb8)
            .map_err(|error| match error {
                image::ImageError::IoError(source) => TrainError::io(path, source),
                error => TrainError::Picture { path: path.to_owned(), reason: error.to_string() },
            })
    }

    /// Width and height in pixels.
    pub fn size(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    /// The picture as (1, 3, H, W), RGB 0..1.
    ///
    /// # Errors
    /// Never in practice; building tensors is fallible in candle.
    pub fn to_tensor(&self) -> Result<Tensor, TrainError> {
        let pixels = self.width * self.height;
        let mut planes = vec![0.0; 3 * pixels];
        for (index, sample) in self.rgb.iter().enumerate() {
            planes[index % 3 * pixels + index / 3] = f32::from(*sample) / 255.0;
        }
        Ok(Tensor::from_vec(planes, (1, 3, self.height, self.width), &Device::Cpu)?)
    }

    /// Writes (1, 3, H, W), RGB 0..1, as a PNG or JPEG file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(picture: &Tensor, path: &Path) -> Result<(), TrainError> {
        let (_, _, height, width) = picture.dims4()?;
        let planes = picture.flatten_all()?.to_vec1::<f32>()?;
        let pixels = width * height;
        let sample = |index: usize| (planes[index % 3 * pixels + index / 3].clamp(0.0, 1.0) * 255.0).round() as u8;
        let rgb: Vec<u8> = (0..3 * pixels).map(sample).collect();
        Self::from_rgb(width, height, rgb).save(path)
    }

    /// Bilinear sample of the three colours at a position in pixels, edges repeated.
    fn sample(&self, x: f32, y: f32) -> [f32; 3] {
        let (x, y) = (x.clamp(0.0, (self.width - 1) as f32), y.clamp(0.0, (self.height - 1) as f32));
        let (left, top) = (x as usize, y as usize);
        let (right, bottom) = ((left + 1).min(self.width - 1), (top + 1).min(self.height - 1));
        let (across, down) = (x - left as f32, y - top as f32);
        let at = |x: usize, y: usize| &self.rgb[3 * (y * self.width + x)..][..3];
        let corners = [at(left, top), at(right, top), at(left, bottom), at(right, bottom)];
        std::array::from_fn(|channel| {
            let [a, b, c, d] = corners.map(|corner| f32::from(corner[channel]));
            let upper = a + (b - a) * across;
            upper + (c + (d - c) * across - upper) * down
        })
    }
}

/// The picture of a PNG or JPEG file; a small file may say that it is a huge one, so that sizes are checked first.
fn decoded(bytes: &[u8]) -> image::ImageResult<image::RgbImage> {
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(DIMENSION_MAX), Some(DIMENSION_MAX));
    limits.max_alloc = Some(DECODED_BYTES_MAX);
    reader.limits(limits);
    Ok(reader.decode()?.to_rgb8())
}

/// The content photos of a training, held decoded.
#[derive(Debug)]
pub struct PhotoSet {
    photos: Vec<Photo>,
    digest: String,
}

/// A random square view of a photo: where it lies, its scale, mirroring and light.
#[derive(Debug, Clone, Copy)]
pub struct View {
    photo: usize,
    left: f32,
    top: f32,
    scale: f32,
    mirrored: bool,
    gain: f32,
    lift: f32,
}

impl PhotoSet {
    /// Reads every PNG and JPEG file of a folder, in the order of their names, for views of `crop` pixels a side.
    ///
    /// # Errors
    /// When the folder holds none, or one cannot be read.
    pub fn read(folder: &Path, crop: usize) -> Result<Self, TrainError> {
        let short_side_max = SHORT_SIDE_MAX.max(crop as u32 + 2 * SHIFT_MAX);
        let entries = std::fs::read_dir(folder).map_err(|source| TrainError::io(folder, source))?;
        let mut paths: Vec<PathBuf> = Vec::new();
        for entry in entries {
            let path = entry.map_err(|source| TrainError::io(folder, source))?.path();
            let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
            if ["jpg", "jpeg", "png"].contains(&extension.to_ascii_lowercase().as_str()) {
                paths.push(path);
            }
        }
        paths.sort();
        let mut hasher = blake3::Hasher::new();
        let mut photos = Vec::new();
        for path in &paths {
            let bytes = std::fs::read(path).map_err(|source| TrainError::io(path, source))?;
            hasher.update(blake3::hash(&bytes).as_bytes());
            photos.push(Photo::decode(path, &bytes, |short| short.min(short_side_max))?);
        }
        if photos.is_empty() {
            return Err(TrainError::Config(format!("no .jpg or .png photo in {}", folder.display())));
        }
        Ok(Self { photos, digest: hasher.finalize().to_hex().to_string() })
    }

    /// A set of pictures already decoded.
    ///
    /// # Panics
    /// When there is none.
    pub fn from_photos(photos: Vec<Photo>) -> Self {
        assert!(!photos.is_empty(), "a photo set has a photo");
        let mut hasher = blake3::Hasher::new();
        for photo in &photos {
            hasher.update(&photo.rgb);
        }
        Self { photos, digest: hasher.finalize().to_hex().to_string() }
    }

    /// BLAKE3 over the files in the order of their names, as hex.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The photos, in the order of their names.
    pub fn photos(&self) -> &[Photo] {
        &self.photos
    }

    /// Number of photos.
    pub fn len(&self) -> usize {
        self.photos.len()
    }

    /// Whether there is no photo; never the case.
    pub fn is_empty(&self) -> bool {
        self.photos.is_empty()
    }

    /// Draws a view of `size` pixels a side that may still be moved by `margin` pixels.
    pub fn draw(&self, random: &mut Random, size: usize, margin: usize) -> View {
        let photo = random.below(self.photos.len());
        let (width, height) = self.photos[photo].size();
        let side = (size + 2 * margin) as f32;
        let scale_max = width.min(height) as f32 / side;
        let scale = random.between(scale_max.min(0.85), scale_max);
        let spare = |length: usize| (length as f32 - side * scale).max(0.0);
        let left = random.unit() * spare(width) + margin as f32 * scale;
        let top = random.unit() * spare(height) + margin as f32 * scale;
        let mirrored = random.unit() < 0.5;
        let gain = random.between(0.85, 1.15);
        View { photo, left, top, scale, mirrored, gain, lift: random.between(-0.05, 0.05) }
    }

    /// Renders a view, disturbed, as (1, 3, size, size), RGB 0..1.
    ///
    /// # Errors
    /// Never in practice; building tensors is fallible in candle.
    pub fn render(
        &self,
        view: &View,
        size: usize,
        disturbance: &Disturbance,
        random: &mut Random,
    ) -> Result<Tensor, TrainError> {
        let photo = &self.photos[view.photo];
        let (dy, dx) = disturbance.shift;
        let (gain, lift) = (view.gain * disturbance.gain, view.lift + disturbance.lift);
        let pixels = size * size;
        let mut planes = disturbance.grain(size, random);
        for y in 0..size {
            for x in 0..size {
                let column = x as i32 + dx;
                let column = if view.mirrored { size as i32 - 1 - column } else { column };
                let at_x = view.left + (column as f32 + 0.5) * view.scale - 0.5;
                let at_y = view.top + ((y as i32 + dy) as f32 + 0.5) * view.scale - 0.5;
                let colour = photo.sample(at_x, at_y);
                for (channel, value) in colour.iter().enumerate() {
                    let plane = &mut planes[channel * pixels + y * size + x];
                    *plane = (value / 255.0 * gain + lift + *plane).clamp(0.0, 1.0);
                }
            }
        }
        Ok(Tensor::from_vec(planes, (1, 3, size, size), &Device::Cpu)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png(width: u32, height: u32) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        image::RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 7]))
            .write_to(&mut file, image::ImageFormat::Png)
            .unwrap();
        file.into_inner()
    }

    #[test]
    fn bytes_are_decoded_and_scaled_down_only() {
        let size = |width, height| Photo::from_bytes(Path::new("a.png"), &png(width, height), 32).unwrap().size();
        assert_eq!(size(128, 64), (64, 32));
        assert_eq!(size(20, 30), (20, 30));
    }

    #[test]
    fn a_picture_of_absurd_size_is_refused_before_it_is_decoded() {
        for (width, height) in [(DIMENSION_MAX + 1, 1_u32), (30_000, 30_000)] {
            let mut bytes = png(1, 1);
            // Width, height and the checksum of the header.
            bytes[16..20].copy_from_slice(&width.to_be_bytes());
            bytes[20..24].copy_from_slice(&height.to_be_bytes());
            let crc = crc32(&bytes[12..29]);
            bytes[29..33].copy_from_slice(&crc.to_be_bytes());
            let error = Photo::from_bytes(Path::new("s3://b/a.png"), &bytes, 32).unwrap_err().to_string();
            assert!(error.contains("s3://b/a.png") && error.to_lowercase().contains("limit"), "{error}");
        }
    }

    /// The checksum of PNG (CRC-32 of ISO 3309).
    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |crc: u32, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc: u32, _| (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 })
        })
    }
}
