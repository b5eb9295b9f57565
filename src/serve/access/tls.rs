//! The certificate of the listeners, which can be renewed while they listen.

use super::AccessError;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::fmt;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

/// A certificate chain with its key, read from PEM files; the key is never printed.
#[derive(Clone)]
pub struct ServerCertificate {
    certificate: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
    current: Arc<Current>,
}

impl ServerCertificate {
    /// Reads chain and key; blocks on the disk.
    ///
    /// # Errors
    /// [`AccessError`] when a file cannot be read, holds no certificate or no key, or when they do not belong together.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, AccessError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let current = Arc::new(Current(RwLock::new(read(certificate, key, &provider)?)));
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), provider, current })
    }

    /// Reads the files again; connections made from now on see the new certificate. Blocks on the disk.
    ///
    /// # Errors
    /// As [`ServerCertificate::load`]; the certificate of before stays then.
    pub fn reload(&self) -> Result<(), AccessError> {
        let renewed = read(&self.certificate, &self.key, &self.provider)?;
        *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = renewed;
        Ok(())
    }

    /// Returns a configuration of TLS 1.2 and 1.3 for servers, without client certificates.
    ///
    /// # Errors
    /// [`AccessError::Invalid`] when the provider knows no protocol version, which would be a fault of the build.
    pub fn server_config(&self) -> Result<ServerConfig, AccessError> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| AccessError::Invalid(format!("tls: {e}")))?;
        let resolver = Arc::clone(&self.current);
        Ok(builder.with_no_client_auth().with_cert_resolver(resolver))
    }
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerCertificate({})", self.certificate.display())
    }
}

fn read(certificate: &Path, key: &Path, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, AccessError> {
    let chain = pem(certificate)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&chain)
        .collect::<Result<_, _>>()
        .map_err(|e| refused("certificate", certificate, &e))?;
    if chain.is_empty() {
        return Err(refused("certificate", certificate, &"expected a pem certificate, found none"));
    }
    let private = PrivateKeyDer::from_pem_slice(&pem(key)?).map_err(|e| refused("key", key, &e))?;
    let certified = CertifiedKey::from_der(chain, private, provider).map_err(|e| refused("key", key, &e))?;
    Ok(Arc::new(certified))
}

/// A chain of certificates is some kilobytes long.
const PEM_BYTES_MAX: u64 = 1 << 20;

fn pem(path: &Path) -> Result<Vec<u8>, AccessError> {
    let bytes = std::fs::metadata(path).and_then(|about| match about.len() {
        0..=PEM_BYTES_MAX => std::fs::read(path),
        bytes => Err(Error::other(format!("{bytes} bytes, expected at most {PEM_BYTES_MAX}"))),
    });
    bytes.map_err(|e| AccessError::file("pem file", path, e))
}

fn refused(what: &'static str, path: &Path, why: &dyn fmt::Display) -> AccessError {
    AccessError::file(what, path, Error::new(ErrorKind::InvalidData, why.to_string()))
}

/// Hands every new connection the certificate of now.
struct Current(RwLock<Arc<CertifiedKey>>);

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Current")
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn a_pair_is_loaded_and_renewed_and_what_does_not_fit_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let pair = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (one, two) = (pair(), pair());
        let certificate = write(dir.path(), "c.pem", &one.cert.pem());
        let key = write(dir.path(), "k.pem", &one.signing_key.serialize_pem());
        let loaded = ServerCertificate::load(&certificate, &key).unwrap();
        loaded.server_config().unwrap();
        let shown = |of: &ServerCertificate| of.current.0.read().unwrap().cert[0].clone();
        assert_eq!(shown(&loaded).as_ref(), one.cert.der().as_ref());

        write(dir.path(), "c.pem", &two.cert.pem());
        assert!(loaded.reload().is_err(), "the key of another certificate was taken");
        assert_eq!(shown(&loaded).as_ref(), one.cert.der().as_ref(), "a refused pair replaced the good one");
        write(dir.path(), "k.pem", &two.signing_key.serialize_pem());
        loaded.reload().unwrap();
        assert_eq!(shown(&loaded).as_ref(), two.cert.der().as_ref());

        assert!(ServerCertificate::load(&key, &key).is_err(), "a key is no certificate");
        assert!(ServerCertificate::load(&certificate, &dir.path().join("none")).is_err());
        assert!(!format!("{loaded:?}").contains("PRIVATE"));
    }
}
