//! Calls, as the field `x-do` says.

use std::future::Future;

use meshgate_sdk::prelude::*;
use meshgate_sdk::{join, join_all, sleep, timeout};

pub(crate) struct Calling;

/// Says when it is dropped before it is told that all went well.
struct Guard(bool);

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.0 {
            meshgate_sdk::info!("dropped");
        }
    }
}

fn fast(path: &str) -> impl Future<Output = Result<String, CallError>> {
    text(Cluster::from("fast").get(path))
}

fn slow() -> impl Future<Output = Result<String, CallError>> {
    text(Cluster::from("slow").get("/"))
}

async fn text(call: meshgate_sdk::Call) -> Result<String, CallError> {
    Ok(call.timeout(Duration::from_millis(70)).send().await?.success()?.text().into_owned())
}

#[filter]
impl Filter for Calling {
    fn configure(_: Empty) -> Result<Self, ConfigError> {
        Ok(Self)
    }

    async fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
        let headers = exchange.request().headers();
        let said = match exchange.request().header("x-do").unwrap_or_default().as_str() {
            "sequence" => {
                let mut guard = Guard(false);
                let said = format!("{}, {}", fast("/1").await?, slow().await?);
                guard.0 = true;
                said
            }
            "join" => {
                let several = join_all([slow(), slow()]);
                let (first, others) = join(fast("/2"), several).await;
                let mut others = others.into_iter();
                let mut other = || others.next().unwrap_or(Ok(String::new()));
                format!("{}, {}, {}", other()?, first?, other()?)
            }
            "timeout" => text(Cluster::from("never").get("/")).await?,
            "unknown" => text(Cluster::from("unknown").get("/")).await?,
            "bounded" => timeout(Duration::from_millis(50), text(Cluster::from("never").get("/"))).await??,
            "sleep" => {
                sleep(Duration::from_millis(20)).await?;
                sleep(Duration::from_millis(100)).await?;
                String::new()
            }
            _ => String::new(),
        };
        headers.set("x-said", said)?;
        Ok(())
    }

    async fn on_response(&self, exchange: &Exchange<Self>) -> Outcome {
        if exchange.request().header("x-do").as_deref() == Some("response") {
            exchange.response().headers().set("x-said", slow().await?)?;
        }
        Ok(())
    }
}
