//! One issuer: its keys, and what its tokens must be like.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use meshgate_sdk::config::is_token;
use meshgate_sdk::credential::{Ambiguous, Place};
use meshgate_sdk::metric::{Counter, Family};
use meshgate_sdk::signature::Algorithm;
#[cfg(not(test))]
use meshgate_sdk::signature::PublicKey;
use meshgate_sdk::{ConfigError, Refused, Request, Status};

use crate::cache::{Cache, Verified, hash};
use crate::config::{AlgorithmName, KeysConfig, ProviderConfig};
use crate::failure::Failure;
use crate::keys::KeySet;
use crate::remote::Remote;
use crate::token::{Expected, Token, plain};

/// How long to wait between two looks for keys that another worker is fetching.
const LOOK: Duration = Duration::from_millis(20);
/// How much longer than its own call may take a request waits for keys that somebody else fetches.
const PATIENCE: Duration = Duration::from_secs(1);

/// An issuer of tokens.
#[derive(Debug)]
pub(crate) struct Provider {
    pub(crate) name: String,
    pub(crate) places: Vec<Place>,
    pub(crate) forward: bool,
    /// A text of JSON.
    pub(crate) payload_in_metadata: Option<String>,
    expected: Expected,
    /// Fields and the claims that they are set to.
    fields: Vec<(String, String)>,
    keys: RefCell<Option<Rc<KeySet>>>,
    cache: Cache,
    pub(crate) remote: Option<Remote>,
    /// When those keys were fetched, as the schedule says it.
    fetched: Cell<u64>,
    fetches: Rc<Family<Counter, 2>>,
}

impl Provider {
    pub(crate) fn new(
        name: &str,
        config: &ProviderConfig,
        cache: u32,
        fetches: &Rc<Family<Counter, 2>>,
    ) -> Result<Self, ConfigError> {
        if config.audiences.as_ref().is_some_and(Vec::is_empty) {
            return Err(ConfigError::new("an empty list matches nothing").at("audiences"));
        }
        if let Some(field) = config.claims_to_headers.keys().find(|field| !is_token(field)) {
            let error = ConfigError::new(format_args!("{field:?} is not a field name"));
            return Err(error.at(format!("claims_to_headers/{field}")));
        }
        let (keys, remote) = source(&config.keys).map_err(|error| error.within("keys"))?;
        let places = match &config.from {
            None => vec![Place::bearer()],
            Some(places) if places.is_empty() => {
                return Err(ConfigError::new("a token has to stand somewhere").at("from"));
            }
            Some(places) => places.clone(),
        };
        let algorithms =
            config.algorithms.as_ref().map(|names| names.iter().map(|name| algorithm(*name)).collect());
        let skew = config.clock_skew.map_or(Duration::from_secs(60), Into::into);
        Ok(Self {
            name: name.to_owned(),
            places,
            forward: config.forward,
            payload_in_metadata: config
                .payload_in_metadata
                .clone()
                .map(|name| serde_json::Value::from(name).to_string()),
            expected: Expected {
                issuer: config.issuer.clone(),
                audiences: config.audiences.clone(),
                clock_skew: skew.as_secs_f64(),
                require_expiry: config.require_expiry.unwrap_or(true),
                claims: config.required_claims.clone().into_iter().collect(),
                algorithms: algorithms.unwrap_or_else(|| Algorithm::ALL.to_vec()),
            },
            fields: config
                .claims_to_headers
                .iter()
                .map(|(field, claim)| (field.to_ascii_lowercase(), claim.clone()))
                .collect(),
            keys: RefCell::new(keys.map(Rc::new)),
            cache: Cache::new(cache),
            remote,
            fetched: Cell::new(0),
            fetches: Rc::clone(fetches),
        })
    }

    /// The fields that only this filter sets.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|(field, _)| field.as_str())
    }

    /// The token of a request, and where it stands.
    pub(crate) fn find(&self, request: &Request) -> Result<(&Place, String), Failure> {
        for place in &self.places {
            let found =
                place.find(request).map_err(|Ambiguous| Failure::Malformed("there is more than one"))?;
            if let Some(token) = found {
                return Ok((place, token));
            }
        }
        Err(Failure::Missing)
    }

    /// Verifies a token, unless that was done before.
    pub(crate) async fn verify(&self, text: &str) -> Result<Rc<Verified>, Failure> {
        let (key, now) = (hash(text), seconds());
        if let Some(known) = self.cache.get(&key, now) {
            return Ok(known);
        }
        let token = Token::parse(text)?;
        if token.claims.text("iss") != Some(&self.expected.issuer) {
            return Err(Failure::Issuer);
        }
        let algorithm = Algorithm::named(&token.algorithm)
            .filter(|algorithm| self.expected.algorithms.contains(algorithm))
            .ok_or_else(|| Failure::Algorithm(token.algorithm.clone()))?;
        // The signature comes last: it is what costs.
        let until = token.claims.check(&self.expected, now)?;
        let keys = match self.known_keys() {
            Some(keys) => keys,
            None => self.wait_for_keys().await.ok_or(Failure::NoKeys)?,
        };
        match check(&keys, algorithm, &token) {
            // The provider may have begun to use a new key.
            Err(Failure::Key) if self.remote.is_some() => {
                let newer = self.wait_for_keys().await.ok_or(Failure::Key)?;
                check(&newer, algorithm, &token)?;
            }
            outcome => outcome?,
        }
        let verified = Rc::new(self.outcome(token, until));
        self.cache.put(key, &verified);
        Ok(verified)
    }

    fn outcome(&self, token: Token<'_>, until: f64) -> Verified {
        let subject = token.claims.text("sub").unwrap_or_default();
        let sendable = |value: &str| value.bytes().all(|byte| byte >= 0x20 && byte != 0x7f);
        let fields = self.fields.iter().filter_map(|(field, claim)| {
            let value = plain(token.claims.find(claim)?).into_owned();
            sendable(&value).then(|| (field.clone(), value))
        });
        Verified {
            principal: format!("{}/{subject}", self.expected.issuer),
            fields: fields.collect(),
            claims: token.json,
            until,
        }
    }

    fn known_keys(&self) -> Option<Rc<KeySet>> {
        self.keys.borrow().clone()
    }

    /// Takes over what another worker has fetched.
    fn look(&self) -> Result<(), Refused> {
        let Some(remote) = &self.remote else { return Ok(()) };
        let fetched = remote.schedule()?.fetched;
        if fetched > self.fetched.get()
            && let Some(keys) = remote.keys()
        {
            self.fetched.set(fetched);
            self.keys.replace(Some(Rc::new(keys)));
            self.cache.clear();
        }
        Ok(())
    }

    /// Takes over what another worker has fetched, or fetches keys that are due.
    pub(crate) async fn refresh(&self) -> Result<(), Refused> {
        self.look()?;
        match &self.remote {
            Some(remote) if remote.claim(false)? => self.fetch(remote).await,
            _ => Ok(()),
        }
    }

    /// Fetches the keys. What was known stays if that fails.
    async fn fetch(&self, remote: &Remote) -> Result<(), Refused> {
        let outcome = match remote.fetch().await {
            Ok(()) => "success",
            Err(reason) => {
                meshgate_sdk::warn!("the keys of the provider {} cannot be fetched: {reason}", self.name);
                "failure"
            }
        };
        self.fetches.with([&self.name, outcome]).add(1);
        self.look()
    }

    /// Keys that are newer than those that are known, if there will be some soon.
    async fn wait_for_keys(&self) -> Option<Rc<KeySet>> {
        let remote = self.remote.as_ref()?;
        let before = self.fetched.get();
        let patience = meshgate_sdk::now() + remote.timeout + PATIENCE;
        while meshgate_sdk::now() < patience {
            self.look().ok()?;
            if self.fetched.get() > before {
                return self.known_keys();
            }
            if remote.claim(before > 0).ok()? {
                self.fetch(remote).await.ok()?;
            } else if remote.schedule().ok()?.is_busy() {
                meshgate_sdk::sleep(LOOK).await.ok()?;
            } else {
                return None;
            }
        }
        None
    }
}

/// The keys that are known from the beginning, and who is asked for others.
fn source(config: &KeysConfig) -> Result<(Option<KeySet>, Option<Remote>), ConfigError> {
    let call = [
        config.path.is_some(),
        config.authority.is_some(),
        config.refresh.is_some(),
        config.timeout.is_some(),
    ];
    if config.cluster.is_none() && call.contains(&true) {
        return Err(ConfigError::new(
            "only a cluster is asked: it alone has a path, an authority, a refresh and a timeout",
        ));
    }
    match (&config.inline, &config.file, &config.cluster) {
        (Some(set), None, None) => {
            let keys = KeySet::read(set).map_err(|reason| ConfigError::new(reason).at("inline"))?;
            Ok((Some(keys), None))
        }
        (None, Some(file), None) => {
            let keys = KeySet::parse(file.as_str().as_bytes());
            Ok((Some(keys.map_err(|reason| ConfigError::new(reason).at("file"))?), None))
        }
        (None, None, Some(cluster)) => Ok((None, Some(Remote::new(cluster, config)?))),
        _ => Err(ConfigError::new("keys come from one place: say `inline`, `file` or `cluster`")),
    }
}

/// Checks the signature with the keys that it may have been made with.
fn check(keys: &KeySet, algorithm: Algorithm, token: &Token<'_>) -> Result<(), Failure> {
    let mut failure = Failure::Key;
    for key in keys.candidates(token.key_id.as_deref(), algorithm) {
        match verify(key, algorithm, token.signed, &token.signature) {
            Ok(true) => return Ok(()),
            Ok(false) => failure = Failure::Signature,
            Err(refused) if refused.status() == Status::UNIMPLEMENTED => {
                return Err(Failure::Unsupported(algorithm.name().to_owned()));
            }
            // A key that is none: another one may be better.
            Err(refused) => meshgate_sdk::warn!("{refused}"),
        }
    }
    Err(failure)
}

#[cfg(not(test))]
fn verify(key: &PublicKey, algorithm: Algorithm, text: &[u8], signature: &[u8]) -> Result<bool, Refused> {
    key.verify(algorithm, text, signature)
}

#[cfg(test)]
use crate::tests::verify;

fn algorithm(name: AlgorithmName) -> Algorithm {
    match name {
        AlgorithmName::RS256 => Algorithm::Rs256,
        AlgorithmName::RS384 => Algorithm::Rs384,
        AlgorithmName::RS512 => Algorithm::Rs512,
        AlgorithmName::PS256 => Algorithm::Ps256,
        AlgorithmName::PS384 => Algorithm::Ps384,
        AlgorithmName::PS512 => Algorithm::Ps512,
        AlgorithmName::ES256 => Algorithm::Es256,
        AlgorithmName::ES384 => Algorithm::Es384,
        AlgorithmName::ES512 => Algorithm::Es512,
        AlgorithmName::EdDsa => Algorithm::EdDsa,
    }
}

fn seconds() -> f64 {
    meshgate_sdk::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
