//! The standard filter `global-rate-limit`: asks a service that counts for all proxies whether a request may pass. See its
//! README.md.
//!
//! `config.rs` is what a user writes, `descriptor.rs` is what the service is told of a request, `service.rs` is how it is asked
//! and what it answers, and this file acts on that.

mod config;
mod descriptor;
mod service;
#[cfg(test)]
mod tests;

use std::cell::RefCell;

use meshgate_sdk::Flag;
use meshgate_sdk::prelude::*;

use crate::config::{Config, HeaderForm, OnFailure};
use crate::descriptor::Facts;
use crate::service::{RateLimitRequest, RateLimitResponse};

struct GlobalRateLimit {
    config: Config,
    timeout: Duration,
    requests: Family<Counter, 2>,
}

/// What to add to the response.
#[derive(Default)]
struct Added(RefCell<Vec<(String, Vec<u8>)>>);

#[filter]
impl Filter for GlobalRateLimit {
    type State = Added;

    fn configure(config: Config) -> Result<Self, ConfigError> {
        config.check()?;
        let requests = Counter::build("meshgate_global_rate_limit_requests_total")
            .help("Requests, by what the service of rate limits said.");
        Ok(Self {
            timeout: config.timeout.map_or(Duration::from_millis(20), Into::into),
            config,
            requests: requests.family(["domain", "outcome"]),
        })
    }

    async fn on_request(&self, exchange: &Exchange<Self>) -> Outcome {
        let Some(question) = self.question(exchange) else {
            self.count("unlimited");
            return Ok(());
        };
        match service::ask(&self.config.cluster, self.timeout, &question).await {
            Ok((true, answer)) => self.pass(exchange, answer),
            Ok((false, _)) if self.config.shadow => {
                self.count("would_limit");
                Ok(())
            }
            Ok((false, answer)) => {
                self.count("over_limit");
                exchange.set_flag(Flag::RateLimited)?;
                self.refusal(answer).into()
            }
            Err(reason) => {
                exchange.set_flag(Flag::RateLimitServiceError)?;
                self.fail(&reason)
            }
        }
    }

    fn on_response(&self, exchange: &Exchange<Self>) -> Outcome {
        let headers = exchange.response().headers();
        for (name, value) in exchange.state.0.take() {
            headers.add(&name, value)?;
        }
        Ok(())
    }
}

/// gRPC's status for who has had too much.
const RESOURCE_EXHAUSTED: u8 = 8;

impl GlobalRateLimit {
    /// What the service is asked, if there is something to count by.
    fn question(&self, exchange: &Exchange<Self>) -> Option<RateLimitRequest> {
        let facts = Facts::new(exchange.request(), self.config.trusted_hops);
        let descriptors: Vec<_> =
            self.config.descriptors.iter().filter_map(|one| descriptor::describe(one, &facts)).collect();
        if descriptors.is_empty() {
            return None;
        }
        let said = self.config.hits_header.as_ref().and_then(|name| facts.request.header(name));
        let hits = said.and_then(|text| text.parse().ok()).filter(|hits| *hits > 0).or(self.config.hits);
        Some(RateLimitRequest {
            domain: self.config.domain.clone(),
            descriptors,
            // What is left out counts for one.
            hits_addend: hits.unwrap_or(0),
        })
    }

    fn pass(&self, exchange: &Exchange<Self>, mut answer: RateLimitResponse) -> Outcome {
        self.count("ok");
        if self.config.shadow {
            return Ok(());
        }
        let headers = exchange.request().headers();
        for (name, value) in service::fields(std::mem::take(&mut answer.request_headers_to_add)) {
            headers.add(&name, value)?;
        }
        exchange.state.0.replace(self.added(answer));
        Ok(())
    }

    fn refusal(&self, mut answer: RateLimitResponse) -> Reply {
        let wait = answer.statuses.iter().filter(|status| status.is_over());
        let wait = wait.filter_map(|status| Some(status.duration_until_reset?.seconds)).max();
        let mut reply = Reply::new(self.config.status.unwrap_or(429))
            .details("request_rate_limited")
            .grpc_status(RESOURCE_EXHAUSTED)
            .body(std::mem::take(&mut answer.raw_body));
        if self.config.headers == HeaderForm::Envoy {
            reply = reply.header("x-envoy-ratelimited", "true");
            if let Some(seconds) = wait.filter(|seconds| *seconds > 0) {
                reply = reply.header("retry-after", seconds.to_string());
            }
        }
        self.added(answer).into_iter().fold(reply, |reply, (name, value)| reply.header(name, value))
    }

    /// The fields that go to the client.
    fn added(&self, answer: RateLimitResponse) -> Vec<(String, Vec<u8>)> {
        let mut added: Vec<_> = service::fields(answer.response_headers_to_add).collect();
        if self.config.headers == HeaderForm::Envoy {
            added.extend(service::limits(&answer.statuses));
        }
        added
    }

    fn fail(&self, reason: &str) -> Outcome {
        meshgate_sdk::warn!("no decision about limits: {reason}");
        if self.config.shadow || self.config.on_failure == OnFailure::Allow {
            self.count("error_allowed");
            return Ok(());
        }
        self.count("error");
        Reply::new(self.config.status_on_error.unwrap_or(500)).details("rate_limiter_error").into()
    }

    fn count(&self, outcome: &str) {
        self.requests.with([&self.config.domain, outcome]).add(1);
    }
}
