//! The pages under `/`: files of `dashboard/dist`, embedded when the program is built, so that they need no folder at run time.

use super::resource;
use actix_web::http::Method;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use actix_web::{HttpRequest, HttpResponse, web};

/// One embedded file.
struct Page {
    path: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

/// What `make dashboard` built.
const PAGES: [Page; 6] = [
    Page {
        path: "/",
        content_type: "text/html; charset=utf-8",
        bytes: include_bytes!("../../../dashboard/dist/index.html"),
    },
    Page {
        path: "/app.js",
        content_type: "text/javascript; charset=utf-8",
        bytes: include_bytes!("../../../dashboard/dist/app.js"),
    },
    Page {
        path: "/app.css",
        content_type: "text/css; charset=utf-8",
        bytes: include_bytes!("../../../dashboard/dist/app.css"),
    },
    Page {
        path: "/icon.svg",
        content_type: "image/svg+xml",
        bytes: include_bytes!("../../../dashboard/dist/icon.svg"),
    },
    Page {
        path: "/inter.woff2",
        content_type: "font/woff2",
        bytes: include_bytes!("../../../dashboard/dist/inter.woff2"),
    },
    Page {
        path: "/inter-licence.txt",
        content_type: "text/plain; charset=utf-8",
        bytes: include_bytes!("../../../dashboard/dist/inter-licence.txt"),
    },
];

pub(super) fn configure(config: &mut web::ServiceConfig) {
    for page in &PAGES {
        let answer = move |request: HttpRequest| async move { send(page, &request) };
        config.service(resource(page.path, [(Method::GET, web::to(answer))]));
    }
}

/// Browsers ask again each time and are told that nothing changed: a new build shows at once.
fn send(page: &Page, request: &HttpRequest) -> HttpResponse {
    let tag = format!("\"{}\"", &blake3::hash(page.bytes).to_hex()[..32]);
    let is_known = request.headers().get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut response = if is_known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    response.insert_header((ETAG, tag)).insert_header((CACHE_CONTROL, "no-cache"));
    if is_known {
        return response.finish();
    }
    response.insert_header((CONTENT_TYPE, page.content_type)).body(page.bytes)
}
