//! FFmpeg's reads served from a blob: nothing else can be opened.
//!
//! FFmpeg sees one seekable input of known size. Reads are whole aligned blocks kept in a small cache, so a demuxer that
//! jumps between tables and packets costs few requests. An error of the blob is kept as itself: FFmpeg knows only error
//! numbers, and some demuxers take any of them for the end of the file, so callers ask [`BlobInput::take_error`] before
//! they believe an end.

use std::collections::VecDeque;
use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::Arc;

use ffmpeg_sys_next as ff;

use super::AvError;
use crate::error::ActorError;
use crate::storage::Blob;

/// Bytes of one block; requests to the store are whole blocks.
pub const BLOCK_BYTES: usize = 1 << 19;
/// Blocks kept.
const BLOCKS_KEPT: usize = 6;
/// Bytes of the buffer that FFmpeg reads through.
const BUFFER_BYTES: usize = 32 << 10;

/// A blob as FFmpeg's input. Must outlive the format context that reads it.
#[derive(Debug)]
pub struct BlobInput {
    context: NonNull<ff::AVIOContext>,
    reader: NonNull<Reader>,
}

// SAFETY: the context and the reader are only reached through this owner or by FFmpeg during calls on it.
unsafe impl Send for BlobInput {}

#[derive(Debug)]
struct Reader {
    blob: Arc<Blob>,
    position: u64,
    // Most recently used last.
    blocks: VecDeque<(u64, Vec<u8>)>,
    error: Option<ActorError>,
}

impl Reader {
    /// Copies bytes at the position; 0 at the end.
    fn read(&mut self, out: &mut [u8]) -> Result<usize, ActorError> {
        let size = self.blob.size();
        if self.position >= size || out.is_empty() {
            return Ok(0);
        }
        let number = self.position / BLOCK_BYTES as u64;
        let start = (self.position % BLOCK_BYTES as u64) as usize;
        let block = self.block(number)?;
        let count = out.len().min(block.len().saturating_sub(start));
        out[..count].copy_from_slice(&block[start..start + count]);
        self.position += count as u64;
        Ok(count)
    }

    fn block(&mut self, number: u64) -> Result<&[u8], ActorError> {
        if let Some(at) = self.blocks.iter().position(|(n, _)| *n == number) {
            let block = self.blocks.remove(at).expect("just found");
            self.blocks.push_back(block);
        } else {
            let mut bytes = if self.blocks.len() >= BLOCKS_KEPT { self.blocks.pop_front().map(|b| b.1) } else { None }
                .unwrap_or_default();
            let offset = number * BLOCK_BYTES as u64;
            let wanted = (self.blob.size() - offset).min(BLOCK_BYTES as u64) as usize;
            bytes.resize(wanted, 0);
            let count = self.blob.read_at(offset, &mut bytes)?;
            if count < wanted {
                return Err(self.blob.cut_short(offset + count as u64));
            }
            self.blocks.push_back((number, bytes));
        }
        Ok(&self.blocks.back().expect("just pushed").1)
    }

    fn seek(&mut self, offset: i64, whence: c_int) -> i64 {
        const SEEK_SET: c_int = 0;
        const SEEK_CUR: c_int = 1;
        const SEEK_END: c_int = 2;
        let size = self.blob.size() as i64;
        let base = match whence & !ff::AVSEEK_FORCE {
            ff::AVSEEK_SIZE => return size,
            SEEK_SET => 0,
            SEEK_CUR => self.position as i64,
            SEEK_END => size,
            _ => return i64::from(-ff::EINVAL),
        };
        match base.checked_add(offset).filter(|p| *p >= 0) {
            Some(position) => {
                self.position = position as u64;
                position
            }
            None => i64::from(-ff::EINVAL),
        }
    }
}

impl BlobInput {
    /// Makes an input over a blob.
    ///
    /// # Errors
    /// `NO_MEMORY` when FFmpeg cannot allocate its buffer.
    pub fn new(blob: Arc<Blob>) -> Result<Self, AvError> {
        let reader = Box::new(Reader { blob, position: 0, blocks: VecDeque::new(), error: None });
        let reader = NonNull::from(Box::leak(reader));
        // SAFETY: plain allocation; the buffer becomes the context's.
        let buffer = unsafe { ff::av_malloc(BUFFER_BYTES) }.cast::<u8>();
        let context = if buffer.is_null() {
            std::ptr::null_mut()
        } else {
            // SAFETY: the buffer has the stated size; the callbacks take exactly this opaque pointer.
            unsafe {
                ff::avio_alloc_context(
                    buffer,
                    BUFFER_BYTES as c_int,
                    0,
                    reader.as_ptr().cast::<c_void>(),
                    Some(on_read),
                    None,
                    Some(on_seek),
                )
            }
        };
        match NonNull::new(context) {
            Some(context) => Ok(Self { context, reader }),
            None => {
                // SAFETY: the reader came from a box just above and no context refers to it; av_free accepts null.
                unsafe {
                    ff::av_free(buffer.cast::<c_void>());
                    drop(Box::from_raw(reader.as_ptr()));
                }
                Err(AvError::NO_MEMORY)
            }
        }
    }

    /// Returns the pointer that a format context takes as its `pb`.
    pub(crate) fn as_ptr(&self) -> *mut ff::AVIOContext {
        self.context.as_ptr()
    }

    /// Returns and forgets the error that a read met, if any.
    pub fn take_error(&mut self) -> Option<ActorError> {
        // SAFETY: the reader lives as long as self, and FFmpeg only touches it during calls, of which none runs now.
        unsafe { self.reader.as_mut() }.error.take()
    }
}

impl Drop for BlobInput {
    fn drop(&mut self) {
        // SAFETY: FFmpeg may have exchanged the buffer, so the context's own is freed, then the context, then the reader
        // that nothing refers to any more.
        unsafe {
            ff::av_freep((&raw mut (*self.context.as_ptr()).buffer).cast::<c_void>());
            let mut context = self.context.as_ptr();
            ff::avio_context_free(&mut context);
            drop(Box::from_raw(self.reader.as_ptr()));
        }
    }
}

unsafe extern "C" fn on_read(opaque: *mut c_void, buffer: *mut u8, length: c_int) -> c_int {
    let Ok(length) = usize::try_from(length) else { return -ff::EINVAL };
    // SAFETY: opaque is the reader given at allocation, used by one call at a time; FFmpeg lends `length` writable bytes.
    let (reader, out) = unsafe { (&mut *opaque.cast::<Reader>(), std::slice::from_raw_parts_mut(buffer, length)) };
    if reader.error.is_some() {
        return -ff::EIO;
    }
    match catch_unwind(AssertUnwindSafe(|| reader.read(out))) {
        Ok(Ok(0)) => ff::AVERROR_EOF,
        Ok(Ok(count)) => count as c_int,
        Ok(Err(error)) => {
            reader.error = Some(error);
            -ff::EIO
        }
        Err(_) => {
            reader.error = Some(ActorError::storage("reading the input panicked"));
            -ff::EIO
        }
    }
}

unsafe extern "C" fn on_seek(opaque: *mut c_void, offset: i64, whence: c_int) -> i64 {
    // SAFETY: opaque is the reader given at allocation, used by one call at a time.
    unsafe { &mut *opaque.cast::<Reader>() }.seek(offset, whence)
}
