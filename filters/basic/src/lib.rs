//! The standard filter `basic`: lets in who knows a name and its password (RFC 7617). See its README.md.

mod password;

use std::collections::BTreeMap;

use meshgate_sdk::config::{FileText, is_token};
use meshgate_sdk::credential::Place;
use meshgate_sdk::prelude::*;
use meshgate_sdk::{Flag, encoding, property};

use crate::password::Password;

/// Who may come in, by which passwords.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// What the client is told it has to do with; browsers show it. Default: `restricted`.
    #[serde(default)]
    #[schemars(with = "String", length(min = 1))]
    realm: Option<String>,
    /// Users by name, each with the hash of the password: `{SSHA256}…` or `{SHA256}…`.
    #[serde(default)]
    users: BTreeMap<String, String>,
    /// A file with a line `NAME:HASH` for each user, as of htpasswd. It is watched.
    #[serde(default)]
    #[schemars(with = "FileText")]
    file: Option<FileText>,
    /// The field of the request that tells the user's name to the endpoint. What clients send there is removed.
    #[serde(default)]
    #[schemars(with = "String", length(min = 1))]
    user_header: Option<String>,
    /// Leaves name and password in the request. By default they are taken out.
    #[serde(default)]
    forward: bool,
    /// Requests without name and password go on; those with wrong ones do not.
    #[serde(default)]
    allow_missing: bool,
}

struct Basic {
    challenge: String,
    users: BTreeMap<String, Password>,
    place: Place,
    user_header: Option<String>,
    forward: bool,
    allow_missing: bool,
    requests: Family<Counter, 1>,
}

#[filter]
impl Filter for Basic {
    fn configure(config: Config) -> Result<Self, ConfigError> {
        let realm = config.realm.as_deref().unwrap_or("restricted");
        if !realm.bytes().all(|byte| (0x20..0x7f).contains(&byte)) || realm.contains(['"', '\\']) {
            let message = "a realm stands between quotation marks: ASCII, without \" and \\";
            return Err(ConfigError::new(message).at("realm"));
        }
        if let Some(header) = config.user_header.as_ref().filter(|header| !is_token(header)) {
            return Err(ConfigError::new(format_args!("{header:?} is not a field name")).at("user_header"));
        }
        let requests = Counter::build("meshgate_basic_requests_total")
            .help("Requests, by what became of their password.");
        Ok(Self {
            challenge: format!("Basic realm=\"{realm}\", charset=\"UTF-8\""),
            users: users(&config)?,
            place: Place::Header { name: "authorization".to_owned(), prefix: "Basic ".to_owned() },
            user_header: config.user_header,
            forward: config.forward,
            allow_missing: config.allow_missing,
            requests: requests.family(["outcome"]),
        })
    }

    fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
        let request = exchange.request();
        if let Some(header) = &self.user_header {
            request.headers().remove(header)?;
        }
        let Some(user) = self.user(exchange)? else {
            self.requests.with(["without"]).add(1);
            return Ok(());
        };
        if !self.forward {
            self.place.clear(&request)?;
        }
        if let Some(header) = &self.user_header {
            request.headers().set(header, &user)?;
        }
        property::set("basic.user", &user)?;
        self.requests.with(["allowed"]).add(1);
        Ok(())
    }
}

impl Basic {
    /// Who it is; nobody, where that is allowed.
    fn user(&self, exchange: &Exchange<Self>) -> Result<Option<String>, Stop> {
        let found = self.place.find(&exchange.request()).map_err(|_| self.refuse(exchange, "malformed"))?;
        let Some(found) = found else {
            return if self.allow_missing { Ok(None) } else { Err(self.refuse(exchange, "missing")) };
        };
        let text = encoding::base64(found.as_bytes()).and_then(|bytes| String::from_utf8(bytes).ok());
        let text = text.ok_or_else(|| self.refuse(exchange, "malformed"))?;
        let (user, password) = text.split_once(':').ok_or_else(|| self.refuse(exchange, "malformed"))?;
        // A name that nobody has takes as long as a wrong password.
        let nobody = Password::of_nobody();
        let known = self.users.get(user);
        if !known.unwrap_or(&nobody).is(password) || known.is_none() {
            return Err(self.refuse(exchange, "wrong"));
        }
        Ok(Some(user.to_owned()))
    }

    fn refuse(&self, exchange: &Exchange<Self>, outcome: &str) -> Stop {
        self.requests.with([outcome]).add(1);
        if let Err(refused) = exchange.set_flag(Flag::Unauthorized) {
            return refused.into();
        }
        let reply = Reply::new(401).header("www-authenticate", self.challenge.as_str());
        reply.details(format!("basic_{outcome}")).body("name and password, please\n").into()
    }
}

/// All users that the configuration and its file name.
fn users(config: &Config) -> Result<BTreeMap<String, Password>, ConfigError> {
    let mut users = BTreeMap::new();
    for (name, hash) in &config.users {
        let password = check_name(name).and_then(|()| Password::parse(hash));
        let password = password.map_err(|reason| ConfigError::new(reason).at(format!("users/{name}")))?;
        users.insert(name.clone(), password);
    }
    for (index, line) in config.file.iter().flat_map(|file| file.as_str().lines()).enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let refuse = |reason: &str| ConfigError::new(format_args!("line {}: {reason}", index + 1)).at("file");
        let (name, hash) = line.split_once(':').ok_or_else(|| refuse("not of the form `NAME:HASH`"))?;
        let password =
            check_name(name).and_then(|()| Password::parse(hash)).map_err(|reason| refuse(&reason))?;
        if users.insert(name.to_owned(), password).is_some() {
            return Err(refuse(&format!("{name:?} is there already")));
        }
    }
    if users.is_empty() && config.file.is_none() {
        return Err(ConfigError::new("nobody is known: say `users`, or a `file` with them"));
    }
    Ok(users)
}

fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.contains(':') || name.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
        return Err(format!(
            "{name:?} is not a name: it must not be empty, nor have a colon or control characters"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use meshgate_sdk::testing::{Proxy, Request};

    use super::Basic;

    /// Of `secret` without salt, and of `other:word` with the salt `pepper`.
    const PLAIN: &str = "{SHA256}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols=";
    const SALTED: &str = "{SSHA256}2t4KnjG5oP41h6H8yAA7BBDMACcpC3sXqPOOZeusNOVwZXBwZXI=";

    fn proxy(more: &str) -> Proxy {
        Proxy::new::<Basic>(&format!(
            r##"{{"users": {{"ann": "{PLAIN}"}}, "file": "# users\n\nbob:{SALTED}\n"{more}}}"##
        ))
    }

    fn with(credentials: &str) -> Request {
        Request::get("/").header("authorization", credentials)
    }

    #[test]
    fn who_knows_the_password_is_let_in() {
        let mut proxy = proxy(r#", "user_header": "x-user""#);
        // ann:secret and bob:other:word
        for (credentials, user) in [("Basic YW5uOnNlY3JldA==", "ann"), ("basic Ym9iOm90aGVyOndvcmQ=", "bob")]
        {
            let done = proxy.send(with(credentials).header("x-user", "root"));
            let upstream = done.upstream().unwrap();
            assert_eq!(
                (upstream.field("x-user").as_deref(), upstream.field("authorization")),
                (Some(user), None)
            );
        }
        assert_eq!(proxy.metric("meshgate_basic_requests_total", &[("outcome", "allowed")]), 2);
    }

    #[test]
    fn others_are_asked_for_it() {
        let mut proxy = proxy(r#", "realm": "the shop""#);
        for (request, outcome) in [
            (Request::get("/"), "missing"),
            (with("Bearer YW5uOnNlY3JldA=="), "missing"),
            (with("Basic YW5uOnNlY3JldA"), "malformed"),
            (with("Basic YW5u"), "malformed"),
            (with("Basic YW5uOnNlY3JlVA=="), "wrong"),
            (with("Basic Ym9iOnNlY3JldA=="), "wrong"),
            (with("Basic ZXZlOnNlY3JldA=="), "wrong"),
            (with("Basic OnNlY3JldA=="), "wrong"),
            (with("Basic YW5uOnNlY3JldA==").header("authorization", "Basic YW5uOnNlY3JldA=="), "malformed"),
        ] {
            let before = proxy.metric("meshgate_basic_requests_total", &[("outcome", outcome)]);
            let done = proxy.send(request);
            assert_eq!(done.status(), 401);
            assert_eq!(
                done.header("www-authenticate").as_deref(),
                Some(r#"Basic realm="the shop", charset="UTF-8""#)
            );
            assert_eq!(
                proxy.metric("meshgate_basic_requests_total", &[("outcome", outcome)]),
                before + 1,
                "{outcome}"
            );
        }
    }

    #[test]
    fn the_password_may_be_left_and_be_missing() {
        let mut proxy = proxy(r#", "forward": true, "allow_missing": true"#);
        let done = proxy.send(with("Basic YW5uOnNlY3JldA=="));
        assert!(done.upstream().unwrap().field("authorization").is_some());
        assert_eq!(proxy.send(Request::get("/")).status(), 200);
        assert_eq!(proxy.send(with("Basic YW5u")).status(), 401);
    }

    #[test]
    fn mistakes_are_refused_with_their_place() {
        for (configuration, words) in [
            ("{}".to_owned(), "nobody is known"),
            (r#"{"users": {"ann": "secret"}}"#.to_owned(), "users/ann: not a hash"),
            (r#"{"users": {"ann": "$2y$05$abc"}}"#.to_owned(), "users/ann: hashes of bcrypt"),
            (r#"{"users": {"ann": "$apr1$abc"}}"#.to_owned(), "users/ann: "),
            (r#"{"users": {"ann": "{SHA256}abc"}}"#.to_owned(), "users/ann: not a hash"),
            (format!(r#"{{"users": {{"a:b": "{PLAIN}"}}}}"#), "users/a:b: "),
            (format!(r#"{{"file": "ann:{PLAIN}\nann:{PLAIN}"}}"#), r#"file: line 2: "ann" is there already"#),
            (r#"{"file": "ann"}"#.to_owned(), "file: line 1: not of the form"),
            (format!(r#"{{"users": {{"ann": "{PLAIN}"}}, "realm": "a\"b"}}"#), "realm: "),
            (format!(r#"{{"users": {{"ann": "{PLAIN}"}}, "user_header": "a b"}}"#), "user_header: "),
        ] {
            let said = Proxy::refusal::<Basic>(&configuration);
            assert!(said.contains(words), "{configuration}: {said}");
        }
    }
}
