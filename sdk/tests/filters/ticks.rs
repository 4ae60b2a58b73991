//! A tick that makes a call, beside exchanges that sleep.

use std::cell::Cell;

use meshgate_sdk::prelude::*;

pub(crate) struct Ticking {
    fetched: Cell<u32>,
}

#[filter]
impl Filter for Ticking {
    fn configure(_: Empty) -> Result<Self, ConfigError> {
        meshgate_sdk::tick_every(Duration::from_secs(1))?;
        Ok(Self { fetched: Cell::new(0) })
    }

    async fn on_tick(&self) -> Outcome {
        Cluster::from("keys").get("/").send().await?.success()?;
        self.fetched.set(self.fetched.get() + 1);
        Ok(())
    }

    async fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
        if exchange.request().path() == "/sleep" {
            meshgate_sdk::sleep(Duration::from_millis(700)).await?;
        }
        exchange.request().headers().set("x-keys", self.fetched.get().to_string())?;
        Ok(())
    }
}
