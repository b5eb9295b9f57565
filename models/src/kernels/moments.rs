//! Mean and variance of each channel, gathered while outputs are written, joined in a fixed order.

/// Epsilon of instance norm, as in the PyTorch examples.
pub const NORM_EPSILON: f64 = 1e-5;

/// Values at the head of a record: the number of pixels, then padding.
pub(crate) const RECORD_HEAD: usize = 16;

/// Moments that each task of a layer left behind: count, and for every channel a shift, the sum of differences to it
/// and the sum of their squares. The shift is one of the channel's own values, so that nearly flat pictures keep
/// their small variance.
#[derive(Clone, Debug, Default)]
pub struct Moments {
    /// One record a task.
    records: Vec<f32>,
    channels: usize,
    tasks: usize,
}

impl Moments {
    /// Prepares for a layer of `tasks` tasks and `channels` stored channels; keeps its memory.
    pub(crate) fn begin(&mut self, tasks: usize, channels: usize) -> *mut f32 {
        (self.channels, self.tasks) = (channels, tasks);
        let len = tasks * self.record_len();
        if self.records.len() < len {
            self.records.resize(len, 0.0);
        }
        self.records.as_mut_ptr()
    }

    /// Returns the values of one record.
    pub(crate) fn record_len(&self) -> usize {
        RECORD_HEAD + 3 * self.channels
    }

    /// Joins the records to mean and variance (divided by the count) of one channel.
    pub fn join(&self, channel: usize) -> (f64, f64) {
        let (mut count, mut mean, mut squares) = (0.0f64, 0.0f64, 0.0f64);
        for record in self.records.chunks_exact(self.record_len()).take(self.tasks) {
            let added = f64::from(record[0]);
            let at = RECORD_HEAD + channel;
            let shift = f64::from(record[at]);
            let sum = f64::from(record[at + self.channels]);
            let square = f64::from(record[at + 2 * self.channels]);
            let task_mean = shift + sum / added;
            let task_squares = (square - sum * sum / added).max(0.0);
            let total = count + added;
            let difference = task_mean - mean;
            mean += difference * (added / total);
            squares += task_squares + difference * difference * (count * added / total);
            count = total;
        }
        (mean, squares / count)
    }
}

/// A scale and a shift for every stored channel, applied where the next layer loads.
#[derive(Clone, Debug, Default)]
pub struct Affine {
    /// Factors.
    pub scale: Vec<f32>,
    /// Summands.
    pub shift: Vec<f32>,
}

impl Affine {
    /// Turns moments and the norm's weights into one scale and shift a channel; padding channels become zero.
    pub fn set_from(&mut self, moments: &Moments, norm_scale: &[f32], norm_shift: &[f32]) {
        self.scale.resize(moments.channels, 0.0);
        self.shift.resize(moments.channels, 0.0);
        self.scale.fill(0.0);
        self.shift.fill(0.0);
        for (channel, (&factor, &summand)) in norm_scale.iter().zip(norm_shift).enumerate() {
            let (mean, variance) = moments.join(channel);
            let scale = f64::from(factor) / (variance + NORM_EPSILON).sqrt();
            self.scale[channel] = scale as f32;
            self.shift[channel] = (f64::from(summand) - mean * scale) as f32;
        }
    }
}
