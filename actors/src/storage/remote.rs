//! One object of an object store: its name, the operator that reaches it, and errors that show no credentials.

use std::error::Error as _;
use std::fmt;
use std::sync::{Arc, OnceLock, PoisonError};

use opendal::{ErrorKind, Operator};

use super::access::{self, Access, Limits, Secret};
use crate::error::{ActorError, Result};

/// A service that holds objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Amazon S3 and what speaks like it: `s3:`
    S3,
    /// Azure Blob Storage: `azblob:`
    Azblob,
    /// Google Cloud Storage: `gs:`
    Gs,
}

impl Service {
    /// Returns the service of a URL's scheme.
    pub(super) fn of_scheme(scheme: &str) -> Option<Self> {
        Some(match scheme {
            "s3" => Self::S3,
            "azblob" => Self::Azblob,
            "gs" => Self::Gs,
            _ => return None,
        })
    }

    /// Returns the scheme of its URLs.
    #[must_use]
    pub fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Azblob => "azblob",
            Self::Gs => "gs",
        }
    }
}

/// An object, or with an empty key or one that ends in a slash a folder, of an object store. Cheap to clone; clones and
/// siblings share connections, credentials and limits.
#[derive(Clone)]
pub struct RemoteObject {
    bucket: Arc<Bucket>,
    key: String,
}

struct Bucket {
    service: Service,
    host: Option<String>,
    name: String,
    access: Access,
    bare: OnceLock<Operator>,
    guarded: OnceLock<Operator>,
}

impl RemoteObject {
    pub(super) fn new(service: Service, host: Option<String>, name: String, key: String, access: Access) -> Self {
        let bucket = Bucket { service, host, name, access, bare: OnceLock::new(), guarded: OnceLock::new() };
        Self { bucket: Arc::new(bucket), key }
    }

    /// Returns another object of the same bucket.
    pub(crate) fn sibling(&self, key: String) -> Self {
        Self { bucket: Arc::clone(&self.bucket), key }
    }

    /// Returns the service that holds it.
    #[must_use]
    pub fn service(&self) -> Service {
        self.bucket.service
    }

    /// Returns the key in its bucket.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Tells whether this names no object but the beginning of the names of many.
    pub(crate) fn is_folder(&self) -> bool {
        self.key.is_empty() || self.key.ends_with('/')
    }

    pub(crate) fn bucket_name(&self) -> &str {
        &self.bucket.name
    }

    pub(crate) fn access(&self) -> &Access {
        &self.bucket.access
    }

    pub(crate) fn limits(&self) -> Limits {
        self.bucket.access.limits
    }

    /// Returns endpoint and account of an Azure container.
    pub(super) fn azblob_place(&self) -> Result<(String, String)> {
        let bucket = &*self.bucket;
        access::azblob_place(bucket.host.as_deref(), &bucket.access.azblob).ok_or_else(|| {
            ActorError::Config(format!(
                "{self} names no storage account: set AZURE_STORAGE_ACCOUNT_NAME, or write azblob://ACCOUNT.blob.core.windows.net/CONTAINER/KEY"
            ))
        })
    }

    /// Returns the operator that bounds requests in time and tries them again.
    ///
    /// # Errors
    /// `Config` for a bucket that cannot be reached as configured.
    pub(crate) fn operator(&self) -> Result<Operator> {
        if let Some(operator) = self.bucket.guarded.get() {
            return Ok(operator.clone());
        }
        let operator = access::guarded(self.connect()?, self.limits());
        Ok(self.bucket.guarded.get_or_init(|| operator).clone())
    }

    /// Returns an operator without attempts or limits in time, for callers that have their own.
    ///
    /// # Errors
    /// As [`RemoteObject::operator`].
    pub(crate) fn bare_operator(&self) -> Result<Operator> {
        if let Some(operator) = self.bucket.bare.get() {
            return Ok(operator.clone());
        }
        let operator = access::limited(self.connect()?, self.limits());
        Ok(self.bucket.bare.get_or_init(|| operator).clone())
    }

    fn connect(&self) -> Result<Operator> {
        install_transport();
        let bucket = &*self.bucket;
        let operator = match bucket.service {
            Service::S3 => access::s3(&bucket.name, &bucket.access.s3),
            Service::Azblob => {
                let (endpoint, account) = self.azblob_place()?;
                access::azblob(&bucket.name, (&endpoint, &account), &bucket.access.azblob)
            }
            Service::Gs => access::gs(&bucket.name, &bucket.access.gs),
        };
        operator.map_err(|e| ActorError::Config(format!("cannot reach {self}: {}", describe(&e))))
    }

    /// Turns an error of the store into this crate's, saying what was tried.
    pub(crate) fn error(&self, tried: &str, error: &opendal::Error) -> ActorError {
        let why = describe(error);
        let what = if tells_expiry(&why) { RENEW } else { advice(error.kind(), self.service()) };
        let message = format!("cannot {tried} {self}: {why}{what}");
        match error.kind() {
            ErrorKind::ConfigInvalid => ActorError::Config(message),
            _ => ActorError::Storage { message, transient: is_passing(error) },
        }
    }
}

/// What to do where a store says that credentials are over.
const RENEW: &str = "; the credentials have expired: give new ones, and restart where they come by the environment";

/// Whether a store says that temporary credentials or a signature are over, in whichever words.
fn tells_expiry(said: &str) -> bool {
    let said = said.to_ascii_lowercase();
    ["expired", "not valid in the specified time frame"].iter().any(|words| said.contains(words))
}

/// Whether the same call may go well a moment later; one that was denied is denied again, however often it was tried.
pub(crate) fn is_passing(error: &opendal::Error) -> bool {
    if error.kind() == ErrorKind::PermissionDenied {
        return false;
    }
    error.is_temporary() || error.is_persistent() || error.kind() == ErrorKind::RateLimited
}

fn advice(kind: ErrorKind, service: Service) -> &'static str {
    match (kind, service) {
        (ErrorKind::PermissionDenied, Service::S3) => {
            "; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the credentials file or the role"
        }
        (ErrorKind::PermissionDenied, Service::Azblob) => {
            "; check AZURE_STORAGE_SAS_TOKEN, the account's variables or the managed identity"
        }
        (ErrorKind::PermissionDenied, Service::Gs) => "; check GOOGLE_APPLICATION_CREDENTIALS or the machine's account",
        (ErrorKind::ConfigInvalid, _) => "; check the bucket's name, region and endpoint",
        _ => "",
    }
}

/// Longest text of a store that a message quotes.
const QUOTED_CHARS_MAX: usize = 240;

/// Says what a store said, in one line and without anything that signs: a request's URL, which may carry a signature, is
/// left out.
pub(crate) fn describe(error: &opendal::Error) -> String {
    let mut text = error.message().to_owned();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = inner.source();
    }
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let kind = match error.kind() {
        ErrorKind::NotFound => "there is no such object",
        ErrorKind::PermissionDenied => "permission denied",
        ErrorKind::RateLimited => "the store asks to slow down",
        ErrorKind::ConfigInvalid => "not reachable as configured",
        _ => "",
    };
    let text: String = redacted(&text).chars().take(QUOTED_CHARS_MAX).collect();
    match (kind, text.as_str()) {
        ("", text) => text.to_owned(),
        (kind, "") => kind.to_owned(),
        (kind, text) => format!("{kind} ({text})"),
    }
}

/// Parameters whose value signs a request, or is a credential.
const SIGNING: [&str; 6] = ["sig=", "signature=", "security-token=", "credential=", "accountkey=", "access_token="];

/// Replaces the values of parameters that sign.
pub(crate) fn redacted(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    // Case changes of ASCII keep byte positions.
    while let Some(end) =
        SIGNING.iter().filter_map(|name| find_ignoring_case(rest, name).map(|at| at + name.len())).min()
    {
        shown.push_str(&rest[..end]);
        shown.push_str("***");
        let value = rest[end..].find(|c: char| c == '&' || c == ';' || c.is_whitespace() || "\"'<>,".contains(c));
        rest = value.map_or("", |length| &rest[end + length..]);
    }
    shown + rest
}

fn find_ignoring_case(text: &str, name: &str) -> Option<usize> {
    text.to_ascii_lowercase().find(name)
}

/// Connections for every operator of this process; opendal keeps one transport and the first installed one wins.
fn install_transport() {
    static INSTALLED: std::sync::Mutex<bool> = std::sync::Mutex::new(false);
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if !*installed {
        opendal::install_default();
        *installed = true;
    }
}

impl fmt::Display for RemoteObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bucket { service, host, name, .. } = &*self.bucket;
        write!(f, "{}://", service.scheme())?;
        if let Some(host) = host {
            write!(f, "{host}/")?;
        }
        write!(f, "{name}/{}", self.key)
    }
}

impl fmt::Debug for RemoteObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteObject({self})")
    }
}

/// Takes a URL's part behind its scheme apart; accepts a shared access signature as the query of an `azblob:` URL.
///
/// # Errors
/// `Config` for anything that looks like a key of an account, `Usage` for names that no store can hold or that would
/// mean another object on the way.
pub(super) fn parse(service: Service, rest: &str, mut access: Access) -> Result<RemoteObject> {
    let scheme = service.scheme();
    refuse_keys(scheme, rest)?;
    let rest = rest.trim_start_matches('/');
    let rest = match (service, rest.split_once('?')) {
        (Service::Azblob, Some((path, query))) if query.split('&').any(|part| part.starts_with("sig=")) => {
            access.azblob.sas = Some(Secret::new(query));
            path
        }
        (_, Some((path, _))) => {
            return Err(ActorError::Usage(format!(
                "{scheme}://{path}: no query is understood but a shared access signature behind an azblob: url"
            )));
        }
        (_, None) => rest,
    };
    let (first, after) = rest.split_once('/').unwrap_or((rest, ""));
    // A container's name holds no dot, a host always does.
    let (host, name, key) = match (service, first.contains('.')) {
        (Service::Azblob, true) => {
            let (name, key) = after.split_once('/').unwrap_or((after, ""));
            (Some(first.to_owned()), name, key)
        }
        _ => (None, first, after),
    };
    let shown = || format!("{scheme}://{rest}");
    if name.is_empty() {
        return Err(ActorError::Usage(format!("{} names no bucket; write {scheme}://BUCKET/KEY", shown())));
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._$".contains(&b)) {
        return Err(ActorError::Usage(format!("{}: a bucket's name holds letters, digits, dots and dashes", shown())));
    }
    if let Some(fault) = key_fault(key) {
        return Err(ActorError::Usage(format!("{}: {fault}", shown())));
    }
    Ok(RemoteObject::new(service, host, name.to_owned(), key.to_owned(), access))
}

fn refuse_keys(scheme: &str, rest: &str) -> Result<()> {
    let authority = rest.trim_start_matches('/').split(['/', '?']).next().unwrap_or_default();
    let lower = rest.to_ascii_lowercase();
    let named = ["accountkey", "account_key", "secret_access_key", "secretaccesskey", "access_key_id", "sharedkey"];
    if !authority.contains('@') && !named.iter().any(|name| lower.contains(&format!("{name}="))) {
        return Ok(());
    }
    Err(ActorError::Config(format!(
        "a {scheme}: url carries a key, which would end in logs and process lists: {}",
        HOW_TO_GIVE_KEYS
    )))
}

/// What to do instead of writing a key down.
pub const HOW_TO_GIVE_KEYS: &str = "give credentials by the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, \
AZURE_STORAGE_SAS_TOKEN, GOOGLE_APPLICATION_CREDENTIALS), by the services' own credentials files, or by a managed identity";

/// Names that opendal or a URL on the way would turn into another name.
fn key_fault(key: &str) -> Option<&'static str> {
    if key.len() > 1024 {
        return Some("a key has at most 1024 bytes");
    }
    if key != key.trim() || key.chars().any(|c| c.is_control() || c == '\\') {
        return Some("a key neither begins nor ends with a space and holds no control characters and no backslash");
    }
    let whole = key.strip_suffix('/').unwrap_or(key);
    let is_odd = |part: &str| part.is_empty() || part == "." || part == "..";
    (!key.is_empty() && whole.split('/').any(is_odd)).then_some("a key has no empty part and none that is . or ..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(service: Service, rest: &str) -> Result<RemoteObject> {
        parse(service, rest, Access::default())
    }

    #[test]
    fn urls_name_bucket_and_key() {
        let object = parsed(Service::S3, "//bucket/a/b c.mp4").unwrap();
        assert_eq!((object.bucket_name(), object.key()), ("bucket", "a/b c.mp4"));
        assert_eq!(object.to_string(), "s3://bucket/a/b c.mp4");
        let object = parsed(Service::Azblob, "//acc.blob.core.windows.net/box/a.mp4").unwrap();
        assert_eq!((object.bucket_name(), object.key()), ("box", "a.mp4"));
        assert_eq!(object.to_string(), "azblob://acc.blob.core.windows.net/box/a.mp4");
        assert_eq!(object.azblob_place().unwrap().1, "acc");
        assert!(parsed(Service::Gs, "//bucket").unwrap().is_folder());
        assert!(parsed(Service::Gs, "//bucket/a/").unwrap().is_folder());
    }

    #[test]
    fn names_that_would_become_others_are_refused() {
        for rest in ["//", "///a", "//b/../x", "//b/a//c", "//b/ a", "//b/a\\c", "//b/.", "//b c/a", "//b/a?x=1"] {
            let error = parsed(Service::S3, rest).map(|o| o.to_string());
            if rest == "///a" {
                assert_eq!(error.unwrap(), "s3://a/");
            } else {
                assert_eq!(error.unwrap_err().kind(), crate::ErrorKind::Usage, "{rest}");
            }
        }
    }

    #[test]
    fn keys_in_urls_are_refused_without_repeating_them() {
        for rest in [
            "//AKIA:plantedsecret@bucket/a",
            "//box/a?AccountKey=plantedsecret",
            "//box/a;AccountKey=plantedsecret",
            "//box/a?aws_secret_access_key=plantedsecret",
        ] {
            let error = parsed(Service::Azblob, rest).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Config, "{rest}");
            let text = format!("{error} {error:?}");
            assert!(!text.contains("plantedsecret") && text.contains("AZURE_STORAGE_SAS_TOKEN"), "{text}");
        }
    }

    #[test]
    fn a_signature_is_taken_and_never_shown() {
        let object = parsed(Service::Azblob, "//box/a.mp4?sv=2021-06-08&sig=plantedsecret%3D").unwrap();
        assert!(object.access().azblob.sas.is_some());
        assert_eq!(format!("{object} {object:?}"), "azblob://box/a.mp4 RemoteObject(azblob://box/a.mp4)");
    }

    #[test]
    fn what_signs_is_cut_out_of_messages() {
        let text =
            "GET http://h/b?sv=1&sig=planted%3D&se=2 with X-Amz-Signature=planted X-Amz-Security-Token=planted&x";
        let shown = redacted(text);
        assert!(!shown.contains("planted") && shown.contains("se=2") && shown.ends_with("&x"), "{shown}");
        assert_eq!(redacted("nothing to hide"), "nothing to hide");
        let error = opendal::Error::new(ErrorKind::Unexpected, "send http request")
            .with_context("url", "http://h/b?sig=planted");
        assert_eq!(describe(&error), "send http request");
    }
}
