//! The standard filter `headers`: adds, sets and removes fields of requests and responses. See its README.md.

use std::collections::BTreeMap;

use meshgate_sdk::config::is_token;
use meshgate_sdk::prelude::*;
use meshgate_sdk::{Headers, Refused};

/// What to change on the way in and on the way out.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Changes to the request's fields, before it is sent upstream.
    #[serde(default)]
    request: Changes,
    /// Changes to the response's fields, before it is sent downstream.
    #[serde(default)]
    response: Changes,
}

/// Changes to one head. They are made in the order `remove`, `set`, `add`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Changes {
    /// Fields to remove, all values of each.
    #[serde(default)]
    remove: Vec<String>,
    /// Fields to set: the value takes the place of all that were there.
    #[serde(default)]
    set: BTreeMap<String, String>,
    /// Fields to add beside those of the same name.
    #[serde(default)]
    add: BTreeMap<String, String>,
}

impl Changes {
    fn check(&self, side: &str) -> Result<(), ConfigError> {
        let removed =
            self.remove.iter().enumerate().map(|(index, name)| (format!("remove/{index}"), name, ""));
        let set = self.set.iter().map(|(name, value)| (format!("set/{name}"), name, value.as_str()));
        let added = self.add.iter().map(|(name, value)| (format!("add/{name}"), name, value.as_str()));
        for (path, name, value) in removed.chain(set).chain(added) {
            check_field(name, value).map_err(|error| error.at(format!("{side}/{path}")))?;
        }
        Ok(())
    }

    fn apply(&self, headers: Headers) -> Result<(), Refused> {
        for name in &self.remove {
            headers.remove(name)?;
        }
        for (name, value) in &self.set {
            headers.set(name, value)?;
        }
        for (name, value) in &self.add {
            headers.add(name, value)?;
        }
        Ok(())
    }
}

/// Refuses at load time what the host would refuse with every exchange.
fn check_field(name: &str, value: &str) -> Result<(), ConfigError> {
    // Pseudo-headers cannot be told apart by the colon alone: `:path` is fine to set, `::` is nothing.
    let token = name.strip_prefix(':').unwrap_or(name);
    if !is_token(token) {
        return Err(ConfigError::new(format_args!("{name:?} is not a field name")));
    }
    if value.bytes().any(|byte| byte != b'\t' && (byte < 0x20 || byte == 0x7f)) {
        return Err(ConfigError::new(format_args!(
            "{value:?} has characters that a field's value must not have"
        )));
    }
    if value.trim_matches([' ', '\t']) != value {
        return Err(ConfigError::new(format_args!(
            "{value:?} begins or ends with a blank, which HTTP drops"
        )));
    }
    Ok(())
}

struct ChangeHeaders {
    request: Changes,
    response: Changes,
}

#[filter]
impl Filter for ChangeHeaders {
    fn configure(config: Config) -> Result<Self, ConfigError> {
        config.request.check("request")?;
        config.response.check("response")?;
        Ok(Self { request: config.request, response: config.response })
    }

    fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
        Ok(self.request.apply(exchange.request().headers())?)
    }

    fn on_response(&self, exchange: &Exchange<Self>) -> Outcome {
        Ok(self.response.apply(exchange.response().headers())?)
    }
}

#[cfg(test)]
mod tests {
    use meshgate_sdk::testing::{Proxy, Request, Response};

    use super::*;

    #[test]
    fn heads_are_changed_both_ways() {
        let mut proxy = Proxy::new::<ChangeHeaders>(
            r#"{"request": {"remove": ["x-internal"], "set": {"x-team": "a"}}, "response": {"add": {"vary": "cookie"}}}"#,
        );
        proxy.endpoint(|_| Response::new(200).header("vary", "accept"));
        let done = proxy.send(Request::get("/").header("x-internal", "1").header("X-Team", "b"));
        let upstream = done.upstream().unwrap();
        assert_eq!((upstream.field("x-internal"), upstream.field("x-team").as_deref()), (None, Some("a")));
        let vary: Vec<_> = done.response().head().iter().filter(|(name, _)| name == "vary").collect();
        assert_eq!(vary.len(), 2);
    }

    fn refusal(changes: Changes) -> String {
        let config = Config { response: changes, ..Config::default() };
        ChangeHeaders::configure(config).err().map(|error| error.to_string()).unwrap_or_default()
    }

    fn pair(name: &str, value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn sound_fields_are_accepted() {
        let changes = Changes {
            remove: vec!["server".to_owned()],
            set: pair(":path", "/a?b"),
            add: pair("X-Note", "a\tb ü"),
        };
        assert_eq!(refusal(changes), "");
    }

    #[test]
    fn unsound_fields_are_refused_with_their_place() {
        let removed = Changes { remove: vec!["a".into(), "b c".into()], ..Changes::default() };
        assert_eq!(refusal(removed), "response/remove/1: \"b c\" is not a field name");
        let set = Changes { set: pair("a", "x\ny"), ..Changes::default() };
        assert!(refusal(set).starts_with("response/set/a: \"x\\ny\" has characters"));
        let added = Changes { add: pair("a", " x"), ..Changes::default() };
        assert!(refusal(added).starts_with("response/add/a: \" x\" begins or ends with a blank"));
        for name in ["", ":", "::a", "ü", "a:b"] {
            assert_ne!(refusal(Changes { add: pair(name, "v"), ..Changes::default() }), "", "{name}");
        }
    }
}
