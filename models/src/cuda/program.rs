//! A program for a card: kernels, buffers and launches as plain data.
//!
//! The first launch may read the input buffer and the last one writes the output buffer; in between every value is written before
//! it is read, whatever was in memory before.

use super::source::Kernel;

/// Pointers of a launch.
pub const POINTERS: usize = 6;
/// Integers of a launch.
pub const INTS: usize = 16;
/// Floats of a launch.
pub const FLOATS: usize = 24;

/// The most blocks of a grid in its second and third direction.
const GRID_MAX: u32 = 65_535;

/// Memory that a launch names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buffer {
    /// Packed once for a style and shared by all of its programs.
    Constant(usize),
    /// Memory of a program.
    Work(usize),
}

/// One kernel at work: what CUDA calls a launch.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// The layer or step, for people and benchmarks.
    pub label: String,
    /// Which of the program's kernels.
    pub kernel: usize,
    /// Blocks across, down and deep.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub threads: u32,
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// Pointers, as the kernel counts them.
    pub pointers: [Option<Buffer>; POINTERS],
    /// Integers, as the kernel counts them.
    pub ints: [i32; INTS],
    /// Floats, as the kernel counts them.
    pub floats: [f32; FLOATS],
}

/// Memory of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Bytes needed.
    pub bytes: usize,
    /// What is in it from the start, where that matters.
    pub contents: Option<Vec<u8>>,
}

/// Kernels, memory and launches in the order of a stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Program {
    /// Kernels, each once.
    pub kernels: Vec<Kernel>,
    /// Memory, by number.
    pub work: Vec<Work>,
    /// Launches; each may read what earlier ones wrote.
    pub launches: Vec<Launch>,
    /// Whether a number is beyond what kernels count with: such a program must not run.
    pub oversized: bool,
}

impl Program {
    /// Adds memory and returns its name.
    pub fn reserve(&mut self, bytes: usize) -> Buffer {
        self.work.push(Work { bytes, contents: None });
        Buffer::Work(self.work.len() - 1)
    }

    /// Adds memory with contents and returns its name.
    pub fn hold(&mut self, contents: Vec<u8>) -> Buffer {
        self.work.push(Work { bytes: contents.len(), contents: Some(contents) });
        Buffer::Work(self.work.len() - 1)
    }

    /// Adds a launch of a kernel, which is added where it is new.
    pub fn launch(&mut self, label: impl Into<String>, kernel: Kernel, shape: Shape, args: Arguments<'_>) {
        self.oversized |= shape.grid[0] > i32::MAX as u32 || shape.grid[1..].iter().any(|&blocks| blocks > GRID_MAX);
        let kernel = self.kernels.iter().position(|known| *known == kernel).unwrap_or_else(|| {
            self.kernels.push(kernel);
            self.kernels.len() - 1
        });
        let mut launch = Launch {
            label: label.into(),
            kernel,
            grid: shape.grid,
            threads: shape.threads,
            shared_bytes: shape.shared_bytes,
            pointers: [None; POINTERS],
            ints: [0; INTS],
            floats: [0.0; FLOATS],
        };
        for (slot, pointer) in launch.pointers.iter_mut().zip(args.pointers) {
            *slot = Some(*pointer);
        }
        for (slot, &value) in launch.ints.iter_mut().zip(args.ints) {
            self.oversized |= i32::try_from(value).is_err();
            *slot = i32::try_from(value).unwrap_or(0);
        }
        launch.floats[..args.floats.len()].copy_from_slice(args.floats);
        self.launches.push(launch);
    }

    /// Returns the bytes of one buffer of the program's own memory.
    ///
    /// # Panics
    /// For a constant, which no program owns.
    pub fn work_of(&self, buffer: Buffer) -> usize {
        match buffer {
            Buffer::Work(at) => self.work[at].bytes,
            Buffer::Constant(_) => panic!("{buffer:?} is no memory of a program"),
        }
    }

    /// Returns the bytes of all memory of the program.
    pub fn work_bytes(&self) -> usize {
        self.work.iter().map(|work| work.bytes).sum()
    }
}

/// How many blocks of how many threads.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Blocks across, down and deep.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub threads: u32,
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
}

impl Shape {
    /// Covers `width` x `height` values of each of `planes` with blocks of 32 x 8.
    pub fn over(width: usize, height: usize, planes: usize) -> Self {
        Self { grid: [blocks(width, 32), blocks(height, 8), blocks(planes, 1)], threads: 256, shared_bytes: 0 }
    }
}

/// Returns how many blocks of `each` cover `len`.
///
/// # Panics
/// Where they are more than a grid can have; sizes of pictures are bounded far below.
pub fn blocks(len: usize, each: usize) -> u32 {
    u32::try_from(len.div_ceil(each)).expect("pictures are bounded")
}

/// What a launch is given.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arguments<'a> {
    /// Pointers, as the kernel counts them.
    pub pointers: &'a [Buffer],
    /// Integers, as the kernel counts them; offsets may be negative.
    pub ints: &'a [i64],
    /// Floats, as the kernel counts them.
    pub floats: &'a [f32],
}
