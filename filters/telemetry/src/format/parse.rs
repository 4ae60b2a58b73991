//! Reads a text with operators: `%NAME%`, `%NAME(ARGUMENT)%`, `%NAME(ARGUMENT):LENGTH%`; `%%` is a percent sign.

use super::Piece;
use super::operators::Operator;

pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        push_text(&mut pieces, before);
        if let Some(after) = after.strip_prefix('%') {
            push_text(&mut pieces, "%");
            rest = after;
            continue;
        }
        let (piece, after) = operator(after)?;
        pieces.push(piece);
        rest = after;
    }
    push_text(&mut pieces, rest);
    Ok(pieces)
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) {
    match pieces.last_mut() {
        _ if text.is_empty() => {}
        Some(Piece::Text(known)) => known.push_str(text),
        _ => pieces.push(Piece::Text(text.to_owned())),
    }
}

/// What follows a percent sign, and the rest.
fn operator(text: &str) -> Result<(Piece, &str), String> {
    let unended = || {
        let beginning: String = text.chars().take(30).collect();
        format!(
            "`%{beginning}` has no end: an operator stands between percent signs, and a percent sign alone is %%"
        )
    };
    let is_name = |letter: char| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_';
    let (name, rest) = text.split_at(text.find(|letter| !is_name(letter)).unwrap_or(text.len()));
    let (argument, rest) = match rest.strip_prefix('(') {
        Some(rest) => {
            let (argument, rest) = rest.split_once(')').ok_or_else(unended)?;
            (Some(argument), rest)
        }
        None => (None, rest),
    };
    let (most, rest) = match rest.strip_prefix(':') {
        Some(rest) => {
            let (number, rest) = rest.split_once('%').ok_or_else(unended)?;
            let most = number.parse::<usize>().map_err(|_| format!("`{number}` is not a number of bytes"))?;
            (Some(most), rest)
        }
        None => (None, rest.strip_prefix('%').ok_or_else(unended)?),
    };
    Ok((Piece::Operator(Operator::parse(name, argument)?, most), rest))
}
