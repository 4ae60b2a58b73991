//! The gRPC server that the guests `suite` and `suite-tcp` call and talk to.

use std::io::Error;

use http::{HeaderMap, HeaderValue, Response};
use hyper::body::Incoming;
use meshgate_tests::{Answer, Backend, BodySender, Messages, Seen, Unread, framed, full, streamed};

/// A server of methods of any service:
///
/// | method | what it does |
/// |---|---|
/// | `Refuse` | a head with status 7 and nothing else |
/// | `Half` | a message, then status 13 |
/// | `Over` | ends well at once |
/// | `Silent`, `Sleep` | never answer |
/// | any other | answers each message with `echo ` and the message, and ends when the client has ended |
pub(super) async fn talk_backend() -> Backend {
    Backend::http2("talk", answer).await
}

async fn answer(seen: Seen, request: http::Request<Incoming>) -> Answer {
    let method = seen.path.rsplit('/').next().unwrap_or_default().to_owned();
    let head = Response::builder().header("content-type", "application/grpc");
    match method.as_str() {
        "Silent" | "Sleep" => return std::future::pending().await,
        "Refuse" => {
            let refused = head.header("grpc-status", "7").header("grpc-message", "not you");
            return refused.body(full("")).map_err(Error::other);
        }
        _ => {}
    }
    let (sender, body) = streamed();
    tokio::spawn(converse(Messages::of(request.into_body()), sender, method));
    head.header("x-initial", seen.header("x-a")).body(body).map_err(Error::other)
}

async fn converse(mut asked: Messages, mut sender: BodySender, method: String) -> Result<(), Unread> {
    match method.as_str() {
        "Half" => {
            sender.send_data(framed(b"half")).await?;
            return sender.send_trailers(ending("13", Some("broken"))).await;
        }
        "Over" => return sender.send_trailers(ending("0", None)).await,
        _ => {}
    }
    while let Ok(Some(message)) = asked.next().await {
        sender.send_data(framed(&[b"echo ", &message[..]].concat())).await?;
    }
    sender.send_trailers(ending("0", None)).await
}

fn ending(status: &'static str, words: Option<&'static str>) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    trailers.insert("x-trailing", HeaderValue::from_static("t"));
    if let Some(words) = words {
        trailers.insert("grpc-message", HeaderValue::from_static(words));
    }
    trailers
}
