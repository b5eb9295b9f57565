//! `restyle token`: who may call the service.

use super::args::TokenVerb;
use super::output;
use crate::error::{Error, ErrorKind};
use crate::serve::access::token::TokenRequest;
use crate::serve::access::{AccessError, TokenFile, TokenRecord};
use restyle_engine::clock::SystemClock;
use std::time::{Duration, UNIX_EPOCH};

pub(super) fn token(verb: TokenVerb) -> Result<(), Error> {
    match verb {
        TokenVerb::New { name, role, tenant, expires, file } => {
            let request = TokenRequest { name, role, tenant, lifetime: expires.0 };
            let secret = TokenFile::issue(&file, request, &SystemClock::new()).map_err(refused)?;
            output::say("this is shown once; only its hash is kept");
            output::write(&format!("{}\n", secret.reveal()))
        }
        TokenVerb::List { file, json } => {
            for record in TokenFile::load(&file).map_err(refused)?.records() {
                if json { output::write_json(record)? } else { output::write(&line(record))? }
            }
            Ok(())
        }
        TokenVerb::Revoke { name, file } => {
            TokenFile::revoke(&file, &name).map_err(refused)?;
            output::say(&format!("{name} is refused from now on"));
            Ok(())
        }
    }
}

fn line(record: &TokenRecord) -> String {
    let end = record.expires_unix_seconds.map_or_else(|| "never".to_owned(), date);
    let tenant = record.tenant.as_deref().unwrap_or("-");
    format!("{:<24}  {:<9}  {tenant:<16}  expires {end}\n", record.name, record.role)
}

/// Returns a time as RFC 3339, the last that can be written for one beyond.
fn date(unix_seconds: u64) -> String {
    const LAST_DATE: u64 = 253_402_300_799;
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(unix_seconds.min(LAST_DATE))).to_string()
}

fn refused(error: AccessError) -> Error {
    Error::new(ErrorKind::Configuration, error.to_string())
}
