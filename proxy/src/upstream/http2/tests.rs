//! Sending to an endpoint that plays HTTP/2 frame by frame: what is shared, what is sent again, and what each mishap is
//! called.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::Frame as BodyFrame;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::message::{Body, BodyReason};
use crate::upstream::tests::{bytes, configuration, fed, fresh, get, post, run, with};
use crate::upstream::{Cluster, Upstream, UpstreamErrorKind};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;

/// `:status: 200` in HPACK.
const OK: &[u8] = &[0x88];
/// `x: y` in HPACK.
const X_Y: &[u8] = &[0x00, 1, b'x', 1, b'y'];

struct Endpoint(TcpListener);

impl Endpoint {
    async fn new() -> Endpoint {
        Endpoint(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn cluster(&self) -> Rc<Cluster> {
        self.cluster_with(|_| {})
    }

    fn cluster_with(&self, change: impl Fn(&mut meshgate_config::Cluster)) -> Rc<Cluster> {
        let mut configuration = configuration(&[self.0.local_addr().unwrap()]);
        configuration.protocol = meshgate_config::ClusterProtocol::Http2;
        change(&mut configuration);
        fresh(&configuration)
    }

    /// A connection that has had its first words.
    async fn accept(&self, settings: &[(u16, u32)]) -> Played {
        let (mut stream, _) = self.0.accept().await.unwrap();
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.unwrap();
        assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let mut played = Played(stream);
        let settings: Vec<u8> = settings
            .iter()
            .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        played.say(SETTINGS, 0, 0, &settings).await;
        played
    }
}

struct Played(TcpStream);

#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Frame {
    fn is(&self, kind: u8, stream: u32) -> bool {
        (self.kind, self.stream) == (kind, stream)
    }

    fn ends(&self) -> bool {
        self.flags & END_STREAM != 0
    }
}

impl Played {
    async fn say(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.0.write_all(&[&head, payload].concat()).await.unwrap();
    }

    /// The next frame that is not about the connection itself.
    async fn frame(&mut self) -> Frame {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.unwrap();
            let [a, b, c, kind, flags, stream @ ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            self.0.read_exact(&mut payload).await.unwrap();
            match kind {
                SETTINGS if flags & ACK == 0 => self.say(SETTINGS, ACK, 0, &[]).await,
                SETTINGS | WINDOW_UPDATE => {}
                _ => return Frame { kind, flags, stream: u32::from_be_bytes(stream), payload },
            }
        }
    }

    /// The next one, which begins a request.
    async fn request(&mut self) -> u32 {
        let frame = self.frame().await;
        assert_eq!(frame.kind, HEADERS, "{frame:?}");
        frame.stream
    }

    async fn answer(&mut self, stream: u32, body: &[u8]) {
        self.say(HEADERS, END_HEADERS, stream, OK).await;
        self.say(DATA, END_STREAM, stream, body).await;
    }

    async fn reset(&mut self, stream: u32, code: u32) {
        self.say(RST_STREAM, 0, stream, &code.to_be_bytes()).await;
    }

    /// The client resets this stream with CANCEL, whatever it said on it before.
    async fn cancelled(&mut self, stream: u32) {
        loop {
            let frame = self.frame().await;
            if frame.is(RST_STREAM, stream) {
                assert_eq!(frame.payload, [0, 0, 0, 8]);
                return;
            }
            assert!(frame.is(DATA, stream) && !frame.ends(), "{frame:?}");
        }
    }
}

#[test]
fn requests_share_a_connection_and_their_answers_may_come_in_any_order() {
    run(async {
        let endpoint = Endpoint::new().await;
        let cluster = endpoint.cluster();
        let upstream = Upstream::default();
        let (first, second, ()) =
            tokio::join!(upstream.send(&cluster, get()), upstream.send(&cluster, get()), async {
                let mut played = endpoint.accept(&[]).await;
                assert_eq!((played.request().await, played.request().await), (1, 3));
                played.answer(3, b"three").await;
                played.answer(1, b"one").await;
                // It stays open for as long as the test wants it.
                std::mem::forget(played);
            });
        assert_eq!(bytes(first.unwrap()).await.unwrap(), "one");
        assert_eq!(cluster.endpoints()[0].idle_connections(), 0);
        assert_eq!(bytes(second.unwrap()).await.unwrap(), "three");
        assert_eq!((cluster.endpoints()[0].idle_connections(), cluster.endpoints()[0].in_flight()), (1, 0));
    });
}

#[test]
fn bodies_and_trailers_go_both_ways() {
    run(async {
        let endpoint = Endpoint::new().await;
        let cluster = endpoint.cluster();
        let (feed, body) = fed();
        let mut trailers = HeaderMap::new();
        trailers.insert("x", HeaderValue::from_static("y"));
        feed.send(Ok(BodyFrame::data(Bytes::from_static(b"question")))).await.unwrap();
        feed.send(Ok(BodyFrame::trailers(trailers.clone()))).await.unwrap();
        let (response, _played) = with(&cluster, post(body), async {
            let mut played = endpoint.accept(&[]).await;
            assert_eq!(played.request().await, 1);
            let data = played.frame().await;
            assert_eq!((data.is(DATA, 1), data.ends(), &data.payload[..]), (true, false, &b"question"[..]));
            let last = played.frame().await;
            assert!(last.is(HEADERS, 1) && last.ends(), "{last:?}");
            played.say(HEADERS, END_HEADERS, 1, OK).await;
            played.say(DATA, 0, 1, b"answer").await;
            played.say(HEADERS, END_HEADERS | END_STREAM, 1, X_Y).await;
            played
        })
        .await;
        let collected = response.unwrap().into_body().collect().await.unwrap();
        assert_eq!(collected.trailers(), Some(&trailers));
        assert_eq!(collected.to_bytes(), "answer");
        assert_eq!(cluster.endpoints()[0].idle_connections(), 1);
    });
}

#[test]
fn a_peer_that_allows_one_request_at_a_time_gets_more_connections() {
    run(async {
        let endpoint = Endpoint::new().await;
        let cluster = endpoint.cluster();
        let one = [(MAX_CONCURRENT_STREAMS, 1)];
        let (first, mut played) = with(&cluster, get(), async {
            let mut played = endpoint.accept(&one).await;
            let stream = played.request().await;
            played.say(HEADERS, END_HEADERS, stream, OK).await;
            played
        })
        .await;
        let (second, _other) = with(&cluster, get(), async {
            let mut other = endpoint.accept(&one).await;
            assert_eq!(other.request().await, 1);
            other.answer(1, b"").await;
            other
        })
        .await;
        assert_eq!(cluster.endpoints()[0].http2().len(), 2);
        assert_eq!(bytes(second.unwrap()).await.unwrap(), "");
        played.say(DATA, END_STREAM, 1, b"late").await;
        assert_eq!(bytes(first.unwrap()).await.unwrap(), "late");
        // The oldest is used first.
        let (third, ()) = with(&cluster, get(), async {
            assert_eq!(played.request().await, 3);
            played.answer(3, b"").await;
        })
        .await;
        assert_eq!(bytes(third.unwrap()).await.unwrap(), "");
    });
}

#[test]
fn whoever_waits_gets_the_next_free_stream() {
    run(async {
        let endpoint = Endpoint::new().await;
        let cluster =
            endpoint.cluster_with(|configuration| configuration.connect_timeout = Duration::from_secs(5));
        let upstream = Upstream::default();
        // The peer allows none until later: both wait for it, and no second connection is tried.
        let (first, second, _played) =
            tokio::join!(upstream.send(&cluster, get()), upstream.send(&cluster, get()), async {
                let mut played = endpoint.accept(&[(MAX_CONCURRENT_STREAMS, 0)]).await;
                played.say(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 2]).await;
                assert_eq!((played.request().await, played.request().await), (1, 3));
                played.answer(1, b"").await;
                played.answer(3, b"").await;
                played
            });
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(cluster.endpoints()[0].http2().len(), 1);
    });
}

#[test]
fn a_peer_that_says_nothing_fails_everybody_who_waits() {
    run(async {
        let endpoint = Endpoint::new().await;
        let short = Duration::from_millis(100);
        let cluster = endpoint.cluster_with(|configuration| configuration.connect_timeout = short);
        let upstream = Upstream::default();
        let (first, second) = tokio::join!(upstream.send(&cluster, get()), upstream.send(&cluster, get()));
        for error in [first.unwrap_err(), second.unwrap_err()] {
            assert_eq!(error.kind, UpstreamErrorKind::ConnectTimeout, "{error}");
        }
        let (mut accepted, _) = endpoint.0.accept().await.unwrap();
        accepted.read_to_end(&mut Vec::new()).await.unwrap();
        let another = tokio::time::timeout(Duration::from_millis(50), endpoint.0.accept()).await;
        assert!(another.is_err(), "one attempt for both");
    });
}

#[test]
fn a_peer_that_does_not_speak_http2_gets_no_request() {
    run(async {
        let endpoint = Endpoint::new().await;
        let (outcome, ()) = with(&endpoint.cluster(), get(), async {
            let (mut stream, _) = endpoint.0.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        })
        .await;
        let error = outcome.unwrap_err();
        assert_eq!(error.kind, UpstreamErrorKind::ConnectFailed, "{error}");
        assert!(error.nothing_sent());
    });
}

#[test]
fn requests_that_were_not_begun_are_told_from_those_that_were() {
    run(async {
        let goaway = |last: u32| [last.to_be_bytes(), [0; 4]].concat();
        let cases: [(u8, Vec<u8>, UpstreamErrorKind); 6] = [
            (RST_STREAM, vec![0, 0, 0, 7], UpstreamErrorKind::Refused),
            (GOAWAY, goaway(0), UpstreamErrorKind::Refused),
            (RST_STREAM, vec![0, 0, 0, 8], UpstreamErrorKind::StreamReset { code: 8 }),
            (RST_STREAM, vec![0, 0, 0, 0], UpstreamErrorKind::StreamReset { code: 0 }),
            // It ends without an answer to what it says it has begun with.
            (GOAWAY, goaway(1), UpstreamErrorKind::Reset { reused: false }),
            // Data before a head.
            (DATA, vec![1], UpstreamErrorKind::Protocol),
        ];
        for (kind, payload, expected) in cases {
            let endpoint = Endpoint::new().await;
            let cluster = endpoint.cluster();
            let stream = u32::from(kind != GOAWAY);
            let (outcome, ()) = with(&cluster, get(), async {
                let mut played = endpoint.accept(&[]).await;
                assert_eq!(played.request().await, 1);
                played.say(kind, 0, stream, &payload).await;
                if matches!(expected, UpstreamErrorKind::Reset { .. }) {
                    drop(played);
                } else {
                    std::mem::forget(played);
                }
            })
            .await;
            assert_eq!(outcome.unwrap_err().kind, expected);
            if kind == GOAWAY {
                // The next one has a connection of its own.
                let (next, _played) = with(&cluster, get(), async {
                    let mut played = endpoint.accept(&[]).await;
                    assert_eq!(played.request().await, 1);
                    played.answer(1, b"").await;
                    played
                })
                .await;
                assert!(next.is_ok());
            }
        }
    });
}

#[test]
fn a_body_that_was_broken_off_is_never_whole() {
    run(async {
        for (frame, expected) in [
            (Some(8_u32), BodyReason::Reset { code: 8 }),
            (Some(0), BodyReason::Reset { code: 0 }),
            (None, BodyReason::Closed),
        ] {
            let endpoint = Endpoint::new().await;
            let cluster = endpoint.cluster();
            let (response, _played) = with(&cluster, get(), async {
                let mut played = endpoint.accept(&[]).await;
                assert_eq!(played.request().await, 1);
                played.say(HEADERS, END_HEADERS, 1, OK).await;
                played.say(DATA, 0, 1, b"half").await;
                match frame {
                    Some(code) => played.reset(1, code).await,
                    None => return None,
                }
                Some(played)
            })
            .await;
            assert_eq!(bytes(response.unwrap()).await.unwrap_err().reason, expected);
        }
    });
}

#[test]
fn a_length_that_is_not_kept_is_a_breach() {
    run(async {
        let endpoint = Endpoint::new().await;
        let (response, _played) = with(&endpoint.cluster(), get(), async {
            let mut played = endpoint.accept(&[]).await;
            assert_eq!(played.request().await, 1);
            // `:status: 200`, `content-length: 9`.
            played.say(HEADERS, END_HEADERS, 1, &[0x88, 0x0f, 0x0d, 1, b'9']).await;
            played.say(DATA, END_STREAM, 1, b"half").await;
            played
        })
        .await;
        let response = response.unwrap();
        assert_eq!(http_body::Body::size_hint(response.body()).exact(), Some(9));
        assert_eq!(bytes(response).await.unwrap_err().reason, BodyReason::Protocol);
    });
}

#[test]
fn an_answer_before_the_request_has_ended_ends_it() {
    run(async {
        for code in [None, Some(0)] {
            let endpoint = Endpoint::new().await;
            let cluster = endpoint.cluster();
            let (feed, body) = fed();
            feed.send(Ok(BodyFrame::data(Bytes::from_static(b"x")))).await.unwrap();
            let (response, mut played) = with(&cluster, post(body), async {
                let mut played = endpoint.accept(&[]).await;
                assert_eq!(played.request().await, 1);
                assert!(played.frame().await.is(DATA, 1));
                played.answer(1, b"enough").await;
                if let Some(code) = code {
                    played.reset(1, code).await;
                }
                played
            })
            .await;
            assert_eq!(bytes(response.unwrap()).await.unwrap(), "enough");
            if code.is_none() {
                played.cancelled(1).await;
            }
            feed.closed().await;
            assert_eq!(cluster.endpoints()[0].idle_connections(), 1, "the connection goes on");
        }
    });
}

#[test]
fn nothing_is_asked_of_a_body_that_the_peer_has_no_room_for() {
    run(async {
        let endpoint = Endpoint::new().await;
        let cluster = endpoint.cluster();
        let (feed, body) = fed();
        let (response, mut played) = with(&cluster, post(body), async {
            let mut played = endpoint.accept(&[(INITIAL_WINDOW_SIZE, 0)]).await;
            assert_eq!(played.request().await, 1);
            // Eight are taken without anybody reading.
            for _ in 0..8 {
                feed.try_send(Ok(BodyFrame::data(Bytes::from_static(b"chunk")))).unwrap();
            }
            played.say(HEADERS, END_HEADERS, 1, OK).await;
            played
        })
        .await;
        let response = response.unwrap();
        assert_eq!(feed.capacity(), 0, "nothing was taken");
        played.say(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]).await;
        let data = played.frame().await;
        assert_eq!((data.is(DATA, 1), &data.payload[..]), (true, &b"c"[..]));
        // With the response the request is given up, although it waits for the peer.
        drop(response);
        played.cancelled(1).await;
        feed.closed().await;
    });
}

#[test]
fn a_request_that_is_given_up_is_reset() {
    run(async {
        let endpoint = Endpoint::new().await;
        let cluster = endpoint.cluster();
        let upstream = Upstream::default();
        let mut played = {
            let mut sending = std::pin::pin!(upstream.send(&cluster, get()));
            let play = async {
                let mut played = endpoint.accept(&[]).await;
                assert_eq!(played.request().await, 1);
                played
            };
            tokio::select! {
                _ = &mut sending => panic!("nobody answered"),
                played = play => played,
            }
        };
        played.cancelled(1).await;
        let endpoint = Rc::clone(&cluster.endpoints()[0]);
        assert_eq!((endpoint.in_flight(), endpoint.idle_connections()), (0, 1));
    });
}

#[test]
fn a_broken_request_body_is_nobodys_fault_but_its_own() {
    run(async {
        let endpoint = Endpoint::new().await;
        let cluster = endpoint.cluster();
        let (feed, body) = fed();
        let broken =
            crate::message::BodyError::new(crate::message::BodyFault::Downstream, BodyReason::Closed, "gone");
        let (outcome, _played) = with(&cluster, post(body), async {
            let mut played = endpoint.accept(&[]).await;
            assert_eq!(played.request().await, 1);
            feed.send(Err(broken.clone())).await.unwrap();
            played.cancelled(1).await;
            played
        })
        .await;
        assert_eq!(outcome.unwrap_err().kind, UpstreamErrorKind::RequestBody(broken));
    });
}

#[test]
fn connections_without_use_are_closed() {
    run(async {
        let endpoint = Endpoint::new().await;
        let short = Duration::from_millis(80);
        let cluster = endpoint.cluster_with(|configuration| configuration.idle_timeout = short);
        let (response, mut played) = with(&cluster, post(Body::full("x")), async {
            let mut played = endpoint.accept(&[]).await;
            assert_eq!(played.request().await, 1);
            assert!(played.frame().await.ends());
            played.answer(1, b"").await;
            played
        })
        .await;
        assert_eq!(bytes(response.unwrap()).await.unwrap(), "");
        assert_eq!(played.frame().await.kind, GOAWAY);
        assert_eq!(cluster.endpoints()[0].http2().len(), 0);
    });
}
