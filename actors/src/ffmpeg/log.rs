//! FFmpeg's log, turned into events and kept per thread for error messages.
//!
//! FFmpeg prints to standard error unless told otherwise, and its log is one per process. The callback set here sends
//! lines to `tracing` (target `ffmpeg`, level by severity but never above `debug`, since damage is reported by our own
//! errors) and remembers the last error line of the thread, which explains a bare error code best.

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::Once;

use ffmpeg_sys_next as ff;

thread_local! {
    static LAST_ERROR: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Takes FFmpeg's log over, once per process; cheap to call again.
pub fn capture() {
    static ONCE: Once = Once::new();
    // SAFETY: the callback is a plain function that may be called from any thread at any time.
    ONCE.call_once(|| unsafe { ff::av_log_set_callback(Some(on_line)) });
}

/// Returns and forgets the last error line that FFmpeg logged on this thread.
#[must_use]
pub fn take_last_error() -> Option<String> {
    LAST_ERROR.with(|line| line.borrow_mut().take())
}

unsafe extern "C" fn on_line(
    context: *mut c_void,
    level: c_int,
    format: *const c_char,
    arguments: *mut ff::__va_list_tag,
) {
    if level > ff::AV_LOG_WARNING {
        return;
    }
    let mut line = [0 as c_char; 512];
    let mut with_prefix: c_int = 0;
    // SAFETY: context, format and arguments are FFmpeg's own for this call; the buffer is writable for its length and is
    // terminated by the call.
    let line = unsafe {
        ff::av_log_format_line2(
            context,
            level,
            format,
            arguments,
            line.as_mut_ptr(),
            line.len() as c_int,
            &mut with_prefix,
        );
        CStr::from_ptr(line.as_ptr())
    };
    let line = line.to_string_lossy();
    let line = line.trim();
    if line.is_empty() {
        return;
    }
    tracing::debug!(target: "ffmpeg", level, "{line}");
    if level <= ff::AV_LOG_ERROR {
        // The thread may be ending, when its locals are gone: then the line is only traced.
        let _ = LAST_ERROR.try_with(|last| *last.borrow_mut() = Some(line.to_owned()));
    }
}
