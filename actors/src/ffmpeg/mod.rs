//! Thin safe wrappers over FFmpeg: the only place that calls it, and the only `unsafe` of this crate.
//!
//! Every type here owns what it points to and frees it once. Nothing here decides: limits, damage, timestamps and
//! colours are judged by [`crate::source`] and [`crate::decode`]. Enums of C are read as integers, since a file may hold
//! values that no Rust enum names.
#![allow(unsafe_code)]

pub mod avio;
pub mod capabilities;
pub mod decoder;
pub mod demux;
pub mod describe;
pub mod encoder;
mod fill;
pub mod filter;
pub mod hardware;
mod hdr;
pub mod heap;
pub mod log;
pub mod mux;
pub mod packet;
pub mod pixfmt;
pub mod raw_frame;
pub mod scale;
pub mod unpack;

use std::ffi::{CStr, CString, c_char, c_int};

use ffmpeg_sys_next as ff;

/// An error code of FFmpeg; always negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AvError(pub c_int);

impl AvError {
    /// Nothing to give now, feed more.
    pub const AGAIN: Self = Self(-ff::EAGAIN);
    /// Nothing more will come.
    pub const EOF: Self = Self(ff::AVERROR_EOF);
    /// The data makes no sense.
    pub const INVALID_DATA: Self = Self(ff::AVERROR_INVALIDDATA);
    /// Out of memory.
    pub const NO_MEMORY: Self = Self(-ff::ENOMEM);
    /// Something outside FFmpeg failed, such as a card.
    pub const EXTERNAL: Self = Self(ff::AVERROR_EXTERNAL);
    /// Reading failed.
    pub const IO: Self = Self(-ff::EIO);

    /// Turns a return value into a result: negative is an error, the rest is the value.
    pub(crate) fn check(code: c_int) -> Result<c_int, Self> {
        if code < 0 { Err(Self(code)) } else { Ok(code) }
    }
}

impl std::fmt::Display for AvError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = [0 as c_char; 128];
        // SAFETY: the buffer is writable for the length passed, and av_strerror terminates it.
        let known = unsafe { ff::av_strerror(self.0, text.as_mut_ptr(), text.len()) } >= 0;
        if known {
            // SAFETY: av_strerror wrote a terminated string into the buffer.
            let text = unsafe { CStr::from_ptr(text.as_ptr()) };
            write!(f, "{}", text.to_string_lossy().to_lowercase())
        } else {
            write!(f, "ffmpeg error {}", self.0)
        }
    }
}

impl std::error::Error for AvError {}

/// Copies a C string; empty where the pointer is null.
///
/// # Safety
/// `text` is null or points to a terminated string that lives during the call.
pub(crate) unsafe fn owned_text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null, and the caller vouches for the rest.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// Makes a C string; a NUL inside ends it early.
pub(crate) fn c_text(text: &str) -> CString {
    let end = text.find('\0').unwrap_or(text.len());
    CString::new(&text[..end]).expect("no NUL before the first NUL")
}

/// Copies a dictionary; the last of equal keys wins.
///
/// # Safety
/// `dictionary` is null or a live AVDictionary.
pub(crate) unsafe fn owned_tags(dictionary: *const ff::AVDictionary) -> std::collections::BTreeMap<String, String> {
    let mut tags = std::collections::BTreeMap::new();
    let mut entry: *const ff::AVDictionaryEntry = std::ptr::null();
    loop {
        // SAFETY: the dictionary is live, the entry null or from this dictionary, the key an empty literal.
        entry = unsafe { ff::av_dict_get(dictionary, c"".as_ptr(), entry, ff::AV_DICT_IGNORE_SUFFIX) };
        if entry.is_null() {
            return tags;
        }
        // SAFETY: an entry's key and value are terminated strings owned by the dictionary.
        let (key, value) = unsafe { (owned_text((*entry).key), owned_text((*entry).value)) };
        tags.insert(key, value);
    }
}

/// An AVDictionary of options that frees what a callee left in it.
pub(crate) struct Options(*mut ff::AVDictionary);

impl Options {
    /// Makes an empty one.
    pub(crate) fn new() -> Self {
        Self(std::ptr::null_mut())
    }

    /// Sets one option.
    pub(crate) fn set(&mut self, key: &str, value: &str) {
        let (key, value) = (c_text(key), c_text(value));
        // SAFETY: the dictionary is ours (or null, which av_dict_set allocates), both strings are copied by the call.
        unsafe { ff::av_dict_set(&mut self.0, key.as_ptr(), value.as_ptr(), 0) };
    }

    /// Gives the raw dictionary away; it must come back through [`Options::from_raw`].
    pub(crate) fn into_raw(self) -> *mut ff::AVDictionary {
        let raw = self.0;
        std::mem::forget(self);
        raw
    }

    /// Takes a dictionary over that [`Options::into_raw`] gave away and a call may have changed.
    pub(crate) fn from_raw(raw: *mut ff::AVDictionary) -> Self {
        Self(raw)
    }

    /// Lends the dictionary to a call that takes out what it knows.
    pub(crate) fn as_mut_ptr(&mut self) -> *mut *mut ff::AVDictionary {
        &mut self.0
    }
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: the dictionary is ours or null; av_dict_free accepts both.
        unsafe { ff::av_dict_free(&mut self.0) };
    }
}

/// Returns the versions of the libraries that are linked, for a numeric class and for people.
#[must_use]
pub fn library_versions() -> String {
    // SAFETY: these functions only return constants.
    let (format, codec, util, info) = unsafe {
        (ff::avformat_version(), ff::avcodec_version(), ff::avutil_version(), owned_text(ff::av_version_info()))
    };
    let part = |v: u32| format!("{}.{}.{}", v >> 16, (v >> 8) & 0xff, v & 0xff);
    format!("ffmpeg {info}, libavformat {}, libavcodec {}, libavutil {}", part(format), part(codec), part(util))
}
