//! Memory for activations and packed weights, aligned to cache lines.

#![allow(unsafe_code)]

/// A cache line of values.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

const LINE: usize = 16;

/// f32 values that begin on a cache line and are kept between uses.
#[derive(Clone, Debug, Default)]
pub struct Buffer {
    lines: Vec<Line>,
}

impl Buffer {
    /// Makes a buffer that holds a copy of `values`.
    pub fn from_values(values: &[f32]) -> Self {
        let mut buffer = Self::default();
        buffer.reserve(values.len());
        buffer.as_mut_slice()[..values.len()].copy_from_slice(values);
        buffer
    }

    /// Makes room for `len` values; what it holds afterwards is arbitrary. Never shrinks.
    pub fn reserve(&mut self, len: usize) {
        let lines = len.div_ceil(LINE);
        if self.lines.len() < lines {
            // Freed first, since the old values need no copy.
            self.lines = Vec::new();
            self.lines = vec![Line([0.0; LINE]); lines];
        }
    }

    /// Returns the bytes held.
    pub fn byte_len(&self) -> usize {
        self.lines.len() * size_of::<Line>()
    }

    /// Returns all values.
    pub fn as_slice(&self) -> &[f32] {
        // SAFETY: a line is 16 f32 without padding, so the lines are `16 * len` initialised values.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.lines.len() * LINE) }
    }

    /// Returns all values for writing.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: as above, and borrowed mutably as the lines are.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.lines.len() * LINE) }
    }

    /// Returns the address of the first value.
    pub(crate) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.as_mut_slice().as_mut_ptr()
    }
}
