//! A filter on the SDK that has every callback and does nothing in it: what is left is what a filter costs by itself.

use meshgate_sdk::config::Empty;
use meshgate_sdk::{Body, ConfigError, Exchange, Filter, Flow, Outcome, filter};

struct Noop;

#[filter]
impl Filter for Noop {
    fn configure(_: Empty) -> Result<Self, ConfigError> {
        Ok(Self)
    }

    fn on_request_headers(&self, _: &mut Exchange<Self>, _: bool) -> Outcome {
        Ok(Flow::Continue)
    }

    fn on_request_body(&self, _: &mut Exchange<Self>, _: &mut Body) -> Outcome {
        Ok(Flow::Continue)
    }

    fn on_request_trailers(&self, _: &mut Exchange<Self>) -> Outcome {
        Ok(Flow::Continue)
    }

    fn on_response_headers(&self, _: &mut Exchange<Self>, _: bool) -> Outcome {
        Ok(Flow::Continue)
    }

    fn on_response_body(&self, _: &mut Exchange<Self>, _: &mut Body) -> Outcome {
        Ok(Flow::Continue)
    }

    fn on_response_trailers(&self, _: &mut Exchange<Self>) -> Outcome {
        Ok(Flow::Continue)
    }

    fn on_log(&self, _: &mut Exchange<Self>) {}
}
