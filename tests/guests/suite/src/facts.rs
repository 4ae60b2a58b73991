//! What is known of an exchange beside its messages, and who it comes from.

use std::time::UNIX_EPOCH;

use meshgate_sdk::credential::Place;
use meshgate_sdk::encoding::base64_url;
use meshgate_sdk::prelude::*;
use meshgate_sdk::signature::{Algorithm, Curve, PublicKey};

use crate::Suite;

/// What the log says of an exchange that asked for it.
pub(crate) fn of_the_past(exchange: &Exchange<Suite>) -> Option<String> {
    Some(match exchange.request().header("x-do")?.as_str() {
        "facts" => {
            let tls = (exchange.tls_version(), exchange.server_name());
            let upstream = (exchange.upstream_address(), exchange.upstream_duration());
            format!("{tls:?} {upstream:?} {:?}", exchange.response_details())
        }
        "measure" => {
            let started = exchange.started().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            let sizes = (exchange.request_size(), exchange.response_size());
            format!("{started:?} {:?} {sizes:?}", exchange.duration())
        }
        _ => return None,
    })
}

/// Records the exchange's trace by itself, and takes what was added to it.
pub(crate) fn recorded(exchange: &Exchange<Suite>) -> Result<String, Stop> {
    let refused = exchange.record_spans([0; 16], [2; 8], "").err().map(|refused| refused.status());
    exchange.record_spans([1; 16], [2; 8], "a=b")?;
    let before = exchange.take_spans().len();
    exchange.span("of its own").end();
    let is_there = String::from_utf8_lossy(&exchange.take_spans()).contains("of its own");
    let trace = exchange.trace_context().map(|context| context.trace_id().to_owned());
    Ok(format!("{refused:?} {before} {is_there} {trace:?}"))
}

/// What stands where credentials may stand, and is taken out.
pub(crate) fn credentials(exchange: &Exchange<Suite>) -> Result<String, Stop> {
    let request = exchange.request();
    let places = [
        Place::bearer(),
        Place::header("x-key"),
        Place::Parameter("key".to_owned()),
        Place::Cookie("session".to_owned()),
    ];
    let mut found = Vec::new();
    for place in places {
        found.push(format!("{:?}", place.find(&request)));
        place.clear(&request)?;
    }
    Ok(found.join(" "))
}

/// The client's address, with none, one and two proxies in front that are trusted.
pub(crate) fn client(exchange: &Exchange<Suite>) -> String {
    let address = |hops| format!("{:?}", exchange.request().client_address(hops));
    [0, 1, 2].map(address).join(" ")
}

/// The token of RFC 7515, A.3: its signature; the same of another text; half of it; and as one of an algorithm that only
/// Meshgate's own function knows.
pub(crate) fn verified() -> Result<String, Stop> {
    let bytes = |text: &str| base64_url(text.as_bytes()).ok_or_else(|| Stop::failed("no base64"));
    let x = bytes("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU")?;
    let y = bytes("x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0")?;
    let key = PublicKey::ecdsa(Curve::P256, &x, &y).ok_or_else(|| Stop::failed("no point"))?;
    let text = b"eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFt\
        cGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let signature =
        bytes("DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q")?;
    let half = signature.get(..32).unwrap_or_default();
    let verify = |algorithm, text: &[u8], signature: &[u8]| {
        format!("{:?}", key.verify(algorithm, text, signature).map_err(|refused| refused.status()))
    };
    let answers = [
        verify(Algorithm::Es256, text, &signature),
        verify(Algorithm::Es256, b"another text", &signature),
        verify(Algorithm::Es256, text, half),
        verify(Algorithm::EdDsa, text, &signature),
    ];
    Ok(answers.join(" "))
}
