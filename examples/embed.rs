//! The service inside a program of one's own: pipeline, list of jobs and HTTP interface within a small actix-web app.
//!
//! ```sh
//! cargo run --example embed -- /tmp/studio     # makes in/, out/, logs/ and work/ there
//! curl http://127.0.0.1:8089/hello
//! curl -T clip.mp4 http://127.0.0.1:8089/restyle/v1/routes/studio/files/clip.mp4
//! curl http://127.0.0.1:8089/restyle/v1/jobs
//! ```
#![allow(clippy::print_stdout, missing_docs, unreachable_pub, reason = "an example speaks to whoever runs it")]

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpServer, web};
use restyle::serve::http::{self, Api};
use restyle::serve::{ServeFile, Service};
use std::error::Error;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

/// What `serve.toml` would say; a program may as well build it from its own settings.
const CONFIGURATION: &str = r#"
work = "work"
device = "cpu"
[[route]]
name = "studio"
input = "in"
output = "out"
logs = "logs"
style = "starry-night"
poll = "1s"
"#;

/// A resource of the program's own.
async fn hello() -> &'static str {
    "hello from the program around it\n"
}

/// Serves until the handle that `started` gets is told to stop, then drains. `configuration` is text as in `serve.toml`.
pub fn run(
    folder: &Path,
    configuration: &str,
    listener: TcpListener,
    started: impl FnOnce(SocketAddr, ServerHandle),
) -> Result<(), Box<dyn Error>> {
    for name in ["in", "out", "logs"] {
        std::fs::create_dir_all(folder.join(name))?;
    }
    let config = ServeFile::from_toml(configuration, "embedded configuration")?.check(folder)?;
    let drain = config.drain;
    let service = Service::start(config)?;
    let api = Api::new(service.clone())?;
    let address = listener.local_addr()?;
    let shared = api.clone();
    actix_web::rt::System::new().block_on(async move {
        let app = move || {
            App::new()
                .route("/hello", web::get().to(hello))
                .service(web::scope("/restyle").service(http::scope(&shared)))
        };
        let server = HttpServer::new(app).workers(2).listen(listener)?.run();
        started(address, server.handle());
        server.await
    })?;
    api.end_streams();
    service.drain_and_stop(drain + Duration::from_secs(2));
    Ok(())
}

#[allow(dead_code, reason = "the test calls run by itself")]
fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("usage: embed FOLDER")?;
    let listener = TcpListener::bind("127.0.0.1:8089")?;
    run(Path::new(&folder), CONFIGURATION, listener, |address, _| println!("http://{address}/restyle/v1/jobs"))
}
