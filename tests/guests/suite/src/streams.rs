//! gRPC streams to the cluster `talk`.

use std::cell::Cell;

use meshgate_sdk::prelude::*;
use meshgate_sdk::{GrpcError, GrpcStream, join, sleep, timeout};

/// Opens a stream of this method.
pub(crate) async fn opened(method: &str) -> Result<GrpcStream, GrpcError> {
    Cluster::from("talk").grpc_stream("example.Talk", method).metadata("x-a", "1").unread(20).open().await
}

/// A message, the end, or the status.
pub(crate) fn outcome(result: Result<Option<Vec<u8>>, GrpcError>) -> String {
    match result {
        Ok(Some(message)) => String::from_utf8_lossy(&message).into_owned(),
        Ok(None) => "end".to_owned(),
        Err(error) => format!("{} {}", error.status(), error.message()),
    }
}

/// Whether a field is the called server's own, and not one that libraries and proxies add.
pub(crate) fn is_own(name: &str) -> bool {
    !["date", "server"].contains(&name) && !name.starts_with("x-envoy-")
}

fn status<T>(result: Result<T, GrpcError>) -> u32 {
    result.err().map_or(0, |error| error.status())
}

/// All messages, and how it ended.
async fn rest(stream: &mut GrpcStream) -> String {
    let mut all = Vec::new();
    loop {
        let result = stream.message_bytes().await;
        let over = !matches!(result, Ok(Some(_)));
        all.push(outcome(result));
        if over {
            return all.join(", ");
        }
    }
}

/// What comes of a stream, in words.
pub(crate) async fn talk(what: &str) -> Result<String, Stop> {
    Ok(match what {
        "stream" => {
            let mut stream = opened("Talk").await?;
            stream.send_bytes("one")?;
            stream.send_bytes("two")?;
            stream.close()?;
            stream.close()?;
            let after = status(stream.send_bytes("three"));
            let metadata = stream.metadata().await;
            let before = stream.trailers().iter().count();
            let all = rest(&mut stream).await;
            let names: Vec<_> = metadata.iter().map(|(name, _)| name).filter(|name| is_own(name)).collect();
            let initial = metadata.get("x-initial");
            let trailing = stream.trailers().get("x-trailing");
            let again = outcome(stream.message_bytes().await);
            let names = names.join(",");
            format!("{after} {names} {initial:?} {before} [{all}] {trailing:?} {again}")
        }
        "stream-lockstep" => {
            let mut stream = opened("Talk").await?;
            let mut said = Vec::new();
            for word in ["one", "", "three"] {
                stream.send_bytes(word)?;
                said.push(outcome(stream.message_bytes().await));
            }
            said.join("|")
        }
        "stream-two" => {
            let (mut one, mut other) = join(opened("Talk"), opened("Talk")).await.into_pair()?;
            one.send_bytes("one")?;
            other.send_bytes("other")?;
            let (one, other) = join(one.message_bytes(), other.message_bytes()).await;
            format!("{} {}", outcome(one), outcome(other))
        }
        "stream-limits" => limits().await?,
        "stream-late" => {
            let mut stream = opened("Silent").await?;
            let late = timeout(Duration::from_millis(40), stream.message_bytes()).await;
            format!("{}", late.is_err())
        }
        "stream-unknown" => {
            outcome(Cluster::from("unknown").grpc_stream("a", "b").open().await.map(|_| None))
        }
        "stream-nobody" => rest(&mut Cluster::from("fast").grpc_stream("a", "b").open().await?).await,
        "stream-over" => {
            let mut stream = opened("Over").await?;
            let all = rest(&mut stream).await;
            format!("{all} {} {}", status(stream.send_bytes("late")), status(stream.close()))
        }
        method => {
            let mut stream = opened(method.trim_start_matches("stream-")).await?;
            let metadata = stream.metadata().await;
            let fields = metadata.iter().filter(|(name, _)| is_own(name)).count();
            let all = rest(&mut stream).await;
            let trailers = stream.trailers();
            let mut trailers: Vec<_> =
                trailers.iter().map(|(name, _)| name).filter(|name| is_own(name)).collect();
            trailers.sort_unstable();
            format!("{fields} [{all}] {} {}", trailers.join(","), status(stream.send_bytes("late")))
        }
    })
}

/// Two results as one.
trait IntoPair<T> {
    fn into_pair(self) -> Result<(T, T), GrpcError>;
}

impl<T> IntoPair<T> for (Result<T, GrpcError>, Result<T, GrpcError>) {
    fn into_pair(self) -> Result<(T, T), GrpcError> {
        Ok((self.0?, self.1?))
    }
}

/// More than may wait, in both directions, and more streams than there may be.
async fn limits() -> Result<String, Stop> {
    let mut stream = opened("Talk").await?;
    let large = status(stream.send_bytes(vec![b'x'; 1 << 20]));
    let half = status(stream.send_bytes(vec![b'x'; 1 << 19]));
    let full = status(stream.send_bytes(vec![b'x'; 1 << 19]));
    stream.close()?;
    let mut flood = opened("Flood").await?;
    // All of it comes before anything is read.
    sleep(Duration::from_millis(20)).await?;
    let flooded = rest(&mut flood).await;
    let mut all = Vec::new();
    let refused = loop {
        match opened("Talk").await {
            Ok(stream) => all.push(stream),
            Err(error) => break error,
        }
    };
    Ok(format!("{large} {half} {full} [{flooded}] {} {}", all.len(), outcome(Err(refused))))
}

/// Counts the messages of a stream that has nothing to do with an exchange.
pub(crate) async fn follow(count: &Cell<u32>) -> Outcome {
    let mut stream = opened("Talk").await?;
    stream.send_bytes("follow")?;
    while let Some(message) = stream.message_bytes().await? {
        count.set(count.get() + 1);
        meshgate_sdk::info!("followed {}", String::from_utf8_lossy(&message));
    }
    Ok(())
}
