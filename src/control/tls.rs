//! TLS of the listeners and of the connections to peers: certificates read at load, chains verified against the trust
//! anchor, names checked only on request.
//!
//! Kea pairs run on certificates that a plain TLS library refuses: of version 1 (made without extensions) and without a
//! subject alternative name. A certificate of version 3 is verified as RFC 5280 says; one of version 1 has to be signed by
//! a trust anchor directly, be in its time, and prove its key in the handshake (`x509` reads it).
//!
//! Promises: no panic on any certificate; everything that can be wrong with the files is said at load.

mod x509;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{self, CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, ServerName, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer,
    UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error,
    InvalidMessage, PeerMisbehaved, RootCertStore, ServerConfig, SignatureScheme,
};

use x509::Certificate;

/// The three files of TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// `trust-anchor`: a file, or a folder of files, with the certificates that are trusted.
    pub trust_anchor: PathBuf,
    /// `cert-file`: the own certificate, then those between it and the trust anchor.
    pub cert_file: PathBuf,
    /// `key-file`: its private key.
    pub key_file: PathBuf,
}

/// What is wrong with the files.
#[derive(Debug)]
pub struct TlsError {
    /// The file.
    pub file: PathBuf,
    /// What was expected and what came.
    pub text: String,
}

impl fmt::Display for TlsError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.file.display(), self.text)
    }
}

impl std::error::Error for TlsError {}

/// What a failed handshake means to an operator, then the library's own words.
#[must_use]
pub fn in_words(error: &Error) -> String {
    let words = match error {
        Error::AlertReceived(AlertDescription::UnknownCA) => {
            "it refuses our certificate: its trust-anchor does not hold the authority that signed our cert-file"
        }
        Error::AlertReceived(AlertDescription::CertificateExpired) => {
            "it refuses our certificate: by its clock our cert-file is not valid any more"
        }
        Error::AlertReceived(
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied,
        ) => "it refuses our certificate, which is that in cert-file",
        Error::AlertReceived(AlertDescription::CertificateRequired) => "it requires a certificate of us",
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "we refuse its certificate: our trust-anchor does not hold the authority that signed it"
        }
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "we refuse its certificate: by our clock it is not valid any more"
        }
        Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => "we refuse its certificate: by our clock it is not valid yet",
        Error::InvalidCertificate(_) => "we refuse its certificate",
        Error::NoCertificatesPresented => "it shows no certificate, and require-client-certs asks for one",
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "it does not speak TLS, which our cert-file turns on"
        }
        _ => return error.to_string(),
    };
    format!("{words} ({error})")
}

/// [`in_words`] of what a socket said, if it was TLS that said it.
#[must_use]
pub fn io_in_words(error: &std::io::Error) -> String {
    let of_tls = error.get_ref().and_then(|inner| inner.downcast_ref());
    of_tls.map_or_else(|| error.to_string(), in_words)
}

/// Whether octets that should be a request are the beginning of a TLS session.
#[must_use]
pub fn is_handshake(octets: &[u8]) -> bool {
    octets.starts_with(&[22, 3])
}

/// The configuration of a listener.
///
/// # Errors
/// What is wrong with which file.
pub fn server_config(files: &TlsFiles, cert_required: bool) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(crypto::ring::default_provider());
    let anchors = Anchors::load(&files.trust_anchor, &provider)?;
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(&anchors.roots), Arc::clone(&provider));
    let verifier = verifier.build().map_err(|error| fault(&files.trust_anchor, error))?;
    let verifier = PeerVerifier { anchors, clients: Some(verifier), cert_required, check_name: false };
    let own = own_certificate(files, &provider)?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| fault(&files.cert_file, error))?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(own));
    Ok(Arc::new(config))
}

/// The configuration of a connection to a peer: its chain is verified; its name only when `check_name` is true.
///
/// # Errors
/// What is wrong with which file.
pub fn client_config(files: &TlsFiles, check_name: bool) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(crypto::ring::default_provider());
    let anchors = Anchors::load(&files.trust_anchor, &provider)?;
    let own = own_certificate(files, &provider)?;
    let verifier = PeerVerifier { anchors, clients: None, cert_required: true, check_name };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| fault(&files.cert_file, error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(own));
    Ok(Arc::new(config))
}

fn fault(file: &Path, text: impl ToString) -> TlsError {
    TlsError { file: file.to_owned(), text: text.to_string() }
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(file).map_err(|error| fault(file, format!("cannot be read: {error}")))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(file)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    certificates.map_err(|error| fault(file, format!("expected certificates in PEM: {error}")))
}

fn own_certificate(files: &TlsFiles, provider: &CryptoProvider) -> Result<SingleCertAndKey, TlsError> {
    let chain = certificates(&files.cert_file)?;
    let Some(leaf) = chain.first() else {
        return Err(fault(&files.cert_file, "expected a certificate in PEM, found none"));
    };
    let leaf = Certificate::read(leaf)
        .ok_or_else(|| fault(&files.cert_file, "expected an X.509 certificate, its DER is broken"))?;
    let pem = read(&files.key_file)?;
    let key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|error| fault(&files.key_file, format!("expected a private key in PEM: {error}")))?;
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|error| fault(&files.key_file, format!("expected an RSA, ECDSA or Ed25519 key: {error}")))?;
    if let Some(public) = key.public_key()
        && public.as_ref() != leaf.public_key_info
    {
        return Err(fault(
            &files.key_file,
            format!("expected the key of the certificate in {}, got another one", files.cert_file.display()),
        ));
    }
    // Not checked by the library: it would refuse to look at a certificate of version 1.
    Ok(SingleCertAndKey::from(CertifiedKey::new(chain, key)))
}

/// The certificates that are trusted.
#[derive(Debug)]
struct Anchors {
    roots: Arc<RootCertStore>,
    certificates: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Anchors {
    fn load(path: &Path, provider: &CryptoProvider) -> Result<Self, TlsError> {
        let mut found = Vec::new();
        if path.is_dir() {
            let entries =
                std::fs::read_dir(path).map_err(|error| fault(path, format!("cannot be read: {error}")))?;
            for entry in entries {
                let file = entry.map_err(|error| fault(path, format!("cannot be read: {error}")))?.path();
                if file.is_file() {
                    found.extend(certificates(&file)?);
                }
            }
        } else {
            found = certificates(path)?;
        }
        let mut roots = RootCertStore::empty();
        for certificate in &found {
            roots.add(certificate.clone()).map_err(|error| {
                fault(path, format!("expected certificates that can be trust anchors: {error}"))
            })?;
        }
        if found.is_empty() {
            return Err(fault(path, "expected at least one certificate in PEM, found none"));
        }
        let algorithms = provider.signature_verification_algorithms;
        Ok(Self { roots: Arc::new(roots), certificates: found, algorithms })
    }

    /// Whether a certificate of version 1 is in its time and signed by a trust anchor.
    fn verify_version_1(&self, leaf: &Certificate<'_>, now: UnixTime) -> Result<(), Error> {
        let now_s = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if now_s < leaf.not_before_s {
            return Err(CertificateError::NotValidYet.into());
        }
        if now_s > leaf.not_after_s {
            return Err(CertificateError::Expired.into());
        }
        let issuers = self.certificates.iter().filter_map(|anchor| Certificate::read(anchor));
        let mut reason = CertificateError::UnknownIssuer;
        for issuer in issuers.filter(|issuer| issuer.subject == leaf.issuer) {
            let mut algorithms = self.algorithms.all.iter().filter(|algorithm| {
                algorithm.signature_alg_id().as_ref() == leaf.signature_algorithm
                    && algorithm.public_key_alg_id().as_ref() == issuer.key_algorithm
            });
            if algorithms
                .any(|algorithm| algorithm.verify_signature(issuer.key, leaf.signed, leaf.signature).is_ok())
            {
                return Ok(());
            }
            reason = CertificateError::BadSignature;
        }
        Err(reason.into())
    }
}

/// Judges the certificates of the other side.
#[derive(Debug)]
struct PeerVerifier {
    anchors: Anchors,
    /// For certificates of clients of version 3.
    clients: Option<Arc<dyn ClientCertVerifier>>,
    cert_required: bool,
    check_name: bool,
}

fn broken() -> Error {
    CertificateError::BadEncoding.into()
}

impl PeerVerifier {
    fn tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.anchors.algorithms;
        let parsed = Certificate::read(certificate).ok_or_else(broken)?;
        if parsed.version != 1 {
            return crypto::verify_tls12_signature(message, certificate, dss, algorithms);
        }
        let scheme = algorithms.mapping.iter().find(|(scheme, _)| *scheme == dss.scheme);
        let Some((_, candidates)) = scheme else {
            return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
        };
        let fits = |algorithm: &&&dyn SignatureVerificationAlgorithm| {
            algorithm.public_key_alg_id().as_ref() == parsed.key_algorithm
        };
        let valid = candidates
            .iter()
            .filter(fits)
            .any(|algorithm| algorithm.verify_signature(parsed.key, message, dss.signature()).is_ok());
        if valid {
            Ok(HandshakeSignatureValid::assertion())
        } else {
            Err(CertificateError::BadSignature.into())
        }
    }

    fn tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.anchors.algorithms;
        let parsed = Certificate::read(certificate).ok_or_else(broken)?;
        if parsed.version != 1 {
            return crypto::verify_tls13_signature(message, certificate, dss, algorithms);
        }
        let key = SubjectPublicKeyInfoDer::from(parsed.public_key_info);
        crypto::verify_tls13_signature_with_raw_key(message, &key, dss, algorithms)
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.cert_required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.clients.as_ref().map_or(&[], |clients| clients.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let parsed = Certificate::read(end_entity).ok_or_else(broken)?;
        match &self.clients {
            Some(clients) if parsed.version != 1 => {
                clients.verify_client_cert(end_entity, intermediates, now)
            }
            _ => {
                self.anchors.verify_version_1(&parsed, now)?;
                Ok(ClientCertVerified::assertion())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.tls12_signature(message, certificate, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.tls13_signature(message, certificate, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.anchors.algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = Certificate::read(end_entity).ok_or_else(broken)?;
        if parsed.version == 1 {
            if self.check_name {
                // It has no place for a name that could be checked.
                return Err(CertificateError::NotValidForName.into());
            }
            self.anchors.verify_version_1(&parsed, now)?;
        } else {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            let (roots, algorithms) = (&self.anchors.roots, self.anchors.algorithms.all);
            rustls::client::verify_server_cert_signed_by_trust_anchor(
                &certificate,
                roots,
                intermediates,
                now,
                algorithms,
            )?;
            if self.check_name {
                rustls::client::verify_server_name(&certificate, server_name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.tls12_signature(message, certificate, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.tls13_signature(message, certificate, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.anchors.algorithms.supported_schemes()
    }
}
