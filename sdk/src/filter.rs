//! The trait that a filter implements.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::attempts::{Attempt, Verdict};
use crate::body::Body;
use crate::config::ConfigError;
use crate::error::Outcome;
use crate::exchange::Exchange;
use crate::queue::SharedQueue;

/// A filter: what it needs to be configured, and what it does with an exchange.
///
/// One value of the type serves all exchanges of a worker; what belongs to one exchange is in its
/// [`State`](Self::State). Put [`#[filter]`](macro@crate::filter) before the `impl`; it fills in what is left out:
/// `Config` (what `configure` takes) and `State` (none). Callbacks that are left out are not made, and cost nothing.
///
/// A callback is a `fn`, or, if it has to wait for something, an `async fn`:
///
/// ```
/// # use meshgate_sdk::prelude::*;
/// struct Greeter {
///     phrases: Cluster,
/// }
///
/// #[derive(Deserialize, JsonSchema)]
/// struct Config {
///     /// Who knows what to say.
///     phrases: Cluster,
/// }
///
/// #[filter]
/// impl Filter for Greeter {
///     fn configure(config: Config) -> Result<Self, ConfigError> {
///         Ok(Self { phrases: config.phrases })
///     }
///
///     async fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
///         if exchange.request().path() == "/hello" {
///             let phrase = self.phrases.get("/today").send().await?.success()?;
///             return Reply::new(200).body(phrase.body()).into();
///         }
///         Ok(())
///     }
///
///     fn on_response(&self, exchange: &Exchange<Self>) -> Outcome {
///         exchange.response().headers().set("x-greeter", "1")?;
///         Ok(())
///     }
/// }
/// # fn main() {}
/// ```
///
/// In every callback, `?` on an error ends the exchange: a [`Reply`](crate::Reply) is sent, a failed call is answered with
/// 502, 503 or 504, and any other failure is logged and answered with a 500.
#[expect(async_fn_in_trait, reason = "a module has one thread: nobody needs to send these futures anywhere")]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a filter",
    label = "not a filter",
    note = "write `#[filter] impl Filter for {Self} {{ fn configure(…) … }}`"
)]
pub trait Filter: Sized + 'static {
    /// The configuration, read from the YAML under the filter's name. Its schema becomes a part of the module.
    type Config: DeserializeOwned + JsonSchema + 'static;

    /// What the filter keeps for one exchange: `exchange.state`. Both of an exchange's ways may be under way at once, so
    /// what changes in it is in a `Cell` or a `RefCell`.
    type State: Default + 'static;

    /// The callbacks that the filter has, as the ABI calls them. Written by [`#[filter]`](macro@crate::filter).
    #[doc(hidden)]
    const CALLBACKS: &'static [&'static str];

    /// Those of them that wait for something. Written by [`#[filter]`](macro@crate::filter).
    #[doc(hidden)]
    const AWAITS: &'static [&'static str];

    /// The module serves TCP as well. Written by `#[filter(tcp)]`.
    #[doc(hidden)]
    const SERVES_TCP: bool = false;

    /// Makes the filter from its configuration. What can be prepared for all exchanges is prepared here.
    ///
    /// # Errors
    /// The configuration makes no sense. The host refuses the file that it stands in.
    fn configure(config: Self::Config) -> Result<Self, ConfigError>;

    /// The request's head has arrived. Nothing of the request goes on before this is done.
    async fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
        let _ = exchange;
        Ok(())
    }

    /// The request's body begins. See [`Body`] for what to do with it. Not called for a request without a body.
    ///
    /// ```
    /// # use meshgate_sdk::prelude::*;
    /// # struct Spell;
    /// # #[filter]
    /// # impl Filter for Spell {
    /// # fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self) }
    /// async fn on_request_body(&self, _: &Exchange<Self>, body: &mut Body) -> Outcome {
    ///     let text = body.text(64 << 10).await?; // 413, if it is longer
    ///     body.replace(text.replace("colour", "color"))?;
    ///     Ok(())
    /// }
    /// # }
    /// # fn main() {
    /// # use meshgate_sdk::testing::{Proxy, Request};
    /// # let done = Proxy::new::<Spell>("").send(Request::post("/", "a colour"));
    /// # assert_eq!(done.upstream().unwrap().text(), "a color");
    /// # }
    /// ```
    async fn on_request_body(&self, exchange: &Exchange<Self>, body: &mut Body) -> Outcome {
        let _ = (exchange, body);
        Ok(())
    }

    /// The request ends with trailers.
    ///
    /// ```
    /// # use meshgate_sdk::prelude::*;
    /// # struct Tidy;
    /// # #[filter]
    /// # impl Filter for Tidy {
    /// # fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self) }
    /// fn on_request_trailers(&self, exchange: &Exchange<Self>) -> Outcome {
    ///     exchange.request().trailers().remove("x-internal")?;
    ///     Ok(())
    /// }
    /// # }
    /// # fn main() {
    /// # use meshgate_sdk::testing::{Proxy, Request};
    /// # let request = Request::post("/", "a").trailer("x-internal", "1").trailer("x-sum", "2");
    /// # let done = Proxy::new::<Tidy>("").send(request);
    /// # assert_eq!(done.upstream().unwrap().trailers().len(), 1);
    /// # }
    /// ```
    async fn on_request_trailers(&self, exchange: &Exchange<Self>) -> Outcome {
        let _ = exchange;
        Ok(())
    }

    /// The response's head has arrived: the endpoint's, or one that Meshgate or a filter made. Nothing of the response goes on
    /// before this is done.
    async fn on_response(&self, exchange: &Exchange<Self>) -> Outcome {
        let _ = exchange;
        Ok(())
    }

    /// The response's body begins. See [`Body`] for what to do with it. Not called for a response without a body.
    ///
    /// ```
    /// # use meshgate_sdk::prelude::*;
    /// # struct Quiet;
    /// # #[filter]
    /// # impl Filter for Quiet {
    /// # fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self) }
    /// async fn on_response_body(&self, _: &Exchange<Self>, body: &mut Body) -> Outcome {
    ///     while let Some(part) = body.next().await? {
    ///         body.replace(part.to_ascii_lowercase())?;
    ///     }
    ///     Ok(())
    /// }
    /// # }
    /// # fn main() {
    /// # use meshgate_sdk::testing::{Proxy, Request, Response};
    /// # let mut proxy = Proxy::new::<Quiet>("");
    /// # proxy.endpoint(|_| Response::new(200).parts(["HE", "LLO"]));
    /// # assert_eq!(proxy.send(Request::get("/")).text(), "hello");
    /// # }
    /// ```
    async fn on_response_body(&self, exchange: &Exchange<Self>, body: &mut Body) -> Outcome {
        let _ = (exchange, body);
        Ok(())
    }

    /// The response ends with trailers.
    ///
    /// ```
    /// # use meshgate_sdk::prelude::*;
    /// # struct Seen;
    /// # #[filter]
    /// # impl Filter for Seen {
    /// # fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self) }
    /// fn on_response_trailers(&self, exchange: &Exchange<Self>) -> Outcome {
    ///     exchange.response().trailers().set("x-seen", "yes")?;
    ///     Ok(())
    /// }
    /// # }
    /// # fn main() {
    /// # use meshgate_sdk::testing::{Proxy, Request, Response};
    /// # let mut proxy = Proxy::new::<Seen>("");
    /// # proxy.endpoint(|_| Response::new(200).body("a").trailer("x-sum", "2"));
    /// # assert_eq!(proxy.send(Request::get("/")).response().trailer_field("x-seen").as_deref(), Some("yes"));
    /// # }
    /// ```
    async fn on_response_trailers(&self, exchange: &Exchange<Self>) -> Outcome {
        let _ = exchange;
        Ok(())
    }

    /// A try of the request has ended, or takes long: see [`Exchange::attempts`], without which this is not called. It answers at
    /// once.
    fn on_attempt(&self, exchange: &Exchange<Self>, attempt: &Attempt) -> Verdict {
        let _ = (exchange, attempt);
        Verdict::Deliver
    }

    /// The exchange is over: there is nothing to wait for. Heads and trailers can still be read.
    fn on_log(&self, exchange: &Exchange<Self>) {
        let _ = exchange;
    }

    /// Something was put into a queue that the filter has opened: see [`SharedQueue`]. While it waits for something, no other
    /// is called. An error is logged.
    async fn on_queue(&self, queue: SharedQueue) -> Outcome {
        let _ = queue;
        Ok(())
    }

    /// Some time has passed: see [`tick_every`](crate::tick_every). A tick that still waits when the next one is due takes
    /// its place. An error is logged.
    async fn on_tick(&self) -> Outcome {
        Ok(())
    }

    /// It ends: its module or configuration was replaced, or the proxy stops. What it has kept for later it does now; calls and
    /// [`sleep`](crate::sleep) go on as before, and so do ticks. No exchange comes any more. After a time that the host sets
    /// (Meshgate: `limits.done`, 5 seconds) it is over in any case. An error is logged.
    ///
    /// ```
    /// # use std::cell::RefCell;
    /// # use meshgate_sdk::prelude::*;
    /// # struct Audit { collector: Cluster, unsent: RefCell<String> }
    /// # #[filter]
    /// # impl Filter for Audit {
    /// # fn configure(_: Empty) -> Result<Self, ConfigError> {
    /// #     Ok(Self { collector: "collector".into(), unsent: RefCell::default() })
    /// # }
    /// fn on_log(&self, exchange: &Exchange<Self>) {
    ///     self.unsent.borrow_mut().push_str(&exchange.request().path());
    /// }
    ///
    /// async fn on_end(&self) -> Outcome {
    ///     let unsent = self.unsent.take();
    ///     self.collector.post("/events", unsent).send().await?.success()?;
    ///     Ok(())
    /// }
    /// # }
    /// # fn main() {
    /// # use meshgate_sdk::testing::{Proxy, Request, Response};
    /// # let mut proxy = Proxy::new::<Audit>("");
    /// # proxy.upstream("collector", |_| Response::new(204));
    /// # proxy.send(Request::get("/a"));
    /// # assert!(proxy.end());
    /// # assert_eq!(proxy.calls("collector")[0].text(), "/a");
    /// # }
    /// ```
    async fn on_end(&self) -> Outcome {
        Ok(())
    }
}
