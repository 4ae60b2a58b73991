//! The standard filter `routing`: decides where a request goes. See its README.md.
//!
//! `config.rs` is what a user writes, `path.rs` and `conditions.rs` are how a request is compared with it, `draw.rs` is
//! how one of several clusters is drawn, `redirect.rs` how a client is sent elsewhere, and this file puts them together.

mod conditions;
mod config;
mod draw;
mod path;
mod redirect;

use meshgate_sdk::route::Decision;
use meshgate_sdk::{ConfigError, Exchange, Filter, Outcome, filter};

use crate::conditions::{Alternative, Incoming};
use crate::config::{Config, RouteConfig, Targets};
use crate::draw::{Draw, Weights};
use crate::redirect::Redirect;

struct Routing {
    routes: Vec<Route>,
    draw: Draw,
}

/// One route, prepared: everything that does not depend on the request is done at configuration time.
struct Route {
    /// The route matches if one of these does.
    alternatives: Vec<Alternative>,
    action: Action,
}

/// What becomes of a route's requests.
enum Action {
    /// One decision for each cluster, ready to be sent.
    Forward(Weights<Decision>),
    /// The client is sent elsewhere.
    Redirect(Redirect),
}

impl Route {
    fn new(config: &RouteConfig) -> Result<Self, ConfigError> {
        let alternatives = config.alternatives()?;
        let action = match (&config.to, &config.redirect) {
            (Some(targets), None) => Action::Forward(Self::forward(config, targets)?),
            (None, Some(_)) if config.timeout.is_some() => {
                return Err(
                    ConfigError::new("a redirect sends nothing that could take its time").at("timeout")
                );
            }
            (None, Some(redirect)) => {
                let redirect = Redirect::new(redirect, &config.name, config.filters.as_ref());
                Action::Redirect(redirect.map_err(|error| error.within("redirect"))?)
            }
            (Some(_), Some(_)) => {
                return Err(ConfigError::new("a route has `to` or `redirect`, not both").at("redirect"));
            }
            (None, None) => {
                return Err(ConfigError::new("the route leads nowhere: give it `to`, or a `redirect`"));
            }
        };
        Ok(Self { alternatives, action })
    }

    fn forward(config: &RouteConfig, targets: &Targets) -> Result<Weights<Decision>, ConfigError> {
        let decisions = targets.weighted().into_iter().map(|(cluster, weight)| {
            let mut decision = Decision::to(cluster).name(&config.name);
            if let Some(timeout) = config.timeout {
                decision = decision.timeout(timeout);
            }
            if let Some(chain) = &config.filters {
                decision = decision.chain(chain);
            }
            (decision.build(), weight)
        });
        Weights::new(decisions).ok_or_else(|| {
            ConfigError::new("no cluster has a weight above 0: nothing could be sent").at("to")
        })
    }
}

#[filter]
impl Filter for Routing {
    fn configure(config: Config) -> Result<Self, ConfigError> {
        config.check_names()?;
        let routes = config.routes.iter().enumerate().map(|(index, route)| {
            Route::new(route).map_err(|error| error.within(&format!("routes/{index}")))
        });
        Ok(Self { routes: routes.collect::<Result<_, _>>()?, draw: Draw::seeded() })
    }

    fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
        let request = exchange.request();
        let incoming = Incoming::new(&request);
        let route = self
            .routes
            .iter()
            .find(|route| route.alternatives.iter().any(|alternative| alternative.matches(&incoming)));
        // Without a match there is no decision: the listener's own cluster takes the request, or nobody does (404).
        match route.map(|route| &route.action) {
            Some(Action::Forward(decisions)) => exchange.route(decisions.pick(&self.draw))?,
            Some(Action::Redirect(redirect)) => exchange.route(&redirect.decide(&request))?,
            None => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use meshgate_sdk::testing::{Proxy, Request, Response};

    use super::Routing;

    #[test]
    fn a_request_goes_where_the_first_matching_route_says() {
        let mut proxy = Proxy::new::<Routing>(
            r#"{"routes": [
                {"name": "beta", "match": {"path": "/app/**", "headers": {"x-beta": "1"}}, "to": "beta"},
                {"name": "app", "match": {"path": "/app/**"}, "to": {"main": 1, "never": 0}}
            ]}"#,
        );
        for cluster in ["beta", "main"] {
            proxy.upstream(cluster, move |_| Response::new(200).body(cluster));
        }
        let mut went = |request| proxy.send(request).text();
        assert_eq!(went(Request::get("/app/x").header("x-beta", "1")), "beta");
        assert_eq!(went(Request::get("/app/x")), "main");
        assert_eq!(went(Request::get("/other")), "");
    }
}
