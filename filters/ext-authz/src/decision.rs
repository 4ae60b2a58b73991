//! What a service decided, and what is made of it.

use meshgate_sdk::{Refused, Reply, Request};
use serde::{Deserialize, Serialize};

/// What a service decided about a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Decision {
    /// It may come in, with these changes.
    Allow {
        /// Fields, values, and whether they stand beside others of the same name.
        set: Vec<(String, Vec<u8>, bool)>,
        remove: Vec<String>,
    },
    /// It gets this answer.
    Deny { status: u16, headers: Vec<(String, Vec<u8>)>, body: Vec<u8> },
}

/// Bytes of the longest body of an answer that is remembered.
const LONGEST: usize = 1 << 10;

impl Decision {
    /// Changes the request as the service wants it.
    pub(crate) fn apply(&self, request: &Request) -> Result<(), Refused> {
        let Self::Allow { set, remove } = self else { return Ok(()) };
        let headers = request.headers();
        for name in remove {
            headers.remove(name)?;
        }
        for (name, value, beside) in set {
            match beside {
                true => headers.add(name, value)?,
                false => headers.set(name, value)?,
            }
        }
        Ok(())
    }

    /// The answer to a request that may not come in.
    pub(crate) fn refusal(&self) -> Option<Reply> {
        let Self::Deny { status, headers, body } = self else { return None };
        let reply = Reply::new(*status).details("ext_authz_denied").body(body.clone());
        Some(headers.iter().fold(reply, |reply, (name, value)| reply.header(name.as_str(), value.clone())))
    }

    pub(crate) fn is_small(&self) -> bool {
        !matches!(self, Self::Deny { body, .. } if body.len() > LONGEST)
    }
}
