//! Asks a service who a request's token belongs to, remembers the answer for all workers, and tells the endpoint.

use meshgate_sdk::config::Duration;
use meshgate_sdk::prelude::*;

#[cfg(test)]
mod tests;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The service that knows tokens: `GET /whoami` with the token answers who it belongs to, or 404.
    service: Cluster,
    /// How long the service may take.
    timeout: Duration,
    /// How long an answer is good for.
    remember: Duration,
    /// The group that may come in; without it everybody whom the service knows.
    group: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Identity {
    user: String,
    groups: Vec<String>,
}

struct CachingAuth {
    config: Config,
    /// By token; `None` for one that belongs to nobody. Every worker sees it.
    known: SharedMap<Option<Identity>>,
    checks: Family<Counter, 1>,
}

#[filter]
impl Filter for CachingAuth {
    fn configure(config: Config) -> Result<Self, ConfigError> {
        let checks = Counter::build("auth_checks_total").help("Requests, by what became of their token.");
        Ok(Self { config, known: SharedMap::new("identities"), checks: checks.family(["outcome"]) })
    }

    async fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
        let headers = exchange.request().headers();
        headers.remove("x-user")?; // only we say who it is
        let token = exchange.request().bearer_token().ok_or_else(|| self.refuse(401, "missing"))?;
        let identity = match self.known.get(&token)? {
            Some(identity) => identity,
            None => self.ask(&token).await?,
        };
        let identity = identity.ok_or_else(|| self.refuse(401, "unknown"))?;
        if self.config.group.as_ref().is_some_and(|group| !identity.groups.contains(group)) {
            return self.refuse(403, "forbidden").into();
        }
        self.checks.with(["allowed"]).add(1);
        headers.set("x-user", identity.user)?;
        Ok(())
    }
}

impl CachingAuth {
    async fn ask(&self, token: &str) -> Result<Option<Identity>, Stop> {
        let call = self.config.service.get("/whoami").bearer_token(token).timeout(self.config.timeout);
        let identity = match call.send().await {
            Ok(response) if response.status() == 404 => None,
            answer => Some(answer.and_then(|answer| answer.success()?.json()).map_err(|error| {
                meshgate_sdk::warn!("{error}");
                self.refuse(503, "unavailable")
            })?),
        };
        self.known.set_for(token, &identity, self.config.remember)?;
        Ok(identity)
    }

    fn refuse(&self, status: u16, why: &str) -> Reply {
        self.checks.with([why]).add(1);
        let reply = Reply::new(status).details(format!("token_{why}"));
        if status == 401 { reply.header("www-authenticate", "Bearer") } else { reply }
    }
}
