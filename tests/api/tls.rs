//! The listener with TLS.

use crate::bench::Bench;
use crate::client::{answer, connect, request};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::cell::OnceCell;
use std::io::Write as _;
use std::sync::Arc;

fn client(certificate: CertificateDer<'static>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

fn ask(bench: &Bench, config: Arc<ClientConfig>) -> std::io::Result<crate::client::Answer> {
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(config, name).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(connection, connect(bench.address()));
    stream.write_all(&request(bench.address(), "GET", "/v1/me", &[("host", "localhost")], b""))?;
    Ok(answer(&mut stream).expect("an answer"))
}

#[test]
fn tls_is_spoken_renewed_and_nothing_else_is_understood() {
    let pair = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (one, two) = (pair(), pair());
    let dir = OnceCell::new();
    let write = |dir: &std::path::Path, pair: &rcgen::CertifiedKey<rcgen::KeyPair>| {
        std::fs::write(dir.join("c.pem"), pair.cert.pem()).unwrap();
        std::fs::write(dir.join("k.pem"), pair.signing_key.serialize_pem()).unwrap();
    };
    let top = "tls = { certificate = \"c.pem\", key = \"k.pem\" }";
    let route =
        "[[route]]\ninput = \"in\"\noutput = \"out\"\nlogs = \"logs\"\nstyle = \"tiny.safetensors\"\ninclude = [\"x\"]";
    let bench = Bench::start_with(top, route, |folder| {
        write(folder, &one);
        let _ = dir.set(folder.to_owned());
    });
    let answer_one = ask(&bench, client(one.cert.der().clone())).unwrap();
    assert_eq!((answer_one.status, &answer_one.json()["name"]), (200, &"local".into()));
    assert!(answer_one.header("strict-transport-security").is_some());
    assert!(ask(&bench, client(two.cert.der().clone())).is_err(), "a certificate of somebody else was shown");

    // Whoever speaks plain HTTP gets nothing.
    let mut plain = connect(bench.address());
    plain.write_all(&request(bench.address(), "GET", "/v1/me", &[], b"")).unwrap();
    assert!(answer(&mut plain).is_none());

    write(dir.get().unwrap(), &two);
    bench.server.reload().unwrap();
    assert_eq!(ask(&bench, client(two.cert.der().clone())).unwrap().status, 200);
    assert!(ask(&bench, client(one.cert.der().clone())).is_err(), "the old certificate is still shown");
}
