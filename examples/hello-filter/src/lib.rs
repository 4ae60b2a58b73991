//! A first filter: it answers `/hello` by itself and signs every response.

use meshgate_sdk::{ConfigError, Exchange, Filter, Flow, Outcome, Reply, filter};
use schemars::JsonSchema;
use serde::Deserialize;

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
    type Config = Config;

    fn configure(config: Config) -> Result<Self, ConfigError> {
        if config.greeting.is_empty() {
            return Err(ConfigError::new("a greeting needs words").at("greeting"));
        }
        Ok(Self { greeting: config.greeting })
    }

    fn on_request_headers(&self, exchange: &mut Exchange<Self>, _: bool) -> Outcome {
        let target = exchange.request().target();
        if target.path() == b"/hello" {
            let name = target.parameter("name").unwrap_or(b"world");
            let body = format!("{}, {}!\n", self.greeting, String::from_utf8_lossy(name));
            return Err(Reply::new(200).body(body).into());
        }
        Ok(Flow::Continue)
    }

    fn on_response_headers(&self, exchange: &mut Exchange<Self>, _: bool) -> Outcome {
        exchange.response().headers().set("x-served-by", "hello-filter")?;
        Ok(Flow::Continue)
    }
}
