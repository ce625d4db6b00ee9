//! TLS with the certificates that Kea pairs really have.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use aplomado::control::backend::Daemon;
use aplomado::control::http::HttpSettings;
use aplomado::control::listener::{ListenerSpec, Role};
use aplomado::control::tls::{TlsFiles, client_config, server_config};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair, SigningKey as _,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::channels::{http, post, response};
use crate::no_certificate::NoCertificate;
use crate::server::Running;

struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
    signing: KeyPair,
}

fn authority(name: &str) -> Authority {
    let key = KeyPair::generate().expect("a key");
    let signing = KeyPair::from_pem(&key.serialize_pem()).expect("the same key");
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    let certificate = params.self_signed(&key).expect("signed");
    Authority { certificate, issuer: Issuer::new(params, key), signing }
}

/// One element of DER.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("short").to_be_bytes();
    let mut out = vec![tag];
    match content.len() {
        0..0x80 => out.push(length[1]),
        0x80..0x100 => out.extend([0x81, length[1]]),
        _ => out.extend([0x82, length[0], length[1]]),
    }
    out.extend_from_slice(content);
    out
}

/// The elements side by side in `der`: tag, content.
fn elements(mut der: &[u8]) -> Vec<(u8, &[u8])> {
    let mut found = Vec::new();
    while let [tag, first, rest @ ..] = der {
        let (length, rest) = match first {
            0x81 => (usize::from(rest[0]), &rest[1..]),
            0x82 => (usize::from(rest[0]) << 8 | usize::from(rest[1]), &rest[2..]),
            short => (usize::from(*short), rest),
        };
        found.push((*tag, &rest[..length]));
        der = &rest[length..];
    }
    found
}

/// The certificate as one of version 1: no version, no extensions, signed anew.
fn to_version_1(der: &[u8], signing: &KeyPair) -> Vec<u8> {
    let outer = elements(elements(der)[0].1);
    let parts = elements(outer[0].1);
    let kept = parts.iter().filter(|(tag, _)| ![0xa0, 0xa3].contains(tag));
    let tbs = element(0x30, &kept.flat_map(|(tag, content)| element(*tag, content)).collect::<Vec<u8>>());
    let signature = [&[0][..], &signing.sign(&tbs).expect("signs")].concat();
    element(0x30, &[tbs, element(outer[1].0, outer[1].1), element(0x03, &signature)].concat())
}

fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

/// Files of a certificate without names, signed by `by`, trusting `trusted`.
fn files(folder: &Path, name: &str, by: &Authority, trusted: &Authority, version: u8) -> TlsFiles {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.distinguished_name.push(DnType::CommonName, name);
    let made = params.signed_by(&key, &by.issuer).expect("signed");
    let der = if version == 1 { to_version_1(made.der(), &by.signing) } else { made.der().to_vec() };
    let write = |kind: &str, text: String| {
        let path = folder.join(format!("{name}.{kind}"));
        fs::write(&path, text).expect("writes");
        path
    };
    TlsFiles {
        trust_anchor: write("ca", trusted.certificate.pem()),
        cert_file: write("crt", pem(&der)),
        key_file: write("key", key.serialize_pem()),
    }
}

fn serve(files: &TlsFiles, cert_required: bool) -> Running {
    let config = server_config(files, cert_required).expect("good files");
    Running::start(
        |_| {},
        move |_| {
            let ListenerSpec::Http(mut spec) = http(Role::Server(Daemon::Dhcp4), HttpSettings::default())
            else {
                unreachable!("it is HTTP");
            };
            spec.tls = Some(config);
            vec![ListenerSpec::Http(spec)]
        },
    )
}

fn ask(running: &Running, config: Arc<ClientConfig>) -> std::io::Result<String> {
    let socket = running.connect();
    let name = ServerName::from(running.tcp[0].ip());
    let session = ClientConnection::new(config, name).expect("a session");
    let mut stream: StreamOwned<ClientConnection, TcpStream> = StreamOwned::new(session, socket);
    stream.write_all(post("{\"command\":\"server-tag-get\"}").as_bytes())?;
    stream.flush()?;
    // The refusal of a certificate comes after the client's side of the handshake is done: the first read tells.
    let mut first = [0];
    std::io::Read::read_exact(&mut stream, &mut first)?;
    let (status, ..) = response(&mut std::io::Read::chain(&first[..], stream));
    Ok(status)
}

#[test]
fn certificates_of_either_version_and_without_names_are_accepted_and_strangers_are_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    // Of the same name, with another key.
    let forged = authority("ours");
    for server_version in [3, 1] {
        let server = files(folder.path(), "server", &ours, &ours, server_version);
        let running = serve(&server, true);
        for client_version in [3, 1] {
            let good = files(folder.path(), "client", &ours, &ours, client_version);
            let status = ask(&running, client_config(&good, false).expect("good files"));
            assert_eq!(status.expect("an answer"), "HTTP/1.1 200 OK", "{server_version} {client_version}");
            for (name, by) in [("stranger", &theirs), ("forged", &forged)] {
                let bad = files(folder.path(), name, by, &ours, client_version);
                let refused = ask(&running, client_config(&bad, false).expect("good files"));
                assert!(refused.is_err(), "{name} {client_version}");
            }
            let distrustful = files(folder.path(), "client2", &ours, &theirs, client_version);
            assert!(ask(&running, client_config(&distrustful, false).expect("good files")).is_err());
        }
        let good = files(folder.path(), "client", &ours, &ours, 3);
        let checking = client_config(&good, true).expect("good files");
        assert!(ask(&running, checking).is_err(), "a name that is asked for has to be there");
        // Plain text on a TLS port ends that connection only.
        let mut plain = running.connect();
        plain.write_all(post("{}").as_bytes()).expect("writes");
        let again = ask(&running, client_config(&good, false).expect("good files"));
        assert_eq!(again.expect("an answer"), "HTTP/1.1 200 OK");
    }
}

#[test]
fn a_client_without_certificate_is_let_in_only_where_none_is_required() {
    let folder = tempfile::tempdir().expect("a folder");
    let ours = authority("ours");
    let server = files(folder.path(), "server", &ours, &ours, 3);
    let mut config = ClientConfig::clone(&client_config(&server, false).expect("good files"));
    config.client_auth_cert_resolver = Arc::new(NoCertificate);
    let config = Arc::new(config);
    assert!(ask(&serve(&server, true), Arc::clone(&config)).is_err());
    assert_eq!(ask(&serve(&server, false), config).expect("an answer"), "HTTP/1.1 200 OK");
}

#[test]
fn wrong_files_are_told_with_their_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let ours = authority("ours");
    let good = files(folder.path(), "a", &ours, &ours, 3);
    let other = files(folder.path(), "b", &ours, &ours, 1);
    let told = |files: TlsFiles| server_config(&files, true).expect_err("is refused").to_string();
    let missing = folder.path().join("none");
    assert!(told(TlsFiles { cert_file: missing.clone(), ..good.clone() }).contains("none: cannot be read"));
    assert!(told(TlsFiles { trust_anchor: missing, ..good.clone() }).contains("none: cannot be read"));
    let mixed = told(TlsFiles { key_file: other.key_file.clone(), ..good.clone() });
    assert!(mixed.contains("b.key: expected the key of the certificate in"), "{mixed}");
    let mixed = told(TlsFiles { cert_file: other.cert_file, ..good.clone() });
    assert!(mixed.contains("a.key: expected the key of the certificate in"), "{mixed}");
    let swapped = told(TlsFiles { cert_file: good.key_file.clone(), ..good.clone() });
    assert!(swapped.contains("a.key: expected a certificate in PEM, found none"), "{swapped}");
    let swapped = told(TlsFiles { key_file: good.cert_file.clone(), ..good.clone() });
    assert!(swapped.contains("a.crt: expected a private key in PEM"), "{swapped}");
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).expect("a folder");
    assert!(
        told(TlsFiles { trust_anchor: empty.clone(), ..good.clone() })
            .contains("expected at least one certificate")
    );
    fs::copy(&good.trust_anchor, empty.join("ca.pem")).expect("copies");
    assert!(server_config(&TlsFiles { trust_anchor: empty, ..good }, true).is_ok());
}
