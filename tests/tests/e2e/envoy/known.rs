//! The differences that are known.

/// A difference that is known and reasoned about in `docs/proxy-wasm-differences.md`, under the same id.
pub(super) struct Known {
    pub(super) id: &'static str,
    /// The scenarios that show it; empty: it may show anywhere.
    pub(super) scenarios: &'static [&'static str],
    /// The request's label contains this.
    pub(super) request: &'static str,
    /// What differs begins with one of these.
    pub(super) parts: &'static [&'static str],
    pub(super) meshgate: Is,
    pub(super) envoy: Is,
}

impl Known {
    pub(super) fn applies(&self, scenario: &str) -> bool {
        self.scenarios.is_empty() || self.scenarios.contains(&scenario)
    }

    /// One that was expected, and did not show, has become wrong: the proxies agree.
    pub(super) fn must_show(&self, scenario: &str) -> bool {
        self.scenarios.contains(&scenario) && !matches!((&self.meshgate, &self.envoy), (Is::Any, Is::Any))
    }
}

/// What one side shows.
pub(super) enum Is {
    Any,
    Absent,
    Just(&'static str),
}

impl Is {
    pub(super) fn admits(&self, value: Option<&String>) -> bool {
        match self {
            Is::Any => true,
            Is::Absent => value.is_none(),
            Is::Just(expected) => value.is_some_and(|value| value == expected),
        }
    }
}

pub(super) const KNOWN: &[Known] = &[
    Known {
        id: "tcp-reset-after-trap",
        scenarios: &[
            "tcp trap at new_connection",
            "tcp trap at downstream_data",
            "tcp trap at upstream_data",
        ],
        request: "tcp",
        parts: &["client"],
        meshgate: Is::Just(", then reset"),
        envoy: Is::Just(", then ended"),
    },
    Known {
        id: "tcp-reset-after-trap",
        scenarios: &["tcp trap at downstream_data", "tcp trap at upstream_data"],
        request: "tcp",
        parts: &["backend"],
        meshgate: Is::Any,
        envoy: Is::Any,
    },
    Known {
        id: "tcp-upstream-close-peer",
        scenarios: &[],
        request: "tcp",
        parts: &["upstream_close"],
        meshgate: Is::Just("upstream_close 2"),
        envoy: Is::Just("upstream_close 0"),
    },
    Known {
        id: "tcp-upstream-close-always",
        scenarios: &[],
        request: "tcp",
        parts: &["upstream_close"],
        meshgate: Is::Just("upstream_close 1"),
        envoy: Is::Absent,
    },
    Known {
        id: "tcp-upstream-close-always",
        scenarios: &["tcp reset by the backend"],
        request: "tcp",
        parts: &["upstream_close"],
        meshgate: Is::Just("upstream_close 2"),
        envoy: Is::Absent,
    },
    Known {
        id: "connection-close",
        scenarios: &[],
        request: "h1",
        parts: &["header connection"],
        meshgate: Is::Absent,
        envoy: Is::Just("close"),
    },
    Known {
        id: "empty-response-length",
        scenarios: &[],
        request: "h2",
        parts: &["header content-length"],
        meshgate: Is::Just("0"),
        envoy: Is::Absent,
    },
    Known {
        id: "empty-request-length",
        scenarios: &["method"],
        request: "",
        parts: &["one 1: header content-length"],
        meshgate: Is::Absent,
        envoy: Is::Just("0"),
    },
    Known {
        id: "host-removed",
        scenarios: &["host is removed"],
        request: "",
        parts: &["one 1: header host"],
        meshgate: Is::Just("shop.example"),
        envoy: Is::Absent,
    },
    Known {
        id: "call-failure-text",
        scenarios: &["call at request_headers to gone", "call at response_headers to gone"],
        request: "",
        parts: &["header x-call-body"],
        meshgate: Is::Just("upstream connect error"),
        envoy: Is::Any,
    },
    Known {
        id: "call-failure-text",
        scenarios: &["call at request_headers to gone"],
        request: "",
        parts: &["one 1: header x-call-body"],
        meshgate: Is::Just("upstream connect error"),
        envoy: Is::Any,
    },
    Known {
        id: "outer-filters",
        scenarios: &["local response at response_headers"],
        request: "",
        parts: &["header x-outer"],
        meshgate: Is::Just("seen"),
        envoy: Is::Absent,
    },
    Known {
        id: "answer-in-response-body",
        scenarios: &[
            "local response at response_body",
            "local response at response_body to another filter's",
        ],
        request: "",
        parts: &["status"],
        meshgate: Is::Just("429"),
        envoy: Is::Just("broken off"),
    },
    Known {
        id: "answer-in-response-body",
        scenarios: &[
            "local response at response_body",
            "local response at response_body to another filter's",
        ],
        request: "",
        parts: &[""],
        meshgate: Is::Any,
        envoy: Is::Absent,
    },
    Known {
        id: "unannounced-trailers",
        scenarios: &[
            "te and trailer are removed",
            "trailers",
            "trailers and bodies",
            "tour",
            "tour with a call",
        ],
        request: "trailers",
        parts: &["one 1: trailer"],
        meshgate: Is::Absent,
        envoy: Is::Any,
    },
    Known {
        id: "unannounced-trailers",
        scenarios: &["trailers", "trailers and bodies", "tour", "tour with a call"],
        request: "h1 trailers",
        parts: &["trailer"],
        meshgate: Is::Absent,
        envoy: Is::Any,
    },
    Known {
        id: "request-map-in-response",
        scenarios: &["tour", "tour with a call", "tour refuses"],
        request: "",
        parts: &["header x-method", "header x-path"],
        meshgate: Is::Any,
        envoy: Is::Just(""),
    },
    Known {
        id: "request-map-in-response",
        scenarios: &["tour refuses"],
        request: "query",
        parts: &["header x-query-q"],
        meshgate: Is::Just("two"),
        envoy: Is::Just(""),
    },
    Known {
        id: "chunks",
        scenarios: &["tour", "tour with a call"],
        request: "",
        parts: &["header x-seen"],
        meshgate: Is::Any,
        envoy: Is::Any,
    },
    Known {
        id: "body-lost-before-trailers",
        scenarios: &["tour with a call"],
        request: "trailers",
        parts: &["one 1: body"],
        meshgate: Is::Just("hello"),
        envoy: Is::Just(""),
    },
    Known {
        id: "body-lost-before-trailers",
        scenarios: &["tour with a call"],
        request: "trailers",
        parts: &["body"],
        meshgate: Is::Just("said: hello"),
        envoy: Is::Just("said: "),
    },
    Known {
        id: "request-map-in-response",
        scenarios: &["properties of the request"],
        request: "",
        parts: &["header x-p-request-"],
        meshgate: Is::Any,
        envoy: Is::Just("(none)"),
    },
    Known {
        id: "grpc-status-of-http",
        scenarios: &["properties of the response"],
        request: "",
        parts: &["header x-p-response-grpc-status"],
        meshgate: Is::Just("(none)"),
        envoy: Is::Just("0200000000000000"),
    },
    Known {
        id: "older-names",
        scenarios: &["properties of the configuration"],
        request: "",
        parts: &["header x-p-cluster-name"],
        meshgate: Is::Just("one"),
        envoy: Is::Just("(none)"),
    },
    Known {
        id: "older-names",
        scenarios: &["properties of the configuration"],
        request: "",
        parts: &["header x-p-listener-direction"],
        meshgate: Is::Just("0000000000000000"),
        envoy: Is::Just("(none)"),
    },
    Known {
        id: "early-latency",
        scenarios: &["figures"],
        request: "",
        parts: &["header x-form-response-backend-latency"],
        meshgate: Is::Just("################"),
        envoy: Is::Just("(non#)"),
    },
    Known {
        id: "cluster-before-routing",
        scenarios: &["properties in the request's callback"],
        request: "",
        parts: &["one 1: header x-cluster"],
        meshgate: Is::Just("status 1"),
        envoy: Is::Just("one"),
    },
    Known {
        id: "odd-property-paths",
        scenarios: &["properties in the request's callback"],
        request: "",
        parts: &["one 1: header x-empty", "one 1: header x-request"],
        meshgate: Is::Just("status 1"),
        envoy: Is::Just("status 3"),
    },
    Known {
        id: "empty-properties",
        scenarios: &["properties in the request's callback"],
        request: "",
        parts: &["one 1: header x-metadata", "one 1: header x-route"],
        meshgate: Is::Just("status 1"),
        envoy: Is::Just("status 0"),
    },
    Known {
        id: "own-property-paths",
        scenarios: &["properties in the request's callback"],
        request: "",
        parts: &["one 1: header x-own"],
        meshgate: Is::Just("value"),
        envoy: Is::Just("status 1"),
    },
    Known {
        id: "absent-buffers",
        scenarios: &["statuses in the request's callback"],
        request: "",
        parts: &[
            "one 1: header x-buffer",
            "one 1: header x-buffer-response",
            "one 1: header x-buffer-status",
        ],
        meshgate: Is::Just("status 1"),
        envoy: Is::Just("status 0"),
    },
    Known {
        id: "absent-buffers",
        scenarios: &["statuses in the request's callback"],
        request: "",
        parts: &["one 1: header x-set-buffer"],
        meshgate: Is::Just("status 1"),
        envoy: Is::Just("status 2"),
    },
    Known {
        id: "absent-buffers",
        scenarios: &["statuses in the request's callback"],
        request: "",
        parts: &["one 1: header x-set-buffer-call"],
        meshgate: Is::Just("status 2"),
        envoy: Is::Just("status 1"),
    },
    Known {
        id: "absent-maps",
        scenarios: &["statuses in the request's callback"],
        request: "",
        parts: &[
            "one 1: header x-value-call",
            "one 1: header x-value-response",
            "one 1: header x-value-trailer",
        ],
        meshgate: Is::Just("status 1"),
        envoy: Is::Just("status 2"),
    },
    Known {
        id: "pseudo-headers-kept",
        scenarios: &["response map emptied"],
        request: "",
        parts: &["status"],
        meshgate: Is::Just("200"),
        envoy: Is::Just("502"),
    },
    Known {
        id: "pseudo-headers-kept",
        scenarios: &["response map emptied"],
        request: "",
        parts: &[""],
        meshgate: Is::Any,
        envoy: Is::Any,
    },
    Known {
        id: "absent-buffers",
        scenarios: &["statuses in the response's callback"],
        request: "",
        parts: &["header x-buffer", "header x-buffer-response", "header x-buffer-status"],
        meshgate: Is::Just("status 1"),
        envoy: Is::Just("status 0"),
    },
    Known {
        id: "absent-buffers",
        scenarios: &["statuses in the response's callback"],
        request: "",
        parts: &["header x-set-buffer"],
        meshgate: Is::Just("status 1"),
        envoy: Is::Just("status 2"),
    },
    Known {
        id: "absent-buffers",
        scenarios: &["statuses in the response's callback"],
        request: "",
        parts: &["header x-set-buffer-call"],
        meshgate: Is::Just("status 2"),
        envoy: Is::Just("status 1"),
    },
    Known {
        id: "absent-maps",
        scenarios: &["statuses in the response's callback"],
        request: "",
        parts: &["header x-value-call", "header x-value-trailer"],
        meshgate: Is::Just("status 1"),
        envoy: Is::Just("status 2"),
    },
    Known {
        id: "request-map-in-response",
        scenarios: &["statuses in the response's callback"],
        request: "",
        parts: &["header x-value", "header x-size", "header x-remove-none"],
        meshgate: Is::Any,
        envoy: Is::Just("status 2"),
    },
];
