//! The attribute `#[filter]` of `meshgate-sdk`, which re-exports it; the documentation is there.
//!
//! It reads the functions in `impl Filter for …` (or `TcpFilter`): which callbacks the filter has, so that the manifest lists these and the
//! others do nothing, and which of them wait, so that the others run without an allocation. It parses token trees by hand,
//! because that is all it needs and filters should build fast.

use proc_macro::{Delimiter, Group, Ident, Span, TokenStream, TokenTree};

/// A callback: as authors write it, as the ABI names it, whether it may wait, and what others call it.
type Callback = (&'static str, &'static str, bool, &'static [&'static str]);

/// The callbacks of `Filter`.
const HTTP: [Callback; 11] = [
    (
        "on_request",
        "request_headers",
        true,
        &["on_request_headers", "on_http_request_headers", "on_request_head"],
    ),
    ("on_request_body", "request_body", true, &["on_http_request_body", "on_body", "on_data"]),
    ("on_request_trailers", "request_trailers", true, &["on_http_request_trailers"]),
    (
        "on_response",
        "response_headers",
        true,
        &["on_response_headers", "on_http_response_headers", "on_response_head"],
    ),
    ("on_response_body", "response_body", true, &["on_http_response_body"]),
    ("on_response_trailers", "response_trailers", true, &["on_http_response_trailers"]),
    ("on_attempt", "foreign_function", false, &["on_try", "on_retry", "on_foreign_function"]),
    ("on_log", "log", false, &["on_done", "on_finish"]),
    ("on_tick", "tick", true, &["on_timer"]),
    ("on_queue", "queue_ready", true, &["on_queue_ready"]),
    ("on_end", "done", true, &["on_stop", "on_shutdown", "on_drain"]),
];

/// The callbacks of `TcpFilter`.
const TCP: [Callback; 10] = [
    ("on_connection", "new_connection", true, &["on_new_connection", "on_connect", "on_open"]),
    ("on_downstream_data", "downstream_data", true, &["on_data", "on_client_data", "on_request"]),
    ("on_upstream_data", "upstream_data", true, &["on_endpoint_data", "on_server_data", "on_response"]),
    (
        "on_downstream_close",
        "downstream_connection_close",
        false,
        &["on_close", "on_downstream_connection_close"],
    ),
    ("on_upstream_close", "upstream_connection_close", false, &["on_upstream_connection_close"]),
    ("on_log", "log", false, &["on_done", "on_finish"]),
    ("on_connection_tick", "connection_tick", false, &["on_report", "on_each_tick"]),
    ("on_tick", "tick", true, &["on_timer"]),
    ("on_queue", "queue_ready", true, &["on_queue_ready"]),
    ("on_end", "done", true, &["on_stop", "on_shutdown", "on_drain"]),
];

/// Makes `impl Filter for T` the module's filter. See `meshgate_sdk::filter`.
#[proc_macro_attribute]
pub fn filter(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand(&arguments, item).unwrap_or_else(|mistake| mistake.report())
}

/// What an author is told, and where.
struct Mistake {
    message: String,
    at: Span,
}

impl Mistake {
    fn new(message: impl Into<String>, at: Span) -> Self {
        Self { message: message.into(), at }
    }

    fn report(self) -> TokenStream {
        let text = format!("::core::compile_error!({:?});", self.message);
        let tokens: TokenStream = text.parse().unwrap_or_default();
        let placed = |mut token: TokenTree| {
            token.set_span(self.at);
            token
        };
        tokens.into_iter().map(placed).collect()
    }
}

fn expand(arguments: &TokenStream, item: TokenStream) -> Result<TokenStream, Mistake> {
    let shape = || {
        Mistake::new(
            "#[filter] stands before `impl Filter for Type { … }` or `impl TcpFilter for Type { … }`",
            Span::call_site(),
        )
    };
    let mut tokens: Vec<TokenTree> = item.into_iter().collect();
    let Some(TokenTree::Group(body)) = tokens.pop() else { return Err(shape()) };
    if body.delimiter() != Delimiter::Brace {
        return Err(shape());
    }
    let position = tokens.iter().position(|token| is_word(token, "for")).ok_or_else(shape)?;
    let filter: TokenStream = tokens.iter().skip(position + 1).cloned().collect();
    if filter.is_empty() {
        return Err(shape());
    }

    let role = Role::read(tokens.iter().take(position).any(|token| is_word(token, "TcpFilter")), arguments)?;
    let members = Members::read(body.stream(), role.callbacks())?;
    let additions = members.additions(role)?;
    let mut inside = members.tokens;
    inside.extend(parse(&additions)?);
    let mut whole = Group::new(Delimiter::Brace, inside);
    whole.set_span(body.span());
    tokens.push(TokenTree::Group(whole));

    let mut out: TokenStream = tokens.into_iter().collect();
    out.extend(parse(&role.export(&filter))?);
    Ok(out)
}

/// What an `impl` is to the module.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// The filter, of HTTP.
    Http,
    /// The filter, of TCP.
    Tcp,
    /// The filter, of HTTP; there is an `impl TcpFilter` beside.
    HttpOfBoth,
    /// What that filter is on TCP.
    TcpOfBoth,
}

impl Role {
    fn read(is_tcp: bool, arguments: &TokenStream) -> Result<Self, Mistake> {
        let mut arguments = arguments.clone().into_iter();
        match (arguments.next(), arguments.next()) {
            (None, _) => Ok(if is_tcp { Self::Tcp } else { Self::Http }),
            (Some(word), None) if !is_tcp && is_word(&word, "tcp") => Ok(Self::HttpOfBoth),
            (Some(word), None) if is_tcp && is_word(&word, "http") => Ok(Self::TcpOfBoth),
            (Some(other), _) => Err(Mistake::new(
                "#[filter] takes no arguments, but for a filter of both: `#[filter(tcp)] impl Filter for …` and \
                 `#[filter(http)] impl TcpFilter for …`",
                other.span(),
            )),
        }
    }

    const fn callbacks(self) -> &'static [Callback] {
        match self {
            Self::Http | Self::HttpOfBoth => &HTTP,
            Self::Tcp | Self::TcpOfBoth => &TCP,
        }
    }

    /// What follows the `impl`.
    fn export(self, filter: &TokenStream) -> String {
        let export =
            |start: &str, write: &str| format!("::meshgate_sdk::export!({filter}, {start}, {write});");
        match self {
            Self::Http => export("start_http", "write_http"),
            Self::Tcp => export("start_tcp", "write_tcp"),
            Self::HttpOfBoth => export("start_both", "write_both"),
            Self::TcpOfBoth => format!(
                "const _: () = ::core::assert!(<{filter} as ::meshgate_sdk::Filter>::SERVES_TCP, {:?});",
                "write `#[filter(tcp)]` before `impl Filter`"
            ),
        }
    }
}

/// What stands in the `impl`.
#[derive(Default)]
struct Members {
    /// All of it, with `async` before the callbacks that may wait and do not.
    tokens: TokenStream,
    types: Vec<String>,
    /// There is a `configure`.
    configures: bool,
    /// The type of what it takes.
    config: Option<String>,
    callbacks: Vec<&'static str>,
    awaits: Vec<&'static str>,
}

impl Members {
    fn read(stream: TokenStream, known: &'static [Callback]) -> Result<Self, Mistake> {
        let mut members = Self::default();
        let mut tokens = stream.into_iter().peekable();
        let mut previous: Option<TokenTree> = None;
        // The callback whose signature is being read; its body is the next group in braces.
        let mut reading = None;
        while let Some(token) = tokens.next() {
            if let TokenTree::Group(group) = &token
                && previous.as_ref().is_some_and(|word| is_word(word, "configure"))
            {
                members.configures = true;
                members.config = parameter_type(group.stream());
            }
            if is_word(&token, "fn")
                && let Some(TokenTree::Ident(name)) = tokens.peek()
            {
                let is_async = previous.as_ref().is_some_and(|word| is_word(word, "async"));
                reading = members.callback(known, name, is_async)?;
                if reading.is_some_and(|(_, waits)| waits) && !is_async {
                    members.tokens.extend([TokenTree::Ident(Ident::new("async", token.span()))]);
                }
            } else if previous.as_ref().is_some_and(|word| is_word(word, "type")) {
                members.types.push(token.to_string());
            }
            if let TokenTree::Group(group) = &token
                && group.delimiter() == Delimiter::Brace
                && let Some((callback, _)) = reading.take()
                && awaits(group.stream())
            {
                members.awaits.push(callback);
            }
            previous = Some(token.clone());
            members.tokens.extend([token]);
        }
        Ok(members)
    }

    /// Notes a callback: its name in the ABI, and whether it may wait. `None` for another function.
    fn callback(
        &mut self,
        known: &'static [Callback],
        name: &Ident,
        is_async: bool,
    ) -> Result<Option<(&'static str, bool)>, Mistake> {
        let text = name.to_string();
        if !text.starts_with("on_") {
            return Ok(None);
        }
        if let Some((_, abi, waits, _)) = known.iter().find(|(known, ..)| *known == text) {
            if is_async && !waits {
                let message = format!("`{text}` cannot be `async`: nobody waits for it");
                return Err(Mistake::new(message, name.span()));
            }
            self.callbacks.push(abi);
            return Ok(Some((abi, *waits)));
        }
        let meant = known.iter().find(|(.., others)| others.contains(&text.as_str()));
        let message = match meant {
            Some((meant, ..)) => format!("a filter has no `{text}`; write `{meant}`"),
            None => {
                let all: Vec<_> = known.iter().map(|(name, ..)| format!("`{name}`")).collect();
                format!("a filter has no `{text}`; its callbacks are {}", all.join(", "))
            }
        };
        Err(Mistake::new(message, name.span()))
    }

    /// The members that the author left out and that the trait needs.
    fn additions(&self, role: Role) -> Result<String, Mistake> {
        let list = |names: &[&str]| names.iter().map(|name| format!("{name:?}, ")).collect::<String>();
        let mut text = format!(
            "const CALLBACKS: &'static [&'static str] = &[{}]; const AWAITS: &'static [&'static str] = &[{}];",
            list(&self.callbacks),
            list(&self.awaits)
        );
        let mut config = self.config.as_deref().unwrap_or("::meshgate_sdk::config::Empty");
        if role == Role::HttpOfBoth {
            text.push_str("const SERVES_TCP: bool = true;");
        }
        if role == Role::TcpOfBoth {
            let of_plugin =
                ["tick", "queue_ready", "done"].iter().any(|callback| self.callbacks.contains(callback));
            if self.configures || of_plugin || self.types.iter().any(|given| given == "Config") {
                let message = "`Config`, `configure`, `on_tick`, `on_queue` and `on_end` of a filter of both stand in its `impl Filter`";
                return Err(Mistake::new(message, Span::call_site()));
            }
            config = "<Self as ::meshgate_sdk::Filter>::Config";
            text.push_str(&format!(
                "fn configure(config: {config}) -> ::core::result::Result<Self, ::meshgate_sdk::ConfigError> {{ \
                 <Self as ::meshgate_sdk::Filter>::configure(config) }}"
            ));
        }
        for (name, default) in [("Config", config), ("State", "()")] {
            if !self.types.iter().any(|given| given == name) {
                text.push_str(&format!("type {name} = {default};"));
            }
        }
        Ok(text)
    }
}

/// Whether something is awaited in here.
fn awaits(stream: TokenStream) -> bool {
    stream.into_iter().any(|token| match token {
        TokenTree::Group(group) => awaits(group.stream()),
        token => is_word(&token, "await"),
    })
}

/// The type of a function's only parameter: what follows the first colon.
fn parameter_type(stream: TokenStream) -> Option<String> {
    let is_colon = |token: &TokenTree| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ':');
    let given: TokenStream = stream.into_iter().skip_while(|token| !is_colon(token)).skip(1).collect();
    let text = given.to_string();
    Some(text.trim_end().trim_end_matches(',').to_owned()).filter(|text| !text.is_empty())
}

fn is_word(token: &TokenTree, word: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident.to_string() == word)
}

fn parse(text: &str) -> Result<TokenStream, Mistake> {
    let mistake =
        |_| Mistake::new("#[filter] made something that is not Rust; please report this", Span::call_site());
    text.parse().map_err(mistake)
}
