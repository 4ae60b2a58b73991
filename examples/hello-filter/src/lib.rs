//! A first filter: it answers `/hello` by itself and signs every response.

use meshgate_sdk::prelude::*;

/// The configuration: these fields are the keys under `hello:` in meshgate.yaml.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// How to greet.
    greeting: String,
}

struct Hello {
    greeting: String,
}

#[filter]
impl Filter for Hello {
    fn configure(config: Config) -> Result<Self, ConfigError> {
        if config.greeting.is_empty() {
            return Err(ConfigError::new("a greeting needs words").at("greeting"));
        }
        Ok(Self { greeting: config.greeting })
    }

    fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
        let target = exchange.request().target();
        if target.path() == "/hello" {
            let name = target.parameter("name").unwrap_or("world".into());
            return Reply::new(200).body(format!("{}, {name}!\n", self.greeting)).into();
        }
        Ok(())
    }

    fn on_response(&self, exchange: &Exchange<Self>) -> Outcome {
        exchange.response().headers().set("x-served-by", "hello-filter")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use meshgate_sdk::testing::{Proxy, Request};

    use super::Hello;

    #[test]
    fn it_greets_and_signs() {
        let mut proxy = Proxy::new::<Hello>(r#"{"greeting": "Hi"}"#);
        let hello = proxy.send(Request::get("/hello?name=Zo%C3%AB"));
        assert_eq!((hello.status(), hello.text().as_str()), (200, "Hi, Zoë!\n"));
        let other = proxy.send(Request::get("/other"));
        assert_eq!(other.header("x-served-by").as_deref(), Some("hello-filter"));
        assert!(other.upstream().is_some());
    }

    #[test]
    fn a_greeting_needs_words() {
        let reason = Proxy::refusal::<Hello>(r#"{"greeting": ""}"#);
        assert!(reason.contains("greeting: a greeting needs words"), "{reason}");
    }
}
