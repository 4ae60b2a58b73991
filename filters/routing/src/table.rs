//! All routes, in the order in which they are tried.

use std::cmp::Reverse;
use std::collections::HashSet;

use meshgate_conditions::{Incoming, Source};
use meshgate_sdk::ConfigError;

use crate::Alternative;
use crate::config::{Config, Order, RouteConfig};
use crate::hosts::VirtualHosts;
use crate::route::Route;

/// The routes by virtual host.
pub(crate) struct Table {
    hosts: VirtualHosts<Routes>,
}

/// Routes in the order in which they are tried.
struct Routes {
    /// What leads to a route, and the route's place in `routes`.
    ways: Vec<(Alternative, usize)>,
    routes: Vec<Route>,
}

impl Table {
    pub(crate) fn new(config: &Config) -> Result<Self, ConfigError> {
        if config.routes.is_empty() && config.virtual_hosts.is_empty() {
            return Err(ConfigError::new(
                "nothing says where requests go: give it `routes` or `virtual_hosts`",
            ));
        }
        let mut names = HashSet::new();
        let mut hosts = VirtualHosts::new();
        for (index, host) in config.virtual_hosts.iter().enumerate() {
            let routes = Routes::new(&host.routes, config.order, &mut names);
            let added = routes.and_then(|routes| hosts.add(&host.hosts, routes));
            added.map_err(|error| error.within(&format!("virtual_hosts/{index}")))?;
        }
        if !config.routes.is_empty() {
            let rest = Routes::new(&config.routes, config.order, &mut names)?;
            let taken =
                |_| ConfigError::new("a virtual host `*` is for all other hosts already").at("routes");
            hosts.add_rest(rest).map_err(taken)?;
        }
        Ok(Self { hosts })
    }

    /// The route for a request, and the conditions by which it was found.
    pub(crate) fn find<S: Source>(&self, incoming: &Incoming<S>) -> Option<(&Route, &Alternative)> {
        let routes = self.hosts.find(|| incoming.authority())?;
        let (alternative, route) =
            routes.ways.iter().find(|(alternative, _)| alternative.matches(incoming))?;
        Some((routes.routes.get(*route)?, alternative))
    }
}

impl Routes {
    /// Prepares a list of routes. `names` holds those of other lists: metrics could not tell routes of one name apart.
    fn new<'c>(
        list: &'c [RouteConfig],
        order: Order,
        names: &mut HashSet<&'c str>,
    ) -> Result<Self, ConfigError> {
        let (mut ways, mut routes) = (Vec::new(), Vec::new());
        for (index, config) in list.iter().enumerate() {
            let place = format!("routes/{index}");
            check_name(config, names).map_err(|error| error.at(format!("{place}/name")))?;
            let alternatives = Alternative::all(&config.r#match).map_err(|error| error.within(&place))?;
            routes.push(Route::new(config, &alternatives).map_err(|error| error.within(&place))?);
            ways.extend(alternatives.into_iter().map(|alternative| (alternative, index)));
        }
        if order == Order::Specific {
            // Stable: what says as much stays in the order of the list.
            ways.sort_by_key(|(alternative, _)| Reverse(alternative.precision()));
        }
        Ok(Self { ways, routes })
    }
}

fn check_name<'c>(config: &'c RouteConfig, names: &mut HashSet<&'c str>) -> Result<(), ConfigError> {
    if config.name.is_empty() {
        return Err(ConfigError::new("a route needs a name"));
    }
    if !names.insert(&config.name) {
        return Err(ConfigError::new(format_args!("another route is named {:?} already", config.name)));
    }
    Ok(())
}
