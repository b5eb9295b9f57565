//! The stages of a styling job on FFmpeg and opendal: source, decode, score, encode, join, publish.
//!
//! In data-flow order: a [`Location`] is opened as a [`Blob`], [`probe()`] tells what it holds, a [`pass`] feeds the frames of a
//! [`FrameDecoder`] to scorers and assembles what they make into segments, [`mod@join`] joins the segments and copies every other track,
//! [`mod@publish`] puts the result where it belongs. Nothing outside [`mod@ffmpeg`] calls FFmpeg, and nothing else here is `unsafe`.

pub mod assemble;
pub mod board;
pub mod control;
pub mod decode;
pub mod encode;
pub mod error;
pub mod feed;
pub mod ffmpeg;
pub mod frame;
pub mod join;
pub mod ledger_store;
pub mod packed;
pub mod pass;
pub mod preempt;
pub mod publish;
pub mod score;
pub mod scored_log;
pub mod source;
pub mod source_info;
pub mod storage;
pub mod task;
pub mod tracks;
pub mod writer;

pub use decode::{DecodeOptions, FrameDecoder, ResumeReport};
pub use encode::{EncodeRequest, EncodedSegment, EncoderSettings, SegmentEncoder};
pub use error::{ActorError, ErrorKind, Result};
pub use frame::{Anchor, DecodedFrame, picture_hash};
pub use source::probe;
pub use source_info::{
    AudioInfo, ChapterInfo, ColourTags, ContentLight, HdrInfo, MasteringDisplay, Orientation, Rational, SourceInfo,
    StreamInfo, StreamKind, VideoInfo,
};
pub use storage::{Blob, Location, SourceIdentity};
