//! TLS with the certificates that Kea pairs really have.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use aplomado::control::backend::Daemon;
use aplomado::control::http::HttpSettings;
use aplomado::control::listener::{ListenerSpec, Role};
use aplomado::control::tls::{TlsFiles, client_config, in_words, server_config};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair, SigningKey as _,
    date_time_ymd,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, ServerConfig, ServerConnection, SignatureScheme,
    StreamOwned, SupportedProtocolVersion,
};

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
    files_with(folder, name, by, trusted, version, |_| {})
}

/// The same, of a certificate that is something special.
fn files_with(
    folder: &Path,
    name: &str,
    by: &Authority,
    trusted: &Authority,
    version: u8,
    special: impl FnOnce(&mut CertificateParams),
) -> TlsFiles {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.distinguished_name.push(DnType::CommonName, name);
    special(&mut params);
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

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// Who ended a handshake, and why.
#[derive(Debug, PartialEq)]
enum Ended {
    ByClient(rustls::Error),
    ByServer(rustls::Error),
}

/// A client and a server speak until both are ready, or one of them has enough.
fn meet(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>, name: &'static str) -> Result<(), Ended> {
    let name = ServerName::try_from(name).expect("a name");
    let mut client = ClientConnection::new(Arc::clone(client), name).expect("a session");
    let mut server = ServerConnection::new(Arc::clone(server)).expect("a session");
    for _ in 0..10 {
        let mut said = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut said).expect("room");
        }
        let mut rest = said.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).expect("octets");
        }
        server.process_new_packets().map_err(Ended::ByServer)?;
        let mut said = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut said).expect("room");
        }
        let mut rest = said.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).expect("octets");
        }
        client.process_new_packets().map_err(Ended::ByClient)?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking(), "nobody has anything to say");
    Ok(())
}

/// The certificate in one file, shown with the key in another.
fn shown(cert_file: &Path, key_file: &Path) -> Arc<SingleCertAndKey> {
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(&fs::read(cert_file).expect("it is there")).collect();
    let key = PrivateKeyDer::from_pem_file(key_file).expect("a key");
    let key = ring::sign::any_supported_type(&key).expect("a usable key");
    Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain.expect("certificates"), key)))
}

/// A client that believes everything, and shows this.
fn any_client(version: &'static SupportedProtocolVersion, shows: Arc<SingleCertAndKey>) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_protocol_versions(&[version]).expect("a version");
    Arc::new(
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anything))
            .with_client_cert_resolver(shows),
    )
}

/// A server that asks for nothing, and shows this.
fn any_server(version: &'static SupportedProtocolVersion, shows: Arc<SingleCertAndKey>) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_protocol_versions(&[version]).expect("a version");
    Arc::new(builder.with_no_client_auth().with_cert_resolver(shows))
}

/// A certificate is no secret: whoever shows one has to prove that he has its key.
#[test]
fn a_certificate_without_its_key_is_worth_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let ours = authority("ours");
    for version in [3, 1] {
        let own = files(folder.path(), "own", &ours, &ours, version);
        let (client, server) = (client_config(&own, false).expect("good files"), server_config(&own, true));
        let server = server.expect("good files");
        let victim = files(folder.path(), "victim", &ours, &ours, version);
        let thief = files(folder.path(), "thief", &ours, &ours, version);
        let honest = || shown(&victim.cert_file, &victim.key_file);
        let stolen = || shown(&victim.cert_file, &thief.key_file);
        for protocol in VERSIONS {
            let case = format!("version {version}, {:?}", protocol.version);
            assert_eq!(meet(&any_client(protocol, honest()), &server, "127.0.0.1"), Ok(()), "{case}");
            let refused = meet(&any_client(protocol, stolen()), &server, "127.0.0.1");
            assert!(matches!(refused, Err(Ended::ByServer(_))), "{case}: {refused:?}");
            assert_eq!(meet(&client, &any_server(protocol, honest()), "127.0.0.1"), Ok(()), "{case}");
            let refused = meet(&client, &any_server(protocol, stolen()), "127.0.0.1");
            assert!(matches!(refused, Err(Ended::ByClient(_))), "{case}: {refused:?}");
        }
    }
}

#[test]
fn a_certificate_counts_in_its_time_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let ours = authority("ours");
    for version in [3, 1] {
        let own = files(folder.path(), "own", &ours, &ours, version);
        let (client, server) = (client_config(&own, false), server_config(&own, true));
        let (client, server) = (client.expect("good files"), server.expect("good files"));
        for (from, to, words) in [
            (1990, 2000, Some("by our clock it is not valid any more")),
            (2000, 3000, None),
            (2990, 3000, Some("by our clock it is not valid yet")),
        ] {
            let made = files_with(folder.path(), "made", &ours, &ours, version, |params| {
                params.not_before = date_time_ymd(from, 1, 1);
                params.not_after = date_time_ymd(to, 1, 1);
            });
            let shows = || shown(&made.cert_file, &made.key_file);
            let told = |ended: Result<(), Ended>| match ended {
                Ok(()) => None,
                Err(Ended::ByClient(error) | Ended::ByServer(error)) => Some(in_words(&error)),
            };
            let ends = [
                meet(&any_client(&TLS13, shows()), &server, "127.0.0.1"),
                meet(&client, &any_server(&TLS13, shows()), "127.0.0.1"),
            ];
            for told in ends.map(told) {
                let is_as_expected = match (&told, words) {
                    (Some(told), Some(words)) => told.contains(words),
                    (told, words) => told.is_none() && words.is_none(),
                };
                assert!(is_as_expected, "version {version}, {from} to {to}: {told:?}");
            }
        }
    }
}

#[test]
fn a_name_is_looked_at_where_it_is_to_be_checked() {
    let folder = tempfile::tempdir().expect("a folder");
    let ours = authority("ours");
    let own = files(folder.path(), "own", &ours, &ours, 3);
    let named = files_with(folder.path(), "named", &ours, &ours, 3, |params| {
        let names = ["10.0.0.1".to_owned(), "two.example".to_owned()];
        params.subject_alt_names = CertificateParams::new(names).expect("names").subject_alt_names;
    });
    let server = any_server(&TLS13, shown(&named.cert_file, &named.key_file));
    for check_name in [false, true] {
        let client = client_config(&own, check_name).expect("good files");
        for (name, is_its) in
            [("10.0.0.1", true), ("two.example", true), ("10.0.0.2", false), ("one.example", false)]
        {
            let ended = meet(&client, &server, name);
            assert_eq!(ended.is_ok(), is_its || !check_name, "{name}, checked {check_name}: {ended:?}");
        }
    }
}

/// The key of an authority under another name, which signed nothing for ours.
#[test]
fn a_certificate_of_version_1_names_the_authority_that_signed_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let ours = authority("ours");
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.distinguished_name.push(DnType::CommonName, "theirs");
    let same_key = || KeyPair::from_pem(&ours.signing.serialize_pem()).expect("the same key");
    let renamed = Authority {
        certificate: params.self_signed(&same_key()).expect("signed"),
        issuer: Issuer::new(params, same_key()),
        signing: same_key(),
    };
    let own = files(folder.path(), "own", &ours, &ours, 3);
    let server = server_config(&own, true).expect("good files");
    for (by, is_accepted) in [(&ours, true), (&renamed, false)] {
        let made = files(folder.path(), "made", by, &ours, 1);
        let ended = meet(&any_client(&TLS13, shown(&made.cert_file, &made.key_file)), &server, "127.0.0.1");
        assert_eq!(ended.is_ok(), is_accepted, "{ended:?}");
    }
}

/// Whatever a server shows is good enough, and so is every signature.
#[derive(Debug)]
struct Anything;

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
