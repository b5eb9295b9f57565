//! A deinterlacer: one frame in, one frame out, one frame late.

use std::ffi::CStr;
use std::ptr::{NonNull, null_mut};

use ffmpeg_sys_next as ff;

use super::pixfmt::PixFmt;
use super::raw_frame::RawFrame;
use super::{AvError, c_text};

/// FFmpeg's `bwdif`, keeping the frame rate, touching only frames that are flagged interlaced.
///
/// It needs each frame's neighbours, so a frame comes out when the next one went in, or at the end.
#[derive(Debug)]
pub struct Deinterlacer {
    graph: NonNull<ff::AVFilterGraph>,
    source: NonNull<ff::AVFilterContext>,
    sink: NonNull<ff::AVFilterContext>,
    count: i64,
}

// SAFETY: the graph runs without threads of its own and is only reached through this owner.
unsafe impl Send for Deinterlacer {}

impl Deinterlacer {
    /// Makes one for frames of one size and format.
    ///
    /// # Errors
    /// `INVALID_DATA` or whatever FFmpeg says where `bwdif` does not take the format; nothing is converted silently.
    pub fn new(width: u32, height: u32, format: PixFmt) -> Result<Self, AvError> {
        let arguments = format!("video_size={width}x{height}:pix_fmt={}:time_base=1/1:pixel_aspect=1/1", format.0);
        // SAFETY: the graph is ours from the first line on and freed by Drop of the value below on every path after it;
        // filters belong to the graph. A unit without interlaced content is legal.
        unsafe {
            let graph = NonNull::new(ff::avfilter_graph_alloc()).ok_or(AvError::NO_MEMORY)?;
            let guard = Graph(graph);
            (*graph.as_ptr()).nb_threads = 1;
            // The constant is -1 in C's unsigned parameter: convert nothing.
            ff::avfilter_graph_set_auto_convert(graph.as_ptr(), u32::MAX);
            let source = add_filter(graph, c"buffer", c"in", &arguments)?;
            let bwdif = add_filter(graph, c"bwdif", c"deinterlace", "mode=send_frame:parity=auto:deint=interlaced")?;
            let sink = add_filter(graph, c"buffersink", c"out", "")?;
            AvError::check(ff::avfilter_link(source.as_ptr(), 0, bwdif.as_ptr(), 0))?;
            AvError::check(ff::avfilter_link(bwdif.as_ptr(), 0, sink.as_ptr(), 0))?;
            AvError::check(ff::avfilter_graph_config(graph.as_ptr(), null_mut()))?;
            std::mem::forget(guard);
            Ok(Self { graph, source, sink, count: 0 })
        }
    }

    /// Hands a frame in; `None` says that no more will come.
    ///
    /// # Errors
    /// Whatever FFmpeg says.
    pub fn push(&mut self, frame: Option<RawFrame>) -> Result<(), AvError> {
        let Some(mut frame) = frame else {
            // SAFETY: the source is live; null means the end.
            return AvError::check(unsafe { ff::av_buffersrc_add_frame(self.source.as_ptr(), null_mut()) }).map(|_| ());
        };
        // Timestamps are kept outside; the filter only needs them to grow.
        frame.set_pts(self.count);
        self.count += 1;
        // SAFETY: the source and the frame are live; the call takes the frame's references over.
        AvError::check(unsafe { ff::av_buffersrc_add_frame(self.source.as_ptr(), frame.as_ptr()) }).map(|_| ())
    }

    /// Takes a frame that is ready.
    ///
    /// # Errors
    /// `AGAIN` where none is, `EOF` after the last, else what FFmpeg says.
    pub fn pull(&mut self) -> Result<RawFrame, AvError> {
        let frame = RawFrame::empty();
        // SAFETY: the sink and the frame are live.
        AvError::check(unsafe { ff::av_buffersink_get_frame(self.sink.as_ptr(), frame.as_ptr()) })?;
        Ok(frame)
    }
}

impl Drop for Deinterlacer {
    fn drop(&mut self) {
        drop(Graph(self.graph));
    }
}

/// Frees a graph with everything in it.
struct Graph(NonNull<ff::AVFilterGraph>);

impl Drop for Graph {
    fn drop(&mut self) {
        let mut graph = self.0.as_ptr();
        // SAFETY: this is the only owner.
        unsafe { ff::avfilter_graph_free(&mut graph) };
    }
}

/// # Safety
/// The graph is live.
unsafe fn add_filter(
    graph: NonNull<ff::AVFilterGraph>,
    kind: &CStr,
    name: &CStr,
    arguments: &str,
) -> Result<NonNull<ff::AVFilterContext>, AvError> {
    let arguments = c_text(arguments);
    let mut filter = null_mut();
    // SAFETY: the caller vouches for the graph; all strings are terminated and copied; an unknown filter is null, refused below.
    unsafe {
        let definition = ff::avfilter_get_by_name(kind.as_ptr());
        if definition.is_null() {
            return Err(AvError(ff::AVERROR_FILTER_NOT_FOUND));
        }
        AvError::check(ff::avfilter_graph_create_filter(
            &mut filter,
            definition,
            name.as_ptr(),
            arguments.as_ptr(),
            null_mut(),
            graph.as_ptr(),
        ))?;
    }
    NonNull::new(filter).ok_or(AvError::NO_MEMORY)
}
