//! Whole pictures as a program: integer planes in, integer planes out, the network in between.

use super::network::{Network, Size};
use super::program::{Arguments, Buffer, Program, Shape};
use super::resample::{Filter, Resampling};
use super::source::{File, Kernel};
use crate::pixels::chroma::DownsampleFilter;
use crate::pixels::matrix::{CodeScale, planes_to_rgb, rgb_to_planes};
use crate::pixels::{ColorMatrix, Layout, PixelFormat};

/// What a program of pictures is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Job {
    /// Pictures at once.
    pub images: usize,
    /// Width of the pictures.
    pub width: u32,
    /// Height of the pictures.
    pub height: u32,
    /// Size at which the network sees them, (width, height).
    pub scored: (usize, usize),
    /// Format of the pictures.
    pub input: PixelFormat,
    /// Format of the results.
    pub output: PixelFormat,
}

impl Job {
    /// Returns the samples of a picture and of a result.
    pub fn samples(&self) -> (usize, usize) {
        let of = |format: PixelFormat| format.picture_bytes(self.width, self.height) / format.sample_bytes();
        (of(self.input), of(self.output))
    }
}

/// A program with the buffers that the outside fills and reads.
#[derive(Clone, Debug)]
pub struct Framed {
    /// Kernels, memory, launches.
    pub program: Program,
    /// Planes of all pictures, one after the other, tight.
    pub input: Buffer,
    /// Planes of all results.
    pub output: Buffer,
}

impl Framed {
    /// Plans a job.
    pub fn plan(network: &Network, job: &Job) -> Self {
        let mut program = Program::default();
        let (in_samples, out_samples) = job.samples();
        let input = program.reserve(job.images * in_samples * job.input.sample_bytes());
        let output = program.reserve(job.images * out_samples * job.output.sample_bytes());
        let size = (job.width as usize, job.height as usize);
        let rgb = planes(&mut program, job.images, size);
        decode(&mut program, job, input, rgb);

        let (mut seen, whole) = (rgb, (size.0, size.0 * size.1));
        if job.scored != size {
            seen = resample(&mut program, job.images, (seen, whole), size, job.scored);
        }
        let scored = Size { images: job.images, height: job.scored.1, width: job.scored.0 };
        let raw_size = (job.scored.0.div_ceil(2).div_ceil(2) * 4, job.scored.1.div_ceil(2).div_ceil(2) * 4);
        let mut raw = planes(&mut program, job.images, raw_size);
        let given = network.forward(&mut program, scored, seen, raw);
        debug_assert_eq!((given.width, given.height), raw_size);
        let mut row = raw_size;
        if job.scored != size {
            raw = resample(&mut program, job.images, (raw, (raw_size.0, raw_size.0 * raw_size.1)), job.scored, size);
            row = size;
        }
        encode(&mut program, job, raw, row, output);
        Self { program, input, output }
    }

    /// Returns the bytes of a card that so many slots need, each with an input and an output of its own.
    pub fn bytes(&self, slots: usize) -> usize {
        let slot = self.program.work_of(self.input) + self.program.work_of(self.output);
        self.program.work_bytes() + slot * slots.saturating_sub(1)
    }
}

fn planes(program: &mut Program, images: usize, size: (usize, usize)) -> Buffer {
    program.reserve(images * 3 * size.0 * size.1 * size_of::<f32>())
}

fn sample(format: PixelFormat) -> (&'static str, String) {
    ("SAMPLE", if format.sample_bytes() == 1 { "unsigned char" } else { "unsigned short" }.to_owned())
}

fn decode(program: &mut Program, job: &Job, input: Buffer, rgb: Buffer) {
    let format = job.input;
    let (across, down) = format.layout.chroma_factors();
    let (site_across, site_down) = format.site.axes();
    let (luma, chroma) = (CodeScale::luma(format), CodeScale::chroma(format));
    let mut floats = planes_to_rgb(format.matrix).concat();
    floats.extend([luma.zero_code, 1.0 / luma.codes_per_value, chroma.zero_code, 1.0 / chroma.codes_per_value]);
    floats.extend([across as f32, site_across.offset(across), down as f32, site_down.offset(down)]);
    let (chroma_width, chroma_height) = format.plane_size(1, job.width, job.height);
    let (samples, _) = job.samples();
    program.launch(
        "decode",
        Kernel::new(File::Frame, "decode", &[sample(format)]),
        Shape::over(job.width as usize, job.height as usize, job.images),
        Arguments {
            pointers: &[input, rgb],
            ints: &[
                i64::from(job.width),
                i64::from(job.height),
                i64::from(chroma_width),
                i64::from(chroma_height),
                samples as i64,
                i64::from(format.layout.is_yuv()),
                format.layout.planes() as i64,
            ],
            floats: &floats,
        },
    );
}

/// Resamples the top left `from` of planes, given with the values of a row and of a plane, to planes of `to`.
fn resample(
    program: &mut Program,
    images: usize,
    (input, pitch): (Buffer, (usize, usize)),
    from: (usize, usize),
    to: (usize, usize),
) -> Buffer {
    let filter = Filter::choose(from, to);
    let narrow = planes(program, images, (to.0, from.1));
    axis(program, images, (input, pitch), narrow, (to.0, from.1), (Resampling::new(filter, from.0, to.0), false));
    let out = planes(program, images, to);
    let pitch = (to.0, to.0 * from.1);
    axis(program, images, (narrow, pitch), out, to, (Resampling::new(filter, from.1, to.1), true));
    out
}

fn axis(
    program: &mut Program,
    images: usize,
    (input, (row, plane)): (Buffer, (usize, usize)),
    output: Buffer,
    size: (usize, usize),
    (resampling, down): (Resampling, bool),
) {
    let first = program.hold(resampling.first.iter().flat_map(|at| at.to_le_bytes()).collect());
    let weights = program.hold(resampling.weights.iter().flat_map(|weight| weight.to_le_bytes()).collect());
    let step = if down { row } else { 1 };
    program.launch(
        "resample",
        Kernel::new(File::Frame, "resample", &[]),
        Shape::over(size.0, size.1, images * 3),
        Arguments {
            pointers: &[input, output, first, weights],
            ints: &[size.0, size.1, plane, row, step, usize::from(down), resampling.taps].map(|value| value as i64),
            floats: &[],
        },
    );
}

/// The planes of the results, one launch each.
fn encode(program: &mut Program, job: &Job, rgb: Buffer, rgb_size: (usize, usize), output: Buffer) {
    let format = job.output;
    let matrix = match (format.layout, format.matrix) {
        (Layout::Rgb, _) => rgb_to_planes(ColorMatrix::Rgb),
        (Layout::Gray, ColorMatrix::Rgb) => rgb_to_planes(ColorMatrix::Bt601),
        (_, matrix) => rgb_to_planes(matrix),
    };
    let (_, samples) = job.samples();
    let mut offset = 0;
    for (plane, weights) in matrix.iter().enumerate().take(format.layout.planes()) {
        let (width, height) = format.plane_size(plane, job.width, job.height);
        let is_chroma = plane > 0 && format.layout.is_yuv();
        let scale = if is_chroma { CodeScale::chroma(format) } else { CodeScale::luma(format) };
        let (across, down) = if is_chroma { format.layout.chroma_factors() } else { (1, 1) };
        let (site_across, site_down) = format.site.axes();
        let (columns, rows) = (DownsampleFilter::new(across, site_across), DownsampleFilter::new(down, site_down));
        let ((first_column, columns), (first_row, rows)) = (columns.window(), rows.window());
        let mut floats = weights.to_vec();
        floats.extend([scale.zero_code, scale.codes_per_value, scale.code_max]);
        for filter in [columns, rows] {
            floats.extend(filter.iter().copied().chain(std::iter::repeat(0.0)).take(7));
        }
        program.launch(
            format!("encode plane {plane}"),
            Kernel::new(File::Frame, "encode", &[sample(format)]),
            Shape::over(width as usize, height as usize, job.images),
            Arguments {
                pointers: &[rgb, output],
                ints: &[
                    rgb_size.0 as i64,
                    rgb_size.1 as i64,
                    i64::from(job.width),
                    i64::from(job.height),
                    i64::from(width),
                    i64::from(height),
                    samples as i64,
                    offset,
                    i64::from(across),
                    first_column as i64,
                    columns.len() as i64,
                    i64::from(down),
                    first_row as i64,
                    rows.len() as i64,
                ],
                floats: &floats,
            },
        );
        offset += i64::from(width) * i64::from(height);
    }
}
