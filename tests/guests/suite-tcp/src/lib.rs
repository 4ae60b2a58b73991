//! A filter of TCP connections on the SDK that does what the client's first bytes ask for: the SDK's own tests run it natively
//! and compiled, and both must agree.

use std::cell::Cell;
use std::time::Duration;

use meshgate_sdk::metric::Counter;
use meshgate_sdk::prelude::*;
use meshgate_sdk::route::Decision;
use meshgate_sdk::{
    ClosedBy, Connection, GrpcMessage, TcpFilter, TimedOut, property, sleep, tick_every, timeout,
};

/// What the filter is told.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How often connections hear of a tick.
    tick: Option<meshgate_sdk::config::Duration>,
}

/// The filter.
#[derive(Debug)]
pub struct Suite {
    connections: Counter,
}

/// What it keeps for a connection.
#[derive(Debug, Default)]
pub struct State {
    parts: Cell<u32>,
}

#[filter]
impl TcpFilter for Suite {
    type State = State;

    fn configure(config: Config) -> Result<Self, ConfigError> {
        if let Some(period) = config.tick {
            tick_every(period)?;
        }
        Ok(Self { connections: Counter::build("suite_connections_total").define()? })
    }

    async fn on_connection(&self, connection: &Connection<Self>) -> Outcome {
        match connection.peer_identity().as_deref() {
            Some("spiffe://mesh/mallory") => connection.close(),
            Some(other) => {
                Cluster::from("gate").get(format!("/{other}")).send().await?.success()?;
                property::set("suite/passed", other)?;
                Ok(())
            }
            None => Ok(()),
        }
    }

    async fn on_downstream_data(&self, connection: &Connection<Self>, data: &mut Body) -> Outcome {
        let first = data.at_least(4).await?;
        match first.get(..4).unwrap_or_default() {
            b"PART" => {
                while let Some(part) = data.next().await? {
                    connection.state.parts.set(connection.state.parts.get() + 1);
                    data.replace(part.to_ascii_uppercase())?;
                    data.prepend("<")?;
                    data.append(">")?;
                }
                data.append("end")?;
            }
            b"CALL" => {
                let answer = Cluster::from("slow").get("/").send().await?.success()?;
                data.replace(answer.body())?;
            }
            // Each part goes through a stream.
            b"TALK" => {
                let mut stream = Cluster::from("talk").grpc_stream("example.Talk", "Talk").open().await?;
                while let Some(part) = data.next().await? {
                    stream.send_bytes(part)?;
                    data.replace(stream.message_bytes().await?.unwrap_or_default())?;
                }
            }
            b"WAIT" => {
                sleep(Duration::from_millis(20)).await?;
                data.replace("waited")?;
            }
            b"WHOL" => {
                let whole = data.whole(12).await?;
                data.replace(whole.repeat(2))?;
            }
            // Messages of gRPC follow.
            b"MSGS" => {
                while let Some(message) = data.grpc_message(64).await? {
                    shout(&message, data)?;
                }
            }
            b"MSGC" => {
                while let Some(message) = data.grpc_message(64).await? {
                    Cluster::from("slow").get("/").send().await?;
                    shout(&message, data)?;
                }
            }
            // One that takes too long goes on as it is, and so does what follows.
            b"SOON" => {
                while let Some(message) = soon(data).await.unwrap_or_default() {
                    shout(&message, data)?;
                }
            }
            b"GOTO" => {
                let cluster = Cluster::from(&*String::from_utf8_lossy(first.get(5..).unwrap_or_default()));
                connection.route(&Decision::to(&cluster).name("chosen").build())?;
                meshgate_sdk::info!("{:?}", connection.cluster_name());
            }
            b"QUIT" => return connection.close(),
            b"FAIL" => return Err(Stop::failed("asked to")),
            _ => {
                let source = connection.source_address();
                meshgate_sdk::info!("{source:?} {:?}", property::text("suite/passed"));
            }
        }
        Ok(())
    }

    async fn on_upstream_data(&self, _: &Connection<Self>, data: &mut Body) -> Outcome {
        let greeting = data.next().await?.unwrap_or_default();
        if greeting.starts_with(b"slow ") {
            Cluster::from("slow").get("/").send().await?.success()?;
            data.replace(greeting.to_ascii_uppercase())?;
        }
        Ok(())
    }

    fn on_connection_tick(&self, connection: &Connection<Self>) {
        meshgate_sdk::info!("{} parts so far", connection.state.parts.get());
    }

    fn on_downstream_close(&self, _: &Connection<Self>, by: ClosedBy) {
        meshgate_sdk::info!("client's over, by {by:?}");
    }

    fn on_upstream_close(&self, _: &Connection<Self>, by: ClosedBy) {
        meshgate_sdk::info!("endpoint's over, by {by:?}");
    }

    fn on_log(&self, connection: &Connection<Self>) {
        self.connections.add(1);
        meshgate_sdk::info!("{} parts", connection.state.parts.get());
    }
}

/// Puts a message in capitals.
fn shout(message: &GrpcMessage, data: &mut Body) -> Outcome {
    data.replace(GrpcMessage::new(message.bytes.to_ascii_uppercase()).frame())?;
    Ok(())
}

/// A message that comes within 20 milliseconds.
async fn soon(data: &mut Body) -> Result<Option<GrpcMessage>, TimedOut> {
    let message = timeout(Duration::from_millis(20), data.grpc_message(64)).await?;
    Ok(message.unwrap_or_default())
}
