use std::future::{Future, pending};
use std::net::SocketAddr;

use http::uri::{PathAndQuery, Scheme};
use http::{Method, Version};
use meshgate_wasm::RequestHead;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use super::super::tests::{Endpoint, configuration, fresh};
use super::*;

type Outcome = Result<HttpCallResponse, CallFailure>;

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let limit = Duration::from_secs(20);
    LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(limit, test).await.expect("the test takes too long")
    });
}

fn call(body: &'static str, trailers: HeaderMap, timeout: Option<Duration>) -> HttpCall {
    let request = RequestHead {
        method: Method::POST,
        scheme: Scheme::HTTP,
        authority: HeaderValue::from_static("auth.example"),
        path: PathAndQuery::from_static("/check"),
        version: Version::HTTP_11,
        headers: HeaderMap::new(),
    };
    HttpCall {
        cluster: "backend".to_owned(),
        request,
        body: Bytes::from_static(body.as_bytes()),
        trailers,
        timeout,
        most_body: 1 << 20,
        depth: 1,
        ended: false,
    }
}

/// Has room for so many bytes of responses.
struct Told(oneshot::Sender<Outcome>, Cell<usize>);

impl Caller for Told {
    fn cancelled(&self) -> impl Future<Output = ()> + 'static {
        pending()
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.1.get().checked_sub(bytes).map(|left| self.1.set(left)).is_some()
    }

    fn deliver(self, outcome: Outcome) {
        self.0.send(outcome).unwrap();
    }
}

fn started(upstream: &Rc<Upstream>, cluster: &Rc<Cluster>, call: HttpCall) -> oneshot::Receiver<Outcome> {
    started_with_room(upstream, cluster, call, usize::MAX)
}

fn started_with_room(
    upstream: &Rc<Upstream>,
    cluster: &Rc<Cluster>,
    call: HttpCall,
    room: usize,
) -> oneshot::Receiver<Outcome> {
    let (sender, mut receiver) = oneshot::channel();
    begin(upstream, cluster.clone(), call, Told(sender, Cell::new(room))).unwrap();
    assert!(receiver.try_recv().is_err(), "delivered from inside of the call");
    receiver
}

#[test]
fn a_call_brings_back_the_whole_response() {
    run(async {
        let endpoint = Endpoint::new().await;
        let (upstream, cluster) = (Rc::new(Upstream::default()), endpoint.cluster());
        let outcome = started(&upstream, &cluster, call("who?", HeaderMap::new(), None));
        let mut played = endpoint.accept().await;
        let head = played.head().await;
        for line in ["POST /check HTTP/1.1\r\n", "host: auth.example\r\n", "content-length: 4\r\n"] {
            assert!(head.contains(line), "{head}");
        }
        played
            .say(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: x-hop\r\nx-hop: 1\r\nx-user: ann\r\n\r\n\
                 3\r\nyou\r\n2\r\n!!\r\n0\r\nx-sum: 7\r\n\r\n",
            )
            .await;
        let response = outcome.await.unwrap().unwrap();
        assert_eq!(response.head.status, 200);
        assert_eq!(response.head.headers["x-user"], "ann");
        assert_eq!(response.head.headers.len(), 1);
        assert_eq!(response.body, "you!!");
        assert_eq!(response.trailers.unwrap()["x-sum"], "7");
        assert_eq!(upstream.calls().get(), 0);
        assert_eq!(cluster.endpoints()[0].idle_connections(), 1);
    });
}

#[test]
fn trailers_are_announced_and_sent() {
    run(async {
        let endpoint = Endpoint::new().await;
        let (upstream, cluster) = (Rc::new(Upstream::default()), endpoint.cluster());
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("1"));
        let outcome = started(&upstream, &cluster, call("abc", trailers, None));
        let mut played = endpoint.accept().await;
        let head = played.head().await;
        assert!(
            head.contains("trailer: x-sum\r\n") && head.contains("transfer-encoding: chunked\r\n"),
            "{head}"
        );
        assert_eq!(played.head().await, "3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n");
        played.say("HTTP/1.1 204 No Content\r\n\r\n").await;
        assert_eq!(outcome.await.unwrap().unwrap().head.status, 204);
    });
}

#[test]
fn mishaps_are_told_apart() {
    run(async {
        let endpoint = Endpoint::new().await;
        let (upstream, cluster) = (Rc::new(Upstream::default()), endpoint.cluster());

        let slow = started(&upstream, &cluster, call("", HeaderMap::new(), Some(Duration::from_millis(50))));
        let _silent = endpoint.accept().await;
        assert_eq!(slow.await.unwrap().unwrap_err(), CallFailure::Timeout);

        let large = started(&upstream, &cluster, call("", HeaderMap::new(), None));
        let mut played = endpoint.accept().await;
        played.head().await;
        let body = "x".repeat((1 << 20) + 1);
        tokio::task::spawn_local(async move {
            played.say(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len())).await;
            played.say_if_heard(&body).await;
        });
        assert_eq!(large.await.unwrap().unwrap_err(), CallFailure::TooLarge);

        for (room, found) in [(7, Err(CallFailure::NoRoom)), (8, Ok("8 bytes.".into()))] {
            let answered = started_with_room(&upstream, &cluster, call("", HeaderMap::new(), None), room);
            let mut played = endpoint.accept().await;
            played.head().await;
            played.say("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 8\r\n\r\n8 bytes.").await;
            assert_eq!(answered.await.unwrap().map(|response| response.body), found);
        }

        let closed: SocketAddr = Endpoint::new().await.address;
        let cluster = fresh(&configuration(&[closed]));
        let refused = started(&upstream, &cluster, call("", HeaderMap::new(), None)).await.unwrap();
        assert_eq!(refused.unwrap_err(), CallFailure::ConnectFailed);

        let nowhere = fresh(&configuration(&[]));
        let lost = started(&upstream, &nowhere, call("", HeaderMap::new(), None)).await.unwrap();
        assert_eq!(lost.unwrap_err(), CallFailure::NoEndpoint);
    });
}

#[test]
fn what_breaks_before_a_head_is_told_from_what_breaks_after_it() {
    run(async {
        let endpoint = Endpoint::new().await;
        let (upstream, cluster) = (Rc::new(Upstream::default()), endpoint.cluster());
        for (said, failure) in [
            ("", CallFailure::Unanswered),
            ("HTTP/1.1 200 OK\r\nx-half: 1\r\n", CallFailure::Unanswered),
            ("220 mail.example\r\n\r\n", CallFailure::Unanswered),
            (
                "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
                CallFailure::Unanswered,
            ),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", CallFailure::Unanswered),
            ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", CallFailure::Reset),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nno chunk\r\n", CallFailure::Reset),
        ] {
            let broken = started(&upstream, &cluster, call("", HeaderMap::new(), None));
            let mut played = endpoint.accept().await;
            played.head().await;
            played.say(said).await;
            drop(played);
            assert_eq!(broken.await.unwrap().unwrap_err(), failure, "{said}");
        }
    });
}

#[test]
fn a_connection_that_ends_as_a_call_goes_out_leaves_it_unanswered() {
    run(async {
        let endpoint = Endpoint::new().await;
        let (upstream, cluster) = (Rc::new(Upstream::default()), endpoint.cluster());
        let first = started(&upstream, &cluster, call("", HeaderMap::new(), None));
        let mut played = endpoint.accept().await;
        played.head().await;
        played.say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(first.await.unwrap().unwrap().head.status, 200);
        // It waits for its next request, gets it, and ends instead of answering.
        let second = started(&upstream, &cluster, call("", HeaderMap::new(), None));
        played.head().await;
        drop(played);
        assert_eq!(second.await.unwrap().unwrap_err(), CallFailure::Unanswered);
    });
}

#[test]
fn too_many_calls_are_refused_at_once() {
    run(async {
        let endpoint = Endpoint::new().await;
        let (upstream, cluster) = (Rc::new(Upstream::default()), endpoint.cluster());
        upstream.calls().set(MAX_CALLS);
        let (sender, mut receiver) = oneshot::channel();
        let told = Told(sender, Cell::default());
        let refused = begin(&upstream, cluster, call("", HeaderMap::new(), None), told);
        assert_eq!(refused, Err(CallError::CannotStart));
        assert_eq!(
            receiver.try_recv().unwrap_err(),
            oneshot::error::TryRecvError::Closed,
            "nothing delivered"
        );
    });
}

#[test]
fn a_call_that_waits_in_vain_counts_for_outlier_detection() {
    run(async {
        let endpoint = Endpoint::new().await;
        let mut configuration = configuration(&[endpoint.address]);
        configuration.outlier_detection = Some(meshgate_config::OutlierDetection {
            consecutive_errors: None,
            consecutive_gateway_errors: None,
            consecutive_local_errors: Some(2),
            success_rate: None,
            interval: Duration::from_secs(10),
            ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_percent: 100,
        });
        let (upstream, cluster) = (Rc::new(Upstream::default()), fresh(&configuration));
        let soon = Some(Duration::from_millis(20));
        let ejections = || cluster.endpoints()[0].shared().ejections();
        for ejected in [0, 1] {
            let late = started(&upstream, &cluster, call("", HeaderMap::new(), soon));
            assert_eq!(late.await.unwrap().unwrap_err(), CallFailure::Timeout);
            assert_eq!(ejections(), ejected);
        }
    });
}
