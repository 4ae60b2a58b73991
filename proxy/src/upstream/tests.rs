//! Sending to scripted endpoints on real sockets: what is reused, what is closed, and what each mishap is called.

use std::cell::Cell;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use super::*;
use crate::message::{Body, BodyError, BodyFault, BodyReason};

/// Longer than anything here takes; a test that waits for it has failed.
const LIMIT: Duration = Duration::from_secs(20);

pub(super) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(LIMIT, test).await.expect("the test takes too long")
    });
}

pub(super) fn configuration(endpoints: &[SocketAddr]) -> meshgate_config::Cluster {
    meshgate_config::Cluster {
        name: "backend".to_owned(),
        endpoints: endpoints.iter().map(|address| meshgate_config::Endpoint::at(*address)).collect(),
        subset: None,
        discovery: meshgate_config::Discovery::Static,
        health_check: None,
        near: None,
        protocol: meshgate_config::ClusterProtocol::Http1,
        tls: None,
        load_balancer: meshgate_config::LoadBalancer::RoundRobin,
        slow_start: None,
        outlier_detection: None,
        panic_threshold: 0,
        limits: meshgate_config::ClusterLimits::default(),
        proxy_protocol: None,
        connect_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(60),
        metadata: meshgate_config::Metadata::default(),
        at: meshgate_config::Position::default(),
    }
}

/// An endpoint whose connections the test plays by hand.
pub(super) struct Endpoint {
    listener: TcpListener,
    pub(super) address: SocketAddr,
}

impl Endpoint {
    pub(super) async fn new() -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Endpoint { listener, address }
    }

    pub(super) async fn accept(&self) -> Played {
        Played { stream: self.listener.accept().await.unwrap().0 }
    }

    pub(super) fn cluster(&self) -> Rc<Cluster> {
        fresh(&configuration(&[self.address]))
    }
}

/// A cluster that nothing is known of yet.
pub(super) fn fresh(configuration: &meshgate_config::Cluster) -> Rc<Cluster> {
    Rc::new(Cluster::new(configuration, &SharedClusters::default().of(configuration), None))
}

pub(super) struct Played {
    stream: TcpStream,
}

impl Played {
    /// Reads up to the end of a head.
    pub(super) async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await
    }

    async fn until(&mut self, end: &str) -> String {
        let mut text = Vec::new();
        while !text.ends_with(end.as_bytes()) {
            text.push(self.stream.read_u8().await.unwrap());
        }
        String::from_utf8(text).unwrap()
    }

    pub(super) async fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// The other side may close before it has read everything.
    pub(super) async fn say_if_heard(&mut self, text: &str) {
        let _ = self.stream.write_all(text.as_bytes()).await;
    }

    /// Waits until the other side closes; what it still says does not matter.
    async fn closed(mut self) {
        let mut rest = [0; 4096];
        while let Ok(1..) = self.stream.read(&mut rest).await {}
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

pub(super) fn get() -> Request<Body> {
    Request::builder().uri("/").header("host", "a").body(Body::empty()).unwrap()
}

pub(super) fn post(body: Body) -> Request<Body> {
    Request::builder().method(Method::POST).uri("/").header("host", "a").body(body).unwrap()
}

pub(super) async fn bytes(response: Response<UpstreamBody>) -> Result<Bytes, BodyError> {
    response.into_body().collect().await.map(http_body_util::Collected::to_bytes)
}

/// Sends while the endpoint plays its part.
pub(super) async fn with<T>(
    cluster: &Cluster,
    request: Request<Body>,
    play: impl Future<Output = T>,
) -> (Result<Response<UpstreamBody>, UpstreamError>, T) {
    let upstream = Upstream::default();
    tokio::join!(upstream.send(cluster, request), play)
}

/// A request body that a test feeds.
struct Fed(mpsc::Receiver<Result<Frame<Bytes>, BodyError>>);

pub(super) fn fed() -> (mpsc::Sender<Result<Frame<Bytes>, BodyError>>, Body) {
    let (sender, receiver) = mpsc::channel(8);
    (sender, Body::stream(Fed(receiver)))
}

impl http_body::Body for Fed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.0.poll_recv(cx)
    }
}

#[test]
fn a_connection_is_reused_after_both_bodies_ended() {
    run(async {
        let endpoint = Endpoint::new().await;
        let cluster = endpoint.cluster();
        let idle = || cluster.endpoints()[0].idle_connections();
        let (response, mut played) = with(&cluster, post(Body::full("abc")), async {
            let mut played = endpoint.accept().await;
            let head = played.head().await;
            assert!(
                head.starts_with("POST / HTTP/1.1\r\n") && head.contains("content-length: 3\r\n"),
                "{head}"
            );
            assert_eq!(played.until("abc").await, "abc");
            played.say(OK).await;
            played
        })
        .await;
        let response = response.unwrap();
        assert_eq!(response.body().endpoint(), endpoint.address.into());
        assert_eq!(response.body().local_address(), Some(played.stream.peer_addr().unwrap().into()));
        assert_eq!(cluster.endpoints()[0].in_flight(), 1);
        assert_eq!(bytes(response).await.unwrap(), "ok");
        assert_eq!((idle(), cluster.endpoints()[0].in_flight()), (1, 0));

        // A body of unknown length, in both directions, with trailers.
        let (feed, body) = fed();
        feed.send(Ok(Frame::data(Bytes::from_static(b"x")))).await.unwrap();
        drop(feed);
        let (response, mut played) = with(&cluster, post(body), async {
            let head = played.head().await;
            assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
            played.until("1\r\nx\r\n0\r\n\r\n").await;
            played
                .say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n")
                .await;
            played
        })
        .await;
        let collected = response.unwrap().into_body().collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["x-sum"], "1");
        assert_eq!(idle(), 1);

        // No body at all: it is back before the response is looked at.
        let (response, ()) = with(&cluster, get(), async {
            played.head().await;
            played.say("HTTP/1.1 204 No Content\r\n\r\n").await;
        })
        .await;
        assert_eq!(response.unwrap().status(), 204);
        assert_eq!(idle(), 1);
    });
}

#[test]
fn concurrent_requests_have_connections_of_their_own_and_the_last_used_comes_first() {
    run(async {
        let endpoint = Endpoint::new().await;
        let cluster = endpoint.cluster();
        let upstream = Upstream::default();
        let play = async {
            let (mut first, mut second) = (endpoint.accept().await, endpoint.accept().await);
            tokio::join!(first.head(), second.head());
            (first, second)
        };
        let both = async { tokio::join!(upstream.send(&cluster, get()), upstream.send(&cluster, get())) };
        let answer = async {
            let (mut first, mut second) = play.await;
            first.say(OK).await;
            second.say(OK).await;
            (first, second)
        };
        let ((one, two), (mut first, second)) = tokio::join!(both, answer);
        bytes(two.unwrap()).await.unwrap();
        bytes(one.unwrap()).await.unwrap();
        assert_eq!(cluster.endpoints()[0].idle_connections(), 2);
        let (response, ()) = with(&cluster, get(), async {
            first.head().await;
            first.say(OK).await;
        })
        .await;
        bytes(response.unwrap()).await.unwrap();
        drop(second);
    });
}

#[test]
fn an_early_response_ends_the_connection() {
    run(async {
        let endpoint = Endpoint::new().await;
        let cluster = endpoint.cluster();
        let (feed, body) = fed();
        feed.send(Ok(Frame::data(Bytes::from_static(b"some")))).await.unwrap();
        let (response, played) = with(&cluster, post(body), async {
            let mut played = endpoint.accept().await;
            played.head().await;
            played.say("HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\nno").await;
            played
        })
        .await;
        let response = response.unwrap();
        assert_eq!(response.status(), 413);
        assert_eq!(bytes(response).await.unwrap(), "no");
        assert_eq!(cluster.endpoints()[0].idle_connections(), 0);
        played.closed().await;
    });
}

#[test]
fn a_response_that_is_not_read_to_its_end_ends_the_connection() {
    run(async {
        let endpoint = Endpoint::new().await;
        let cluster = endpoint.cluster();
        let (response, played) = with(&cluster, get(), async {
            let mut played = endpoint.accept().await;
            played.head().await;
            played.say("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
            played
        })
        .await;
        let mut body = response.unwrap().into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
        drop(body);
        played.closed().await;
        assert_eq!(cluster.endpoints()[0].idle_connections(), 0);
        assert_eq!(cluster.endpoints()[0].in_flight(), 0);
    });
}

#[test]
fn dropping_the_request_ends_the_connection() {
    run(async {
        let endpoint = Endpoint::new().await;
        let cluster = endpoint.cluster();
        let upstream = Upstream::default();
        let played = tokio::select! {
            _ = upstream.send(&cluster, get()) => panic!("nobody answered"),
            played = async {
                let mut played = endpoint.accept().await;
                played.head().await;
                played
            } => played,
        };
        played.closed().await;
        assert_eq!(cluster.endpoints()[0].in_flight(), 0);
    });
}

#[test]
fn a_stale_connection_is_replaced_without_anybody_noticing() {
    run(async {
        let endpoint = Endpoint::new().await;
        let cluster = endpoint.cluster();
        let (response, played) = with(&cluster, get(), async {
            let mut played = endpoint.accept().await;
            played.head().await;
            played.say(OK).await;
            played
        })
        .await;
        bytes(response.unwrap()).await.unwrap();
        assert_eq!(cluster.endpoints()[0].idle_connections(), 1);
        drop(played);
        while cluster.endpoints()[0].pool().open() > 0 {
            tokio::task::yield_now().await;
        }
        let (response, ()) = with(&cluster, post(Body::full("precious")), async {
            let mut played = endpoint.accept().await;
            played.head().await;
            played.until("precious").await;
            played.say(OK).await;
        })
        .await;
        assert_eq!(bytes(response.unwrap()).await.unwrap(), "ok");
    });
}

#[test]
fn bytes_nobody_asked_for_end_an_idle_connection() {
    run(async {
        let endpoint = Endpoint::new().await;
        let cluster = endpoint.cluster();
        let (response, mut played) = with(&cluster, get(), async {
            let mut played = endpoint.accept().await;
            played.head().await;
            played.say(OK).await;
            played
        })
        .await;
        bytes(response.unwrap()).await.unwrap();
        played.say("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil").await;
        played.closed().await;
        let (response, ()) = with(&cluster, get(), async {
            let mut played = endpoint.accept().await;
            played.head().await;
            played.say(OK).await;
        })
        .await;
        assert_eq!(bytes(response.unwrap()).await.unwrap(), "ok");
    });
}

#[test]
fn mishaps_have_names() {
    use UpstreamErrorKind::{Protocol, Reset};
    run(async {
        let head = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "a".repeat(200_000));
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(101));
        let cases: [(&str, UpstreamErrorKind); 7] = [
            ("", Reset { reused: false }),
            ("HTTP/1.1 200", Reset { reused: false }),
            ("SSH-2.0-x\r\n\r\n", Protocol),
            ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", Protocol),
            ("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", Protocol),
            (&head, Protocol),
            (&many, Protocol),
        ];
        for (answer, expected) in cases {
            let endpoint = Endpoint::new().await;
            let (response, ()) = with(&endpoint.cluster(), get(), async {
                let mut played = endpoint.accept().await;
                played.head().await;
                played.say_if_heard(answer).await;
                let _ = played.stream.shutdown().await;
                played.closed().await;
            })
            .await;
            let error = response.map(|response| response.status()).unwrap_err();
            assert_eq!(error.kind, expected, "{:.60}: {error}", answer);
            assert_eq!(error.endpoint, Some(endpoint.address.into()));
            assert!(!error.nothing_sent());
        }
    });
}

#[test]
fn a_reused_connection_that_breaks_says_so() {
    run(async {
        let endpoint = Endpoint::new().await;
        let cluster = endpoint.cluster();
        let (response, mut played) = with(&cluster, get(), async {
            let mut played = endpoint.accept().await;
            played.head().await;
            played.say(OK).await;
            played
        })
        .await;
        bytes(response.unwrap()).await.unwrap();
        let (response, ()) = with(&cluster, get(), async {
            played.head().await;
            drop(played);
        })
        .await;
        let error = response.map(|response| response.status()).unwrap_err();
        assert_eq!(error.kind, UpstreamErrorKind::Reset { reused: true }, "{error}");
    });
}

#[test]
fn a_body_that_breaks_off_is_an_error_and_not_an_end() {
    run(async {
        for answer in [
            "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        ] {
            let endpoint = Endpoint::new().await;
            let cluster = endpoint.cluster();
            let (response, ()) = with(&cluster, get(), async {
                let mut played = endpoint.accept().await;
                played.head().await;
                played.say(answer).await;
            })
            .await;
            let error = bytes(response.unwrap()).await.unwrap_err();
            assert_eq!(error.fault, BodyFault::Upstream, "{error}");
            assert_eq!(cluster.endpoints()[0].idle_connections(), 0);
        }
    });
}

#[test]
fn a_request_body_that_breaks_is_the_senders_fault_before_and_after_the_response_head() {
    run(async {
        let broken = || BodyError::new(BodyFault::Downstream, BodyReason::Closed, "gone");
        let endpoint = Endpoint::new().await;
        let cluster = endpoint.cluster();
        let (feed, body) = fed();
        let (response, ()) = with(&cluster, post(body), async {
            let mut played = endpoint.accept().await;
            played.head().await;
            feed.send(Err(broken())).await.unwrap();
            played.closed().await;
        })
        .await;
        let error = response.map(|response| response.status()).unwrap_err();
        assert_eq!(error.kind, UpstreamErrorKind::RequestBody(broken()));

        let (feed, body) = fed();
        let (response, played) = with(&cluster, post(body), async {
            let mut played = endpoint.accept().await;
            played.head().await;
            played.say("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
            played
        })
        .await;
        feed.send(Err(broken())).await.unwrap();
        assert_eq!(bytes(response.unwrap()).await.unwrap_err(), broken());
        played.closed().await;
    });
}

#[test]
fn nowhere_to_go() {
    run(async {
        let empty = fresh(&configuration(&[]));
        let error = Upstream::default().send(&empty, get()).await.unwrap_err();
        assert_eq!((error.kind.clone(), error.endpoint), (UpstreamErrorKind::NoEndpoint, None));
        assert!(error.nothing_sent());

        // Bound and closed again: nobody listens there.
        let refused = Endpoint::new().await.address;
        let error = Upstream::default().send(&fresh(&configuration(&[refused])), get()).await.unwrap_err();
        assert_eq!(
            (error.kind.clone(), error.endpoint),
            (UpstreamErrorKind::ConnectFailed, Some(refused.into()))
        );
        assert!(error.nothing_sent());
    });
}

#[test]
fn a_connection_attempt_ends_in_time() {
    run(async {
        // A full accept queue: the kernel drops further attempts.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let mut waiting = Vec::new();
        while let Ok(Ok(stream)) =
            tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await
        {
            waiting.push(stream);
        }
        let mut configuration = configuration(&[address]);
        configuration.connect_timeout = Duration::from_millis(50);
        let error = Upstream::default().send(&fresh(&configuration), get()).await.unwrap_err();
        assert_eq!(error.kind, UpstreamErrorKind::ConnectTimeout);
    });
}

#[test]
fn idle_connections_are_closed_in_time() {
    run(async {
        let endpoint = Endpoint::new().await;
        let mut configuration = configuration(&[endpoint.address]);
        configuration.idle_timeout = Duration::from_millis(80);
        let cluster = fresh(&configuration);
        let (response, played) = with(&cluster, get(), async {
            let mut played = endpoint.accept().await;
            played.head().await;
            played.say(OK).await;
            played
        })
        .await;
        bytes(response.unwrap()).await.unwrap();
        assert_eq!(cluster.endpoints()[0].idle_connections(), 1);
        played.closed().await;
        assert_eq!(cluster.endpoints()[0].idle_connections(), 0);
    });
}

#[test]
fn a_reload_keeps_the_connections_of_what_did_not_change() {
    let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let mut shared = SharedClusters::default();
    let mut clusters = |configuration: &meshgate_config::Cluster, previous: Option<&Clusters>| {
        let shared = shared.of(configuration);
        Clusters::new([(configuration, &shared, None)].into_iter(), previous)
    };
    let first = configuration(&[address(1)]);
    let built = clusters(&first, None);
    let same = clusters(
        &meshgate_config::Cluster { at: meshgate_config::Position { line: 7, column: 1 }, ..first.clone() },
        Some(&built),
    );
    let slower = meshgate_config::Cluster { connect_timeout: LIMIT, ..first.clone() };
    let changed = clusters(&slower, Some(&built));
    let found = |clusters: &Clusters| clusters.find("backend").unwrap();
    assert!(Rc::ptr_eq(&found(&built), &found(&same)));
    assert!(!Rc::ptr_eq(&found(&built), &found(&changed)));
    assert!(built.find("other").is_none());
}

#[test]
fn endpoints_that_stay_keep_their_connections_when_others_come_and_go() {
    let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let first = configuration(&[address(1), address(2)]);
    let shared = SharedClusters::default().of(&first);
    let cluster = Cluster::new(&first, &shared, None);
    let picked: Vec<_> = (0..2).filter_map(|_| cluster.pick(None)).map(|one| one.address()).collect();
    assert_eq!(picked, [address(1).into(), address(2).into()]);
    let before = cluster.endpoints();
    let mut second = configuration(&[address(2), address(3)]);
    second.endpoints[0].weight = 5;
    shared.set_members(&second.endpoints, false);
    let picked: Vec<_> = (0..6).filter_map(|_| cluster.pick(None)).map(|one| one.address()).collect();
    assert_eq!(picked.iter().filter(|picked| **picked == address(2).into()).count(), 5, "{picked:?}");
    let after = cluster.endpoints();
    assert_eq!(
        after.iter().map(|one| one.address()).collect::<Vec<_>>(),
        [address(2).into(), address(3).into()]
    );
    assert!(Rc::ptr_eq(before[1].pool(), after[0].pool()));
    shared.set_members(&[], false);
    assert!(cluster.pick(None).is_none());
}

#[test]
fn a_subset_has_the_endpoints_with_its_labels_and_limits_of_its_own() {
    let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let mut whole = configuration(&[address(1), address(2), address(3)]);
    for (endpoint, version) in whole.endpoints.iter_mut().zip(["v1", "v2", "v1"]) {
        endpoint.labels.insert("version".to_owned(), version.to_owned());
    }
    let labels = [("version".to_owned(), "v1".to_owned())].into();
    let subset = meshgate_config::Cluster {
        name: "v1".to_owned(),
        subset: Some(meshgate_config::Subset { of: whole.name.clone(), labels }),
        ..whole.clone()
    };
    let mut clusters = SharedClusters::default();
    let (shared, same) = (clusters.of(&whole), clusters.of(&subset));
    assert!(std::sync::Arc::ptr_eq(&shared, &same));
    let (all, some) = (Cluster::new(&whole, &shared, None), Cluster::new(&subset, &same, None));
    assert_eq!((all.endpoints().len(), some.endpoints().len()), (3, 2));
    assert!((0..9).all(|_| some.pick(None).is_some_and(|one| one.address() != address(2).into())));
    assert!(some.limits().begin_request() && all.limits().requests().now() == 0);
    // With the label goes the endpoint.
    whole.endpoints[0].labels.clear();
    shared.set_members(&whole.endpoints, false);
    assert!((0..9).all(|_| some.pick(None).is_some_and(|one| one.address() == address(3).into())));
}

#[test]
fn a_slow_reader_slows_the_endpoint_down() {
    run(async {
        let endpoint = Endpoint::new().await;
        let cluster = endpoint.cluster();
        let written = Rc::new(Cell::new(0));
        let (response, mut played) = with(&cluster, get(), async {
            let mut played = endpoint.accept().await;
            played.head().await;
            played.say("HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n").await;
            played
        })
        .await;
        let body = response.unwrap().into_body();
        let count = written.clone();
        let flood = tokio::task::spawn_local(async move {
            let chunk = vec![b'x'; 64 * 1024];
            while played.stream.write_all(&chunk).await.is_ok() {
                count.set(count.get() + chunk.len());
            }
        });
        // Nobody reads: what the endpoint can write ends with the buffers of the sockets and of one connection.
        let mut before = usize::MAX;
        while written.get() != before {
            before = written.get();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(written.get() < 64 * 1024 * 1024, "{} bytes are buffered somewhere", written.get());
        drop(body);
        flood.await.unwrap();
    });
}
