//! A name server over UDP whose answers a test changes as it runs, or withholds. The messages are written by hand.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use tokio::task::AbortHandle;

const A: u16 = 1;
const AAAA: u16 = 28;
const SRV: u16 = 33;

/// A name server on a free port of 127.0.0.1, gone when dropped.
pub struct DnsServer {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    serving: AbortHandle,
}

/// How a name server fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It answers with SERVFAIL.
    ServerFailure,
    /// It answers that there is no such name.
    NoSuchName,
    /// It answers that there is no such record.
    NoRecord,
    /// It does not answer.
    Silence,
}

/// The records of a name and type.
struct Records {
    ttl: u32,
    contents: Vec<Vec<u8>>,
}

#[derive(Default)]
struct Zone {
    /// By name, without its last dot, and type.
    records: HashMap<(String, u16), Records>,
    trouble: Option<Trouble>,
    /// Names and types.
    queries: Vec<(String, u16)>,
}

impl Zone {
    fn set(&mut self, name: &str, kind: u16, ttl: u32, contents: Vec<Vec<u8>>) {
        self.records.insert((name.to_owned(), kind), Records { ttl, contents });
    }
}

impl DnsServer {
    /// Without names.
    pub async fn start() -> DnsServer {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let address = socket.local_addr().expect("bound");
        let zone: Arc<Mutex<Zone>> = Arc::default();
        let serving = tokio::spawn(serve(socket, Arc::clone(&zone))).abort_handle();
        DnsServer { address, zone, serving }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on this host has these addresses, of one family or of both, and no others, for so many seconds.
    pub fn host<T: Into<IpAddr> + Copy>(&self, name: &str, ttl: u32, addresses: &[T]) {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for address in addresses {
            match (*address).into() {
                IpAddr::V4(address) => v4.push(address.octets().to_vec()),
                IpAddr::V6(address) => v6.push(address.octets().to_vec()),
            }
        }
        let mut zone = self.zone();
        zone.set(name, A, ttl, v4);
        zone.set(name, AAAA, ttl, v6);
    }

    /// From now on this service is there: priority, weight, port and host, of each.
    pub fn service(&self, name: &str, ttl: u32, places: &[(u16, u16, u16, &str)]) {
        let record = |(priority, weight, port, host): &(u16, u16, u16, &str)| {
            let mut bytes = Vec::new();
            for number in [priority, weight, port] {
                bytes.extend_from_slice(&number.to_be_bytes());
            }
            bytes.extend(labels(host));
            bytes
        };
        self.zone().set(name, SRV, ttl, places.iter().map(record).collect());
    }

    /// From now on it fails in this way, or works again.
    pub fn trouble(&self, trouble: Option<Trouble>) {
        self.zone().trouble = trouble;
    }

    /// How often it was asked for this name, whatever the type.
    pub fn queries(&self, name: &str) -> usize {
        self.zone().queries.iter().filter(|(asked, _)| asked == name).count()
    }

    /// How often it was asked for this host's addresses of IPv4, and of IPv6.
    pub fn queries_by_family(&self, name: &str) -> (usize, usize) {
        let zone = self.zone();
        let count = |kind| zone.queries.iter().filter(|asked| asked.0 == name && asked.1 == kind).count();
        (count(A), count(AAAA))
    }

    fn zone(&self) -> std::sync::MutexGuard<'_, Zone> {
        self.zone.lock().expect("nobody panics while holding it")
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(socket: UdpSocket, zone: Arc<Mutex<Zone>>) {
    let mut packet = [0; 2048];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut packet).await else { continue };
        let answer = answer(&packet[..length], &mut zone.lock().expect("nobody panics while holding it"));
        if let Some(answer) = answer {
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

/// The answer to a query of one question.
fn answer(query: &[u8], zone: &mut Zone) -> Option<Vec<u8>> {
    let (name, after) = name_at(query, 12)?;
    let question = query.get(12..after + 4)?;
    let kind = u16::from_be_bytes([*query.get(after)?, *query.get(after + 1)?]);
    zone.queries.push((name.clone(), kind));
    let found = zone.records.get(&(name.clone(), kind));
    let known = zone.records.keys().any(|(of, _)| *of == name);
    let (code, records) = match (zone.trouble, found) {
        (Some(Trouble::Silence), _) => return None,
        (Some(Trouble::ServerFailure), _) => (2, None),
        (Some(Trouble::NoSuchName), _) => (3, None),
        (Some(Trouble::NoRecord), _) => (0, None),
        (None, None) => (if known { 0 } else { 3 }, None),
        (None, found) => (0, found),
    };
    let (ttl, records) = records.map_or((0, &[][..]), |records| (records.ttl, records.contents.as_slice()));
    let mut out = query.get(..2)?.to_vec();
    // A response, recursion desired and available.
    out.extend([0x81, 0x80 | code, 0, 1]);
    out.extend(u16::try_from(records.len()).ok()?.to_be_bytes());
    out.extend([0; 4]);
    out.extend(question);
    for record in records {
        // The name is that of the question.
        out.extend([0xc0, 12]);
        out.extend(kind.to_be_bytes());
        out.extend([0, 1]);
        out.extend(ttl.to_be_bytes());
        out.extend(u16::try_from(record.len()).ok()?.to_be_bytes());
        out.extend(record);
    }
    Some(out)
}

/// A name without its last dot, in lower case, and where it ends.
fn name_at(packet: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        if length == 0 {
            return Some((name, at));
        }
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(&String::from_utf8_lossy(packet.get(at..at + length)?).to_lowercase());
        at += length;
    }
}

fn labels(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.trim_end_matches('.').split('.') {
        bytes.push(u8::try_from(label.len()).expect("a label the test wrote"));
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}
