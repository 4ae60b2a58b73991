//! The attribute `#[filter]` of `meshgate-sdk`, which re-exports it; the documentation is there.
//!
//! It reads the names of the functions in `impl Filter for …`, so that the module's manifest can say which callbacks
//! the filter has: a host need not enter the module for the others. It parses token trees by hand, because that is all
//! it needs and filters should build fast.

use proc_macro::{Delimiter, Group, TokenStream, TokenTree};

/// Makes `impl Filter for T` the module's filter. See `meshgate_sdk::filter`.
#[proc_macro_attribute]
pub fn filter(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand(&arguments, item)
        .unwrap_or_else(|message| format!("::core::compile_error!({message:?});").parse().unwrap_or_default())
}

fn expand(arguments: &TokenStream, item: TokenStream) -> Result<TokenStream, &'static str> {
    const SHAPE: &str = "#[filter] stands before `impl Filter for Type { … }`";
    if !arguments.is_empty() {
        return Err("#[filter] takes no arguments");
    }
    let mut tokens: Vec<TokenTree> = item.into_iter().collect();
    let Some(TokenTree::Group(body)) = tokens.pop() else { return Err(SHAPE) };
    if body.delimiter() != Delimiter::Brace {
        return Err(SHAPE);
    }
    let is_word =
        |token: &TokenTree, word: &str| matches!(token, TokenTree::Ident(ident) if ident.to_string() == word);
    let Some(position) = tokens.iter().position(|token| is_word(token, "for")) else { return Err(SHAPE) };
    let filter: TokenStream = tokens.iter().skip(position + 1).cloned().collect();
    if filter.is_empty() {
        return Err(SHAPE);
    }

    let mut members: TokenStream = body.stream();
    members.extend(parse(&additions(&body.stream()))?);
    let mut whole = Group::new(Delimiter::Brace, members);
    whole.set_span(body.span());
    tokens.push(TokenTree::Group(whole));

    let mut out: TokenStream = tokens.into_iter().collect();
    out.extend(parse(&format!("::meshgate_sdk::export!({filter});"))?);
    Ok(out)
}

/// The members that the author left out and that the trait needs.
fn additions(body: &TokenStream) -> String {
    let mut callbacks = String::new();
    let mut types = Vec::new();
    let mut previous = String::new();
    for token in body.clone() {
        let word = match &token {
            TokenTree::Ident(ident) => ident.to_string(),
            _ => String::new(),
        };
        if previous == "fn"
            && let Some(callback) = word.strip_prefix("on_")
        {
            callbacks.push_str(&format!("\"{callback}\", "));
        } else if previous == "type" {
            types.push(word.clone());
        }
        previous = word;
    }
    let mut text = format!("const CALLBACKS: &'static [&'static str] = &[{callbacks}];");
    for (name, default) in [("Config", "::meshgate_sdk::config::Empty"), ("State", "()")] {
        if !types.iter().any(|given| given == name) {
            text.push_str(&format!("type {name} = {default};"));
        }
    }
    text
}

fn parse(text: &str) -> Result<TokenStream, &'static str> {
    text.parse().map_err(|_| "#[filter] made something that is not Rust; please report this")
}
