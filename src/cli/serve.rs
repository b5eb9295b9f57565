//! `restyle serve` and `restyle config`: the daemon's life from its configuration to its last signal.

use super::args::{ConfigVerb, ServeArgs};
use super::output;
use crate::error::{Error, ErrorKind};
use crate::serve::http::{Api, Listeners, Server};
use crate::serve::{ServeConfig, Service, ServiceError, ServiceErrorKind};
use crossbeam_channel::{Receiver, Sender, select, tick, unbounded};
use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::path::Path;
use std::time::Duration;

/// How much sooner than asked the watchdog is told that all is well.
const WATCHDOG_SHARE: u32 = 3;

pub(super) fn config(verb: ConfigVerb) -> Result<(), Error> {
    let ConfigVerb::Check { file } = verb;
    let config = ServeConfig::read(&file)?;
    for route in &config.routes {
        let (name, tenant, style) = (&route.name, &route.tenant, &route.style);
        output::write(&format!("{name}  {tenant}  {} -> {}  {style}\n", route.input, route.output))?;
        for (_, location) in &route.style_parts {
            if restyle_models::shipped::find(location).is_none() {
                crate::styles::trained(location)?;
            }
        }
    }
    config.check_listeners().map_err(|e| Error::new(ErrorKind::Configuration, e.to_string()))?;
    output::say(&format!("{} is valid", file.display()));
    Ok(())
}

pub(super) fn serve(args: &ServeArgs) -> Result<(), Error> {
    let config = ServeConfig::read(&args.config)?;
    let signals = signals()?;
    let service = Service::start(config.clone()).map_err(|e| refused(&e))?;
    let server = Api::new(service.clone()).and_then(|api| Server::start(&api, sockets()));
    let server = server.map_err(|e| Error::new(ErrorKind::Configuration, e.to_string()))?;
    tracing::info!(listen = %server.address(), routes = config.routes.len(), "restyle serves");
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    let code = live(&service, &server, &args.config, &signals);
    // Until here everybody could see how the drain went.
    server.stop(CLOSE_LIMIT);
    if service.is_device_lost() {
        return Err(Error::new(
            ErrorKind::DeviceLost,
            "a device was lost; its jobs go on when the service starts again",
        ));
    }
    if code == 0 {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Interrupted,
        "stopped before every job had come to rest; they go on when the service starts again",
    ))
}

/// How long open requests are waited for at the end.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// Takes the sockets that systemd opened: the first for the API, the second for metrics.
fn sockets() -> Listeners {
    let mut given = listenfd::ListenFd::from_env();
    let mut take = |k: usize| given.take_tcp_listener(k).ok().flatten();
    Listeners { api: take(0), metrics: take(1) }
}

/// How often the service is asked whether a device was lost.
const DEVICE_LOOK: Duration = Duration::from_secs(1);

/// Follows signals until the service has ended; returns the exit code.
fn live(service: &Service, server: &Server, file: &Path, signals: &Receiver<i32>) -> u8 {
    let watchdog = sd_notify::watchdog_enabled().map(|every| tick(every / WATCHDOG_SHARE));
    let watchdog = watchdog.unwrap_or_else(crossbeam_channel::never);
    let devices = tick(DEVICE_LOOK);
    let (ended, drained) = unbounded();
    let mut draining = false;
    loop {
        select! {
            recv(watchdog) -> _ => if service.health().live {
                let _ = sd_notify::notify(&[NotifyState::Watchdog]);
            },
            recv(devices) -> _ => if !draining && service.is_device_lost() {
                draining = true;
                output::say("restyle: a device was lost and this process has to end; what is finished is kept");
                drain(service, &ended);
            },
            recv(drained) -> clean => return if clean.unwrap_or(false) { 0 } else { ErrorKind::Interrupted.exit_code() },
            recv(signals) -> signal => match signal {
                Ok(SIGHUP) => reload(service, server, file),
                Ok(_) if !draining => {
                    draining = true;
                    output::say("restyle: ending; what is finished is kept, a second signal ends at once");
                    drain(service, &ended);
                }
                _ => return ErrorKind::Interrupted.exit_code(),
            },
        }
    }
}

/// Ends the service in good order and tells whether every job came to rest.
fn drain(service: &Service, ended: &Sender<bool>) {
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    let (service, ended) = (service.clone(), ended.clone());
    let limit = service.config().drain;
    std::thread::spawn(move || ended.send(service.drain_and_stop(limit + DRAIN_SLACK)));
}

/// What a drain takes beyond the notice that jobs are given, for what they write at their end.
const DRAIN_SLACK: Duration = Duration::from_secs(2);

/// Puts the file in force if it is valid; else everything stays as it is.
fn reload(service: &Service, server: &Server, file: &Path) {
    let _ = sd_notify::notify(&[NotifyState::Reloading]);
    match ServeConfig::read(file) {
        Ok(config) => {
            service.reload(config);
            match server.reload() {
                Ok(()) => tracing::info!(file = %file.display(), "the configuration was read again"),
                Err(error) => tracing::error!(%error, "certificate, tokens and networks stay as they were"),
            }
        }
        Err(error) => tracing::error!(%error, "the configuration is not valid: the one before stays in force"),
    }
    let _ = sd_notify::notify(&[NotifyState::Ready]);
}

fn signals() -> Result<Receiver<i32>, Error> {
    let failed = |e: std::io::Error| Error::new(ErrorKind::JobFailed, format!("signals cannot be handled: {e}"));
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(failed)?;
    let (sender, received) = unbounded();
    let forward = move || signals.forever().try_for_each(|signal| sender.send(signal).ok());
    std::thread::Builder::new().name("restyle-signals".into()).spawn(forward).map_err(failed)?;
    Ok(received)
}

fn refused(error: &ServiceError) -> Error {
    let kind = match error.kind() {
        ServiceErrorKind::Storage => ErrorKind::Storage,
        _ => ErrorKind::Configuration,
    };
    Error::new(kind, error.to_string())
}
