//! Endpoints from DNS: the addresses of a name, or what its SRV records say. Asked again when the answer's time to live is
//! over; an answer that cannot be used changes nothing.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use meshgate_config::{Address, AddressFamily, Dns, DnsName, Endpoint};

use crate::upstream::care::Task;
use crate::upstream::shared::SharedCluster;

/// Most endpoints of one answer.
const MOST_ENDPOINTS: usize = 1_000;
/// The largest priority that an endpoint can have.
const MOST_PRIORITY: u32 = 15;
/// The largest weight that an endpoint can have.
const MOST_WEIGHT: u32 = 1_000;
/// An answer is asked for again when it has this share of its time left, at most: many proxies do not ask at once.
const EARLY: f64 = 0.1;

/// The resolvers, by the name servers they ask.
#[derive(Default)]
pub(in crate::upstream) struct Resolvers {
    known: RefCell<HashMap<Vec<SocketAddr>, Families>>,
}

/// One resolver for each family of addresses: one that asked for both would take the silence of a server for the absence of
/// addresses.
#[derive(Clone)]
struct Families {
    v4: TokioResolver,
    v6: TokioResolver,
}

/// Who is asked, and for which addresses.
struct Resolver {
    families: Families,
    family: AddressFamily,
}

impl Resolvers {
    fn of(&self, settings: &Dns) -> Result<Resolver, String> {
        let family = settings.family;
        if let Some(families) = self.known.borrow().get(&settings.resolvers) {
            return Ok(Resolver { families: families.clone(), family });
        }
        let of = |strategy| resolver(&settings.resolvers, strategy);
        let families = Families { v4: of(LookupIpStrategy::Ipv4Only)?, v6: of(LookupIpStrategy::Ipv6Only)? };
        self.known.borrow_mut().insert(settings.resolvers.clone(), families.clone());
        Ok(Resolver { families, family })
    }
}

fn resolver(servers: &[SocketAddr], strategy: LookupIpStrategy) -> Result<TokioResolver, String> {
    let words = |error: NetError| error.to_string();
    let mut builder = if servers.is_empty() {
        TokioResolver::builder_tokio().map_err(words)?
    } else {
        let servers = servers.iter().map(|server| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                connection.port = server.port();
                connection
            });
            NameServerConfig::new(server.ip(), true, connections.to_vec())
        });
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let options: &mut ResolverOpts = builder.options_mut();
    // When to ask again is decided here, by the answers.
    options.cache_size = 0;
    options.ip_strategy = strategy;
    builder.build().map_err(words)
}

/// An answer that can be used.
#[derive(Debug, PartialEq)]
struct Answer {
    endpoints: Vec<Endpoint>,
    valid_for: Duration,
}

/// Follows a name.
pub(super) fn follow(
    name: Rc<str>,
    settings: Dns,
    checked: bool,
    cluster: Arc<SharedCluster>,
    resolvers: &Resolvers,
) -> Task {
    let resolver = resolvers.of(&settings);
    Task::spawn(async move {
        let mut failures = 0;
        let mut targets = Targets::new();
        loop {
            let answer = match &resolver {
                Ok(resolver) => ask(resolver, &settings, &mut targets).await,
                Err(reason) => Err(reason.clone()),
            };
            let pause = match answer {
                Ok(answer) => {
                    if failures > 0 {
                        tracing::info!(cluster = %name, "DNS answers again");
                    }
                    failures = 0;
                    take(&cluster, &settings, &answer, checked);
                    cluster.source().succeeded();
                    answer.valid_for.clamp(settings.min_ttl, settings.max_ttl)
                }
                Err(reason) => {
                    if failures == 0 {
                        let kept = cluster.members().len();
                        tracing::warn!(cluster = %name, %reason, kept, "DNS gives no answer; the last one stands");
                    }
                    cluster.source().failed(&reason);
                    cluster.settle();
                    failures += 1;
                    back_off(&settings, failures)
                }
            };
            tokio::time::sleep(pause.mul_f64(1.0 - EARLY * fastrand::f64())).await;
        }
    })
}

/// How long to wait after so many failures in a row.
fn back_off(settings: &Dns, failures: u32) -> Duration {
    settings.retry.saturating_mul(1 << failures.saturating_sub(1).min(6)).min(settings.max_ttl)
}

/// Gives the cluster the endpoints of an answer. With `logical`, one of them: the one it has, as long as it is named.
fn take(cluster: &SharedCluster, settings: &Dns, answer: &Answer, checked: bool) {
    if !settings.logical {
        cluster.set_members(&answer.endpoints, checked);
        return;
    }
    let members = cluster.members();
    let current = members.iter().map(|member| member.shared().address()).next();
    let named = |address: &Address| answer.endpoints.iter().find(|one| one.address == *address);
    let one = current.as_ref().and_then(named).or(answer.endpoints.first());
    cluster.set_members(one.map(std::slice::from_ref).unwrap_or_default(), checked);
}

async fn ask(resolver: &Resolver, settings: &Dns, targets: &mut Targets) -> Result<Answer, String> {
    let answer = match &settings.name {
        DnsName::Host { host, port } => host_addresses(resolver, host, *port).await?,
        DnsName::Srv(name) => services(resolver, name, targets).await?,
    };
    if answer.endpoints.is_empty() { Err("the answer holds no address".to_owned()) } else { Ok(answer) }
}

async fn host_addresses(resolver: &Resolver, host: &str, port: u16) -> Result<Answer, String> {
    let (addresses, valid_for) = resolver.addresses(host).await?;
    let endpoints = addresses.into_iter().take(MOST_ENDPOINTS);
    let name: Arc<str> = host.trim_end_matches('.').into();
    let endpoint = |ip| Endpoint { host: Some(Arc::clone(&name)), ..Endpoint::at(SocketAddr::new(ip, port)) };
    let endpoints = endpoints.map(endpoint).collect();
    Ok(Answer { endpoints, valid_for })
}

/// The addresses of a host, in the answer's order, each once, and for how long they hold.
type Found = (Vec<IpAddr>, Duration);

impl Resolver {
    /// The addresses of a host, of the families that are wanted. One that cannot be asked for is not one that the host lacks.
    async fn addresses(&self, host: &str) -> Result<Found, String> {
        let Families { v4, v6 } = &self.families;
        let found = match self.family {
            AddressFamily::V4 => look_up(v4, host).await,
            AddressFamily::V6 => look_up(v6, host).await,
            AddressFamily::V4ThenV6 => match look_up(v4, host).await {
                Err(error) if error.is_no_records_found() => look_up(v6, host).await,
                found => found,
            },
            AddressFamily::Both => both(tokio::join!(look_up(v4, host), look_up(v6, host))),
        };
        found.map_err(|error| format!("{host}: {error}"))
    }
}

async fn look_up(resolver: &TokioResolver, host: &str) -> Result<Found, NetError> {
    let found = resolver.lookup_ip(host).await?;
    let mut seen = BTreeSet::new();
    let addresses = found.iter().filter(|address| seen.insert(*address)).collect();
    Ok((addresses, found.valid_until().saturating_duration_since(Instant::now())))
}

/// The addresses of both families, or of the one that the host has.
fn both((v4, v6): (Result<Found, NetError>, Result<Found, NetError>)) -> Result<Found, NetError> {
    match (v4, v6) {
        (Ok((mut addresses, valid_for)), Ok((more, as_long))) => {
            addresses.extend(more);
            Ok((addresses, valid_for.min(as_long)))
        }
        (Ok(one), Err(error)) | (Err(error), Ok(one)) if error.is_no_records_found() => Ok(one),
        (Err(error), other) | (other, Err(error)) => match other {
            // What it lacks says less than what could not be asked.
            Err(other) if error.is_no_records_found() => Err(other),
            _ => Err(error),
        },
    }
}

/// The last known addresses of the hosts that SRV records name: one that cannot be asked for now keeps them.
type Targets = HashMap<String, Vec<IpAddr>>;

/// What a name's SRV records say: hosts with ports, priorities and weights.
async fn services(resolver: &Resolver, name: &str, known: &mut Targets) -> Result<Answer, String> {
    let found = resolver.families.v4.srv_lookup(name).await.map_err(|error| format!("{name}: {error}"))?;
    let mut valid_for = found.valid_until().saturating_duration_since(Instant::now());
    let mut services = Vec::new();
    for record in found.answers() {
        // "." says that there is no such service.
        if let RData::SRV(service) = &record.data
            && !service.target.is_root()
        {
            services.push(service);
        }
    }
    let ranks = ranks(services.iter().map(|service| service.priority));
    let mut targets = Targets::new();
    let mut endpoints = Vec::new();
    for service in services.into_iter().take(MOST_ENDPOINTS) {
        let host = service.target.to_ascii();
        let addresses = match resolver.addresses(&host).await {
            Ok((found, valid)) => {
                valid_for = valid_for.min(valid);
                found
            }
            Err(reason) => {
                valid_for = Duration::ZERO;
                known.get(&host).cloned().ok_or(reason)?
            }
        };
        let name: Arc<str> = host.trim_end_matches('.').into();
        endpoints.extend(addresses.iter().map(|ip| Endpoint {
            host: Some(Arc::clone(&name)),
            priority: ranks.get(&service.priority).copied().unwrap_or(MOST_PRIORITY),
            weight: u32::from(service.weight).clamp(1, MOST_WEIGHT),
            ..Endpoint::at(SocketAddr::new(*ip, service.port))
        }));
        targets.insert(host, addresses);
    }
    *known = targets;
    let mut seen = BTreeSet::new();
    endpoints.retain(|endpoint| seen.insert(endpoint.address));
    endpoints.truncate(MOST_ENDPOINTS);
    Ok(Answer { endpoints, valid_for })
}

/// SRV's priorities go up to 65535, an endpoint's to 15: what counts is their order.
fn ranks(priorities: impl Iterator<Item = u16>) -> BTreeMap<u16, u32> {
    let sorted: BTreeSet<u16> = priorities.collect();
    sorted.into_iter().zip((0..).map(|rank: u32| rank.min(MOST_PRIORITY))).collect()
}

#[cfg(test)]
mod tests {
    use hickory_resolver::net::{DnsError, NoRecords};
    use hickory_resolver::proto::op::{Query, ResponseCode};

    use super::*;

    #[test]
    fn priorities_are_ranked() {
        let ranks = ranks([10, 65535, 10, 0, 300].into_iter());
        assert_eq!(ranks, BTreeMap::from([(0, 0), (10, 1), (300, 2), (65535, 3)]));
        let many = super::ranks(0..100);
        assert_eq!((many[&14], many[&15], many[&99]), (14, 15, 15));
    }

    #[test]
    fn what_could_not_be_asked_is_not_what_the_host_lacks() {
        let found = |address: &str| Ok((vec![address.parse().unwrap()], Duration::from_secs(1)));
        let lacks = || {
            Err(NetError::from(DnsError::NoRecordsFound(NoRecords::new(Query::new(), ResponseCode::NoError))))
        };
        let fails = || Err(NetError::Timeout);
        assert_eq!(both((found("10.0.0.1"), found("::1"))).unwrap().0.len(), 2);
        assert_eq!(both((found("10.0.0.1"), lacks())).unwrap().0.len(), 1);
        assert_eq!(both((lacks(), found("::1"))).unwrap().0.len(), 1);
        for failing in
            [(found("10.0.0.1"), fails()), (fails(), found("::1")), (lacks(), fails()), (fails(), lacks())]
        {
            assert!(matches!(both(failing), Err(NetError::Timeout)));
        }
        assert!(both((lacks(), lacks())).unwrap_err().is_no_records_found());
    }

    #[test]
    fn failures_are_repeated_ever_more_slowly_up_to_a_limit() {
        let settings = Dns {
            name: DnsName::Srv("_x._tcp.example.".to_owned()),
            family: AddressFamily::V4ThenV6,
            logical: false,
            min_ttl: Duration::from_secs(5),
            max_ttl: Duration::from_secs(60),
            retry: Duration::from_secs(1),
            resolvers: Vec::new(),
        };
        let pauses: Vec<u64> = [1, 2, 3, 6, 7, 8, 1_000_000].map(|n| back_off(&settings, n).as_secs()).into();
        assert_eq!(pauses, [1, 2, 4, 32, 60, 60, 60]);
    }
}
