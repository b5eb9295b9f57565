//! Quarter turns and mirroring of pictures, chroma kept at its place.

use super::format::{AxisSite, ChromaSite, Layout};
use super::picture::{Picture, Plane, Samples};
use crate::ModelError;

impl Picture {
    /// Turns the picture clockwise by `quarter_turns`, then mirrors it left to right if `mirrored`.
    ///
    /// Chroma stays where it was in the scene: 4:2:2 and 4:4:0 change into each other, 4:1:1 turned on its side
    /// becomes 4:4:4, and the site follows. Samples are moved, not computed, except where the new place of the
    /// chroma cannot be named by a site; then they are interpolated along that axis.
    ///
    /// # Errors
    /// `Picture` where the picture contradicts its format.
    pub fn rotated(&self, quarter_turns: u8, mirrored: bool) -> Result<Self, ModelError> {
        self.validate()?;
        let turns = quarter_turns % 4;
        if turns == 0 && !mirrored {
            return Ok(self.clone());
        }
        let turned_on_side = turns % 2 == 1;
        if turned_on_side && self.format.layout == Layout::Yuv411 {
            return self.with_full_chroma().rotated(quarter_turns, mirrored);
        }
        let view = View::new(self, turns, mirrored);
        let mut format = self.format;
        format.layout = match (turned_on_side, format.layout) {
            (true, Layout::Yuv422) => Layout::Yuv440,
            (true, Layout::Yuv440) => Layout::Yuv422,
            (_, layout) => layout,
        };
        format.site = view.site;
        let (width, height) = if turned_on_side { (self.height, self.width) } else { (self.width, self.height) };
        let mut out = Self::zeroed(format, width, height)?;
        for (index, (from, to)) in self.planes.iter().zip(&mut out.planes).enumerate() {
            let (columns, rows) = view.maps(index, to);
            move_samples(from, to, turned_on_side, &columns, &rows);
        }
        Ok(out)
    }

    /// Repeats chroma to full size; only for layouts that have no name when turned.
    fn with_full_chroma(&self) -> Self {
        let (across, down) = self.format.layout.chroma_factors();
        let mut out = self.clone();
        out.format.layout = Layout::Yuv444;
        let (site_across, site_down) = self.format.site.axes();
        for plane in &mut out.planes[1..] {
            let from = plane.clone();
            let widen = |len: u32, factor: u32, site: AxisSite| -> Vec<f32> {
                (0..len).map(|at| (at as f32 - site.offset(factor)) / factor as f32).collect()
            };
            let columns = widen(self.width, across, site_across);
            let rows = widen(self.height, down, site_down);
            *plane = Plane {
                width: self.width,
                height: self.height,
                samples: Samples::zeroed(self.format.bits, columns.len() * rows.len()),
            };
            move_samples(&from, plane, false, &columns, &rows);
        }
        out
    }
}

/// One axis of the new picture: which old axis it runs along, in which direction, and where its chroma lies.
#[derive(Clone, Copy)]
struct Axis {
    /// Luma samples along it.
    len: u32,
    reversed: bool,
    /// Luma samples to one chroma sample.
    factor: u32,
    /// Chroma place along the old axis.
    old: AxisSite,
    /// Chroma place along the new axis.
    new: AxisSite,
}

impl Axis {
    /// Chooses the new place: the true one where the grid ends on a whole group.
    fn new(len: u32, reversed: bool, factor: u32, old: AxisSite) -> Self {
        let whole = factor == 1 || len.is_multiple_of(factor);
        let new = if reversed && whole { old.mirrored() } else { old };
        Self { len, reversed, factor, old, new }
    }

    /// Returns for each new chroma sample its position among the old ones.
    fn chroma_map(&self) -> Vec<f32> {
        let factor = self.factor as f32;
        (0..self.len.div_ceil(self.factor))
            .map(|at| {
                let luma = at as f32 * factor + self.new.offset(self.factor);
                let luma = if self.reversed { self.len as f32 - 1.0 - luma } else { luma };
                (luma - self.old.offset(self.factor)) / factor
            })
            .collect()
    }

    fn luma_map(&self) -> Vec<f32> {
        let last = self.len - 1;
        (0..self.len).map(|at| if self.reversed { last - at } else { at } as f32).collect()
    }
}

/// How the new picture looks into the old one.
struct View {
    columns: Axis,
    rows: Axis,
    site: ChromaSite,
}

impl View {
    fn new(picture: &Picture, turns: u8, mirrored: bool) -> Self {
        let (across, down) = picture.format.layout.chroma_factors();
        let (site_across, site_down) = picture.format.site.axes();
        // A clockwise turn reads old columns from the bottom up: new x runs along old y, reversed.
        let (columns_reversed, rows_reversed) = match turns {
            0 => (false, false),
            1 => (true, false),
            2 => (true, true),
            _ => (false, true),
        };
        let columns_reversed = columns_reversed != mirrored;
        let along_x = |reversed| Axis::new(picture.width, reversed, across, site_across);
        let along_y = |reversed| Axis::new(picture.height, reversed, down, site_down);
        let (mut columns, rows) = if turns % 2 == 1 {
            (along_y(columns_reversed), along_x(rows_reversed))
        } else {
            (along_x(columns_reversed), along_y(rows_reversed))
        };
        // No site lies on the right column: chroma is moved half a group to the left one.
        if columns.new == AxisSite::Last {
            columns.new = AxisSite::First;
        }
        let site = ChromaSite::from_axes(columns.new, rows.new).expect("columns are never sited last");
        Self { columns, rows, site }
    }

    fn maps(&self, plane: usize, to: &Plane) -> (Vec<f32>, Vec<f32>) {
        let maps = if plane == 0 {
            (self.columns.luma_map(), self.rows.luma_map())
        } else {
            (self.columns.chroma_map(), self.rows.chroma_map())
        };
        debug_assert_eq!((maps.0.len(), maps.1.len()), (to.width as usize, to.height as usize));
        maps
    }
}

/// Up to four samples along one axis with weights that sum to one.
#[derive(Clone, Copy)]
struct Taps {
    index: [usize; 4],
    weight: [f32; 4],
}

impl Taps {
    /// A whole position copies; halfway between two samples uses the four nearest, which keeps detail; else linear.
    fn at(position: f32, len: usize) -> Self {
        let floor = position.floor();
        let fraction = position - floor;
        let weight =
            if fraction == 0.5 { [-0.0625, 0.5625, 0.5625, -0.0625] } else { [0.0, 1.0 - fraction, fraction, 0.0] };
        let base = floor as isize - 1;
        let index = [0, 1, 2, 3].map(|k| (base + k).clamp(0, len as isize - 1) as usize);
        Self { index, weight }
    }

    fn is_copy(&self) -> bool {
        self.weight[1] == 1.0
    }
}

fn move_samples(from: &Plane, to: &mut Plane, turned: bool, columns: &[f32], rows: &[f32]) {
    let (columns_len, rows_len) = if turned { (from.height, from.width) } else { (from.width, from.height) };
    let columns: Vec<Taps> = columns.iter().map(|&at| Taps::at(at, columns_len as usize)).collect();
    let rows: Vec<Taps> = rows.iter().map(|&at| Taps::at(at, rows_len as usize)).collect();
    let (step_x, step_y) = if turned { (from.width as usize, 1) } else { (1, from.width as usize) };
    let grid = Grid { columns: &columns, rows: &rows, step_x, step_y };
    match (&from.samples, &mut to.samples) {
        (Samples::U8(from), Samples::U8(to)) => grid.fill(from, to, |value| value as u8, 255.0),
        (Samples::U16(from), Samples::U16(to)) => grid.fill(from, to, |value| value as u16, 65_535.0),
        _ => unreachable!("both planes have the format's storage"),
    }
}

struct Grid<'a> {
    columns: &'a [Taps],
    rows: &'a [Taps],
    /// Distance of old samples for a step along the new columns and rows.
    step_x: usize,
    step_y: usize,
}

impl Grid<'_> {
    fn fill<S: Copy + Into<f32>>(&self, from: &[S], to: &mut [S], narrow: impl Fn(f32) -> S, max: f32) {
        let copies = self.columns.iter().chain(self.rows).all(Taps::is_copy);
        let width = self.columns.len();
        for (row, out) in self.rows.iter().zip(to.chunks_exact_mut(width)) {
            if copies {
                let line = &from[row.index[1] * self.step_y..];
                for (column, out) in self.columns.iter().zip(out) {
                    *out = line[column.index[1] * self.step_x];
                }
                continue;
            }
            for (column, out) in self.columns.iter().zip(out) {
                let value = self.interpolate(from, column, row);
                *out = narrow((value + 0.5).clamp(0.0, max));
            }
        }
    }

    fn interpolate<S: Copy + Into<f32>>(&self, from: &[S], column: &Taps, row: &Taps) -> f32 {
        let mut sum = 0.0;
        for (y, wy) in row.index.iter().zip(row.weight) {
            for (x, wx) in column.index.iter().zip(column.weight) {
                let sample: f32 = from[y * self.step_y + x * self.step_x].into();
                sum += sample * (wx * wy);
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pixels::{ColorMatrix, PixelFormat, RgbPlanes, from_rgb, to_rgb};
    use proptest::prelude::*;

    fn turned(rgb: &RgbPlanes, turns: u8, mirrored: bool) -> RgbPlanes {
        let mut current = rgb.clone();
        for _ in 0..turns {
            let mut next = RgbPlanes::new(current.height, current.width);
            for (from, to) in current.planes.iter().zip(&mut next.planes) {
                for y in 0..current.height {
                    for x in 0..current.width {
                        to[x * current.height + (current.height - 1 - y)] = from[y * current.width + x];
                    }
                }
            }
            current = next;
        }
        if mirrored {
            for plane in &mut current.planes {
                plane.chunks_exact_mut(current.width).for_each(<[f32]>::reverse);
            }
        }
        current
    }

    fn gradient(width: usize, height: usize) -> RgbPlanes {
        let mut rgb = RgbPlanes::new(width, height);
        for y in 0..height {
            for x in 0..width {
                let at = y * width + x;
                rgb.planes[0][at] = 60.0 + 1.5 * x as f32 + 0.5 * y as f32;
                rgb.planes[1][at] = 110.0 - 0.7 * y as f32;
                rgb.planes[2][at] = 90.0 + 1.2 * y as f32 - 0.3 * x as f32;
            }
        }
        rgb
    }

    #[test]
    fn full_resolution_turns_move_every_sample() {
        let picture = from_rgb(&gradient(5, 3), PixelFormat::RGB8, 5, 3).unwrap();
        let mut rgb = RgbPlanes::default();
        to_rgb(&picture, &mut rgb).unwrap();
        for turns in 0..4 {
            for mirrored in [false, true] {
                let mut seen = RgbPlanes::default();
                to_rgb(&picture.rotated(turns, mirrored).unwrap(), &mut seen).unwrap();
                assert_eq!(seen, turned(&rgb, turns, mirrored), "{turns} turns, mirrored {mirrored}");
            }
        }
    }

    #[test]
    fn subsampling_turns_with_the_picture() {
        let format = PixelFormat { layout: Layout::Yuv422, ..PixelFormat::YUV420P8 };
        let picture = from_rgb(&gradient(8, 6), format, 8, 6).unwrap();
        let once = picture.rotated(1, false).unwrap();
        assert_eq!((once.format.layout, once.width, once.height), (Layout::Yuv440, 6, 8));
        assert_eq!(picture.rotated(4, false).unwrap(), picture);
        assert_eq!(once.rotated(3, false).unwrap().planes, picture.planes, "only samples moved");
        let clockwise = from_rgb(&gradient(8, 6), PixelFormat::YUV420P8, 8, 6).unwrap().rotated(1, false).unwrap();
        assert_eq!(clockwise.format.site, ChromaSite::Top, "the left column is now the first row");
    }

    proptest! {
        /// Turning the picture and turning its RGB are the same, up to rounding and chroma interpolation.
        #[test]
        fn turning_commutes_with_conversion(
            layout in prop::sample::select(vec![Layout::Yuv420, Layout::Yuv422, Layout::Yuv440, Layout::Yuv411, Layout::Yuv410, Layout::Yuv444]),
            site in prop::sample::select(vec![ChromaSite::Left, ChromaSite::Center, ChromaSite::TopLeft, ChromaSite::Bottom]),
            deep in any::<bool>(),
            width in 4u32..21,
            height in 4u32..21,
            turns in 0u8..4,
            mirrored in any::<bool>(),
        ) {
            let format = PixelFormat { layout, site, bits: if deep { 12 } else { 8 }, matrix: ColorMatrix::Bt601, ..PixelFormat::YUV420P8 };
            let picture = from_rgb(&gradient(width as usize, height as usize), format, width, height).unwrap();
            let mut before = RgbPlanes::default();
            to_rgb(&picture, &mut before).unwrap();
            let rotated = picture.rotated(turns, mirrored).unwrap();
            rotated.validate().unwrap();
            let mut after = RgbPlanes::default();
            to_rgb(&rotated, &mut after).unwrap();
            let expected = turned(&before, turns, mirrored);
            prop_assert_eq!((after.width, after.height), (expected.width, expected.height));
            let factors = layout.chroma_factors();
            let border = 2 * factors.0.max(factors.1) as usize;
            for plane in 0..3 {
                for y in 0..after.height {
                    for x in 0..after.width {
                        let at = y * after.width + x;
                        let inside = x.min(after.width - 1 - x).min(y).min(after.height - 1 - y) >= border;
                        let tolerance = if inside { 2.0 } else { 8.0 };
                        let (value, expected) = (after.planes[plane][at], expected.planes[plane][at]);
                        prop_assert!((value - expected).abs() <= tolerance, "plane {plane} ({x},{y}): {value} for {expected}");
                    }
                }
            }
        }
    }
}
