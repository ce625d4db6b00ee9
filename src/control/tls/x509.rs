//! The few parts of an X.509 certificate (RFC 5280 4.1) that verifying one of version 1 needs, read from its DER.
//!
//! ```text
//! Certificate  ::= SEQUENCE { tbsCertificate, signatureAlgorithm, signature BIT STRING }
//! tbsCertificate ::= SEQUENCE { [0] version OPTIONAL, serialNumber INTEGER, signature AlgorithmIdentifier,
//!                               issuer Name, validity SEQUENCE { notBefore, notAfter }, subject Name,
//!                               subjectPublicKeyInfo SEQUENCE { algorithm, key BIT STRING }, ... }
//! ```

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// A certificate's parts, borrowed from its DER.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Certificate<'a> {
    /// 1 to 3.
    pub(super) version: u8,
    /// What the signature covers.
    pub(super) signed: &'a [u8],
    /// Content of the algorithm identifier of the signature.
    pub(super) signature_algorithm: &'a [u8],
    /// The signature.
    pub(super) signature: &'a [u8],
    /// Content of the issuer's name.
    pub(super) issuer: &'a [u8],
    /// Content of the subject's name.
    pub(super) subject: &'a [u8],
    /// Seconds since the Unix epoch.
    pub(super) not_before_s: i64,
    /// Seconds since the Unix epoch.
    pub(super) not_after_s: i64,
    /// The whole subjectPublicKeyInfo.
    pub(super) public_key_info: &'a [u8],
    /// Content of the algorithm identifier of the key.
    pub(super) key_algorithm: &'a [u8],
    /// The key.
    pub(super) key: &'a [u8],
}

impl<'a> Certificate<'a> {
    /// Reads `der`; nothing when it is no certificate.
    pub(super) fn read(der: &'a [u8]) -> Option<Self> {
        let mut outer = Der(Der(der).expect(SEQUENCE)?);
        let signed_start = outer.0;
        let mut tbs = Der(outer.expect(SEQUENCE)?);
        let signed = &signed_start[..signed_start.len() - outer.0.len()];
        let signature_algorithm = outer.expect(SEQUENCE)?;
        let signature = outer.bits()?;
        let version = match tbs.0.first() {
            Some(&VERSION) => match Der(tbs.expect(VERSION)?).expect(INTEGER)? {
                [number @ 0..=2] => number + 1,
                _ => return None,
            },
            _ => 1,
        };
        tbs.expect(INTEGER)?;
        if tbs.expect(SEQUENCE)? != signature_algorithm {
            return None;
        }
        let issuer = tbs.expect(SEQUENCE)?;
        let mut validity = Der(tbs.expect(SEQUENCE)?);
        let (not_before_s, not_after_s) = (validity.time()?, validity.time()?);
        let subject = tbs.expect(SEQUENCE)?;
        let info_start = tbs.0;
        let mut info = Der(tbs.expect(SEQUENCE)?);
        let public_key_info = &info_start[..info_start.len() - tbs.0.len()];
        Some(Self {
            version,
            signed,
            signature_algorithm,
            signature,
            issuer,
            subject,
            not_before_s,
            not_after_s,
            public_key_info,
            key_algorithm: info.expect(SEQUENCE)?,
            key: info.bits()?,
        })
    }
}

/// What is left to read.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The content of the next element, which has to be of `tag`.
    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (found, content) = self.next()?;
        (found == tag).then_some(content)
    }

    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, first], rest) = self.0.split_first_chunk::<2>()?;
        let (length, rest) = if first < 0x80 {
            (usize::from(first), rest)
        } else {
            // One to four octets of length: more than any certificate needs.
            let count = usize::from(first & 0x7f);
            if count == 0 || count > 4 {
                return None;
            }
            let (octets, rest) = rest.split_at_checked(count)?;
            (octets.iter().fold(0, |length, octet| length << 8 | usize::from(*octet)), rest)
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// The next bit string, which has to be of whole octets.
    fn bits(&mut self) -> Option<&'a [u8]> {
        match self.expect(BIT_STRING)?.split_first()? {
            (0, bits) => Some(bits),
            _ => None,
        }
    }

    fn time(&mut self) -> Option<i64> {
        let (tag, content) = self.next()?;
        let (year, rest) = match tag {
            UTC_TIME => {
                let (digits, rest) = content.split_at_checked(2)?;
                let year = number(digits)?;
                // RFC 5280 4.1.2.5.1: 50 to 99 are of the last century.
                (if year < 50 { 2000 + year } else { 1900 + year }, rest)
            }
            GENERALIZED_TIME => {
                let (digits, rest) = content.split_at_checked(4)?;
                (number(digits)?, rest)
            }
            _ => return None,
        };
        let digits = rest.strip_suffix(b"Z").filter(|digits| digits.len() == 10)?;
        let mut parts = digits.chunks_exact(2).map(number);
        let mut part =
            |range: std::ops::RangeInclusive<i64>| parts.next()?.filter(|part| range.contains(part));
        let (month, day) = (part(1..=12)?, part(1..=31)?);
        let (hour, minute, second) = (part(0..=23)?, part(0..=59)?, part(0..=60)?);
        Some(((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
    }
}

fn number(digits: &[u8]) -> Option<i64> {
    digits
        .iter()
        .try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0')))
}

/// Days from 1970-01-01; the year begins in March, so that leap days end it.
const fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_certificate_is_read_as_it_was_made() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).expect("a name");
        params.not_before = rcgen::date_time_ymd(1999, 3, 1);
        params.not_after = rcgen::date_time_ymd(2051, 12, 31);
        let made = params.self_signed(&key).expect("signed");
        let certificate = Certificate::read(made.der()).expect("a certificate");
        assert_eq!(certificate.version, 3);
        assert_eq!(certificate.issuer, certificate.subject);
        assert_eq!(certificate.not_before_s, 920_246_400);
        assert_eq!(certificate.not_after_s, 2_587_593_600);
        use rcgen::PublicKeyData as _;
        assert_eq!(certificate.public_key_info, key.subject_public_key_info());
    }

    proptest! {
        #[test]
        fn no_octets_panic_the_reader(octets in prop::collection::vec(any::<u8>(), 0..128)) {
            let _ = Certificate::read(&octets);
        }

        #[test]
        fn no_damage_panics_the_reader(at in 0..400_usize, octet in any::<u8>(), cut in 0..500_usize) {
            let key = rcgen::KeyPair::generate().expect("a key");
            let params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).expect("a name");
            let mut der = params.self_signed(&key).expect("signed").der().to_vec();
            if let Some(place) = der.get_mut(at) {
                *place = octet;
            }
            der.truncate(cut);
            let _ = Certificate::read(&der);
        }
    }
}
