//! A filter for TCP connections, which chooses the cluster by the first bytes. A client that sends nothing known is
//! disconnected. The listener needs `wait_for_data: true`: the cluster is chosen before Meshgate connects to it.

use meshgate_sdk::prelude::*;
use meshgate_sdk::route::Decision;
use meshgate_sdk::{Connection, TcpFilter};

/// One of the list that the configuration is.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// What the client sends first.
    starts_with: String,
    /// Where it goes then.
    to: Cluster,
}

struct ByFirstBytes {
    rules: Vec<(Vec<u8>, Decision)>,
}

#[filter]
impl TcpFilter for ByFirstBytes {
    fn configure(rules: Vec<Rule>) -> Result<Self, ConfigError> {
        let prepared = |rule: Rule| {
            let decision = Decision::to(&rule.to).name(&rule.starts_with).build();
            (rule.starts_with.into_bytes(), decision)
        };
        Ok(Self { rules: rules.into_iter().map(prepared).collect() })
    }

    async fn on_downstream_data(&self, connection: &Connection<Self>, data: &mut Body) -> Outcome {
        let longest = self.rules.iter().map(|(start, _)| start.len()).max().unwrap_or(0);
        let mut known = 0;
        while known < longest {
            let first = data.at_least(known + 1).await?;
            if let Some((_, decision)) = self.rules.iter().find(|(start, _)| first.starts_with(start)) {
                return Ok(connection.route(decision)?);
            }
            if first.len() == known {
                // The client has said all it had to say.
                break;
            }
            known = first.len();
        }
        connection.close()
    }
}

#[cfg(test)]
mod tests {
    use meshgate_sdk::testing::{Client, Proxy, Response};

    use super::ByFirstBytes;

    fn proxy() -> Proxy {
        let rules = r#"[{"starts_with": "GET", "to": "readers"}, {"starts_with": "POST", "to": "writers"}]"#;
        let mut proxy = Proxy::tcp::<ByFirstBytes>(rules);
        proxy.upstream("readers", |_| Response::new(200));
        proxy.upstream("writers", |_| Response::new(200));
        proxy
    }

    #[test]
    fn the_first_bytes_decide() {
        for (sent, cluster) in [("GET /", Some("readers")), ("POST /", Some("writers")), ("DELETE /", None)] {
            let mut proxy = proxy();
            let mut connection = proxy.connect(&Client::new());
            let went_on = connection.client_sends(sent);
            assert_eq!(connection.cluster().as_deref(), cluster, "{sent}");
            assert_eq!(
                (went_on == sent.as_bytes(), connection.is_closed()),
                (cluster.is_some(), cluster.is_none())
            );
        }
    }

    #[test]
    fn they_may_come_one_by_one() {
        let mut proxy = proxy();
        let mut connection = proxy.connect(&Client::new());
        for byte in ["P", "O", "S"] {
            assert_eq!(connection.client_sends(byte), b"");
        }
        assert!(connection.cluster().is_none());
        assert_eq!(connection.client_sends("T"), b"POST");
        assert_eq!(connection.client_sends(" /"), b" /");
        assert_eq!(connection.endpoint_sends("HTTP/1.1 200 OK"), b"HTTP/1.1 200 OK");
    }

    #[test]
    fn a_client_that_says_too_little_is_disconnected() {
        let mut proxy = proxy();
        let mut connection = proxy.connect(&Client::new());
        assert_eq!(connection.client_sends("PO"), b"");
        assert_eq!(connection.client_ends(), b"");
        assert!(connection.is_closed());
    }
}
