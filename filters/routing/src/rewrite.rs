//! Changing a request's path and authority.

use meshgate_conditions::{check_host, compile, without_port};
use meshgate_sdk::config::is_token;
use meshgate_sdk::{ConfigError, Outcome, Reply, Request, Target};
use regex_lite::Regex;
use schemars::JsonSchema;
use serde::Deserialize;

/// What to change in a request on its way.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RewriteConfig {
    /// Takes the place of the part of the path that stands before `/**` in the route's `path`.
    #[serde(default)]
    #[schemars(with = "String")]
    pub(crate) prefix: Option<String>,
    /// Takes the place of the path. The query stays.
    #[serde(default)]
    #[schemars(with = "String")]
    pub(crate) path: Option<String>,
    /// Changes all parts of the path that fit a regular expression.
    #[serde(default)]
    #[schemars(with = "RegexRewrite")]
    pub(crate) regex: Option<RegexRewrite>,
    /// Takes the place of the authority: a name, `{header: x-host}`, or `{from: endpoint}`.
    #[serde(default)]
    #[schemars(with = "AuthorityConfig")]
    pub(crate) authority: Option<AuthorityConfig>,
}

/// Changes parts of a path.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegexRewrite {
    /// A regular expression.
    pub(crate) find: String,
    /// What each part that fits is replaced by. `$1` stands for the part's first group, `${name}` for a named one.
    pub(crate) replace: String,
}

/// A new authority.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a host's name, {header: NAME} or {from: endpoint}")]
pub(crate) enum AuthorityConfig {
    /// This one.
    Fixed(String),
    /// One that is found out.
    Other(AuthoritySource),
}

/// Where a new authority comes from.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AuthoritySource {
    /// A field of the request. Without it the authority stays.
    Header(String),
    /// The chosen endpoint.
    From(AuthorityFrom),
}

/// What has an authority of its own.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AuthorityFrom {
    /// The endpoint's host name, if it is known by one.
    Endpoint,
}

/// A new path, prepared.
#[derive(Debug)]
pub(crate) enum NewPath {
    Prefix(String),
    Whole(String),
    Regex { find: Regex, replace: String },
}

impl NewPath {
    /// The one that is given, if any is.
    pub(crate) fn new(
        prefix: Option<&str>,
        path: Option<&str>,
        regex: Option<&RegexRewrite>,
    ) -> Result<Option<Self>, ConfigError> {
        match (prefix, path, regex) {
            (None, None, None) => Ok(None),
            (Some(prefix), None, None) => {
                check_path(prefix).map_err(|error| error.at("prefix"))?;
                Ok(Some(Self::Prefix(prefix.to_owned())))
            }
            (None, Some(path), None) => {
                check_path(path).map_err(|error| error.at("path"))?;
                Ok(Some(Self::Whole(path.to_owned())))
            }
            (None, None, Some(regex)) => {
                let find = compile(&regex.find).map_err(|error| error.at("regex/find"))?;
                check_graphic(&regex.replace).map_err(|error| error.at("regex/replace"))?;
                Ok(Some(Self::Regex { find, replace: regex.replace.clone() }))
            }
            _ => Err(ConfigError::new("a path has one change: `prefix`, `path` or `regex`")),
        }
    }

    /// Whether the route's `path` has to say what the prefix is.
    pub(crate) fn needs_prefix(&self) -> bool {
        matches!(self, Self::Prefix(_))
    }

    /// The path and query in the place of these. `prefix`: how many bytes of the path a new prefix replaces.
    pub(crate) fn apply(&self, target: &Target, prefix: Option<usize>) -> String {
        let path = target.path();
        if !path.starts_with('/') {
            // `*` of OPTIONS is no path.
            return target.as_str().to_owned();
        }
        let mut changed = match self {
            Self::Whole(path) => path.clone(),
            Self::Prefix(new) => {
                let rest = prefix.and_then(|prefix| path.get(prefix..)).unwrap_or_default();
                let new = if rest.is_empty() { new.as_str() } else { new.trim_end_matches('/') };
                format!("{new}{rest}")
            }
            Self::Regex { find, replace } => find.replace_all(path, replace).into_owned(),
        };
        if !changed.starts_with('/') {
            changed.insert(0, '/');
        }
        if let Some(query) = target.query() {
            changed.push('?');
            changed.push_str(query);
        }
        changed
    }
}

/// A new authority, prepared.
#[derive(Debug)]
enum Authority {
    Fixed(String),
    Header(String),
}

/// What a route changes in its requests, prepared.
#[derive(Debug)]
pub(crate) struct Rewrite {
    path: Option<NewPath>,
    authority: Option<Authority>,
    /// The host is to put in the endpoint's name when it has chosen one.
    pub(crate) endpoint_authority: bool,
}

impl Rewrite {
    pub(crate) fn new(config: &RewriteConfig) -> Result<Self, ConfigError> {
        let path = NewPath::new(config.prefix.as_deref(), config.path.as_deref(), config.regex.as_ref())?;
        let (authority, endpoint_authority) = match &config.authority {
            None => (None, false),
            Some(AuthorityConfig::Other(AuthoritySource::From(AuthorityFrom::Endpoint))) => (None, true),
            Some(AuthorityConfig::Fixed(text)) => {
                check_authority(text).map_err(|error| error.at("authority"))?;
                (Some(Authority::Fixed(text.clone())), false)
            }
            Some(AuthorityConfig::Other(AuthoritySource::Header(name))) if is_token(name) => {
                (Some(Authority::Header(name.to_ascii_lowercase())), false)
            }
            Some(AuthorityConfig::Other(AuthoritySource::Header(name))) => {
                let message = format!("{name:?} is not a field name");
                return Err(ConfigError::new(message).at("authority/header"));
            }
        };
        if path.is_none() && authority.is_none() && !endpoint_authority {
            return Err(ConfigError::new(
                "it changes nothing: give it a path, a prefix, a regex or an authority",
            ));
        }
        Ok(Self { path, authority, endpoint_authority })
    }

    /// Whether the route's `path` has to say what the prefix is.
    pub(crate) fn needs_prefix(&self) -> bool {
        self.path.as_ref().is_some_and(NewPath::needs_prefix)
    }

    /// Changes a request. `prefix`: how many bytes of its path a new prefix replaces.
    pub(crate) fn apply(&self, request: &Request, target: &Target, prefix: Option<usize>) -> Outcome {
        if let Some(path) = &self.path {
            request.set_target(&path.apply(target, prefix))?;
        }
        match &self.authority {
            None => Ok(()),
            Some(Authority::Fixed(text)) => Ok(request.set_authority(text)?),
            Some(Authority::Header(name)) => match request.header(name) {
                None => Ok(()),
                Some(text) if check_authority(&text).is_ok() => Ok(request.set_authority(&text)?),
                Some(_) => Reply::new(400).body(format!("the field {name} names no host\n")).into(),
            },
        }
    }
}

/// A host's name, perhaps with a port.
fn check_authority(text: &str) -> Result<(), ConfigError> {
    let host = without_port(text.as_bytes()).len();
    let (host, port) = text.split_at(host);
    match port.strip_prefix(':').map(str::parse::<u16>) {
        None | Some(Ok(_)) => check_host(host),
        Some(Err(_)) => Err(ConfigError::new(format_args!("{text:?}: not a port"))),
    }
}

fn check_path(text: &str) -> Result<(), ConfigError> {
    if !text.starts_with('/') {
        return Err(ConfigError::new(format_args!("{text:?}: a path begins with /")));
    }
    check_graphic(text)
}

/// Refuses what has no place in a path.
fn check_graphic(text: &str) -> Result<(), ConfigError> {
    if text.contains(['?', '#']) {
        return Err(ConfigError::new(format_args!("{text:?}: a path ends before the query, which stays")));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        let message = "write blanks and characters outside ASCII percent-encoded, as they stand in a URL";
        return Err(ConfigError::new(format_args!("{text:?}: {message}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewrite(config: &str) -> Result<Rewrite, String> {
        let config = serde_json::from_str(config).map_err(|error| error.to_string())?;
        Rewrite::new(&config).map_err(|error| error.to_string())
    }

    fn changed(config: &str, target: &str, prefix: Option<usize>) -> String {
        rewrite(config).unwrap().path.unwrap().apply(&Target::from(target), prefix)
    }

    #[test]
    fn prefixes_change_and_the_rest_stays() {
        for (new, target, prefix, expected) in [
            ("/v2", "/api/users?x=1", "/api", "/v2/users?x=1"),
            ("/v2", "/api", "/api", "/v2"),
            ("/v2/", "/api/users", "/api", "/v2/users"),
            ("/v2/", "/api", "/api", "/v2/"),
            ("/", "/api/users", "/api", "/users"),
            ("/", "/api", "/api", "/"),
            ("/v2", "/users", "", "/v2/users"),
            ("/v2", "*", "", "*"),
        ] {
            let config = format!(r#"{{"prefix": {new:?}}}"#);
            assert_eq!(
                changed(&config, target, Some(prefix.len())),
                expected,
                "{new} for {prefix} of {target}"
            );
        }
    }

    #[test]
    fn paths_and_parts_of_them_change() {
        assert_eq!(changed(r#"{"path": "/index.html"}"#, "/a/b?c", None), "/index.html?c");
        let user = r#"{"regex": {"find": "^/u/([0-9]+)", "replace": "/users/$1"}}"#;
        assert_eq!(changed(user, "/u/7/orders?a=/u/8", None), "/users/7/orders?a=/u/8");
        assert_eq!(changed(user, "/x/7", None), "/x/7");
        assert_eq!(changed(r#"{"regex": {"find": "/+", "replace": "/"}}"#, "//a///b", None), "/a/b");
        assert_eq!(changed(r#"{"regex": {"find": ".*", "replace": ""}}"#, "/a", None), "/");
    }

    #[test]
    fn wrong_changes_are_refused_with_their_place() {
        for (config, place) in [
            ("{}", "it changes nothing"),
            (r#"{"prefix": "/a", "path": "/b"}"#, "a path has one change"),
            (r#"{"prefix": "a"}"#, "prefix: "),
            (r#"{"path": "/a?b"}"#, "path: "),
            (r#"{"path": "/a b"}"#, "path: "),
            (r#"{"regex": {"find": "(", "replace": ""}}"#, "regex/find: "),
            (r#"{"regex": {"find": "a", "replace": "?"}}"#, "regex/replace: "),
            (r#"{"authority": "a b"}"#, "authority: "),
            (r#"{"authority": "a:b"}"#, "authority: "),
            (r#"{"authority": "*.example"}"#, "authority: "),
            (r#"{"authority": {"header": "a b"}}"#, "authority/header: "),
            (r#"{"authority": {"from": "client"}}"#, "expected a host's name"),
        ] {
            let error = rewrite(config).unwrap_err();
            assert!(error.starts_with(place), "{config}: {error}");
        }
        for right in [r#""a.example:8080""#, r#""[::1]:80""#, r#"{"header": "X-Host"}"#] {
            assert!(rewrite(&format!(r#"{{"authority": {right}}}"#)).is_ok(), "{right}");
        }
    }
}
