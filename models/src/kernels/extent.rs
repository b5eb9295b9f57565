//! How activations lie in memory.

/// Pixels of `height` x `width` with the channels of a pixel side by side.
///
/// Channel counts are padded to whole registers; rows are one cache line longer than their pixels, which keeps rows
/// of sizes that are powers of two from meeting in the same cache sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Rows.
    pub height: usize,
    /// Pixels in a row.
    pub width: usize,
    /// Channels with meaning.
    pub channels: usize,
    /// Channels stored: a whole number of registers.
    pub pixel_stride: usize,
    /// Values from one row to the next.
    pub row_stride: usize,
}

impl Extent {
    /// Lays out an activation for registers of `lanes`.
    pub fn new(height: usize, width: usize, channels: usize, lanes: usize) -> Self {
        let pixel_stride = channels.next_multiple_of(lanes);
        let row_stride = (width * pixel_stride).next_multiple_of(16) + 16;
        Self { height, width, channels, pixel_stride, row_stride }
    }

    /// Returns the values that all rows take.
    pub fn len(&self) -> usize {
        self.height * self.row_stride
    }

    /// Tells whether there is no pixel.
    pub fn is_empty(&self) -> bool {
        self.height == 0 || self.width == 0
    }

    /// Returns the place of a value.
    pub fn at(&self, y: usize, x: usize, channel: usize) -> usize {
        y * self.row_stride + x * self.pixel_stride + channel
    }
}

/// An activation to read.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Layout.
    pub extent: Extent,
    /// At least `extent.len()` values.
    pub values: &'a [f32],
}

impl<'a> View<'a> {
    /// Joins layout and values.
    ///
    /// # Panics
    /// Where there are too few values.
    pub fn new(extent: Extent, values: &'a [f32]) -> Self {
        assert!(values.len() >= extent.len(), "{} values for {extent:?}", values.len());
        Self { extent, values }
    }
}

/// An activation to write.
#[derive(Debug)]
pub struct ViewMut<'a> {
    /// Layout.
    pub extent: Extent,
    /// At least `extent.len()` values.
    pub values: &'a mut [f32],
}

impl<'a> ViewMut<'a> {
    /// Joins layout and values.
    ///
    /// # Panics
    /// Where there are too few values.
    pub fn new(extent: Extent, values: &'a mut [f32]) -> Self {
        assert!(values.len() >= extent.len(), "{} values for {extent:?}", values.len());
        Self { extent, values }
    }
}

/// Mirrors an index into `0..len` without repeating the border, as often as needed.
pub(crate) fn reflect(index: isize, len: usize) -> usize {
    if (0..len as isize).contains(&index) {
        return index as usize;
    }
    if len == 1 {
        return 0;
    }
    let period = 2 * (len as isize - 1);
    let within = index.rem_euclid(period);
    within.min(period - within) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reflection_leaves_the_border_single() {
        let seen: Vec<_> = (-5..9).map(|index| reflect(index, 4)).collect();
        assert_eq!(seen, [1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1, 2]);
        assert!((-9..9).all(|index| reflect(index, 1) == 0));
        assert_eq!((-3..4).map(|index| reflect(index, 2)).collect::<Vec<_>>(), [1, 0, 1, 0, 1, 0, 1]);
    }
}
