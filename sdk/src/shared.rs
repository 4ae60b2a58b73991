//! Shared data: values that all workers, and all exchanges, see. Standard on every host.
//!
//! The keys of a map or a counter begin with its name, so that two of them in one filter do not meet. All filters of one
//! `vm` share one space.

use std::marker::PhantomData;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Refused;
use crate::host::{self, Status};

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
        host::set_shared_data(full, Some(&bytes), version).map_err(|status| refused("set", full, status))
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
        for _ in 0..ATTEMPTS {
            let (known, version) = self.read()?;
            let value = known.saturating_add(amount);
            match host::set_shared_data(&self.key, Some(&value.to_le_bytes()), version) {
                Ok(()) => return Ok(value),
                Err(Status::CHANGED) => {}
                Err(status) => return Err(refused("change", &self.key, status)),
            }
        }
        Err(refused("change", &self.key, Status::CHANGED))
    }

    /// What it has come to; 0 if nobody has counted yet.
    ///
    /// # Errors
    /// The host has no shared data.
    pub fn get(&self) -> Result<i64, Refused> {
        Ok(self.read()?.0)
    }

    fn read(&self) -> Result<(i64, u32), Refused> {
        match host::shared_data(&self.key) {
            Ok((bytes, version)) => {
                Ok((bytes.first_chunk::<8>().map_or(0, |bytes| i64::from_le_bytes(*bytes)), version))
            }
            Err(Status::NOT_FOUND) => Ok((0, ABSENT)),
            Err(status) => Err(refused("read", &self.key, status)),
        }
    }
}
