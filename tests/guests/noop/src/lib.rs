//! A filter on the SDK that has every callback and does nothing in it: what is left is what a filter costs by itself.

use meshgate_sdk::prelude::*;

struct Noop;

#[filter]
impl Filter for Noop {
    fn configure(_: Empty) -> Result<Self, ConfigError> {
        Ok(Self)
    }

    fn on_request(&self, _: &Exchange<Self>) -> Outcome {
        Ok(())
    }

    fn on_request_body(&self, _: &Exchange<Self>, _: &mut Body) -> Outcome {
        Ok(())
    }

    fn on_request_trailers(&self, _: &Exchange<Self>) -> Outcome {
        Ok(())
    }

    fn on_response(&self, _: &Exchange<Self>) -> Outcome {
        Ok(())
    }

    fn on_response_body(&self, _: &Exchange<Self>, _: &mut Body) -> Outcome {
        Ok(())
    }

    fn on_response_trailers(&self, _: &Exchange<Self>) -> Outcome {
        Ok(())
    }

    fn on_log(&self, _: &Exchange<Self>) {}
}
