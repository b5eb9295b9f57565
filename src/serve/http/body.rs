//! Bodies in and out, none of them unbounded in size or time.

use super::problem::Problem;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, HeaderValue};
use actix_web::web::{Bytes, BytesMut, Payload};
use actix_web::{HttpRequest, HttpResponse};
use futures_core::Stream as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// A body that is read as a whole has to be there by then.
const WHOLE_TIMEOUT: Duration = Duration::from_secs(20);

/// Reads the next piece of a body; `None` at its end.
pub(super) async fn next_piece(payload: &mut Payload) -> Option<Result<Bytes, Problem>> {
    let piece = poll_fn(|cx| Pin::new(&mut *payload).poll_next(cx)).await?;
    Some(piece.map_err(|e| Problem::bad_request(format!("the body cannot be read: {e}"))))
}

/// Reads a whole body of JSON; `empty` stands for none.
pub(super) async fn json<T: DeserializeOwned>(
    request: &HttpRequest,
    payload: Payload,
    bytes_max: u64,
    empty: Option<T>,
) -> Result<T, Problem> {
    let is_json = content_type(request).is_some_and(|t| t == "application/json" || t.ends_with("+json"));
    let bytes = timeout(WHOLE_TIMEOUT, whole(request, payload, bytes_max)).await;
    let bytes = bytes.map_err(|_| Problem::timeout("the body"))??;
    if let (true, Some(empty)) = (bytes.is_empty(), empty) {
        return Ok(empty);
    }
    if !is_json {
        let detail = "expected a body of content-type application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
    }
    serde_json::from_slice(&bytes).map_err(|e| Problem::bad_request(format!("the body is not as expected: {e}")))
}

/// Returns the media type in lower case, without parameters.
fn content_type(request: &HttpRequest) -> Option<String> {
    let said = request.headers().get(CONTENT_TYPE)?.to_str().ok()?;
    Some(said.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

async fn whole(request: &HttpRequest, mut payload: Payload, bytes_max: u64) -> Result<BytesMut, Problem> {
    let too_large = || Problem::too_large("the body", bytes_max);
    if content_length(request).is_some_and(|length| length > bytes_max) {
        return Err(too_large());
    }
    let mut bytes = BytesMut::new();
    while let Some(piece) = next_piece(&mut payload).await {
        let piece = piece?;
        if (bytes.len() + piece.len()) as u64 > bytes_max {
            return Err(too_large());
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

pub(super) fn content_length(request: &HttpRequest) -> Option<u64> {
    request.headers().get("content-length")?.to_str().ok()?.parse().ok()
}

/// Answers with JSON.
pub(super) fn answer(status: StatusCode, value: &impl Serialize) -> Result<HttpResponse, Problem> {
    let failed = |e| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", format!("cannot write json: {e}"));
    let body = serde_json::to_vec(value).map_err(failed)?;
    Ok(HttpResponse::build(status).insert_header((CONTENT_TYPE, "application/json")).body(body))
}

/// Answers with bytes of some type.
pub(super) fn bytes(content_type: &'static str, body: Vec<u8>) -> HttpResponse {
    HttpResponse::Ok().insert_header((CONTENT_TYPE, HeaderValue::from_static(content_type))).body(body)
}

/// A body that another thread writes piece by piece; produced by one thread, consumed by the connection. Its bound is
/// the channel's, and a producer waits when it is full.
pub(super) struct Piped {
    pieces: mpsc::Receiver<Bytes>,
    size: BodySize,
    left: u64,
}

impl Piped {
    pub(super) fn endless(pieces: mpsc::Receiver<Bytes>) -> BoxBody {
        BoxBody::new(Self { pieces, size: BodySize::Stream, left: 0 })
    }

    pub(super) fn sized(pieces: mpsc::Receiver<Bytes>, bytes: u64) -> BoxBody {
        BoxBody::new(Self { pieces, size: BodySize::Sized(bytes), left: bytes })
    }
}

impl MessageBody for Piped {
    type Error = std::io::Error;

    fn size(&self) -> BodySize {
        self.size
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let piece = std::task::ready!(self.pieces.poll_recv(cx));
        match piece {
            Some(piece) => {
                self.left = self.left.saturating_sub(piece.len() as u64);
                Poll::Ready(Some(Ok(piece)))
            }
            // The client must see that something is missing: the connection breaks instead of ending well.
            None if self.left > 0 => Poll::Ready(Some(Err(std::io::ErrorKind::UnexpectedEof.into()))),
            None => Poll::Ready(None),
        }
    }
}

/// The writing end of a [`Piped`] body, for a thread that may block.
pub(super) struct PieceWriter {
    pieces: mpsc::Sender<Bytes>,
    runtime: tokio::runtime::Handle,
    stall_max: Duration,
}

impl PieceWriter {
    /// Must be called on the connection's runtime. `depth`: pieces that may wait for the client.
    pub(super) fn new(depth: usize, stall_max: Duration) -> (Self, mpsc::Receiver<Bytes>) {
        let (pieces, written) = mpsc::channel(depth);
        (Self { pieces, runtime: tokio::runtime::Handle::current(), stall_max }, written)
    }

    /// Hands over a piece; blocks while the client is slow, and gives up when it is gone or takes nothing for too long.
    pub(super) fn write(&self, piece: Bytes) -> Result<(), ClientGone> {
        let sent = self.runtime.block_on(async { timeout(self.stall_max, self.pieces.send(piece)).await });
        sent.map_err(|_| ClientGone)?.map_err(|_| ClientGone)
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.pieces.is_closed()
    }
}

/// The client went away or does not read.
#[derive(Debug)]
pub(super) struct ClientGone;
