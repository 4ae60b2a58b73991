//! Builds chains: the named ones, and the sub-chains that filters hold in their configurations.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use serde_json::Value;

use crate::Position;
use crate::diagnostic::Report;
use crate::files::Files;
use crate::filters::{Filter, Filters, Schema};
use crate::load;
use crate::model::{Chain, ChainId, FilterConfiguration, FilterUse};
use crate::schema::Checker;
use crate::schema::marks::{self, Found};
use crate::tree::{Kind, Node};
use crate::words::{list, quoted};

/// How deep chains may stand within each other.
const DEEPEST: usize = 8;

/// Builds chains and keeps the sub-chains.
pub(crate) struct Builder<'a, 'm, 's> {
    pub(crate) filters: &'a mut Filters<'m>,
    pub(crate) clusters: &'a BTreeSet<&'a str>,
    pub(crate) files: &'a mut Files,
    pub(crate) report: &'a mut Report<'s>,
    /// The number of named chains; sub-chains are numbered after them.
    pub(crate) named: usize,
    pub(crate) done: Vec<Chain>,
}

/// One entry of a chain, as it is written.
struct Written<'n> {
    name: &'n str,
    at: Position,
    configuration: Option<&'n Node>,
}

impl Builder<'_, '_, '_> {
    /// Builds the chain that `node` is. `depth` counts the chains it stands in.
    pub(crate) fn chain(&mut self, name: &str, node: &Node, depth: usize) -> Chain {
        let mut chain = Chain { name: name.to_owned(), filters: Vec::new() };
        let Kind::List(items) = &node.kind else {
            let message = format!("the chain {} must be a list of filters, not {}", quoted(name), kind(node));
            self.report.error_with(node.at, message, "write `- name: {…}` for each filter, or `[]` for none");
            return chain;
        };
        if depth >= DEEPEST {
            self.report.error(node.at, format!("chains stand more than {DEEPEST} deep within each other"));
            return chain;
        }
        let mut uses: HashMap<&str, usize> = HashMap::new();
        for written in items.iter().filter_map(|item| self.entry(item)).collect::<Vec<_>>() {
            let number = uses.entry(written.name).or_default();
            *number += 1;
            let place = match number {
                1 => format!("{name}/{}", written.name),
                n => format!("{name}/{}#{n}", written.name),
            };
            if let Some(filter) = self.filters.find(written.name, written.at, self.report) {
                chain.filters.extend(self.filter_use(&place, &written, filter, depth));
            }
        }
        chain
    }

    /// Reads one entry: `name`, or a map with the name as its only key.
    fn entry<'n>(&mut self, item: &'n Node) -> Option<Written<'n>> {
        const FORM: &str = "write `- name: {…}`, or `- name` without configuration";
        match &item.kind {
            Kind::Text(name) => Some(Written { name, at: item.at, configuration: None }),
            Kind::Map(map) => match map.entries() {
                [entry] => {
                    let configuration = Some(&entry.value).filter(|node| !matches!(node.kind, Kind::Null));
                    Some(Written { name: &entry.key, at: entry.at, configuration })
                }
                [] => {
                    self.report.error_with(item.at, "an entry of a chain names a filter", FORM);
                    None
                }
                [first, ..] => {
                    let keys: Vec<String> = map.entries().iter().map(|entry| quoted(&entry.key)).collect();
                    let message = format!("an entry of a chain names one filter, not {}", list(&keys, "and"));
                    let hint = match first.value.kind {
                        Kind::Null => format!("indent the configuration of {} further", quoted(&first.key)),
                        _ => "start each filter with `- `".to_owned(),
                    };
                    self.report.error_with(item.at, message, hint);
                    None
                }
            },
            _ => {
                self.report.error_with(
                    item.at,
                    format!("an entry of a chain names a filter, it is not {}", kind(item)),
                    FORM,
                );
                None
            }
        }
    }

    fn filter_use(
        &mut self,
        place: &str,
        written: &Written<'_>,
        filter: Filter,
        depth: usize,
    ) -> Option<FilterUse> {
        let mut made = FilterUse {
            name: written.name.to_owned(),
            module: filter.module?,
            sha256: filter.sha256,
            on_error: filter.on_error,
            limits: filter.limits,
            may: filter.may,
            isolation: filter.isolation,
            vm: filter.vm,
            singleton: filter.singleton,
            surroundings: filter.surroundings,
            configuration: FilterConfiguration::Text(String::new()),
            chains: Vec::new(),
            file_texts: Vec::new(),
            clusters: Vec::new(),
            at: written.at,
        };
        match &filter.schema {
            Schema::Any => made.configuration = unchecked(written.configuration),
            Schema::Checked(checker) => self.configure(place, written, checker, depth, &mut made),
            Schema::Faulty(reason) => {
                let message = format!("the module of {} is at fault: {reason}", quoted(written.name));
                self.report.error(written.at, message);
            }
        }
        Some(made)
    }

    /// Checks a configuration against its schema and resolves what it refers to.
    fn configure(
        &mut self,
        place: &str,
        written: &Written<'_>,
        checker: &Checker,
        depth: usize,
        made: &mut FilterUse,
    ) {
        let absent = Node::empty_map(written.at);
        let Some(node) =
            written.configuration.or_else(|| (!checker.accepts(&Value::Null)).then_some(&absent))
        else {
            return;
        };
        let label = format!("the configuration of {}", quoted(written.name));
        let found = marks::find(checker.schema(), node);
        let chains: Vec<&str> = found.iter().filter_map(Found::chain_path).collect();
        for problem in checker.check(node, &label) {
            if !chains.iter().any(|chain| is_about_chain(&problem.path, problem.wrong_type, chain)) {
                self.report.push(problem.at, &problem.message, problem.hint.as_deref());
            }
        }
        let mut value = node.to_value();
        let mut clusters = BTreeSet::new();
        for found in &found {
            match found {
                Found::Cluster { name, at } => {
                    self.cluster(name, *at);
                    clusters.insert((*name).to_owned());
                }
                Found::File { name, at, path, text: false } => self.file(name, *at, path, &mut value),
                Found::File { name, at, path, text: true } => {
                    made.file_texts.extend(self.file_text(name, *at, path, &mut value));
                }
                // A chain within a chain's entry belongs to that entry's filter.
                Found::Chain { path, .. } if chains.iter().any(|outer| is_below(path, outer)) => {}
                Found::Chain { node, path } => {
                    let key = path.strip_prefix('/').unwrap_or(path);
                    let sub = self.chain(&format!("{place}/{key}"), node, depth + 1);
                    made.chains.push((key.to_owned(), ChainId(self.named + self.done.len())));
                    self.done.push(sub);
                    replace(&mut value, path, Value::from(key));
                }
            }
        }
        made.clusters = clusters.into_iter().collect();
        made.configuration = match value {
            Value::String(text) => FilterConfiguration::Text(text),
            value => FilterConfiguration::Json(value),
        };
    }

    pub(crate) fn cluster(&mut self, name: &str, at: Position) {
        if !self.clusters.contains(name) {
            self.report.unknown("cluster", name, at, self.clusters);
        }
    }

    fn file(&mut self, name: &str, at: Position, path: &str, value: &mut Value) {
        let file = self.files.resolve(name);
        match std::fs::metadata(&file) {
            Ok(metadata) if metadata.is_dir() => {
                self.report
                    .error(at, format!("{} is a folder, not a file", quoted(&file.display().to_string())));
            }
            Ok(_) => replace(value, path, Value::from(file.display().to_string())),
            Err(error) => {
                self.report.error(at, format!("cannot read {}: {error}", quoted(&file.display().to_string())))
            }
        }
    }

    /// Puts what is in a file in the place of its name: where that was, and the file.
    fn file_text(
        &mut self,
        name: &str,
        at: Position,
        path: &str,
        value: &mut Value,
    ) -> Option<(String, PathBuf)> {
        let file = self.files.resolve(name);
        match load::read(&file, "file") {
            Ok(text) => {
                replace(value, path, Value::from(text));
                Some((path.to_owned(), file))
            }
            Err((message, _)) => {
                self.report.error(at, format!("{}: {message}", quoted(&file.display().to_string())));
                None
            }
        }
    }
}

impl Found<'_> {
    fn chain_path(&self) -> Option<&str> {
        match self {
            Found::Chain { path, .. } => Some(path),
            _ => None,
        }
    }
}

/// A configuration that no schema describes, as it stands.
fn unchecked(node: Option<&Node>) -> FilterConfiguration {
    match node.map(Node::to_value) {
        None => FilterConfiguration::Text(String::new()),
        Some(Value::String(text)) => FilterConfiguration::Text(text),
        Some(value) => FilterConfiguration::Json(value),
    }
}

/// Whether an error is one that the builder of the chain reports, in better words.
fn is_about_chain(path: &str, wrong_type: bool, chain: &str) -> bool {
    is_below(path, chain) || (wrong_type && path == chain)
}

fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'))
}

fn replace(value: &mut Value, path: &str, with: Value) {
    if let Some(place) = value.pointer_mut(path) {
        *place = with;
    }
}

fn kind(node: &Node) -> &'static str {
    match node.kind {
        Kind::Null => "empty",
        Kind::Bool(_) => "true or false",
        Kind::Number(..) => "a number",
        Kind::Text(_) => "a string",
        Kind::List(_) => "a list",
        Kind::Map(_) => "a map",
    }
}
