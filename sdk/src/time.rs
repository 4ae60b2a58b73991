//! Time: the host's clock, sleeping, timeouts, ticks; and waiting for several things at once.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::{Refused, Stop};
use crate::host;
use crate::reply::Reply;
use crate::runtime::timers;

/// The host's clock. In a test it is the test's.
///
/// ```
/// let age = meshgate_sdk::now().duration_since(std::time::UNIX_EPOCH).unwrap();
/// assert!(age.as_secs() > 0);
/// ```
pub fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(host::now_nanoseconds())
}

/// Has [`Filter::on_tick`](crate::Filter::on_tick) called again and again, on every worker; zero stops it. Call it in
/// [`Filter::configure`](crate::Filter::configure).
///
/// ```
/// # use meshgate_sdk::prelude::*;
/// # struct Minute;
/// # #[filter]
/// # impl Filter for Minute {
/// fn configure(_: Empty) -> Result<Self, ConfigError> {
///     meshgate_sdk::tick_every(Duration::from_secs(60))?;
///     Ok(Self)
/// }
///
/// fn on_tick(&self) -> Outcome {
///     meshgate_sdk::info!("another minute");
///     Ok(())
/// }
/// # }
/// # fn main() {}
/// ```
///
/// # Errors
/// The host has no clock for filters.
pub fn tick_every(period: impl Into<Duration>) -> Result<(), Refused> {
    timers::tick_every(period.into()).map_err(|status| Refused::new("cannot set the tick period", status))
}

/// Waits so long; other exchanges go on meanwhile.
///
/// It uses the timer that every host gives a plugin, and so is as exact as that: Meshgate's runs every 10 ms at most.
///
/// ```
/// # use meshgate_sdk::prelude::*;
/// # struct Slow;
/// # #[filter]
/// # impl Filter for Slow {
/// # fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self) }
/// async fn on_request(&self, _: &Exchange<Self>) -> Outcome {
///     meshgate_sdk::sleep(Duration::from_millis(100)).await?;
///     Ok(())
/// }
/// # }
/// # fn main() {}
/// ```
///
/// # Errors
/// The host has no clock for filters.
pub async fn sleep(duration: impl Into<Duration>) -> Result<(), Refused> {
    timers::sleep(duration.into()).await.map_err(|status| Refused::new("cannot wait", status))
}

/// Waits for a future, but only so long. Calls have a timeout of their own; this is for several of them together.
///
/// ```
/// # use meshgate_sdk::prelude::*;
/// # struct Both { a: Cluster, b: Cluster }
/// # #[filter]
/// # impl Filter for Both {
/// # fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self { a: "a".into(), b: "b".into() }) }
/// async fn on_request(&self, _: &Exchange<Self>) -> Outcome {
///     let both = meshgate_sdk::join(self.a.get("/").send(), self.b.get("/").send());
///     let (one, other) = meshgate_sdk::timeout(Duration::from_millis(300), both).await?;
///     meshgate_sdk::info!("{} and {}", one?.status(), other?.status());
///     Ok(())
/// }
/// # }
/// # fn main() {}
/// ```
///
/// # Errors
/// The time is over, and the future was dropped. `?` in a callback answers the exchange with 504.
pub async fn timeout<F: Future>(duration: impl Into<Duration>, future: F) -> Result<F::Output, TimedOut> {
    let (mut future, mut clock) = (pin!(future), pin!(sleep(duration)));
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Ok(value)),
        // A host without a timer lets the future wait as long as it likes: what it waits for has a timeout of its own.
        Poll::Pending => match clock.as_mut().poll(context) {
            Poll::Ready(Ok(())) => Poll::Ready(Err(TimedOut)),
            _ => Poll::Pending,
        },
    })
    .await
}

/// The time that [`timeout`] gave was over.
///
/// ```
/// use meshgate_sdk::{Stop, TimedOut};
///
/// assert!(matches!(Stop::from(TimedOut), Stop::Reply(reply) if reply.status() == 504));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimedOut;

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it took too long")
    }
}

impl std::error::Error for TimedOut {}

impl From<TimedOut> for Stop {
    fn from(_: TimedOut) -> Self {
        Reply::new(504).details("filter_timeout").into()
    }
}

/// Waits for two futures at once, such as two calls.
///
/// ```
/// # use meshgate_sdk::{CallError, Cluster, join};
/// async fn both(users: &Cluster, plans: &Cluster) -> Result<(String, String), CallError> {
///     let (user, plan) = join(users.get("/me").send(), plans.get("/plan").send()).await;
///     Ok((user?.success()?.text().into_owned(), plan?.success()?.text().into_owned()))
/// }
/// ```
pub async fn join<A: Future, B: Future>(one: A, other: B) -> (A::Output, B::Output) {
    let (mut one, mut other) = (pin!(one), pin!(other));
    let (mut first, mut second) = (None, None);
    poll_fn(|context| {
        step(&mut first, one.as_mut(), context);
        step(&mut second, other.as_mut(), context);
        match (first.take(), second.take()) {
            (Some(first), Some(second)) => Poll::Ready((first, second)),
            (missing, there) => {
                (first, second) = (missing, there);
                Poll::Pending
            }
        }
    })
    .await
}

/// Waits for any number of futures of one kind at once; their values come in the futures' order.
///
/// ```
/// # use meshgate_sdk::prelude::*;
/// # struct Ask { all: Vec<Cluster> }
/// # #[filter]
/// # impl Filter for Ask {
/// # fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self { all: Vec::new() }) }
/// async fn on_request(&self, _: &Exchange<Self>) -> Outcome {
///     let calls = self.all.iter().map(|cluster| cluster.get("/allowed").send());
///     for response in meshgate_sdk::join_all(calls).await {
///         response?.success()?;
///     }
///     Ok(())
/// }
/// # }
/// # fn main() {}
/// ```
pub async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    poll_fn(|context| {
        for (future, value) in &mut waiting {
            step(value, future.as_mut(), context);
        }
        if waiting.iter().all(|(_, value)| value.is_some()) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    waiting.into_iter().filter_map(|(_, value)| value).collect()
}

fn step<F: Future>(value: &mut Option<F::Output>, future: Pin<&mut F>, context: &mut std::task::Context<'_>) {
    if value.is_none()
        && let Poll::Ready(ready) = future.poll(context)
    {
        *value = Some(ready);
    }
}
