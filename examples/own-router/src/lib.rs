//! A router of one's own, in the place of `routing`: it sends each tenant's requests to the tenant's cluster.

use std::collections::BTreeMap;

use meshgate_sdk::config::SubChain;
use meshgate_sdk::prelude::*;
use meshgate_sdk::route::Decision;

/// The configuration: these fields are the keys under `tenants:` in meshgate.yaml.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The field that names the tenant.
    header: String,
    /// Each tenant's cluster. Meshgate checks that it exists.
    clusters: BTreeMap<String, Cluster>,
    /// Filters for requests that name a tenant.
    filters: Option<SubChain>,
}

struct Tenants {
    header: String,
    /// Ready to be sent: what does not depend on the request is done once.
    decisions: BTreeMap<String, Decision>,
}

#[filter]
impl Filter for Tenants {
    fn configure(config: Config) -> Result<Self, ConfigError> {
        if config.clusters.is_empty() {
            return Err(ConfigError::new("without tenants there is nothing to route").at("clusters"));
        }
        let decisions = config.clusters.iter().map(|(tenant, cluster)| {
            let mut decision = Decision::to(cluster).name(format!("tenant-{tenant}"));
            if let Some(filters) = &config.filters {
                decision = decision.chain(filters);
            }
            (tenant.clone(), decision.build())
        });
        Ok(Self { header: config.header, decisions: decisions.collect() })
    }

    fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
        let request = exchange.request();
        let tenant = request.header(&self.header).unwrap_or_default();
        let Some(decision) = self.decisions.get(&tenant) else {
            return Reply::new(404).body("no such tenant\n").into();
        };
        // With a cluster that balances by key, each of a tenant's users stays with one endpoint.
        match request.cookie("user") {
            Some(user) => exchange.route(&decision.and(&Decision::part().hash_key(user)))?,
            None => exchange.route(decision)?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use meshgate_sdk::testing::{Proxy, Request, Response};

    use super::Tenants;

    #[test]
    fn each_tenant_has_its_cluster() {
        let mut proxy =
            Proxy::new::<Tenants>(r#"{"header": "x-tenant", "clusters": {"acme": "a", "zenith": "z"}}"#);
        proxy.upstream("a", |_| Response::new(200).body("a"));
        proxy.upstream("z", |_| Response::new(200).body("z"));
        let mut of = |tenant: &str| proxy.send(Request::get("/").header("x-tenant", tenant));
        assert_eq!((of("acme").text().as_str(), of("zenith").text().as_str()), ("a", "z"));
        assert_eq!(of("nobody").status(), 404);
        assert_eq!(proxy.send(Request::get("/")).status(), 404);
    }

    #[test]
    fn without_tenants_it_does_not_start() {
        let reason = Proxy::refusal::<Tenants>(r#"{"header": "x-tenant", "clusters": {}}"#);
        assert!(reason.contains("clusters: without tenants"), "{reason}");
    }
}
