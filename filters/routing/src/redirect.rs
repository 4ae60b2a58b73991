//! Sending a client elsewhere: to another scheme, host, port or path.

use meshgate_conditions::{check_host, without_port};
use meshgate_sdk::config::SubChain;
use meshgate_sdk::route::Decision;
use meshgate_sdk::{ConfigError, Request, Target};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::rewrite::NewPath;

/// Where clients are sent. What is left out is as in the request, but for the port, which is the scheme's own.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RedirectConfig {
    /// The scheme.
    #[serde(default)]
    #[schemars(with = "Scheme")]
    pub(crate) scheme: Option<Scheme>,
    /// The host, without a port.
    #[serde(default)]
    #[schemars(with = "String", length(min = 1))]
    pub(crate) host: Option<String>,
    /// The port. Default: 443 for https, 80 for http.
    #[serde(default)]
    #[schemars(with = "u16", range(min = 1))]
    pub(crate) port: Option<u16>,
    /// The path. The query stays.
    #[serde(default)]
    #[schemars(with = "String")]
    pub(crate) path: Option<String>,
    /// Takes the place of the part of the path that stands before `/**` in the route's `path`.
    #[serde(default)]
    #[schemars(with = "String")]
    pub(crate) prefix: Option<String>,
    /// The status. With 307 and 308 clients keep method and body. Default: 301.
    #[serde(default)]
    #[schemars(with = "u16", extend("enum" = [301, 302, 303, 307, 308]))]
    pub(crate) code: Option<u16>,
}

/// A scheme that clients can be sent to.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scheme {
    /// Cleartext.
    Http,
    /// Through TLS.
    Https,
}

impl Scheme {
    fn name(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    fn port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

/// The statuses that send a client to the field `location`.
const CODES: [u16; 5] = [301, 302, 303, 307, 308];

/// A redirect, prepared.
#[derive(Debug)]
pub(crate) struct Redirect {
    scheme: Option<Scheme>,
    host: Option<String>,
    /// `:8443`, or nothing for the scheme's own port.
    port: String,
    path: Option<NewPath>,
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
        let path = NewPath::new(config.prefix.as_deref(), config.path.as_deref(), None)?;
        if config.scheme.is_none() && config.host.is_none() && config.port.is_none() && path.is_none() {
            return Err(ConfigError::new(
                "it leads to where it came from: give it a scheme, a host, a port or a path",
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
            path,
            code,
            route: route.to_owned(),
            chain: chain.cloned(),
        })
    }

    /// Whether the route's `path` has to say what the prefix is.
    pub(crate) fn needs_prefix(&self) -> bool {
        self.path.as_ref().is_some_and(NewPath::needs_prefix)
    }

    /// What a request is answered with. `prefix`: how many bytes of its path a new prefix replaces.
    pub(crate) fn decide(&self, request: &Request, target: &Target, prefix: Option<usize>) -> Decision {
        let (scheme, authority) = (request.scheme(), request.authority());
        let changed = self.path.as_ref().map(|path| path.apply(target, prefix));
        let target = changed.as_deref().unwrap_or(target.as_str());
        let location = self.location(scheme.as_bytes(), authority.as_bytes(), target.as_bytes());
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
        let config =
            RedirectConfig { scheme, host: host.map(str::to_owned), port, ..RedirectConfig::default() };
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
        let nothing = RedirectConfig::default;
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
