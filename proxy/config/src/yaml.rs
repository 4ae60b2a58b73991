//! From YAML text to the tree. Only what a configuration needs: one document, maps with plain keys, lists and scalars.
//! Anchors, aliases, tags and merge keys are refused: they hide what a value is from the reader, and expanding them
//! costs memory that the file's size does not show.

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span};

use crate::diagnostic::Report;
use crate::scalars;
use crate::tree::{Entry, Kind, Map, Node};
use crate::words::quoted;
use crate::{Position, Source};

/// Deepest nesting. A route's filter's sub-chain stands at a depth of about twelve.
const DEEPEST: usize = 64;

/// Most values and keys in a file.
const MOST_NODES: usize = 200_000;

/// Reads the text. `None` if what was read is too broken to check further; then the report says why.
pub(crate) fn parse(source: &Source, report: &mut Report<'_>) -> Option<Node> {
    let mut builder = Builder::new(report);
    for event in Parser::new_from_str(source.text()) {
        let going = match event {
            Ok((event, span)) => builder.event(event, span),
            Err(error) => builder.syntax(source, &error),
        };
        if !going {
            return None;
        }
    }
    if builder.root.is_none() && !builder.broken {
        builder.report.error(Position { line: 1, column: 1 }, "the file is empty");
    }
    builder.root.take().filter(|_| !builder.broken)
}

struct Builder<'r, 's> {
    report: &'r mut Report<'s>,
    open: Vec<Open>,
    root: Option<Node>,
    nodes: usize,
    documents: usize,
    /// Whether something stands in the tree that is not what the file means.
    broken: bool,
}

/// A collection whose end has not come yet.
enum Open {
    List(Position, Vec<Node>),
    Map(Position, Map, Option<(String, Position)>),
}

impl<'r, 's> Builder<'r, 's> {
    fn new(report: &'r mut Report<'s>) -> Self {
        Self { report, open: Vec::new(), root: None, nodes: 0, documents: 0, broken: false }
    }

    /// Takes an event; false if reading must stop.
    fn event(&mut self, event: Event<'_>, span: Span) -> bool {
        let at = position(span.start);
        match event {
            Event::DocumentStart(_) => self.document(at),
            Event::Alias(_) => self.alias(at),
            Event::Scalar(text, style, anchor, tag) => {
                self.decorations(at, anchor, tag.is_some());
                self.budget(at) && self.scalar(&text, style, at)
            }
            Event::SequenceStart(anchor, tag) => {
                self.decorations(at, anchor, tag.is_some());
                self.budget(at) && self.enter(Open::List(at, Vec::new()), at)
            }
            Event::MappingStart(anchor, tag) => {
                self.decorations(at, anchor, tag.is_some());
                self.budget(at) && self.enter(Open::Map(at, Map::default(), None), at)
            }
            Event::SequenceEnd | Event::MappingEnd => self.leave(),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => true,
        }
    }

    fn document(&mut self, at: Position) -> bool {
        self.documents += 1;
        if self.documents > 1 {
            self.report.error_with(
                at,
                "a second document starts here",
                "a configuration is one document: remove the `---`",
            );
        }
        self.documents == 1
    }

    fn alias(&mut self, at: Position) -> bool {
        self.report.error_with(
            at,
            "aliases (`*name`) are not supported",
            "write the value out, or quote it if it is a string that starts with `*`",
        );
        self.broken = true;
        self.place(Node { at, kind: Kind::Null })
    }

    fn decorations(&mut self, at: Position, anchor: usize, tagged: bool) {
        if anchor != 0 {
            self.report.error_with(
                at,
                "anchors (`&name`) are not supported",
                "remove it, or quote the value if it is a string that starts with `&`",
            );
        }
        if tagged {
            self.report.error_with(
                at,
                "tags (`!name`) are not supported",
                "quote the value if it is a string; `!!str` is not needed then",
            );
        }
    }

    fn budget(&mut self, at: Position) -> bool {
        self.nodes += 1;
        if self.nodes > MOST_NODES {
            self.report.error(at, format!("the file has more than {MOST_NODES} values"));
        }
        self.nodes <= MOST_NODES
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, at: Position) -> bool {
        if let Some(Open::Map(_, _, key @ None)) = self.open.last_mut() {
            *key = Some((text.to_owned(), at));
            return self.check_key(text, style, at);
        }
        let kind = if style == ScalarStyle::Plain {
            scalars::plain(text).unwrap_or_else(|refused| {
                self.report.error_with(at, refused.message, refused.hint);
                // Read on as what the hint proposes.
                Kind::Text(text.to_owned())
            })
        } else {
            Kind::Text(text.to_owned())
        };
        self.place(Node { at, kind })
    }

    fn check_key(&mut self, text: &str, style: ScalarStyle, at: Position) -> bool {
        if style == ScalarStyle::Plain && text.is_empty() {
            self.report.error(at, "a key is missing before the colon");
            return false;
        }
        if style == ScalarStyle::Plain && text == "<<" {
            self.report.error_with(at, "merge keys (`<<`) are not supported", "write the keys out");
            self.broken = true;
        }
        true
    }

    fn enter(&mut self, open: Open, at: Position) -> bool {
        if let Some(Open::Map(_, _, None)) = self.open.last() {
            self.report.error_with(
                at,
                "a key must be a plain word or a string",
                "quote it if it starts with `[`, `{` or `?`",
            );
            return false;
        }
        if self.open.len() >= DEEPEST {
            self.report.error(at, format!("values are nested more than {DEEPEST} deep"));
            return false;
        }
        self.open.push(open);
        true
    }

    fn leave(&mut self) -> bool {
        let node = match self.open.pop() {
            Some(Open::List(at, items)) => Node { at, kind: Kind::List(items) },
            Some(Open::Map(at, map, _)) => Node { at, kind: Kind::Map(map) },
            None => return false,
        };
        self.place(node)
    }

    /// Puts a finished value where it belongs.
    fn place(&mut self, mut node: Node) -> bool {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List(_, items)) => items.push(node),
            Some(Open::Map(_, map, key)) => {
                let Some((key, at)) = key.take() else {
                    self.report.error(node.at, "a key must be a plain word or a string");
                    return false;
                };
                if matches!(node.kind, Kind::Null) {
                    // A value that is not written stands wherever the next token does; its key is what can be shown.
                    node.at = at;
                }
                let message = format!("duplicate key {}", quoted(&key));
                if let Some(first) = map.insert(Entry { key, at, value: node }) {
                    let hint = format!("it is already given in line {}", first.at.line);
                    self.report.error_with(at, message, hint);
                }
            }
        }
        true
    }

    /// Says what the parser could not read. Always the last thing heard of it.
    fn syntax(&mut self, source: &Source, error: &ScanError) -> bool {
        let at = position(*error.marker());
        let next = source.line(at.line).chars().nth(at.column.saturating_sub(1));
        let hint = match (error.info(), next) {
            (info, _) if info.contains("unknown anchor") => {
                Some("a string that starts with `*` must be quoted")
            }
            (_, Some('@' | '`' | '%')) => Some("a string that starts with this character must be quoted"),
            (info, _) if info.contains("mapping values are not allowed") => {
                Some("quote a string that contains `: `, or check the indentation")
            }
            (info, _) if info.contains("tab") => Some("indent with spaces"),
            (info, _) if info.contains("unknown escape") => {
                Some("in double quotes write `\\\\` for a backslash, or use single quotes")
            }
            (info, _) if info.contains("did not find expected") => {
                Some("check the indentation, and that every bracket and quote is closed")
            }
            _ => None,
        };
        self.report.push(at, &format!("not valid YAML: {}", error.info()), hint);
        false
    }
}

fn position(marker: Marker) -> Position {
    Position { line: marker.line(), column: marker.col() + 1 }
}
