//! A picture: planes of integer samples with the format that gives them meaning.

use super::format::{DIMENSION_MAX, PixelFormat};
use crate::ModelError;

/// Samples of one plane: bytes for 8-bit formats, words for deeper ones (value in the low bits).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Samples {
    /// 8-bit samples.
    U8(Vec<u8>),
    /// Samples of 9 to 16 bits.
    U16(Vec<u16>),
}

impl Samples {
    /// Makes `len` samples of value zero in the storage that `bits` asks for.
    pub fn zeroed(bits: u8, len: usize) -> Self {
        if bits == 8 { Self::U8(vec![0; len]) } else { Self::U16(vec![0; len]) }
    }

    /// Returns the number of samples.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(samples) => samples.len(),
            Self::U16(samples) => samples.len(),
        }
    }

    /// Tells whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the bytes held.
    pub fn byte_len(&self) -> usize {
        match self {
            Self::U8(samples) => samples.len(),
            Self::U16(samples) => samples.len() * 2,
        }
    }
}

/// One plane with tight rows: sample (x, y) is at `y * width + x`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plane {
    /// Samples in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// The samples, `width * height` of them.
    pub samples: Samples,
}

/// A picture of `width` x `height` pixels in planes as the format's layout says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Meaning of the samples.
    pub format: PixelFormat,
    /// Width in pixels (of the first plane).
    pub width: u32,
    /// Height in pixels (of the first plane).
    pub height: u32,
    /// One plane or three; chroma sizes round up where the size is odd.
    pub planes: Vec<Plane>,
}

impl Picture {
    /// Makes a picture whose samples are all zero.
    ///
    /// # Errors
    /// `Picture` where the format is inconsistent or a side is zero or above [`DIMENSION_MAX`].
    pub fn zeroed(format: PixelFormat, width: u32, height: u32) -> Result<Self, ModelError> {
        format.validate()?;
        validate_size(width, height)?;
        let planes = (0..format.layout.planes())
            .map(|plane| {
                let (w, h) = format.plane_size(plane, width, height);
                Plane { width: w, height: h, samples: Samples::zeroed(format.bits, w as usize * h as usize) }
            })
            .collect();
        Ok(Self { format, width, height, planes })
    }

    /// Returns the bytes of all planes.
    pub fn byte_len(&self) -> usize {
        self.planes.iter().map(|plane| plane.samples.byte_len()).sum()
    }

    /// Checks that size, planes, storage and format agree; sample values are not looked at.
    ///
    /// # Errors
    /// `Picture` naming the first disagreement.
    pub fn validate(&self) -> Result<(), ModelError> {
        self.format.validate()?;
        validate_size(self.width, self.height)?;
        if self.planes.len() != self.format.layout.planes() {
            return Err(ModelError::Picture(format!(
                "picture has {} planes, layout {:?} needs {}",
                self.planes.len(),
                self.format.layout,
                self.format.layout.planes()
            )));
        }
        for (index, plane) in self.planes.iter().enumerate() {
            self.validate_plane(index, plane)?;
        }
        Ok(())
    }

    fn validate_plane(&self, index: usize, plane: &Plane) -> Result<(), ModelError> {
        let (width, height) = self.format.plane_size(index, self.width, self.height);
        if (plane.width, plane.height) != (width, height) {
            return Err(ModelError::Picture(format!(
                "plane {index} is {}x{}, a {}x{} picture in {:?} needs {width}x{height}",
                plane.width, plane.height, self.width, self.height, self.format.layout
            )));
        }
        let len = width as usize * height as usize;
        if plane.samples.len() != len {
            return Err(ModelError::Picture(format!(
                "plane {index} holds {} samples, {width}x{height} needs {len}",
                plane.samples.len()
            )));
        }
        let deep = matches!(plane.samples, Samples::U16(_));
        if deep != (self.format.bits > 8) {
            return Err(ModelError::Picture(format!(
                "plane {index} is stored in {} bits, format has {} bits a sample",
                if deep { 16 } else { 8 },
                self.format.bits
            )));
        }
        Ok(())
    }
}

fn validate_size(width: u32, height: u32) -> Result<(), ModelError> {
    let allowed = 1..=DIMENSION_MAX;
    if allowed.contains(&width) && allowed.contains(&height) {
        return Ok(());
    }
    Err(ModelError::Picture(format!("picture is {width}x{height}, expected sides of 1 to {DIMENSION_MAX}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pixels::{ChromaSite, ColorMatrix, ColorRange, Layout};

    #[test]
    fn chroma_sizes_round_up() {
        let picture = Picture::zeroed(PixelFormat::YUV420P8, 5, 3).unwrap();
        let sizes: Vec<_> = picture.planes.iter().map(|p| (p.width, p.height)).collect();
        assert_eq!(sizes, [(5, 3), (3, 2), (3, 2)]);
        assert_eq!(picture.byte_len(), 15 + 6 + 6);
        assert_eq!(picture.byte_len(), PixelFormat::YUV420P8.picture_bytes(5, 3));
    }

    fn check_refused(change: impl FnOnce(&mut Picture), expected: &str) {
        let mut picture = Picture::zeroed(PixelFormat::YUV420P8, 6, 4).unwrap();
        change(&mut picture);
        let message = picture.validate().unwrap_err().to_string();
        assert!(message.contains(expected), "{message:?} should contain {expected:?}");
    }

    #[test]
    fn contradictions_are_named() {
        check_refused(|p| p.format.bits = 7, "7 bits");
        check_refused(|p| p.format.bits = 10, "stored in 8 bits");
        check_refused(|p| p.format.matrix = ColorMatrix::Rgb, "matrix Rgb");
        check_refused(|p| p.format.layout = Layout::Gray, "3 planes");
        check_refused(|p| p.format.layout = Layout::Yuv422, "plane 1 is 3x2");
        check_refused(|p| p.planes[2].samples = Samples::U8(vec![0; 5]), "plane 2 holds 5 samples");
        check_refused(|p| p.width = 0, "0x4");
        check_refused(|p| p.height = DIMENSION_MAX + 1, "32769");
    }

    #[test]
    fn deep_formats_are_stored_in_words() {
        let format = PixelFormat {
            layout: Layout::Yuv422,
            bits: 10,
            range: ColorRange::Limited,
            matrix: ColorMatrix::Bt2020Ncl,
            site: ChromaSite::TopLeft,
        };
        let picture = Picture::zeroed(format, 7, 2).unwrap();
        picture.validate().unwrap();
        assert_eq!(picture.byte_len(), 2 * (14 + 8 + 8));
        assert_eq!(format.code_max(), 1023);
    }
}
