//! Where in the file the part of a filter's configuration stands that the filter refuses. Filters know their configuration as
//! values without positions; they name a part by its keys and indexes.

use crate::diagnostic::Report;
use crate::tree::{Kind, Node};
use crate::{Position, Source, yaml};

/// What filters on the SDK say before the path of what they refuse.
const REFUSED: &str = "configuration refused: ";

impl Source {
    /// The place that a filter means by `said`, such as `configuration refused: routes/0/to: no such thing`: as near as the
    /// path leads. `filter` is where the filter is named. None if it names no part of its configuration.
    pub fn refused_part(&self, filter: Position, said: &str) -> Option<Position> {
        let (path, _) = said.strip_prefix(REFUSED)?.split_once(": ")?;
        let root = yaml::parse(self, &mut Report::new(self))?;
        let configuration = configuration(&root, filter)?;
        let steps: Vec<&str> = path.split('/').collect();
        let part = follow(configuration, &steps);
        (!std::ptr::eq(part, configuration)).then_some(part.at)
    }
}

/// The value whose key stands there.
fn configuration(node: &Node, key: Position) -> Option<&Node> {
    match &node.kind {
        Kind::Map(map) => map.entries().iter().find_map(|entry| match entry.at == key {
            true => Some(&entry.value),
            false => configuration(&entry.value, key),
        }),
        Kind::List(items) => items.iter().find_map(|item| configuration(item, key)),
        _ => None,
    }
}

/// Where steps lead, as far as they do.
fn follow<'n>(node: &'n Node, steps: &[&str]) -> &'n Node {
    // A key may have slashes in it, so one step may be several.
    let next = (1..=steps.len()).find_map(|taken| {
        let (step, rest) = steps.split_at(taken);
        Some((node.step(&step.join("/"))?, rest))
    });
    next.map_or(node, |(next, rest)| follow(next, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
chains:
  web:
    - routing:
        routes:
          - {name: a, to: b}
          - {name: c, properties: {a/b: d}}
";

    #[test]
    fn parts_are_found_as_near_as_can_be() {
        let source = Source::new("x", TEXT);
        let filter = Position { line: 3, column: 7 };
        let place = |said: &str| source.refused_part(filter, said).map(|at| (at.line, at.column));
        assert_eq!(place("configuration refused: routes/0/to: no"), Some((5, 27)));
        assert_eq!(place("configuration refused: routes/1/properties/a/b: no"), Some((6, 41)));
        assert_eq!(place("configuration refused: routes/1/match: missing"), Some((6, 13)));
        for unknown in ["configuration refused: no: a", "configuration refused: routes", "a reason: b", ""] {
            assert_eq!(place(unknown), None, "{unknown}");
        }
        assert_eq!(
            source.refused_part(Position { line: 1, column: 2 }, "configuration refused: web: x"),
            None
        );
    }
}
