//! The sources of the kernels, put together for what they are compiled for.

use std::fmt::Write as _;

const PRELUDE: &str = include_str!("kernels/prelude.cuh");
const CONV: &str = include_str!("kernels/conv.cu");
const NORM: &str = include_str!("kernels/norm.cu");
const FRAME: &str = include_str!("kernels/frame.cu");

/// Which file a kernel is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// `conv.cu`
    Conv,
    /// `norm.cu`
    Norm,
    /// `frame.cu`
    Frame,
}

/// A kernel with everything that it is compiled for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// File of the source.
    pub file: File,
    /// Name of the function.
    pub entry: &'static str,
    /// What the source expects to be defined, in order.
    pub defines: Vec<(&'static str, String)>,
}

impl Kernel {
    /// Names a kernel and its definitions.
    pub fn new(file: File, entry: &'static str, defines: &[(&'static str, String)]) -> Self {
        Self { file, entry, defines: defines.to_vec() }
    }

    /// Returns the definitions and the file, without what all kernels share.
    pub fn body(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.defines {
            let _ = writeln!(text, "#define {name} {value}");
        }
        text + match self.file {
            File::Conv => CONV,
            File::Norm => NORM,
            File::Frame => FRAME,
        }
    }

    /// Returns the whole source for a CUDA compiler.
    pub fn source(&self) -> String {
        format!("{PRELUDE}\n{}", self.body())
    }

    /// Returns a name that differs wherever the source does, for caches of compiled modules.
    pub fn module(&self) -> String {
        format!("restyle-{}-{}", self.entry, &blake3::hash(self.source().as_bytes()).to_hex()[..16])
    }
}

/// Returns what all kernels share: types, rounding, borders, the instructions of a warp.
pub fn prelude() -> &'static str {
    PRELUDE
}
