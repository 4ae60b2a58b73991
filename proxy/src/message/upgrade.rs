//! Offers to go on in another protocol (RFC 9110 section 7.8): which are passed on, and in what words.

use http::header::{CONNECTION, CONTENT_LENGTH, UPGRADE};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::websocket::{self, Challenge};

/// A protocol that a client offers to change to, and may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    protocol: HeaderValue,
    /// The client asks for it over HTTP/2, for one stream of its connection (RFC 8441).
    extended: bool,
    /// What has to be asked in the place of such a client.
    challenge: Option<Challenge>,
}

impl Upgrade {
    /// The first offer in a request's fields that is among `allowed`, which are in lower case. An offer that `connection`
    /// does not name is not meant for this hop.
    pub(super) fn offered(headers: &HeaderMap, allowed: &[String]) -> Option<Upgrade> {
        if !tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case(b"upgrade")) {
            return None;
        }
        let known = |token: &[u8]| allowed.iter().find(|name| token.eq_ignore_ascii_case(name.as_bytes()));
        let protocol = tokens(headers, &UPGRADE).find_map(known)?;
        Upgrade::to(protocol)
    }

    /// The offer of an extended CONNECT, if it is among `allowed`.
    pub(super) fn extended(protocol: &str, allowed: &[String]) -> Option<Upgrade> {
        let known = allowed.iter().find(|name| protocol.eq_ignore_ascii_case(name))?;
        let challenge = (known == "websocket").then(Challenge::new);
        Some(Upgrade { extended: true, challenge, ..Upgrade::to(known)? })
    }

    fn to(protocol: &str) -> Option<Upgrade> {
        let protocol = HeaderValue::from_str(protocol).ok()?;
        Some(Upgrade { protocol, extended: false, challenge: None })
    }

    /// Whether the client asks for it over HTTP/2: then any success is an answer that takes the offer.
    pub fn is_extended(&self) -> bool {
        self.extended
    }

    /// The protocol's name.
    pub fn protocol(&self) -> &HeaderValue {
        &self.protocol
    }

    /// Offers the change in a request's fields, in the words of HTTP/1.1, whatever the client spoke.
    pub fn offer(&self, headers: &mut HeaderMap) {
        self.mark(headers);
        if let Some(challenge) = &self.challenge {
            challenge.ask(headers);
        }
    }

    /// Takes it in a response's head, in the words that the client speaks.
    pub fn take(&self, status: &mut StatusCode, headers: &mut HeaderMap) {
        headers.remove(CONTENT_LENGTH);
        if !self.extended {
            return self.mark(headers);
        }
        *status = StatusCode::OK;
        decline(headers);
        if self.challenge.is_some() {
            Challenge::forget(headers);
        }
    }

    /// Whether it is for WebSocket, and a request's fields do not hold the one key that this needs.
    pub fn lacks_key(&self, headers: &HeaderMap) -> bool {
        self.protocol == "websocket" && headers.get_all(websocket::KEY).iter().count() != 1
    }

    fn mark(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, self.protocol.clone());
    }

    /// Whether a response's fields take this offer, and no other.
    pub fn is_taken(&self, headers: &HeaderMap) -> bool {
        let mut taken = tokens(headers, &UPGRADE);
        taken.next().is_some_and(|token| token.eq_ignore_ascii_case(self.protocol.as_bytes()))
            && taken.next().is_none()
            && tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case(b"upgrade"))
            && self.challenge.as_ref().is_none_or(|challenge| challenge.is_met(headers))
    }
}

/// Takes an offer out of a head's fields.
pub fn decline(headers: &mut HeaderMap) {
    headers.remove(UPGRADE);
    headers.remove(CONNECTION);
}

fn tokens<'h>(headers: &'h HeaderMap, field: &http::HeaderName) -> impl Iterator<Item = &'h [u8]> + use<'h> {
    let values = headers.get_all(field).iter();
    values
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn offered(pairs: &[(&'static str, &'static str)]) -> Option<String> {
        let allowed = ["websocket".to_owned(), "x-tunnel".to_owned()];
        let upgrade = Upgrade::offered(&fields(pairs), &allowed)?;
        Some(upgrade.protocol().to_str().unwrap().to_owned())
    }

    #[test]
    fn an_allowed_offer_is_found_in_any_case_and_place() {
        for (connection, upgrade, expected) in [
            ("upgrade", "websocket", Some("websocket")),
            ("keep-alive, Upgrade", "WebSocket", Some("websocket")),
            ("Upgrade", "h2c, x-tunnel", Some("x-tunnel")),
            ("Upgrade", "x-tunnel, websocket", Some("x-tunnel")),
            ("Upgrade", "h2c", None),
            ("Upgrade", "websockets", None),
            ("keep-alive", "websocket", None),
            ("Upgrade", "", None),
        ] {
            let found = offered(&[("connection", connection), ("upgrade", upgrade)]);
            assert_eq!(found.as_deref(), expected, "{connection} / {upgrade}");
        }
        assert_eq!(offered(&[("upgrade", "websocket")]), None);
        let divided =
            [("connection", "close"), ("connection", "upgrade"), ("upgrade", "x"), ("upgrade", "websocket")];
        assert_eq!(offered(&divided).as_deref(), Some("websocket"));
    }

    #[test]
    fn an_answer_takes_the_offer_as_it_was_made() {
        let upgrade = Upgrade::to("websocket").unwrap();
        let mut marked = HeaderMap::new();
        upgrade.mark(&mut marked);
        assert!(upgrade.is_taken(&marked));
        assert!(upgrade.is_taken(&fields(&[("connection", "Upgrade"), ("upgrade", "WebSocket")])));
        for (connection, protocol) in
            [("upgrade", "x-tunnel"), ("upgrade", "websocket, x"), ("close", "websocket"), ("upgrade", "")]
        {
            let answer = fields(&[("connection", connection), ("upgrade", protocol)]);
            assert!(!upgrade.is_taken(&answer), "{connection} / {protocol}");
        }
        assert!(!upgrade.is_taken(&HeaderMap::new()));
        decline(&mut marked);
        assert!(marked.is_empty());
    }

    #[test]
    fn an_offer_over_http2_is_made_and_taken_in_both_words() {
        let allowed = ["websocket".to_owned(), "x-tunnel".to_owned()];
        assert_eq!(Upgrade::extended("h2c", &allowed), None);
        let upgrade = Upgrade::extended("WebSocket", &allowed).unwrap();
        let mut request = HeaderMap::new();
        upgrade.offer(&mut request);
        assert_eq!(
            (&request["upgrade"], &request["connection"]),
            (&"websocket".parse().unwrap(), &"upgrade".parse().unwrap())
        );
        assert_eq!(request["sec-websocket-key"].len(), 24);
        let answer = [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-accept", "x")];
        assert!(!upgrade.is_taken(&fields(&answer)), "an answer to another question");

        let tunnel = Upgrade::extended("x-tunnel", &allowed).unwrap();
        let mut answer = fields(&[("connection", "upgrade"), ("upgrade", "x-tunnel"), ("x-more", "stays")]);
        assert!(tunnel.is_taken(&answer));
        let mut status = StatusCode::SWITCHING_PROTOCOLS;
        tunnel.take(&mut status, &mut answer);
        assert_eq!((status, answer), (StatusCode::OK, fields(&[("x-more", "stays")])));
    }
}
