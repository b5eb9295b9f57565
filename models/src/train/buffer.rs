//! Float buffers of the training operations: reused scratch memory, and slices of candle tensors.

use std::cell::RefCell;

use candle_core::{CpuStorage, Device, Layout, Result, Shape, Storage, Tensor};

thread_local! {
    static SPARE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Buffers kept for reuse on a thread; a convolution needs two at once.
const SPARE_MAX: usize = 4;

/// A buffer that goes back to its thread's spares on drop, so that no iteration pays for fresh pages.
#[derive(Debug)]
pub(crate) struct Scratch(Vec<f32>);

impl Scratch {
    /// Takes a spare buffer, or a new one, of `len` floats that hold anything: the caller writes all that it reads.
    pub(crate) fn of(len: usize) -> Self {
        let mut buffer = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
        buffer.resize(len, 0.0);
        Self(buffer)
    }

    /// A buffer of `len` zeros.
    pub(crate) fn zeroed(len: usize) -> Self {
        let mut buffer = Self::of(len);
        buffer.fill(0.0);
        buffer
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.0);
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < SPARE_MAX {
                spare.push(buffer);
            }
        });
    }
}

impl std::ops::Deref for Scratch {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl std::ops::DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0
    }
}

/// The floats of a contiguous CPU storage.
pub(crate) fn floats<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let values = storage.as_slice::<f32>()?;
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&values[start..end]),
        None => candle_core::bail!("training operations take contiguous tensors, got {layout:?}"),
    }
}

/// Calls `read` with the floats of a tensor in the processor's memory; copies only where the tensor is not contiguous.
pub(crate) fn with_floats<R>(tensor: &Tensor, read: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => read(floats(storage, layout)?),
        _ => candle_core::bail!("training operations run in the processor's memory"),
    }
}

/// A tensor of `values` in the processor's memory.
pub(crate) fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor> {
    Tensor::from_vec(values, shape, &Device::Cpu)
}
