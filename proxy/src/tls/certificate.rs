//! What there is to know of a certificate, for filters, for the admin page and for our own checks.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use meshgate_wasm::Certificate;
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// A certificate that was read.
#[derive(Clone, Debug)]
pub struct Facts {
    /// As RFC 2253 writes it: the last part first.
    pub subject: String,
    /// Who signed it, likewise.
    pub issuer: String,
    /// The DNS names among the subject's alternative names.
    pub dns_names: Vec<String>,
    /// The URIs among them.
    pub uris: Vec<String>,
    /// The IP addresses among them.
    pub addresses: Vec<String>,
    /// In hex.
    pub serial: String,
    /// It is good from then on.
    pub not_before: SystemTime,
    /// It is good until then.
    pub not_after: SystemTime,
    /// The SHA-256 of the whole, in hex.
    pub sha256: String,
}

impl Facts {
    /// Reads a certificate.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn of(der: &[u8]) -> Result<Facts, String> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
        let validity = certificate.validity();
        let mut facts = Facts {
            subject: rfc2253(certificate.subject()),
            issuer: rfc2253(certificate.issuer()),
            dns_names: Vec::new(),
            uris: Vec::new(),
            addresses: Vec::new(),
            serial: hex(certificate.raw_serial()),
            not_before: moment(validity.not_before.timestamp()),
            not_after: moment(validity.not_after.timestamp()),
            sha256: hex(&Sha256::digest(der)),
        };
        let names = certificate.subject_alternative_name().map_err(|error| error.to_string())?;
        for name in names.into_iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::DNSName(name) => facts.dns_names.push((*name).to_owned()),
                GeneralName::URI(uri) => facts.uris.push((*uri).to_owned()),
                GeneralName::IPAddress(bytes) => facts.addresses.extend(address(bytes)),
                _ => {}
            }
        }
        Ok(facts)
    }

    /// What filters may know of it.
    pub fn for_filters(&self, der: &[u8]) -> Arc<Certificate> {
        Arc::new(Certificate {
            subject: self.subject.as_str().into(),
            dns_san: self.dns_names.first().map(|name| name.as_str().into()),
            uri_san: self.uris.first().map(|uri| uri.as_str().into()),
            sha256: self.sha256.as_str().into(),
            pem: url_encoded_pem(der).into(),
        })
    }

    /// Whether it is too old by now.
    pub fn has_expired(&self, now: SystemTime) -> bool {
        now > self.not_after
    }
}

fn moment(seconds: i64) -> SystemTime {
    match u64::try_from(seconds) {
        Ok(seconds) => UNIX_EPOCH + Duration::from_secs(seconds),
        Err(_) => UNIX_EPOCH,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(bytes).to_string());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|bytes| Ipv6Addr::from(bytes).to_string())
}

fn rfc2253(name: &X509Name<'_>) -> String {
    let parts: Vec<String> =
        name.iter_rdn().map(|part| part.iter().map(attribute).collect::<Vec<_>>().join("+")).collect();
    parts.into_iter().rev().collect::<Vec<_>>().join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let oid = attribute.attr_type().to_id_string();
    let name = match oid.as_str() {
        "2.5.4.3" => "CN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "street",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        other => other,
    };
    match attribute.as_str() {
        Ok(value) => format!("{name}={}", escaped(value)),
        Err(_) => format!("{name}=#{}", hex(attribute.attr_value().data)),
    }
}

/// RFC 2253 section 2.4. Control characters are written in hex as well: the text ends up in header fields.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (index, letter) in value.chars().enumerate() {
        let at_end = index == 0 || index == last;
        match letter {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => text.extend(['\\', letter]),
            ' ' if at_end => text.push_str("\\ "),
            '#' if index == 0 => text.push_str("\\#"),
            letter if letter.is_ascii_control() || !letter.is_ascii() => {
                let mut bytes = [0; 4];
                for byte in letter.encode_utf8(&mut bytes).bytes() {
                    let _ = write!(text, "\\{byte:02X}");
                }
            }
            letter => text.push(letter),
        }
    }
    text
}

/// PEM as Envoy puts it into properties and header fields.
pub(super) fn url_encoded_pem(der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(der.len() * 3 / 2 + 128);
    text.push_str("-----BEGIN%20CERTIFICATE-----%0A");
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
            let bits = bits << (8 * (3 - group.len()));
            for digit in 0..4 {
                let at = bits >> (18 - 6 * digit) & 63;
                match DIGITS[at as usize] {
                    _ if digit > group.len() => text.push_str("%3D"),
                    b'+' => text.push_str("%2B"),
                    b'/' => text.push_str("%2F"),
                    digit => text.push(char::from(digit)),
                }
            }
        }
        text.push_str("%0A");
    }
    text.push_str("-----END%20CERTIFICATE-----%0A");
    text
}
