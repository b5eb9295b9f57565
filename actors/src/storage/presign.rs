//! URLs that grant one right on one object for a time.
//!
//! S3 signs exactly what is asked for. For Azure the service's own helper would grant every right, so a shared access
//! signature for the one blob and the one right is made here from the account's key; a signature that was given to this
//! process is never passed on, since it grants whatever it grants.

use std::fmt;
use std::time::Duration;

use opendal::Operator;
use opendal::options::WriteOptions;
use opendal::raw::PresignedRequest;
use reqsign_azure_storage::{
    Credential, SasProtocol, ServiceSasBlobPermissions, ServiceSasConfig, ServiceSasGrant, ServiceSasGranter,
};
use reqsign_core::{Context, GrantCredential as _};

use super::access::Secret;
use super::remote::{RemoteObject, Service};
use super::{block_on, describe};
use crate::error::{ActorError, Result};

/// The longest lifetime that every service accepts: a week.
const LIFETIME_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// What a URL allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UrlRight {
    /// Reading the object: GET.
    Read,
    /// Making the object in one piece where there is none: PUT. What stands there is not replaced.
    Create,
}

/// A URL that is a credential: it has no `Debug` of its text.
#[derive(Clone)]
pub struct SignedUrl {
    /// The method it is good for.
    pub method: &'static str,
    /// Headers that the request must carry.
    pub headers: Vec<(String, String)>,
    url: String,
}

impl SignedUrl {
    /// Gives the URL to whoever is to use it. It must not be logged.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.url
    }
}

impl fmt::Debug for SignedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedUrl").field("method", &self.method).finish_non_exhaustive()
    }
}

pub(super) fn presign(object: &RemoteObject, right: UrlRight, lifetime: Duration) -> Result<SignedUrl> {
    if object.is_folder() {
        return Err(ActorError::Usage(format!("{object} is a folder: a url grants a right on one object")));
    }
    if lifetime.is_zero() || lifetime > LIFETIME_MAX {
        return Err(ActorError::Usage(format!("a url lives for {} s, expected 1 s to 7 days", lifetime.as_secs())));
    }
    match object.service() {
        Service::S3 | Service::Gs => signed_by_service(object, right, lifetime),
        Service::Azblob => signed_for_azblob(object, right, lifetime),
    }
}

fn signed_by_service(object: &RemoteObject, right: UrlRight, lifetime: Duration) -> Result<SignedUrl> {
    let (operator, key) = (object.operator()?, object.key().to_owned());
    let sign = async move |operator: Operator| match right {
        UrlRight::Read => operator.presign_read(&key, lifetime).await,
        UrlRight::Create => {
            // The condition is signed with the rest: without its header the url is good for nothing.
            let options = WriteOptions { if_not_exists: true, ..WriteOptions::default() };
            operator.presign_write_options(&key, lifetime, options).await
        }
    };
    let signed: PresignedRequest = block_on(async move { sign(operator).await })?.map_err(|e| {
        ActorError::Config(format!(
            "cannot sign a url for {object}: {}; give credentials that can sign: keys, or a service account's file",
            describe(&e)
        ))
    })?;
    let headers = signed.header().iter().filter(|(name, _)| *name != "host");
    let headers =
        headers.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    Ok(SignedUrl { method: method(right), headers: headers.collect(), url: signed.uri().to_string() })
}

fn signed_for_azblob(object: &RemoteObject, right: UrlRight, lifetime: Duration) -> Result<SignedUrl> {
    let (endpoint, account) = object.azblob_place()?;
    let key = account_key(object, &account).ok_or_else(|| {
        ActorError::Config(format!(
            "cannot sign a url for {object}: only an account's key (AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY) \
             can sign one that grants a single right"
        ))
    })?;
    let rights = match right {
        UrlRight::Read => ServiceSasBlobPermissions::READ,
        UrlRight::Create => ServiceSasBlobPermissions::CREATE,
    };
    let protocol = if endpoint.starts_with("https:") { SasProtocol::Https } else { SasProtocol::HttpsAndHttp };
    let grant = ServiceSasGrant::for_blob(object.bucket_name(), object.key(), rights);
    let granter = ServiceSasGranter::new(ServiceSasConfig::new(&account).with_protocol(protocol), grant);
    let source = Credential::with_shared_key(&account, key.expose());
    let granted = block_on(async move { granter.grant_credential(&Context::new(), &source, Some(lifetime)).await })?
        .map_err(|e| ActorError::Config(format!("cannot sign a url for {object}: {:?}", e.kind())))?;
    let Credential::SasToken { token, .. } = granted else {
        return Err(ActorError::Config(format!("cannot sign a url for {object}: no signature was made")));
    };
    let path: String = object.key().split('/').map(percent_encoded).collect::<Vec<_>>().join("/");
    let url = format!("{endpoint}/{}/{path}?{}", object.bucket_name(), token.trim_start_matches('?'));
    let headers = match right {
        UrlRight::Read => Vec::new(),
        UrlRight::Create => vec![("x-ms-blob-type".to_owned(), "BlockBlob".to_owned())],
    };
    Ok(SignedUrl { method: method(right), headers, url })
}

/// The account's key, where this process has it and the account is that one.
fn account_key(object: &RemoteObject, account: &str) -> Option<Secret> {
    let access = &object.access().azblob;
    if access.sas.is_some() {
        return None;
    }
    let said = |names: [&str; 2]| names.into_iter().find_map(|name| std::env::var(name).ok());
    access.key.clone().or_else(|| {
        let named = said(["AZURE_STORAGE_ACCOUNT_NAME", "AZBLOB_ACCOUNT_NAME"])?;
        (named == account).then(|| said(["AZURE_STORAGE_ACCOUNT_KEY", "AZBLOB_ACCOUNT_KEY"]).map(Secret::new))?
    })
}

fn method(right: UrlRight) -> &'static str {
    match right {
        UrlRight::Read => "GET",
        UrlRight::Create => "PUT",
    }
}

fn percent_encoded(part: &str) -> String {
    part.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}
