//! What every handler needs: the service, who may call, and how much at once.

use super::body;
use super::metrics::HttpMetrics;
use super::problem::Problem;
use super::rate::RateLimit;
use crate::serve::access::{AccessError, AllowList, ListenerRule, ServerCertificate, TokenKeeper};
use crate::serve::config::{HttpLimits, ServeConfig};
use crate::serve::error::ServiceError;
use crate::serve::service::Service;
use actix_web::web;
use crossbeam_channel::{Receiver, Sender};
use restyle_engine::clock::{Clock, SystemClock};
use serde::de::DeserializeOwned;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bodies that a thread of their own writes at once: event streams and downloads.
const PIPES_MAX: usize = 256;

/// The HTTP side of a service; clones share one.
#[derive(Clone)]
pub struct Api {
    inner: Arc<Inner>,
}

struct Inner {
    service: Service,
    rules: RwLock<Arc<Rules>>,
    rate: RateLimit,
    metrics: HttpMetrics,
    pipes: Arc<Semaphore>,
    /// Dropped when long responses are to end.
    open: Mutex<Option<Sender<()>>>,
    ending: Receiver<()>,
}

/// What may change while the service runs.
pub(super) struct Rules {
    pub(super) tokens: Option<TokenKeeper>,
    pub(super) allow: AllowList,
    pub(super) limits: HttpLimits,
}

impl Rules {
    fn of(config: &ServeConfig) -> Result<Self, AccessError> {
        let tokens = config.tokens.as_deref().map(|path| TokenKeeper::open(path, SystemClock::shared())).transpose()?;
        Ok(Self { tokens, allow: AllowList::parse(&config.allow)?, limits: config.limits })
    }
}

impl Api {
    /// Reads the token file and the allowed networks of the service's configuration; blocks on the disk.
    ///
    /// # Errors
    /// [`AccessError`] when one of them cannot be used.
    pub fn new(service: Service) -> Result<Self, AccessError> {
        let rules = RwLock::new(Arc::new(Rules::of(&service.config())?));
        let clock: Arc<dyn Clock> = SystemClock::shared();
        let (open, ending) = crossbeam_channel::bounded(0);
        Ok(Self {
            inner: Arc::new(Inner {
                service,
                rules,
                rate: RateLimit::new(clock),
                metrics: HttpMetrics::default(),
                pipes: Arc::new(Semaphore::new(PIPES_MAX)),
                open: Mutex::new(Some(open)),
                ending,
            }),
        })
    }

    /// Puts the rules of the service's present configuration in force; call it after [`Service::reload`]. Blocks on the disk.
    ///
    /// # Errors
    /// [`AccessError`] when they cannot be used; those of before stay then.
    pub fn reload(&self) -> Result<(), AccessError> {
        let rules = Arc::new(Rules::of(&self.inner.service.config())?);
        *self.inner.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
        Ok(())
    }

    /// Ends event streams and downloads, so that connections can close.
    pub fn end_streams(&self) {
        *self.inner.open.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Returns the service behind it.
    #[must_use]
    pub fn service(&self) -> &Service {
        &self.inner.service
    }

    pub(super) fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.inner.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn rate(&self) -> &RateLimit {
        &self.inner.rate
    }

    pub(super) fn metrics(&self) -> &HttpMetrics {
        &self.inner.metrics
    }

    /// Disconnects when long responses are to end.
    pub(super) fn ending(&self) -> Receiver<()> {
        self.inner.ending.clone()
    }

    /// Takes room for a body that a thread writes.
    pub(super) fn pipe(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let full = |_| Problem::busy(format!("{PIPES_MAX} streams are open already: try again later"));
        Arc::clone(&self.inner.pipes).try_acquire_owned().map_err(full)
    }

    /// Calls the service where blocking is allowed.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Service) -> Result<T, ServiceError> + Send + 'static,
    ) -> Result<T, Problem> {
        let service = self.inner.service.clone();
        let told = web::block(move || ask(&service)).await;
        Ok(told.map_err(|_| Problem::busy("the service is busy"))??)
    }

    /// Reads a small body of JSON.
    pub(super) async fn read<T: DeserializeOwned>(
        &self,
        request: &actix_web::HttpRequest,
        payload: web::Payload,
        empty: Option<T>,
    ) -> Result<T, Problem> {
        body::json(request, payload, self.rules().limits.body, empty).await
    }
}

impl ServeConfig {
    /// Checks that listeners may be opened as configured, and loads the certificate; blocks on the disk.
    ///
    /// # Errors
    /// [`AccessError`] saying what is missing or cannot be read.
    pub fn check_listeners(&self) -> Result<Option<ServerCertificate>, AccessError> {
        let (tls, tokens) = (self.tls.is_some(), self.tokens.is_some());
        for address in [Some(self.listen), self.metrics_listen].into_iter().flatten() {
            ListenerRule { address, tls, tokens }.check()?;
        }
        self.tls.as_ref().map(|files| ServerCertificate::load(&files.certificate, &files.key)).transpose()
    }
}
