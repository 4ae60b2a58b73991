//! The standard filter `api-key`: lets in who brings a known key. See its README.md.
//!
//! Keys are known by their SHA-256 only. A key is looked up by its hash: how long that takes says nothing about other keys.

use std::collections::BTreeMap;

use meshgate_sdk::config::{FileText, is_token};
use meshgate_sdk::credential::Place;
use meshgate_sdk::prelude::*;
use meshgate_sdk::{Flag, encoding, property};
use sha2::{Digest, Sha256};

/// Who may come in, by which keys.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Clients by name, each with its keys' hashes: SHA-256 in hexadecimal digits. Two keys let a client change from one to the other.
    #[serde(default)]
    keys: BTreeMap<String, Vec<String>>,
    /// A file with a line `NAME: HASH` for each key. It is watched.
    #[serde(default)]
    #[schemars(with = "FileText")]
    file: Option<FileText>,
    /// Where the key is looked for, in this order. Default: the field `x-api-key`.
    #[serde(default)]
    #[schemars(with = "Vec<Place>", length(min = 1))]
    from: Option<Vec<Place>>,
    /// The field of the request that tells the client's name to the endpoint. What clients send there is removed.
    #[serde(default)]
    #[schemars(with = "String", length(min = 1))]
    client_header: Option<String>,
    /// Leaves the key in the request. By default it is taken out.
    #[serde(default)]
    forward: bool,
    /// Requests without a key go on; those with an unknown one do not.
    #[serde(default)]
    allow_missing: bool,
}

struct ApiKey {
    /// Names of clients by the hashes of their keys.
    clients: BTreeMap<Hash, String>,
    places: Vec<Place>,
    client_header: Option<String>,
    forward: bool,
    allow_missing: bool,
    requests: Family<Counter, 2>,
}

type Hash = [u8; 32];

#[filter]
impl Filter for ApiKey {
    fn configure(config: Config) -> Result<Self, ConfigError> {
        if let Some(header) = config.client_header.as_ref().filter(|header| !is_token(header)) {
            return Err(ConfigError::new(format_args!("{header:?} is not a field name")).at("client_header"));
        }
        if config.from.as_ref().is_some_and(Vec::is_empty) {
            return Err(ConfigError::new("a key has to stand somewhere").at("from"));
        }
        let requests = Counter::build("meshgate_api_key_requests_total")
            .help("Requests, by client and what became of their key.");
        Ok(Self {
            clients: clients(&config)?,
            places: config.from.unwrap_or_else(|| vec![Place::header("x-api-key")]),
            client_header: config.client_header,
            forward: config.forward,
            allow_missing: config.allow_missing,
            requests: requests.family(["client", "outcome"]),
        })
    }

    fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
        let request = exchange.request();
        if let Some(header) = &self.client_header {
            request.headers().remove(header)?;
        }
        for place in &self.places {
            let found = place
                .find(&request)
                .map_err(|_| self.refuse(exchange, "ambiguous", "there is more than one key\n"))?;
            let Some(key) = found else { continue };
            let hash: Hash = Sha256::digest(key.as_bytes()).into();
            let client = self
                .clients
                .get(&hash)
                .ok_or_else(|| self.refuse(exchange, "unknown", "the key is not known\n"))?;
            if !self.forward {
                place.clear(&request)?;
            }
            if let Some(header) = &self.client_header {
                request.headers().set(header, client)?;
            }
            property::set("api-key.client", client)?;
            self.requests.with([client, "allowed"]).add(1);
            return Ok(());
        }
        if self.allow_missing {
            self.requests.with(["", "without"]).add(1);
            return Ok(());
        }
        Err(self.refuse(exchange, "missing", "there is no key\n"))
    }
}

impl ApiKey {
    fn refuse(&self, exchange: &Exchange<Self>, outcome: &str, words: &str) -> Stop {
        self.requests.with(["", outcome]).add(1);
        if let Err(refused) = exchange.set_flag(Flag::Unauthorized) {
            return refused.into();
        }
        let reply =
            Reply::new(401).header("www-authenticate", "ApiKey").details(format!("api_key_{outcome}"));
        reply.body(words).into()
    }
}

/// All keys that the configuration and its file name.
fn clients(config: &Config) -> Result<BTreeMap<Hash, String>, ConfigError> {
    let mut clients = BTreeMap::new();
    let mut add = |name: &str, hash: &str| {
        let known = encoding::hexadecimal(hash.as_bytes()).and_then(|bytes| Hash::try_from(bytes).ok());
        let hash = known
            .ok_or("not a SHA-256: write the 64 hexadecimal digits that `printf KEY | sha256sum` prints")?;
        if name.is_empty() || name.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
            return Err("a client needs a name that can stand in a field");
        }
        match clients.insert(hash, name.to_owned()) {
            Some(other) if other != name => Err("another client has the same key"),
            _ => Ok(()),
        }
    };
    for (name, hashes) in &config.keys {
        for (index, hash) in hashes.iter().enumerate() {
            add(name, hash).map_err(|reason| ConfigError::new(reason).at(format!("keys/{name}/{index}")))?;
        }
    }
    for (index, line) in config.file.iter().flat_map(|file| file.as_str().lines()).enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let added = match line.rsplit_once(':') {
            Some((name, hash)) => add(name.trim(), hash.trim()),
            None => Err("not of the form `NAME: HASH`"),
        };
        added.map_err(|reason| ConfigError::new(format_args!("line {}: {reason}", index + 1)).at("file"))?;
    }
    if clients.is_empty() && config.file.is_none() {
        return Err(ConfigError::new("no key is known: say `keys`, or a `file` with them"));
    }
    Ok(clients)
}

#[cfg(test)]
mod tests {
    use meshgate_sdk::testing::{Proxy, Request};

    use super::ApiKey;

    /// Of `sesame` and of `other`.
    const SESAME: &str = "d0c04f4b1951e4aeaaec8223ed2039e542f3aae805a6fa7f6d794e5afff5d272";
    const OTHER: &str = "d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa";

    fn proxy(more: &str) -> Proxy {
        Proxy::new::<ApiKey>(&format!(
            r##"{{"keys": {{"ann": ["{SESAME}"]}}, "file": "# clients\n\nbob the builder: {OTHER}\n"{more}}}"##
        ))
    }

    fn with(key: &str) -> Request {
        Request::get("/").header("x-api-key", key)
    }

    #[test]
    fn known_keys_let_in_and_say_who_it_is() {
        let mut proxy = proxy(r#", "client_header": "x-client""#);
        let done = proxy.send(with("sesame").header("x-client", "root"));
        let upstream = done.upstream().unwrap();
        assert_eq!((upstream.field("x-client").as_deref(), upstream.field("x-api-key")), (Some("ann"), None));
        let done = proxy.send(with("other"));
        assert_eq!(done.upstream().unwrap().field("x-client").as_deref(), Some("bob the builder"));
        let count = |client, outcome| {
            proxy.metric("meshgate_api_key_requests_total", &[("client", client), ("outcome", outcome)])
        };
        assert_eq!((count("ann", "allowed"), count("bob the builder", "allowed")), (1, 1));
    }

    #[test]
    fn others_are_refused() {
        let mut proxy = proxy("");
        for (request, words) in [
            (Request::get("/"), "there is no key\n"),
            (with("Sesame"), "the key is not known\n"),
            (with(SESAME), "the key is not known\n"),
            (with("sesame").header("x-api-key", "sesame"), "there is more than one key\n"),
        ] {
            let done = proxy.send(request);
            assert_eq!((done.status(), done.text().as_str()), (401, words));
            assert_eq!(done.header("www-authenticate").as_deref(), Some("ApiKey"));
        }
        let count = |outcome| {
            proxy.metric("meshgate_api_key_requests_total", &[("client", ""), ("outcome", outcome)])
        };
        assert_eq!((count("missing"), count("unknown"), count("ambiguous")), (1, 2, 1));
    }

    #[test]
    fn keys_may_stand_elsewhere_be_left_and_be_missing() {
        let mut proxy = proxy(
            r#", "from": [{"parameter": "key"}, {"cookie": "key"}], "forward": true, "allow_missing": true"#,
        );
        let target = |request| proxy.send(request).upstream().map(|upstream| upstream.target());
        let mut target = target;
        assert_eq!(target(Request::get("/?key=sesame")).as_deref(), Some("/?key=sesame"));
        assert_eq!(target(Request::get("/").header("cookie", "a=1; key=other")).as_deref(), Some("/"));
        assert_eq!(target(with("sesame")).as_deref(), Some("/"), "without a key");
        assert_eq!(target(Request::get("/?key=wrong")), None);
    }

    #[test]
    fn mistakes_are_refused_with_their_place() {
        for (configuration, words) in [
            ("{}".to_owned(), "no key is known"),
            (r#"{"keys": {"ann": ["sesame"]}}"#.to_owned(), "keys/ann/0: not a SHA-256"),
            (format!(r#"{{"keys": {{"": ["{SESAME}"]}}}}"#), "a client needs a name"),
            (
                format!(r#"{{"keys": {{"ann": ["{SESAME}"], "bob": ["{SESAME}"]}}}}"#),
                "keys/bob/0: another client",
            ),
            (format!(r#"{{"file": "ann: {SESAME}\nbob"}}"#), "file: line 2: not of the form"),
            (format!(r#"{{"file": "ann: {OTHER}0"}}"#), "file: line 1: not a SHA-256"),
            (format!(r#"{{"keys": {{"ann": ["{SESAME}"]}}, "client_header": "a b"}}"#), "client_header: "),
            (format!(r#"{{"keys": {{"ann": ["{SESAME}"]}}, "from": []}}"#), "from: "),
        ] {
            let said = Proxy::refusal::<ApiKey>(&configuration);
            assert!(said.contains(words), "{configuration}: {said}");
        }
        // A file may be empty for a while: nobody is let in.
        let mut none = Proxy::new::<ApiKey>(r#"{"file": ""}"#);
        assert_eq!(none.send(with("sesame")).status(), 401);
    }
}
