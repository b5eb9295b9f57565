//! The stages of a styling job: source, decode, encode, join, publish, on FFmpeg and opendal.
//!
//! In data-flow order: a [`Location`] is opened as a [`Blob`], [`probe()`] tells what it holds, a [`FrameDecoder`] turns it
//! into [`DecodedFrame`]s. This crate never decides *when* something runs: threads, queues and retries belong to the
//! engine. Nothing outside [`mod@ffmpeg`] calls FFmpeg, and nothing else here is `unsafe`.

pub mod decode;
pub mod encode;
pub mod error;
pub mod ffmpeg;
pub mod frame;
pub mod join;
pub mod ledger_store;
pub mod publish;
pub mod source;
pub mod source_info;
pub mod storage;
pub mod tracks;

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
