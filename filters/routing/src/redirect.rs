//! Sending a client elsewhere: the same path and query under another scheme, host or port.

use meshgate_sdk::config::SubChain;
use meshgate_sdk::route::Decision;
use meshgate_sdk::{ConfigError, Request};

use crate::conditions::{check_host, without_port};
use crate::config::{RedirectConfig, Scheme};

/// The statuses that send a client to the field `location`.
const CODES: [u16; 5] = [301, 302, 303, 307, 308];

/// A redirect, prepared.
#[derive(Debug)]
pub(crate) struct Redirect {
    scheme: Option<Scheme>,
    host: Option<String>,
    /// `:8443`, or nothing for the scheme's own port.
    port: String,
    code: u16,
    /// The name and the filters of its route.
    route: String,
    chain: Option<SubChain>,
}

impl Redirect {
    pub(crate) fn new(
        config: &RedirectConfig,
        route: &str,
        chain: Option<&SubChain>,
    ) -> Result<Self, ConfigError> {
        let code = config.code.unwrap_or(301);
        if !CODES.contains(&code) {
            let message = format!("{code} does not send a client elsewhere: 301, 302, 303, 307 and 308 do");
            return Err(ConfigError::new(message).at("code"));
        }
        if config.scheme.is_none() && config.host.is_none() && config.port.is_none() {
            return Err(ConfigError::new(
                "it leads to where it came from: give it a scheme, a host or a port",
            ));
        }
        if let Some(host) = &config.host {
            check_host(host).map_err(|error| error.at("host"))?;
        }
        let own = config.scheme.map(Scheme::port);
        let port = config.port.filter(|port| Some(*port) != own);
        Ok(Self {
            scheme: config.scheme,
            host: config.host.clone(),
            port: port.map(|port| format!(":{port}")).unwrap_or_default(),
            code,
            route: route.to_owned(),
            chain: chain.cloned(),
        })
    }

    /// What a request is answered with.
    pub(crate) fn decide(&self, request: &Request) -> Decision {
        let (scheme, authority, target) = (request.scheme(), request.authority(), request.target());
        let location = self.location(scheme.as_bytes(), authority.as_bytes(), target.as_str().as_bytes());
        let decision = match location {
            Some(location) => Decision::answer(self.code, "").header("location", location),
            // Of HTTP/1.0, which need not say what host it is for.
            None => Decision::answer(400, "the request names no host\n"),
        };
        let decision = decision.name(&self.route);
        match &self.chain {
            Some(chain) => decision.chain(chain).build(),
            None => decision.build(),
        }
    }

    /// Where a request is sent to; nowhere if nobody says to which host.
    fn location(&self, scheme: &[u8], authority: &[u8], target: &[u8]) -> Option<Vec<u8>> {
        let scheme = self.scheme.map_or(scheme, |scheme| scheme.name().as_bytes());
        let host = self.host.as_ref().map_or(without_port(authority), |host| host.as_bytes());
        // `*` of OPTIONS is no path.
        let path = if target.starts_with(b"/") { target } else { b"/" };
        (!host.is_empty()).then(|| [scheme, b"://", host, self.port.as_bytes(), path].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirect(scheme: Option<Scheme>, host: Option<&str>, port: Option<u16>) -> Redirect {
        let config = RedirectConfig { scheme, host: host.map(str::to_owned), port, code: None };
        Redirect::new(&config, "route", None).unwrap()
    }

    fn location(redirect: &Redirect, authority: &str, target: &str) -> String {
        let location = redirect.location(b"http", authority.as_bytes(), target.as_bytes()).unwrap();
        String::from_utf8(location).unwrap()
    }

    #[test]
    fn what_is_not_said_stays_but_for_the_port() {
        let https = redirect(Some(Scheme::Https), None, None);
        assert_eq!(location(&https, "a.example:8080", "/x?y=1"), "https://a.example/x?y=1");
        assert_eq!(location(&https, "[::1]:80", "//b.example/"), "https://[::1]//b.example/");
        assert_eq!(location(&https, "a.example", "*"), "https://a.example/");
        let own_port = redirect(Some(Scheme::Https), None, Some(443));
        assert_eq!(location(&own_port, "a.example:80", "/"), "https://a.example/");
        let port = redirect(Some(Scheme::Https), None, Some(8443));
        assert_eq!(location(&port, "a.example:8080", "/"), "https://a.example:8443/");
        let host = redirect(None, Some("www.example"), None);
        assert_eq!(location(&host, "a.example:8080", "/x"), "http://www.example/x");
        assert_eq!(https.location(b"http", b"", b"/"), None);
        assert!(host.location(b"http", b"", b"/").is_some());
    }

    #[test]
    fn wrong_redirects_are_refused_with_their_place() {
        let refused = |config: RedirectConfig| Redirect::new(&config, "route", None).unwrap_err().to_string();
        let nothing = || RedirectConfig { scheme: None, host: None, port: None, code: None };
        let https = || RedirectConfig { scheme: Some(Scheme::Https), ..nothing() };
        assert!(refused(nothing()).contains("where it came from"));
        assert!(refused(RedirectConfig { code: Some(200), ..https() }).starts_with("code: "));
        for host in ["", "a b", "a.example:80", "*.example", "http://a"] {
            assert!(
                refused(RedirectConfig { host: Some(host.to_owned()), ..https() }).starts_with("host: "),
                "{host}"
            );
        }
    }
}
