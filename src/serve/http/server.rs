//! The listeners: the API on one, metrics on another, both on threads of their own.

use super::api::Api;
use super::{guard, hooks_out, metrics, scope};
use crate::serve::access::{AccessError, ListenerRule, ServerCertificate};
use crate::serve::config::HttpLimits;
use actix_web::body::BoxBody;
use actix_web::dev::{ServerHandle, ServiceRequest};
use actix_web::middleware::{Next, from_fn};
use actix_web::rt::System;
use actix_web::{App, HttpServer, web};
use crossbeam_channel::{Sender, bounded};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

/// Threads that read and write connections; the work is the service's.
const THREADS: usize = 2;
/// Threads a connection thread may block on: calls of the service and of the disk.
const BLOCKING_THREADS: usize = 32;
/// A connection that asks for nothing is closed after this time.
const IDLE: Duration = Duration::from_secs(30);
const TLS_TIMEOUT: Duration = Duration::from_secs(5);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// A scraper and a person looking.
const METRICS_CONNECTIONS: usize = 16;

/// Sockets that were opened already, by this process or by whoever started it.
#[derive(Debug, Default)]
pub struct Listeners {
    /// For the API; the configured address is opened where there is none.
    pub api: Option<TcpListener>,
    /// For metrics; the configured address, if there is one, is opened where there is none.
    pub metrics: Option<TcpListener>,
}

/// A running HTTP interface; dropping it ends it at once.
pub struct Server {
    address: SocketAddr,
    metrics_address: Option<SocketAddr>,
    api: Api,
    certificate: Option<ServerCertificate>,
    system: Option<Running>,
}

/// What ends the listeners, and the thread to wait for.
struct Running {
    handles: Vec<ServerHandle>,
    thread: JoinHandle<()>,
    ended: crossbeam_channel::Receiver<()>,
}

impl Server {
    /// Opens the listeners of the service's configuration and answers from then on.
    ///
    /// # Errors
    /// [`AccessError`] when an address may not be opened as it is configured, when it cannot be, and when the certificate or the token
    /// file cannot be used.
    pub fn start(api: &Api, sockets: Listeners) -> Result<Self, AccessError> {
        let config = api.service().config();
        let certificate = config.check_listeners()?;
        let main = sockets.api.map_or_else(|| open(config.listen), Ok)?;
        let metrics = match (sockets.metrics, config.metrics_listen) {
            (Some(socket), _) => Some(socket),
            (None, Some(address)) => Some(open(address)?),
            (None, None) => None,
        };
        // Sockets that somebody else opened are held to the same rules.
        let (tls, tokens) = (certificate.is_some(), config.tokens.is_some());
        let rule = |socket: &TcpListener| -> Result<SocketAddr, AccessError> {
            let address =
                socket.local_addr().map_err(|e| AccessError::Invalid(format!("a socket has no address: {e}")))?;
            ListenerRule { address, tls, tokens }.check().map(|()| address)
        };
        let (address, metrics_address) = (rule(&main)?, metrics.as_ref().map(rule).transpose()?);
        let tls_config = certificate.as_ref().map(ServerCertificate::server_config).transpose()?;
        let work = Work { api: api.clone(), limits: config.limits, main, metrics, tls: tls_config };
        hooks_out::start(api)?;
        let system = Some(work.start()?);
        tracing::info!(%address, ?metrics_address, tls, tokens, "listening");
        Ok(Self { address, metrics_address, api: api.clone(), certificate, system })
    }

    /// Returns where the API listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns where metrics are served, if they are.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Reads certificate, token file and allowed networks again; addresses stay. Call it after
    /// [`Service::reload`](crate::serve::Service::reload). Blocks on the disk.
    ///
    /// # Errors
    /// [`AccessError`] when one of them cannot be used; what was in force stays.
    pub fn reload(&self) -> Result<(), AccessError> {
        self.certificate.as_ref().map_or(Ok(()), ServerCertificate::reload)?;
        self.api.reload()
    }

    /// Takes no more connections, ends event streams, waits for open requests at most for `limit`, and closes. Blocks.
    pub fn stop(mut self, limit: Duration) {
        self.end(true, limit);
    }

    fn end(&mut self, graceful: bool, limit: Duration) {
        let Some(running) = self.system.take() else { return };
        self.api.end_streams();
        for handle in &running.handles {
            // The order is given by the call; what it returns only waits.
            drop(handle.stop(graceful));
        }
        if running.ended.recv_timeout(limit).is_err() && graceful {
            for handle in &running.handles {
                drop(handle.stop(false));
            }
            let _ = running.ended.recv_timeout(CLOSE_TIMEOUT);
        }
        if running.thread.is_finished() && running.thread.join().is_err() {
            tracing::error!("the thread of the http listeners panicked: this is a bug in restyle");
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end(false, CLOSE_TIMEOUT);
    }
}

fn open(address: SocketAddr) -> Result<TcpListener, AccessError> {
    TcpListener::bind(address).map_err(|e| AccessError::file("cannot listen on", Path::new(&address.to_string()), e))
}

/// What the thread of the listeners needs.
struct Work {
    api: Api,
    limits: HttpLimits,
    main: TcpListener,
    metrics: Option<TcpListener>,
    tls: Option<rustls::ServerConfig>,
}

impl Work {
    fn start(self) -> Result<Running, AccessError> {
        let (tell, told) = bounded(1);
        let (alive, ended) = bounded(0);
        let thread = std::thread::Builder::new()
            .name("restyle-http".to_owned())
            .spawn(move || {
                let _alive: Sender<()> = alive;
                System::new().block_on(self.serve(&tell));
            })
            .map_err(|e| AccessError::Invalid(format!("cannot start a thread for http: {e}")))?;
        let handles = told.recv().unwrap_or_else(|_| Err("the http thread ended at once".to_owned()));
        handles
            .map(|handles| Running { handles, thread, ended })
            .map_err(|why| AccessError::Invalid(format!("cannot serve http: {why}")))
    }

    async fn serve(self, tell: &Sender<Result<Vec<ServerHandle>, String>>) {
        let Self { api, limits, main, metrics, tls } = self;
        let main = main_server(&api, limits, main, tls.clone());
        let metrics = metrics.map(|socket| metrics_server(&api, limits, socket, tls)).transpose();
        match (main, metrics) {
            (Ok(main), Ok(metrics)) => {
                let handles = [Some(main.handle()), metrics.as_ref().map(|m| m.handle())];
                let _ = tell.send(Ok(handles.into_iter().flatten().collect()));
                let metrics = metrics.map(actix_web::rt::spawn);
                let failed = main.await.err();
                if let Some(metrics) = metrics {
                    let _ = metrics.await;
                }
                if let Some(error) = failed {
                    tracing::error!(%error, "the http listener ended");
                }
            }
            (Err(error), _) | (_, Err(error)) => {
                let _ = tell.send(Err(error.to_string()));
            }
        }
    }
}

fn main_server(
    api: &Api,
    limits: HttpLimits,
    socket: TcpListener,
    tls: Option<rustls::ServerConfig>,
) -> std::io::Result<actix_web::dev::Server> {
    let api = api.clone();
    let server = HttpServer::new(move || App::new().service(scope(&api)))
        .workers(THREADS)
        .worker_max_blocking_threads(BLOCKING_THREADS)
        .max_connections(limits.connections.div_ceil(THREADS))
        .keep_alive(IDLE)
        .client_request_timeout(limits.header_time)
        .client_disconnect_timeout(CLOSE_TIMEOUT)
        .tls_handshake_timeout(TLS_TIMEOUT)
        .shutdown_timeout(3600)
        .disable_signals();
    let server = match tls {
        Some(tls) => server.listen_rustls_0_23(socket, tls)?,
        None => server.listen(socket)?,
    };
    Ok(server.run())
}

fn metrics_server(
    api: &Api,
    limits: HttpLimits,
    socket: TcpListener,
    tls: Option<rustls::ServerConfig>,
) -> std::io::Result<actix_web::dev::Server> {
    let api = api.clone();
    let server = HttpServer::new(move || {
        let (data, guarding) = (web::Data::new(api.clone()), api.clone());
        let guard =
            move |request: ServiceRequest, next: Next<BoxBody>| guard::guard_metrics(guarding.clone(), request, next);
        App::new().app_data(data).wrap(from_fn(guard)).service(metrics::resource_of_metrics())
    })
    .workers(1)
    .max_connections(METRICS_CONNECTIONS)
    .keep_alive(IDLE)
    .client_request_timeout(limits.header_time)
    .client_disconnect_timeout(CLOSE_TIMEOUT)
    .tls_handshake_timeout(TLS_TIMEOUT)
    .shutdown_timeout(1)
    .disable_signals();
    let server = match tls {
        Some(tls) => server.listen_rustls_0_23(socket, tls)?,
        None => server.listen(socket)?,
    };
    Ok(server.run())
}
