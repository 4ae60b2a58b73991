//! The way of a request to its endpoint in a test, once or as often as the filter wants.

use std::time::Duration;

use meshgate_abi::{Attempt, Attempts, Ending, Retry};

use super::Proxy;
use super::message::{Failure, Request, Response};

/// Bytes of a request's body that are kept unless the filter says otherwise.
const REPLAY: u64 = 64 << 10;
/// More tries than a test wants.
const MOST: u32 = 100;

impl Proxy {
    /// What the endpoint answers, or the proxy in its place.
    pub(super) fn serve(&mut self, exchange: u32, request: &Request) -> Response {
        let Some(wanted) = self.engine.attempts(exchange) else {
            let response = self.endpoint_answers(exchange, request);
            self.run_until(self.now + response.after);
            return in_place(response);
        };
        let mut number = 1;
        loop {
            let (attempt, response) = self.one_try(exchange, request, &wanted, &mut number);
            let head = response.failure.is_none().then(|| response.head.clone());
            let quiet = head.is_some()
                && attempt.status < wanted.from_status
                && attempt.grpc_status.is_none_or(|status| status == 0);
            let retry = if quiet { None } else { self.engine.ask(exchange, &attempt, head) };
            let Some(Retry { delay_ms, .. }) = retry.filter(|_| attempt.can_retry) else {
                return in_place(response);
            };
            self.run_until(self.now + Duration::from_millis(delay_ms));
            number += 1;
        }
    }

    /// Sends the request once; beside a try that takes long, once more if the filter wants that.
    fn one_try(
        &mut self,
        exchange: u32,
        request: &Request,
        wanted: &Attempts,
        number: &mut u32,
    ) -> (Attempt, Response) {
        let began = self.now;
        let mut response = self.numbered(exchange, request, wanted, *number);
        let mut attempt = Attempt {
            number: *number,
            endpoint: "192.0.2.2:80".to_owned(),
            can_retry: *number < MOST
                && request.bytes().len() as u64 <= wanted.replay_bytes.unwrap_or(REPLAY),
            active: 1,
            ..Attempt::default()
        };
        let after = Duration::from_millis(wanted.hedge_after_ms);
        if !after.is_zero() && response.after > after && attempt.can_retry {
            self.run_until(began + after);
            let slow = Attempt { ending: Ending::Slow.into(), elapsed_us: micros(after), ..attempt.clone() };
            if self.engine.ask(exchange, &slow, None).is_some() {
                *number += 1;
                let other = self.numbered(exchange, request, wanted, *number);
                if after + other.after < response.after {
                    response = Response { after: after + other.after, ..other };
                    attempt.number = *number;
                }
            }
        }
        let limit = Duration::from_millis(wanted.per_try_timeout_ms);
        if !limit.is_zero() && (response.after > limit || response.failure == Some(Failure::Timeout)) {
            response = Response::timeout().after(limit);
        }
        self.run_until(began + response.after);
        let ending = match response.failure {
            None => Ending::Response,
            Some(Failure::Timeout) => Ending::Timeout,
            Some(Failure::Refused) => Ending::ConnectFailure,
            Some(Failure::Reset) => Ending::Reset,
        };
        attempt.ending = ending.into();
        attempt.status = response.status().into();
        attempt.grpc_status = response.field("grpc-status").and_then(|status| status.parse().ok());
        attempt.elapsed_us = micros(response.after);
        (attempt, response)
    }

    fn numbered(&mut self, exchange: u32, request: &Request, wanted: &Attempts, number: u32) -> Response {
        if !wanted.numbered {
            return self.endpoint_answers(exchange, request);
        }
        let request = request.clone().header("x-envoy-attempt-count", number.to_string());
        self.endpoint_answers(exchange, &request)
    }

    fn endpoint_answers(&mut self, exchange: u32, request: &Request) -> Response {
        let cluster = self.engine.cluster(exchange);
        let server = cluster.and_then(|cluster| self.servers.get_mut(&cluster)).unwrap_or(&mut self.endpoint);
        server(request)
    }
}

/// What the client gets.
fn in_place(response: Response) -> Response {
    match response.failure {
        None => response,
        Some(Failure::Timeout) => Response::new(504),
        Some(Failure::Refused | Failure::Reset) => Response::new(503),
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
