//! The 3x3 matrices between RGB and luma-chroma, and the scaling of codes.

use super::format::{ColorMatrix, ColorRange, PixelFormat};

/// A 3x3 matrix by rows.
pub(crate) type Matrix3 = [[f32; 3]; 3];

/// Luma weights of red and blue, after ITU-T H.273.
fn luma_weights(matrix: ColorMatrix) -> Option<(f64, f64)> {
    match matrix {
        ColorMatrix::Bt601 => Some((0.299, 0.114)),
        ColorMatrix::Bt709 => Some((0.2126, 0.0722)),
        ColorMatrix::Bt2020Ncl => Some((0.2627, 0.0593)),
        ColorMatrix::Smpte240m => Some((0.212, 0.087)),
        ColorMatrix::Fcc => Some((0.30, 0.11)),
        ColorMatrix::Rgb | ColorMatrix::YCgCo => None,
    }
}

/// RGB to planes, in f64: rows are luma and the two chroma planes (each of span 1 for an RGB span of 1).
fn forward(matrix: ColorMatrix) -> [[f64; 3]; 3] {
    match luma_weights(matrix) {
        Some((kr, kb)) => {
            let kg = 1.0 - kr - kb;
            let (u, v) = (0.5 / (1.0 - kb), 0.5 / (1.0 - kr));
            [[kr, kg, kb], [-kr * u, -kg * u, (1.0 - kb) * u], [(1.0 - kr) * v, -kg * v, -kb * v]]
        }
        None if matrix == ColorMatrix::YCgCo => [[0.25, 0.5, 0.25], [-0.25, 0.5, -0.25], [0.5, 0.0, -0.5]],
        None => [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
    }
}

fn inverse(m: [[f64; 3]; 3]) -> [[f64; 3]; 3] {
    let minor = |r0: usize, r1: usize, c0: usize, c1: usize| m[r0][c0] * m[r1][c1] - m[r0][c1] * m[r1][c0];
    let det = m[0][0] * minor(1, 2, 1, 2) - m[0][1] * minor(1, 2, 0, 2) + m[0][2] * minor(1, 2, 0, 1);
    let adjugate = [
        [minor(1, 2, 1, 2), -minor(0, 2, 1, 2), minor(0, 1, 1, 2)],
        [-minor(1, 2, 0, 2), minor(0, 2, 0, 2), -minor(0, 1, 0, 2)],
        [minor(1, 2, 0, 1), -minor(0, 2, 0, 1), minor(0, 1, 0, 1)],
    ];
    adjugate.map(|row| row.map(|value| value / det))
}

/// Returns the matrix from RGB to planes.
pub(crate) fn rgb_to_planes(matrix: ColorMatrix) -> Matrix3 {
    forward(matrix).map(|row| row.map(|value| value as f32))
}

/// Returns the matrix from planes to RGB.
pub(crate) fn planes_to_rgb(matrix: ColorMatrix) -> Matrix3 {
    inverse(forward(matrix)).map(|row| row.map(|value| value as f32))
}

/// How codes of one kind of plane map to values on the scale 0..255 (luma, RGB) or -127.5..127.5 (chroma).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct CodeScale {
    /// Code of value zero.
    pub(crate) zero_code: f32,
    /// Codes to a step of one value.
    pub(crate) codes_per_value: f32,
    /// Largest code.
    pub(crate) code_max: f32,
}

impl CodeScale {
    /// Returns the scale of luma and RGB planes.
    pub(crate) fn luma(format: PixelFormat) -> Self {
        let unit = (1u32 << (format.bits - 8)) as f32;
        let code_max = f32::from(format.code_max());
        match format.range {
            ColorRange::Limited => Self { zero_code: 16.0 * unit, codes_per_value: 219.0 * unit / 255.0, code_max },
            ColorRange::Full => Self { zero_code: 0.0, codes_per_value: code_max / 255.0, code_max },
        }
    }

    /// Returns the scale of chroma planes.
    pub(crate) fn chroma(format: PixelFormat) -> Self {
        let unit = (1u32 << (format.bits - 8)) as f32;
        let code_max = f32::from(format.code_max());
        let codes = match format.range {
            ColorRange::Limited => 224.0 * unit,
            ColorRange::Full => code_max,
        };
        Self { zero_code: 128.0 * unit, codes_per_value: codes / 255.0, code_max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YUV: [ColorMatrix; 6] = [
        ColorMatrix::Bt601,
        ColorMatrix::Bt709,
        ColorMatrix::Bt2020Ncl,
        ColorMatrix::Smpte240m,
        ColorMatrix::Fcc,
        ColorMatrix::YCgCo,
    ];

    #[test]
    fn grey_has_no_chroma_and_chroma_spans_one() {
        for matrix in YUV {
            let [luma, u, v] = forward(matrix);
            assert!((luma.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{matrix:?}");
            for chroma in [u, v] {
                assert!(chroma.iter().sum::<f64>().abs() < 1e-12, "{matrix:?}");
                let top: f64 = chroma.iter().map(|c| c.max(0.0)).sum();
                assert!((top - 0.5).abs() < 1e-12, "{matrix:?} {chroma:?}");
            }
        }
    }

    #[test]
    fn the_inverse_undoes_the_matrix() {
        for matrix in YUV {
            let (there, back) = (forward(matrix), inverse(forward(matrix)));
            for (row, factors) in back.iter().enumerate() {
                for column in 0..3 {
                    let sum: f64 =
                        std::iter::zip(factors, &there).map(|(factor, values)| factor * values[column]).sum();
                    let expected = if row == column { 1.0 } else { 0.0 };
                    assert!((sum - expected).abs() < 1e-12, "{matrix:?}");
                }
            }
        }
    }

    #[test]
    fn bt601_matches_the_published_inverse() {
        let back = planes_to_rgb(ColorMatrix::Bt601);
        let published = [[1.0, 0.0, 1.402], [1.0, -0.344_136, -0.714_136], [1.0, 1.772, 0.0]];
        for (row, expected) in back.iter().zip(published) {
            for (value, expected) in row.iter().zip(expected) {
                assert!((value - expected).abs() < 1e-5, "{back:?}");
            }
        }
    }
}
