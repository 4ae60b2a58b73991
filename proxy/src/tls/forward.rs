//! What `x-forwarded-client-cert` says of a client's certificate, in Envoy's form.

use http::HeaderValue;
use meshgate_config::{CertificateDetail, ClientCertificates, ForwardCertificate};
use rustls::pki_types::CertificateDer;

use super::Facts;
use super::certificate::url_encoded_pem;
use crate::message::ForwardedCertificate;

/// What a listener says of its clients' certificates.
#[derive(Clone, Debug)]
pub(super) struct Forward {
    policy: ForwardCertificate,
    details: Vec<CertificateDetail>,
}

impl Forward {
    pub(super) fn new(settings: Option<&ClientCertificates>) -> Forward {
        Forward {
            policy: settings.map(|settings| settings.forward).unwrap_or_default(),
            details: settings.map(|settings| settings.forward_details.clone()).unwrap_or_default(),
        }
    }

    /// What is said of this one; none if nothing. `own` are the URIs in the certificate that the client was shown.
    ///
    /// # Errors
    /// No header field can carry what it says.
    pub(super) fn of(
        &self,
        own: &[String],
        facts: &Facts,
        chain: &[CertificateDer<'_>],
    ) -> Result<Option<ForwardedCertificate>, String> {
        let element = || {
            HeaderValue::try_from(self.element(own, facts, chain))
                .map_err(|_| "the client's certificate says what no header field can carry".to_owned())
        };
        Ok(match self.policy {
            ForwardCertificate::Sanitize => None,
            ForwardCertificate::Forward => Some(ForwardedCertificate { keep: true, add: None }),
            ForwardCertificate::Append => Some(ForwardedCertificate { keep: true, add: Some(element()?) }),
            ForwardCertificate::Set => Some(ForwardedCertificate { keep: false, add: Some(element()?) }),
        })
    }

    fn element(&self, own: &[String], facts: &Facts, chain: &[CertificateDer<'_>]) -> String {
        let mut parts: Vec<String> = own.iter().map(|uri| format!("By={}", guarded(uri))).collect();
        parts.push(format!("Hash={}", facts.sha256));
        // In Envoy's order, whatever the order in the configuration.
        for detail in [
            CertificateDetail::Cert,
            CertificateDetail::Chain,
            CertificateDetail::Subject,
            CertificateDetail::Uri,
            CertificateDetail::Dns,
        ] {
            if !self.details.contains(&detail) {
                continue;
            }
            match detail {
                CertificateDetail::Cert => {
                    let leaf = chain.first().map(|leaf| url_encoded_pem(leaf)).unwrap_or_default();
                    parts.push(format!("Cert=\"{leaf}\""));
                }
                CertificateDetail::Chain => {
                    let all: String = chain.iter().map(|one| url_encoded_pem(one)).collect();
                    parts.push(format!("Chain=\"{all}\""));
                }
                CertificateDetail::Subject => {
                    parts.push(format!("Subject=\"{}\"", facts.subject.replace('"', "\\\"")));
                }
                CertificateDetail::Uri => {
                    parts.extend(facts.uris.iter().map(|uri| format!("URI={}", guarded(uri))));
                }
                CertificateDetail::Dns => {
                    parts.extend(facts.dns_names.iter().map(|name| format!("DNS={}", guarded(name))));
                }
            }
        }
        parts.join(";")
    }
}

/// A value in quotes, if it could be taken for more than one. What is in a certificate is its bearer's to choose.
fn guarded(value: &str) -> String {
    if value.contains([',', ';', '=', '"']) {
        format!("\"{}\"", value.replace('"', "\\\""))
    } else {
        value.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_certificate_cannot_say_more_than_its_own_part() {
        let facts = Facts {
            subject: "CN=a\\\"b,O=Test\\, Inc.".to_owned(),
            issuer: String::new(),
            dns_names: vec!["a.example.com".to_owned(), "b".to_owned()],
            uris: vec!["spiffe://a/b".to_owned(), "x;URI=spiffe://evil".to_owned(), "y,By=\"z".to_owned()],
            addresses: Vec::new(),
            serial: String::new(),
            not_before: UNIX_EPOCH,
            not_after: UNIX_EPOCH,
            sha256: "ab".to_owned(),
        };
        let details = vec![CertificateDetail::Dns, CertificateDetail::Subject, CertificateDetail::Uri];
        let forward = Forward { policy: ForwardCertificate::Set, details };
        assert_eq!(
            forward.element(&["spiffe://own".to_owned()], &facts, &[]),
            "By=spiffe://own;Hash=ab;Subject=\"CN=a\\\\\"b,O=Test\\, Inc.\";URI=spiffe://a/b;\
             URI=\"x;URI=spiffe://evil\";URI=\"y,By=\\\"z\";DNS=a.example.com;DNS=b"
        );
    }
}
