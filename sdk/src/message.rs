//! The request and the response of an exchange. Used through `Exchange`.

use std::net::{IpAddr, SocketAddr};

use crate::error::Refused;
use crate::headers::Headers;
use crate::host::MapType;
use crate::property;
use crate::target::Target;

/// The exchange's request.
///
/// In Meshgate it can be read in every callback of the exchange. Other hosts may let go of it when it has been sent: in
/// Envoy its fields are missing in the callbacks of the response. What a filter needs there it keeps in its
/// [`State`](crate::Filter::State).
///
/// ```
/// # use meshgate_sdk::prelude::*;
/// # struct Mobile;
/// # #[filter]
/// # impl Filter for Mobile {
/// # fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self) }
/// fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
///     let request = exchange.request();
///     if request.method() == "GET" && request.cookie("site").as_deref() == Some("mobile") {
///         request.set_target(&format!("/mobile{}", request.target().as_str()))?;
///     }
///     if let Some(language) = request.parameter("lang") {
///         request.headers().set("accept-language", language)?;
///     }
///     Ok(())
/// }
/// # }
/// # fn main() {}
/// ```
///
/// ```
/// # use meshgate_sdk::prelude::*;
/// # struct Front;
/// # #[filter]
/// # impl Filter for Front {
/// # fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self) }
/// fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
///     let request = exchange.request();
///     if request.scheme() == "http" {
///         let location = format!("https://{}{}", request.authority(), request.path());
///         return Reply::redirect_with(301, location).into();
///     }
///     if request.has_body() && request.bearer_token().is_none() {
///         return Reply::new(401).into();
///     }
///     if request.header("x-method-override").as_deref() == Some("DELETE") {
///         request.set_method("DELETE")?;
///     }
///     request.set_authority("backend.internal")?;
///     Ok(())
/// }
/// # }
/// # fn main() {
/// # use meshgate_sdk::testing::{Proxy, Request};
/// # let mut proxy = Proxy::new::<Front>("");
/// # let moved = proxy.send(Request::get("/a?b"));
/// # assert_eq!((moved.status(), moved.header("location").as_deref()), (301, Some("https://example.com/a")));
/// # let post = Request::post("/a", "b").header(":scheme", "https").header("x-method-override", "DELETE");
/// # assert_eq!(proxy.send(post.clone()).status(), 401);
/// # let done = proxy.send(post.header("authorization", "Bearer c"));
/// # let upstream = done.upstream().unwrap();
/// # assert_eq!((&*upstream.method(), upstream.field("host")), ("DELETE", None));
/// # assert_eq!(upstream.field(":authority").as_deref(), Some("backend.internal"));
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub(crate) has_more: bool,
}

impl Request {
    /// The fields of its head. The pseudo-headers `:method`, `:scheme`, `:authority` and `:path` can be written here, too.
    pub fn headers(&self) -> Headers {
        Headers::new(MapType::HttpRequestHeaders)
    }

    /// The fields after its body; empty until they have arrived.
    pub fn trailers(&self) -> Headers {
        Headers::new(MapType::HttpRequestTrailers)
    }

    /// The first value of a field of its head, as text: short for `headers().get(name)`.
    pub fn header(&self, name: &str) -> Option<String> {
        self.headers().get(name)
    }

    /// Whether a body or trailers follow its head.
    pub fn has_body(&self) -> bool {
        self.has_more
    }

    /// The method, as written by the client.
    pub fn method(&self) -> String {
        self.header(":method").unwrap_or_default()
    }

    /// The scheme: `http` or `https`.
    pub fn scheme(&self) -> String {
        self.header(":scheme").unwrap_or_default()
    }

    /// The authority: what HTTP/1.1 calls `Host`, with the port if the client gave one.
    pub fn authority(&self) -> String {
        self.header(":authority").unwrap_or_default()
    }

    /// Path and query. Whoever needs several parts asks for it once: it is copied from the host.
    pub fn target(&self) -> Target {
        self.header(":path").unwrap_or_default().into()
    }

    /// The path without the query.
    pub fn path(&self) -> String {
        self.target().path().to_owned()
    }

    /// The value of the query's first parameter of this name, decoded.
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.target().parameter(name).map(std::borrow::Cow::into_owned)
    }

    /// The value of the first cookie of this name.
    pub fn cookie(&self, name: &str) -> Option<String> {
        let pairs = self.headers().pairs();
        pairs.all("cookie").find_map(|line| cookie(&String::from_utf8_lossy(line), name).map(str::to_owned))
    }

    /// The token of the field `authorization: Bearer …`.
    pub fn bearer_token(&self) -> Option<String> {
        let value = self.header("authorization")?;
        let (scheme, token) = value.split_once(' ')?;
        let token = token.trim();
        (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
    }

    /// The address that the request comes from. Of the proxies in front, `trusted_hops` are trusted to say it in
    /// `x-forwarded-for`; without any, it is the address that the connection comes from.
    ///
    /// ```
    /// # use meshgate_sdk::prelude::*;
    /// # struct Near;
    /// # #[filter]
    /// # impl Filter for Near {
    /// # fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self) }
    /// fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
    ///     // The load balancer in front is one.
    ///     match exchange.request().client_address(1) {
    ///         Some(address) if address.is_loopback() => Ok(()),
    ///         _ => Reply::new(403).into(),
    ///     }
    /// }
    /// # }
    /// # fn main() {
    /// # use meshgate_sdk::testing::{Proxy, Request};
    /// # let request = |chain: &str| Request::get("/").header("x-forwarded-for", chain);
    /// # let mut proxy = Proxy::new::<Near>("");
    /// # assert_eq!(proxy.send(request("192.0.2.7, 127.0.0.1:9, 10.0.0.1")).status(), 200);
    /// # assert_eq!(proxy.send(request("127.0.0.1, 192.0.2.7, 10.0.0.1")).status(), 403);
    /// # assert_eq!(proxy.send(request("unknown, 10.0.0.1")).status(), 403);
    /// # assert_eq!(proxy.send(Request::get("/")).status(), 403);
    /// # }
    /// ```
    pub fn client_address(&self, trusted_hops: u8) -> Option<IpAddr> {
        if trusted_hops == 0 {
            return address(&property::text("source/address")?);
        }
        let pairs = self.headers().pairs();
        let lines: Vec<_> = pairs.all("x-forwarded-for").map(String::from_utf8_lossy).collect();
        // Of the addresses the last was written by this proxy, the one before by the proxy in front of it, and so on. With fewer
        // than are trusted, the first is the one that the outermost of them wrote.
        let latest = lines.iter().flat_map(|line| line.split(',')).rev().take(usize::from(trusted_hops) + 1);
        address(latest.last()?.trim())
    }

    /// Puts another method in the place of the client's.
    ///
    /// # Errors
    /// The request cannot be changed any more, or the host does not accept the value.
    pub fn set_method(&self, method: &str) -> Result<(), Refused> {
        self.headers().set(":method", method)
    }

    /// Puts another authority in the place of the client's.
    ///
    /// # Errors
    /// As for [`set_method`](Self::set_method).
    pub fn set_authority(&self, authority: &str) -> Result<(), Refused> {
        self.headers().set(":authority", authority)
    }

    /// Puts another path and query in the place of the client's.
    ///
    /// # Errors
    /// As for [`set_method`](Self::set_method).
    pub fn set_target(&self, target: &str) -> Result<(), Refused> {
        self.headers().set(":path", target)
    }
}

/// An address, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()))
}

/// The value of a cookie in a line `a=1; b="2"`.
fn cookie<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split(';').find_map(|pair| {
        let (known, value) = pair.trim().split_once('=')?;
        let bare = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        (known == name).then(|| bare.unwrap_or(value))
    })
}

/// The exchange's response.
///
/// ```
/// # use meshgate_sdk::prelude::*;
/// # struct Hide;
/// # #[filter]
/// # impl Filter for Hide {
/// # fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self) }
/// fn on_response(&self, exchange: &Exchange<Self>) -> Outcome {
///     let response = exchange.response();
///     if response.status() == Some(404) {
///         response.set_status(410)?;
///     }
///     if response.has_body() && response.header("content-type").is_none() {
///         response.headers().set("content-type", "application/octet-stream")?;
///     }
///     response.headers().remove("server")?;
///     Ok(())
/// }
/// # }
/// # fn main() {}
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Response {
    pub(crate) has_more: bool,
}

impl Response {
    /// The fields of its head. The pseudo-header `:status` can be written here, too.
    pub fn headers(&self) -> Headers {
        Headers::new(MapType::HttpResponseHeaders)
    }

    /// The fields after its body; empty until they have arrived.
    pub fn trailers(&self) -> Headers {
        Headers::new(MapType::HttpResponseTrailers)
    }

    /// The first value of a field of its head, as text: short for `headers().get(name)`.
    pub fn header(&self, name: &str) -> Option<String> {
        self.headers().get(name)
    }

    /// Whether a body or trailers follow its head.
    pub fn has_body(&self) -> bool {
        self.has_more
    }

    /// The status; `None` as long as there is no response.
    pub fn status(&self) -> Option<u16> {
        self.header(":status")?.parse().ok()
    }

    /// Puts another status in the place of the endpoint's.
    ///
    /// # Errors
    /// The response cannot be changed any more, or the host does not accept the value.
    pub fn set_status(&self, status: u16) -> Result<(), Refused> {
        self.headers().set(":status", status.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::cookie;

    #[test]
    fn cookies_are_found_by_their_name() {
        let line = "a=1; session=x=y; quoted=\"z\";empty=";
        assert_eq!(cookie(line, "a"), Some("1"));
        assert_eq!(cookie(line, "session"), Some("x=y"));
        assert_eq!(cookie(line, "quoted"), Some("z"));
        assert_eq!(cookie(line, "empty"), Some(""));
        assert_eq!(cookie(line, "ession"), None);
        assert_eq!(cookie("", "a"), None);
    }
}
