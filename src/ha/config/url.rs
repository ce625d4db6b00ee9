//! URLs of peers: `http` or `https`, an address, a port; no names, so that nothing is ever resolved.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Where a peer listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerUrl {
    /// The URL as written.
    pub text: String,
    /// Whether the scheme is `https`. TLS itself is decided by the TLS files.
    pub https: bool,
    /// Address and port; without a port, the scheme's.
    pub address: SocketAddr,
    /// The path as written, at least `/`; commands go to `/` all the same.
    pub path: String,
}

/// What is wrong with a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrlError {
    /// There is no `http://` or `https://`.
    Scheme,
    /// The host is not an address (IPv6 in brackets).
    Host,
    /// The port is not a number from 1 to 65535.
    Port,
}

impl fmt::Display for UrlError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Scheme => "expected a URL that begins with http:// or https://",
            Self::Host => "expected an IP address as the host (IPv6 in brackets); names are not resolved",
            Self::Port => "expected a port from 1 to 65535",
        })
    }
}

impl PeerUrl {
    /// Parses `text`.
    ///
    /// # Errors
    /// When the scheme, the host or the port is not as it must be.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let trimmed = text.trim();
        let (https, rest) = match split_scheme(trimmed) {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            _ => return Err(UrlError::Scheme),
        };
        let (authority, path) = rest.find(['/', '?', '#']).map_or((rest, "/"), |at| rest.split_at(at));
        let (host, port) = if let Some(inner) = authority.strip_prefix('[') {
            let (host, after) = inner.split_once(']').ok_or(UrlError::Host)?;
            let host: Ipv6Addr = host.parse().map_err(|_| UrlError::Host)?;
            let port = match after {
                "" => None,
                _ => Some(after.strip_prefix(':').ok_or(UrlError::Host)?),
            };
            (IpAddr::V6(host), port)
        } else {
            let (host, port) =
                authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
            (IpAddr::V4(host.parse().map_err(|_| UrlError::Host)?), port)
        };
        let port = match port {
            None if https => 443,
            None => 80,
            Some(digits) if digits.bytes().all(|digit| digit.is_ascii_digit()) => {
                digits.parse().ok().filter(|&port| port != 0).ok_or(UrlError::Port)?
            }
            Some(_) => return Err(UrlError::Port),
        };
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { text: trimmed.to_owned(), https, address: SocketAddr::new(host, port), path })
    }

    /// What goes into the `Host` header: the bare address, without port and brackets, as Kea sends it.
    #[must_use]
    pub fn host_header(&self) -> String {
        self.address.ip().to_string()
    }
}

/// Scheme and what follows `://`, the scheme one of the two that we know (in any case).
fn split_scheme(text: &str) -> Option<(&'static str, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    ["http", "https"].into_iter().find(|known| known.eq_ignore_ascii_case(scheme)).map(|known| (known, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_url() {
        let url = PeerUrl::parse("http://10.9.0.1:8005/kea").expect("valid");
        assert_eq!(
            (url.https, url.address.to_string().as_str(), url.path.as_str()),
            (false, "10.9.0.1:8005", "/kea")
        );
        let url = PeerUrl::parse("https://[2001:db8::1]").expect("valid");
        assert_eq!(
            (url.https, url.address.to_string().as_str(), url.path.as_str()),
            (true, "[2001:db8::1]:443", "/")
        );
        assert_eq!(url.host_header(), "2001:db8::1");
    }

    #[test]
    fn refusals() {
        for (text, error) in [
            ("10.9.0.1:8005", UrlError::Scheme),
            ("ftp://10.9.0.1/", UrlError::Scheme),
            ("http://localhost:8005/", UrlError::Host),
            ("http://2001:db8::1/", UrlError::Host),
            ("http://[10.9.0.1]/", UrlError::Host),
            ("http://[2001:db8::1]x/", UrlError::Host),
            ("http:///", UrlError::Host),
            ("http://10.9.0.1:/", UrlError::Port),
            ("http://10.9.0.1:0/", UrlError::Port),
            ("http://10.9.0.1:65536/", UrlError::Port),
            ("http://10.9.0.1:+80/", UrlError::Port),
        ] {
            assert_eq!(PeerUrl::parse(text), Err(error), "{text}");
        }
    }
}
