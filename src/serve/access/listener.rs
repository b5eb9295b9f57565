//! Which addresses may be opened: loopback freely, anything else only with TLS and tokens.

use super::AccessError;
use std::net::SocketAddr;

/// A listener as it is configured; [`ListenerRule::check`] says whether it may be opened.
#[derive(Debug, Clone, Copy)]
pub struct ListenerRule {
    /// Where it would listen.
    pub address: SocketAddr,
    /// Whether a certificate is configured.
    pub tls: bool,
    /// Whether a token file is configured.
    pub tokens: bool,
}

impl ListenerRule {
    /// Lets loopback through, and another address where both TLS and tokens are there.
    ///
    /// # Errors
    /// [`AccessError::Invalid`] saying what is missing and how to get it.
    pub fn check(&self) -> Result<(), AccessError> {
        let missing = match (self.tls, self.tokens) {
            _ if self.is_loopback() => return Ok(()),
            (true, true) => return Ok(()),
            (false, true) => "tls = { certificate = \"FILE\", key = \"FILE\" }",
            (true, false) => "tokens = \"FILE\", made by `restyle token new --file FILE`",
            (false, false) => {
                "tls = { certificate = \"FILE\", key = \"FILE\" } and tokens = \"FILE\", made by `restyle token new --file FILE`"
            }
        };
        let address = self.address;
        Err(AccessError::Invalid(format!(
            "listening on {address} can be reached from other machines and needs {missing}; or listen on 127.0.0.1"
        )))
    }

    /// Tells whether only this machine can reach the listener.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.address.ip().to_canonical().is_loopback()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(address: &str, tls: bool, tokens: bool) -> Result<(), String> {
        ListenerRule { address: address.parse().unwrap(), tls, tokens }.check().map_err(|e| e.to_string())
    }

    #[test]
    fn loopback_needs_nothing_and_the_rest_needs_both() {
        for loopback in ["127.0.0.1:8080", "127.9.9.9:1", "[::1]:8080", "[::ffff:127.0.0.1]:80"] {
            assert!(check(loopback, false, false).is_ok(), "{loopback}");
        }
        for open in ["0.0.0.0:8080", "[::]:8080", "192.0.2.1:443", "[2001:db8::1]:443"] {
            assert!(check(open, true, true).is_ok());
            assert!(check(open, false, true).unwrap_err().contains("certificate"));
            assert!(check(open, true, false).unwrap_err().contains("restyle token new"));
            let both = check(open, false, false).unwrap_err();
            assert!(both.contains("certificate") && both.contains("tokens"), "{both}");
        }
    }
}
