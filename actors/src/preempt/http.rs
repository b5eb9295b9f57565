//! The least of HTTP/1.1 that a metadata service needs: one request a connection, an answer of bounded size in bounded time.

use restyle_engine::clock::Clock;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A whole exchange takes no longer.
const TIME_MAX: Duration = Duration::from_secs(3);

/// Largest answer that is read, head and body together.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What is asked.
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) header: (&'a str, &'a str),
}

/// What is answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// Sends a request and reads the answer.
pub(super) fn send(at: SocketAddr, request: &Request<'_>, clock: &dyn Clock) -> io::Result<Answer> {
    let until = clock.now() + TIME_MAX;
    let mut stream = TcpStream::connect_timeout(&at, TIME_MAX / 2)?;
    stream.set_write_timeout(Some(TIME_MAX / 2))?;
    let Request { method, path, header: (name, value) } = request;
    if value.chars().any(char::is_control) {
        return Err(malformed("a header value with control characters"));
    }
    let length = if *method == "PUT" { "Content-Length: 0\r\n" } else { "" };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{length}{name}: {value}\r\n\r\n",
        at.ip()
    );
    stream.write_all(head.as_bytes())?;
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        if let Some(answer) = parse(&bytes, false)? {
            return Ok(answer);
        }
        let left = until.saturating_sub(clock.now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let read = stream.read(&mut chunk)?;
        if read == 0 {
            return parse(&bytes, true)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&chunk[..read]);
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(malformed("an answer that is too long"));
        }
    }
}

/// Reads an answer; `None` while some of it is missing. `ended`: nothing more will come.
fn parse(bytes: &[u8], ended: bool) -> io::Result<Option<Answer>> {
    let Some(end) = find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| malformed("a head that is no text"))?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| {
        let (version, rest) = line.split_once(' ')?;
        version.starts_with("HTTP/1.").then(|| rest.get(..3)?.parse().ok()).flatten()
    });
    let status: u16 = status.ok_or_else(|| malformed("no status line"))?;
    let fields: Vec<_> = lines.filter_map(|line| line.split_once(':')).collect();
    let field = |name: &str| fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim());
    let body = &bytes[end + 4..];
    let whole = if field("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
        chunks(body)?
    } else if let Some(length) = field("content-length") {
        let length: usize = length.parse().map_err(|_| malformed("a length that is no number"))?;
        body.get(..length).map(<[u8]>::to_vec)
    } else {
        ended.then(|| body.to_vec())
    };
    Ok(whole.map(|body| Answer { status, body }))
}

/// Joins a chunked body; `None` while the last chunk is missing.
fn chunks(mut body: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut whole = Vec::new();
    loop {
        let Some(end) = find(body, b"\r\n") else { return Ok(None) };
        let size = std::str::from_utf8(&body[..end]).ok().and_then(|line| line.split(';').next());
        let size = size.and_then(|digits| usize::from_str_radix(digits.trim(), 16).ok());
        let size = size.filter(|s| *s <= ANSWER_BYTES_MAX).ok_or_else(|| malformed("a chunk without a size"))?;
        let rest = &body[end + 2..];
        if size == 0 {
            return Ok(Some(whole));
        }
        let Some(chunk) = rest.get(..size) else { return Ok(None) };
        whole.extend_from_slice(chunk);
        let Some(next) = rest.get(size + 2..) else { return Ok(None) };
        body = next;
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("expected an HTTP answer, got {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_in_each_of_their_forms() {
        let check = |text: &str, ended: bool, expected: Option<(u16, &str)>| {
            let got = parse(text.as_bytes(), ended).unwrap().map(|a| (a.status, String::from_utf8(a.body).unwrap()));
            assert_eq!(got, expected.map(|(status, body)| (status, body.to_owned())), "{text:?}");
        };
        check("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nTRUE", false, Some((200, "TRUE")));
        check("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nTRUE", false, None);
        check("HTTP/1.0 404 Not Found\r\n\r\nno", true, Some((404, "no")));
        check("HTTP/1.0 404 Not Found\r\n\r\nno", false, None);
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nFAL\r\n2;x\r\nSE\r\n0\r\n\r\n";
        check(chunked, false, Some((200, "FALSE")));
        check(&chunked[..chunked.len() - 7], false, None);
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for text in ["hello\r\n\r\n", "HTTP/1.1 abc\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"] {
            assert!(parse(text.as_bytes(), true).is_err(), "{text:?}");
        }
        assert!(parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", false).is_err());
    }
}
