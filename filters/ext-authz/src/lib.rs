//! The standard filter `ext-authz`: asks a service whether a request may come in. See its README.md.
//!
//! `config.rs` is what a user writes, `http.rs` and `grpc.rs` are the two ways to ask, `decision.rs` is what comes of it, and this
//! file remembers decisions, and acts.

mod config;
mod decision;
mod grpc;
mod http;
#[cfg(test)]
mod tests;

use meshgate_sdk::prelude::*;
use meshgate_sdk::{Flag, Request};
use sha2::{Digest, Sha256};

use crate::config::{Config, GrpcConfig, HttpConfig, KeyPart, Names, OnFailure};
use crate::decision::Decision;

/// Which fields pass between a request, the service, the endpoint and the client.
struct Fields {
    request: Names,
    upstream: Names,
    client: Names,
}

/// Who is asked.
enum Service {
    Http(HttpConfig),
    Grpc(GrpcConfig),
}

/// Decisions that all workers remember: a fixed number of places, in each of which a new decision takes that of an older one.
/// So no flood of requests makes it grow.
struct Cache {
    key: Vec<KeyPart>,
    time: Duration,
    places: u64,
    decisions: SharedMap<Remembered>,
}

/// A decision, and a hash of everything that it depends on.
#[derive(Serialize, Deserialize)]
struct Remembered {
    key: Hash,
    decision: Decision,
}

type Hash = [u8; 32];

struct ExtAuthz {
    service: Service,
    timeout: Duration,
    fields: Fields,
    /// The longest body that the service sees; none if it sees no bodies.
    max_body: Option<usize>,
    on_failure: OnFailure,
    status_on_error: u16,
    cache: Option<Cache>,
    shadow: bool,
    requests: Family<Counter, 2>,
}

#[filter]
impl Filter for ExtAuthz {
    fn configure(config: Config) -> Result<Self, ConfigError> {
        let fields = Fields::new(&config)?;
        let status_on_error = config.status_on_error.unwrap_or(403);
        if !(400..600).contains(&status_on_error) {
            return Err(ConfigError::new("an error has a status of 400 to 599").at("status_on_error"));
        }
        let cache = config.cache.as_ref().map(|cache| Cache::new(cache, &config)).transpose()?;
        let requests = Counter::build("meshgate_ext_authz_requests_total")
            .help("Requests, by what the service decided, and by whether it was asked.");
        let timeout = config.timeout.map_or(Duration::from_secs(1), Into::into);
        Ok(Self {
            service: service(config.http, config.grpc)?,
            timeout,
            fields,
            max_body: config.body.map(|body| usize::try_from(body.max_bytes).unwrap_or(usize::MAX)),
            on_failure: config.on_failure,
            status_on_error,
            cache,
            shadow: config.shadow,
            requests: requests.family(["outcome", "from"]),
        })
    }

    async fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
        let request = exchange.request();
        if !self.shadow {
            self.fields.clear(&request)?;
        }
        let Some(most) = self.max_body.filter(|_| request.has_body()) else {
            return self.check(exchange, Vec::new()).await;
        };
        // A body of a known length is held back together with its head; of others, the head is on its way before the body has come.
        let (status, outcome) = match length(&request) {
            None => (411, "length_required"),
            Some(length) if length > most => (413, "too_large"),
            Some(_) => return Ok(()),
        };
        self.requests.with([outcome, ""]).add(1);
        if self.shadow {
            return Ok(());
        }
        Reply::new(status).details(format!("ext_authz_{outcome}")).into()
    }

    async fn on_request_body(&self, exchange: &Exchange<Self>, body: &mut Body) -> Outcome {
        match self.max_body {
            // What the service cannot be asked about passes, but in the shadow only: by now a later filter may have taken the length
            // away, and some hosts have let go of the head.
            Some(most) if self.shadow && length(&exchange.request()).is_none_or(|length| length > most) => {
                Ok(())
            }
            Some(most) => {
                let bytes = body.whole(most).await?;
                self.check(exchange, bytes).await
            }
            None => Ok(()),
        }
    }
}

impl ExtAuthz {
    async fn check(&self, exchange: &Exchange<Self>, body: Vec<u8>) -> Outcome {
        let request = exchange.request();
        let key = self.cache.as_ref().map(|cache| cache.key(exchange, &request));
        if let (Some(cache), Some(key)) = (&self.cache, &key)
            && let Some(known) = cache.get(key)
        {
            return self.act(&known, "cache", exchange);
        }
        let (timeout, fields) = (self.timeout, &self.fields);
        let asked = match &self.service {
            Service::Http(service) => http::ask(service, timeout, fields, &request, body).await,
            Service::Grpc(service) => grpc::ask(service, timeout, fields, &request, body).await,
        };
        match asked {
            Ok(decision) => {
                if let (Some(cache), Some(key)) = (&self.cache, key)
                    && decision.is_small()
                {
                    cache.put(key, &decision);
                }
                self.act(&decision, "service", exchange)
            }
            Err(reason) => self.fail(&reason, exchange),
        }
    }

    fn act(&self, decision: &Decision, from: &str, exchange: &Exchange<Self>) -> Outcome {
        let refusal = decision.refusal();
        if self.shadow {
            self.requests.with([if refusal.is_some() { "would_deny" } else { "would_allow" }, from]).add(1);
            return Ok(());
        }
        self.requests.with([if refusal.is_some() { "denied" } else { "allowed" }, from]).add(1);
        match refusal {
            Some(reply) => {
                exchange.set_flag(Flag::Unauthorized)?;
                reply.into()
            }
            None if self.max_body.is_some() => Ok(()),
            None => Ok(decision.apply(&exchange.request())?),
        }
    }

    fn fail(&self, reason: &str, exchange: &Exchange<Self>) -> Outcome {
        meshgate_sdk::warn!("no decision: {reason}");
        let goes_on = self.shadow || self.on_failure == OnFailure::Allow;
        self.requests.with([if goes_on { "error_allowed" } else { "error" }, "service"]).add(1);
        if goes_on {
            return Ok(());
        }
        exchange.set_flag(Flag::Unauthorized)?;
        Reply::new(self.status_on_error).details("ext_authz_error").into()
    }
}

/// How long the body is, if that is said beforehand.
fn length(request: &Request) -> Option<usize> {
    request.header("content-length")?.parse().ok()
}

fn service(http: Option<HttpConfig>, grpc: Option<GrpcConfig>) -> Result<Service, ConfigError> {
    match (http, grpc) {
        (Some(http), None) if http.path.is_some() && http.path_prefix.is_some() => {
            Err(ConfigError::new("say `path` or `path_prefix`, not both").at("http/path_prefix"))
        }
        (Some(http), None) => {
            let paths = [("path", &http.path), ("path_prefix", &http.path_prefix)];
            let wrong =
                paths.iter().find(|(_, path)| path.as_ref().is_some_and(|path| !path.starts_with('/')));
            match wrong {
                Some((key, _)) => Err(ConfigError::new("a path begins with /").at(format!("http/{key}"))),
                None => Ok(Service::Http(http)),
            }
        }
        (None, Some(grpc)) => Ok(Service::Grpc(grpc)),
        _ => Err(ConfigError::new("somebody has to be asked: say `http` or `grpc`")),
    }
}

impl Fields {
    fn new(config: &Config) -> Result<Self, ConfigError> {
        let names = |key: &str, given: &Option<Vec<String>>, over_http: &[&str]| match given {
            Some(names) => Names::new(key, names),
            None if config.grpc.is_some() => Ok(Names::all()),
            None => Names::new(key, &over_http.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()),
        };
        let of_client = ["www-authenticate", "location", "set-cookie", "content-type"];
        let to_endpoint = config.upstream_headers.as_deref();
        // A host has the head ready to be sent when the body's callbacks run.
        if config.body.is_some() && to_endpoint.is_some_and(|names| !names.is_empty()) {
            let message = "where the service sees the body, its answer comes too late for the request's fields: take out `body`";
            return Err(ConfigError::new(message).at("upstream_headers"));
        }
        let to_endpoint = if config.body.is_some() { &Some(Vec::new()) } else { &config.upstream_headers };
        Ok(Self {
            request: names("request_headers", &config.request_headers, &["authorization", "cookie"])?,
            upstream: names("upstream_headers", to_endpoint, &[])?,
            client: names("client_headers", &config.client_headers, &of_client)?,
        })
    }

    /// Removes what only the service may say to the endpoint.
    fn clear(&self, request: &Request) -> Result<(), meshgate_sdk::Refused> {
        if self.upstream.is_all() {
            return Ok(());
        }
        let pairs = request.headers().pairs();
        for (name, _) in
            pairs.iter().filter(|(name, _)| !name.starts_with(':') && self.upstream.contains(name))
        {
            request.headers().remove(name)?;
        }
        Ok(())
    }
}

impl Cache {
    fn new(cache: &config::CacheConfig, config: &Config) -> Result<Self, ConfigError> {
        if config.body.is_some() {
            let message = "decisions about bodies are not remembered: take out `cache` or `body`";
            return Err(ConfigError::new(message).at("cache"));
        }
        if cache.key.is_empty() {
            return Err(ConfigError::new("a decision depends on something").at("cache/key"));
        }
        let parts =
            cache.key.iter().enumerate().map(|(index, part)| {
                KeyPart::new(part).map_err(|error| error.at(format!("cache/key/{index}")))
            });
        // Decisions of other services, or about other things, are others.
        let cluster = match (&config.http, &config.grpc) {
            (Some(http), _) => format!("{} {:?} {:?}", http.cluster, http.path, http.path_prefix),
            (_, Some(grpc)) => format!("{} {:?}", grpc.cluster, grpc.context),
            _ => String::new(),
        };
        Ok(Self {
            key: parts.collect::<Result<_, _>>()?,
            time: cache.ttl.into(),
            places: cache.size.unwrap_or(1000).max(1).into(),
            decisions: SharedMap::new(format!("ext-authz {cluster} {:?}", cache.key)),
        })
    }

    /// What is remembered; nothing, if shared data fails.
    fn get(&self, key: &Hash) -> Option<Decision> {
        let known = self.decisions.get(&self.place(key)).ok()??;
        (known.key == *key).then_some(known.decision)
    }

    fn put(&self, key: Hash, decision: &Decision) {
        let remembered = Remembered { key, decision: decision.clone() };
        if let Err(refused) = self.decisions.set_for(&self.place(&key), &remembered, self.time) {
            meshgate_sdk::debug!("{refused}");
        }
    }

    fn place(&self, key: &Hash) -> String {
        let number = key.first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
        (number % self.places).to_string()
    }

    /// A hash of everything that the decision depends on.
    fn key(&self, exchange: &Exchange<ExtAuthz>, request: &Request) -> Hash {
        let mut hash = Sha256::new();
        for part in &self.key {
            let value = match part {
                KeyPart::Method => Some(request.method()),
                KeyPart::Host => Some(request.authority()),
                KeyPart::Path => Some(request.path()),
                KeyPart::Query => request.target().query().map(str::to_owned),
                KeyPart::Identity => exchange.peer_identity(),
                KeyPart::Address => exchange.source_address().map(|address| match address.rsplit_once(':') {
                    Some((address, _)) => address.to_owned(),
                    None => address,
                }),
                KeyPart::Header(name) => {
                    let pairs = request.headers().pairs();
                    let values: Vec<_> = pairs.all(name).map(String::from_utf8_lossy).collect();
                    (!values.is_empty()).then(|| values.join("\n"))
                }
            };
            // With its length before it, no value can look like the end of one and the beginning of another.
            let length = value.as_ref().map_or(u64::MAX, |value| value.len() as u64);
            hash.update(length.to_le_bytes());
            hash.update(value.unwrap_or_default());
        }
        hash.finalize().into()
    }
}
