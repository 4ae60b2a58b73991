//! Shared data: values that all workers, and all exchanges, see. Standard on every host.
//!
//! The keys of a map or a counter begin with its name, so that two of them in one filter do not meet. All filters of one
//! `vm` share one space.

use std::marker::PhantomData;
use std::time::{Duration, SystemTime};

use meshgate_abi::{KvAdd, KvAnswer};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Refused;
use crate::host::{self, Status};
use crate::kv;

/// How often a change is tried again that another worker got ahead of. Each time another worker has got on.
const ATTEMPTS: usize = 100;
/// The version to expect where there is no value: hosts take any for a key that does not exist, and refuse it if somebody
/// has set one meanwhile. (0 would overwrite.)
const ABSENT: u32 = u32::MAX;

/// A map from text to values, shared by all workers. Values are kept as JSON, and expire if they are told to.
///
/// ```
/// use std::time::Duration;
///
/// use meshgate_sdk::SharedMap;
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Visits {
///     count: u32,
/// }
///
/// fn visit(visits: &SharedMap<Visits>, user: &str) -> Result<u32, meshgate_sdk::Refused> {
///     let now = visits.update(user, |known| Visits { count: known.map_or(0, |known| known.count) + 1 })?;
///     Ok(now.count)
/// }
///
/// # fn remember(visits: &SharedMap<Visits>) -> Result<(), meshgate_sdk::Refused> {
/// visits.set_for("ann", &Visits { count: 7 }, Duration::from_secs(60))?;
/// # Ok(())
/// # }
/// ```
///
/// Hosts keep such data in memory, and bound it. There is no list of keys.
#[derive(Debug)]
pub struct SharedMap<T> {
    name: String,
    values: PhantomData<fn(T) -> T>,
}

impl<T: Serialize + DeserializeOwned> SharedMap<T> {
    /// The map of this name: every worker and every plugin of the same `vm` that says it means the same one.
    ///
    /// ```
    /// # use meshgate_sdk::prelude::*;
    /// struct Sessions {
    ///     users: SharedMap<String>,
    /// }
    ///
    /// # #[filter]
    /// # impl Filter for Sessions {
    /// fn configure(_: Empty) -> Result<Self, ConfigError> {
    ///     Ok(Self { users: SharedMap::new("sessions") })
    /// }
    ///
    /// fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
    ///     let request = exchange.request();
    ///     let session = request.cookie("session").unwrap_or_default();
    ///     match (request.path().as_str(), self.users.get(&session)?) {
    ///         ("/login", _) => self.users.set(&session, &request.parameter("user").unwrap_or_default())?,
    ///         ("/logout", _) => self.users.remove(&session)?,
    ///         (_, Some(user)) => request.headers().set("x-user", user)?,
    ///         (_, None) => return Reply::new(401).into(),
    ///     }
    ///     Ok(())
    /// }
    /// # }
    /// # fn main() {
    /// # use meshgate_sdk::testing::{Proxy, Request};
    /// # let mut proxy = Proxy::new::<Sessions>("");
    /// # let mut get = |target| proxy.send(Request::get(target).header("cookie", "session=7")).status();
    /// # let targets = ["/", "/login?user=ann", "/", "/logout", "/"];
    /// # assert_eq!(targets.map(&mut get), [401, 200, 200, 200, 401]);
    /// # }
    /// ```
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), values: PhantomData }
    }

    /// The value of this key, unless it has expired. A value of another form, as an older version of the filter may have left
    /// it, counts as absent.
    ///
    /// # Errors
    /// The host has no shared data.
    pub fn get(&self, key: &str) -> Result<Option<T>, Refused> {
        Ok(self.read(&self.full(key))?.0)
    }

    /// Sets a value, which stays until it is removed.
    ///
    /// # Errors
    /// The host has no room for it, or the value cannot be written as JSON.
    pub fn set(&self, key: &str, value: &T) -> Result<(), Refused> {
        self.write(&self.full(key), value, None, 0)
    }

    /// Sets a value that expires.
    ///
    /// # Errors
    /// As for [`set`](Self::set).
    pub fn set_for(&self, key: &str, value: &T, time: impl Into<Duration>) -> Result<(), Refused> {
        self.write(&self.full(key), value, crate::now().checked_add(time.into()), 0)
    }

    /// Makes a new value of the one that is there, and sets it. `change` runs again if another worker got ahead.
    ///
    /// # Errors
    /// As for [`set`](Self::set), and if other workers got ahead again and again.
    pub fn update(&self, key: &str, change: impl FnMut(Option<T>) -> T) -> Result<T, Refused> {
        self.change(key, None, change)
    }

    /// As [`update`](Self::update), with a value that expires.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use meshgate_sdk::{Refused, SharedMap};
    ///
    /// /// Whether a user has failed more than three times, with less than a minute between.
    /// fn is_suspicious(failures: &SharedMap<u32>, user: &str) -> Result<bool, Refused> {
    ///     let count = failures.update_for(user, Duration::from_secs(60), |known| known.unwrap_or(0) + 1)?;
    ///     Ok(count > 3)
    /// }
    /// # assert_eq!(is_suspicious(&SharedMap::new("failures"), "ann"), Ok(false));
    /// ```
    ///
    /// # Errors
    /// As for [`update`](Self::update).
    pub fn update_for(
        &self,
        key: &str,
        time: impl Into<Duration>,
        change: impl FnMut(Option<T>) -> T,
    ) -> Result<T, Refused> {
        self.change(key, Some(time.into()), change)
    }

    /// Removes a value; it is no error if there is none.
    ///
    /// # Errors
    /// The host has no shared data.
    pub fn remove(&self, key: &str) -> Result<(), Refused> {
        match host::set_shared_data(&self.full(key), None, 0) {
            Ok(()) | Err(Status::NOT_FOUND) => Ok(()),
            Err(status) => Err(refused("remove", key, status)),
        }
    }

    fn change(
        &self,
        key: &str,
        time: Option<Duration>,
        mut change: impl FnMut(Option<T>) -> T,
    ) -> Result<T, Refused> {
        let full = self.full(key);
        for _ in 0..ATTEMPTS {
            let (known, version) = self.read(&full)?;
            let value = change(known);
            let until = time.and_then(|time| crate::now().checked_add(time));
            match self.write(&full, &value, until, version) {
                Ok(()) => return Ok(value),
                Err(refused) if refused.status() == Status::CHANGED => {}
                Err(refused) => return Err(refused),
            }
        }
        Err(refused("change", key, Status::CHANGED))
    }

    /// The value with its version.
    fn read(&self, full: &str) -> Result<(Option<T>, u32), Refused> {
        match host::shared_data(full) {
            Ok((bytes, version)) => Ok((decode(&bytes), version)),
            Err(Status::NOT_FOUND) => Ok((None, ABSENT)),
            Err(status) => Err(refused("read", full, status)),
        }
    }

    fn write(&self, full: &str, value: &T, until: Option<SystemTime>, version: u32) -> Result<(), Refused> {
        let mut bytes = nanoseconds(until).to_le_bytes().to_vec();
        serde_json::to_writer(&mut bytes, value)
            .map_err(|error| Refused::new(error.to_string(), Status::new(3)))?;
        // A host that knows of expiry gives the room back; what the value says of it holds everywhere.
        let lasts = until.map(|until| until.duration_since(crate::now()).unwrap_or_default());
        let set = lasts.and_then(|lasts| kv::set(full, &bytes, version, lasts));
        let set = set.unwrap_or_else(|| host::set_shared_data(full, Some(&bytes), version));
        set.map_err(|status| refused("set", full, status))
    }

    fn full(&self, key: &str) -> String {
        [&self.name, "/", key].concat()
    }
}

#[cold]
fn refused(what: &str, key: &str, status: Status) -> Refused {
    Refused::new(format!("cannot {what} the shared data {key}"), status)
}

/// Eight bytes of time (0: for ever), then JSON.
fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (until, json) = bytes.split_first_chunk::<8>()?;
    let until = u64::from_le_bytes(*until);
    if until != 0 && until <= host::now_nanoseconds() {
        return None;
    }
    serde_json::from_slice(json).ok()
}

fn nanoseconds(until: Option<SystemTime>) -> u64 {
    let since = until.and_then(|until| until.duration_since(SystemTime::UNIX_EPOCH).ok());
    since.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// A number that all workers count together.
///
/// ```
/// use meshgate_sdk::SharedCounter;
///
/// fn ticket(tickets: &SharedCounter) -> Result<i64, meshgate_sdk::Refused> {
///     tickets.add(1)
/// }
///
/// fn left(tickets: &SharedCounter) -> Result<i64, meshgate_sdk::Refused> {
///     Ok(100 - tickets.get()?)
/// }
/// # let tickets = SharedCounter::new("tickets");
/// # assert_eq!((left(&tickets), ticket(&tickets)), (Ok(100), Ok(1)));
/// ```
#[derive(Clone, Debug)]
pub struct SharedCounter {
    key: String,
}

impl SharedCounter {
    /// The counter of this name: every worker and every plugin of the same `vm` that says it means the same one.
    pub fn new(name: impl Into<String>) -> Self {
        Self { key: name.into() }
    }

    /// Adds, and says what it has come to. It stops at the greatest and the least number.
    ///
    /// # Errors
    /// The host has no room for it, or other workers got ahead again and again.
    pub fn add(&self, amount: i64) -> Result<i64, Refused> {
        Ok(change(&self.key, &Change::add(amount))?.number)
    }

    /// Adds, unless it would come to more than `most`; `None`: it would, and nothing was added. However many workers do it
    /// at once, it never comes to more.
    ///
    /// ```
    /// use meshgate_sdk::SharedCounter;
    ///
    /// fn seat(taken: &SharedCounter) -> Result<bool, meshgate_sdk::Refused> {
    ///     Ok(taken.add_within(1, 100)?.is_some())
    /// }
    /// ```
    ///
    /// # Errors
    /// As for [`add`](Self::add).
    pub fn add_within(&self, amount: i64, most: i64) -> Result<Option<i64>, Refused> {
        let changed = change(&self.key, &Change::add(amount).at_most(most))?;
        Ok(changed.done.then_some(changed.number))
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// What it has come to; 0 if nobody has counted yet.
    ///
    /// # Errors
    /// The host has no shared data.
    pub fn get(&self) -> Result<i64, Refused> {
        Ok(read(&self.key)?.0)
    }
}

/// Numbers by keys, counted by all workers together, each change in one step.
///
/// ```
/// use std::time::Duration;
///
/// use meshgate_sdk::{Change, SharedCounters};
///
/// /// Three tries in a minute, for each user.
/// fn may_try(tries: &SharedCounters, user: &str) -> Result<bool, meshgate_sdk::Refused> {
///     let try_it = Change::add(1).at_most(3).lasting(Duration::from_secs(60));
///     Ok(tries.change(user, &try_it)?.done)
/// }
/// # assert_eq!(may_try(&SharedCounters::new("tries"), "ann"), Ok(true));
/// ```
#[derive(Clone, Debug)]
pub struct SharedCounters {
    name: String,
}

impl SharedCounters {
    /// The counters of this name: every worker and every plugin of the same `vm` that says it means the same ones.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    /// Changes the number of a key.
    ///
    /// # Errors
    /// The host has no room for it, or other workers got ahead again and again.
    pub fn change(&self, key: &str, by: &Change) -> Result<Changed, Refused> {
        change(&[&self.name, "/", key].concat(), by)
    }
}

/// A change of a number, for [`SharedCounters::change`].
///
/// ```
/// # use meshgate_sdk::Refused;
/// use std::time::Duration;
///
/// use meshgate_sdk::{Change, SharedCounters};
///
/// /// One of three seats, which is free again when it was not used for ten seconds.
/// fn seat(seats: &SharedCounters, guest: &str) -> Result<bool, Refused> {
///     let one = Change::add(1).at_most(3).lasting(Duration::from_secs(10));
///     Ok(seats.change(guest, &one)?.done)
/// }
///
/// /// Gives it back; a guest who has none has none then, too.
/// fn leave(seats: &SharedCounters, guest: &str) -> Result<(), Refused> {
///     seats.change(guest, &Change::add(-1).at_least(0)).map(drop)
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change(KvAdd);

impl Change {
    /// Adds so much; negative amounts take away. The number stops at the greatest and the least one.
    pub fn add(amount: i64) -> Self {
        Self(KvAdd { amount, ..KvAdd::default() })
    }

    /// Raises the number to this before and after.
    #[must_use]
    pub fn at_least(mut self, least: i64) -> Self {
        self.0.least = Some(least);
        self
    }

    /// Changes nothing if it would come to more than this by adding.
    #[must_use]
    pub fn at_most(mut self, most: i64) -> Self {
        self.0.most = Some(most);
        self
    }

    /// Lets the number be forgotten if it is not changed for so long. On hosts other than Meshgate it stays.
    #[must_use]
    pub fn lasting(mut self, time: impl Into<Duration>) -> Self {
        self.0.expire_ms = kv::milliseconds(time.into());
        self
    }

    /// If the host has no room for a new key, makes some by removing one that is soon forgotten anyway. On hosts other than
    /// Meshgate nothing is removed.
    #[must_use]
    pub fn evicting(mut self) -> Self {
        self.0.evict = true;
        self
    }
}

/// What a [`Change`] came to.
///
/// ```
/// # use meshgate_sdk::prelude::*;
/// # use meshgate_sdk::{Change, SharedCounters};
/// # struct Tries { tries: SharedCounters }
/// # #[filter]
/// # impl Filter for Tries {
/// # fn configure(_: Empty) -> Result<Self, ConfigError> { Ok(Self { tries: SharedCounters::new("tries") }) }
/// fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
///     let user = exchange.request().header("x-user").unwrap_or_default();
///     let tries = self.tries.change(&user, &Change::add(1).at_most(3).evicting())?;
///     if tries.evicted {
///         meshgate_sdk::warn!("there are more users than can be remembered");
///     }
///     if !tries.done {
///         return Reply::new(429).into();
///     }
///     exchange.request().headers().set("x-try", tries.number.to_string())?;
///     Ok(())
/// }
/// # }
/// # fn main() {
/// # use meshgate_sdk::testing::{Proxy, Request};
/// # let mut proxy = Proxy::new::<Tries>("");
/// # for number in ["1", "2", "3"] {
/// #     let done = proxy.send(Request::get("/").header("x-user", "ann"));
/// #     assert_eq!(done.upstream().unwrap().field("x-try").as_deref(), Some(number));
/// # }
/// # assert_eq!(proxy.send(Request::get("/").header("x-user", "ann")).status(), 429);
/// # assert_eq!(proxy.send(Request::get("/").header("x-user", "bob")).status(), 200);
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The number now.
    pub number: i64,
    /// Whether the amount was added.
    pub done: bool,
    /// Whether another key was removed to make room.
    pub evicted: bool,
}

fn change(key: &str, by: &Change) -> Result<Changed, Refused> {
    if let Some(answer) = kv::add(key, by.0) {
        let KvAnswer { number, done, evicted, .. } =
            answer.map_err(|status| refused("change", key, status))?;
        return Ok(Changed { number, done, evicted });
    }
    for _ in 0..ATTEMPTS {
        let (known, version) = read(key)?;
        let Some(number) = by.0.of(known) else {
            return Ok(Changed { number: by.0.raised(known), done: false, evicted: false });
        };
        match host::set_shared_data(key, Some(&number.to_le_bytes()), version) {
            Ok(()) => return Ok(Changed { number, done: true, evicted: false }),
            Err(Status::CHANGED) => {}
            Err(status) => return Err(refused("change", key, status)),
        }
    }
    Err(refused("change", key, Status::CHANGED))
}

/// A number with its version; 0 if there is none.
fn read(key: &str) -> Result<(i64, u32), Refused> {
    match host::shared_data(key) {
        Ok((bytes, version)) => {
            Ok((bytes.first_chunk::<8>().map_or(0, |bytes| i64::from_le_bytes(*bytes)), version))
        }
        Err(Status::NOT_FOUND) => Ok((0, ABSENT)),
        Err(status) => Err(refused("read", key, status)),
    }
}
