//! The filters that chains can name: the entries of `filters:` and the standard filters, and what their modules'
//! manifests say.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::rc::Rc;

use crate::diagnostic::Report;
use crate::file::FilterEntry;
use crate::files::Files;
use crate::isolation::{Capabilities, Isolation};
use crate::limits::FilterLimits;
use crate::manifest;
use crate::model::{FilterConfiguration, OnError, Surroundings};
use crate::schema::Checker;
use crate::tree::{Entry, Node};
use crate::words::{quoted, suggestion};
use crate::{ModuleSource, Modules, Position, formats};

/// A filter that chains can name.
#[derive(Clone)]
pub(crate) struct Filter {
    /// Its module; `None` if it has none that can be used, which has been reported.
    pub(crate) module: Option<ModuleSource>,
    pub(crate) sha256: Option<String>,
    pub(crate) on_error: OnError,
    pub(crate) limits: FilterLimits,
    pub(crate) may: Capabilities,
    pub(crate) isolation: Isolation,
    pub(crate) vm: String,
    pub(crate) singleton: bool,
    pub(crate) surroundings: Surroundings,
    pub(crate) schema: Schema,
    /// Where its module is named.
    at: Position,
    used: bool,
}

/// What is known of the configuration that a module takes.
#[derive(Clone)]
pub(crate) enum Schema {
    /// It is checked against this.
    Checked(Rc<Checker>),
    /// Any: the module carries no manifest, or a manifest without a schema.
    Any,
    /// The module's manifest cannot be used; why, as the end of a sentence about the module.
    Faulty(String),
}

/// What asking for a module's manifest brought.
type Answer = Result<Schema, String>;

/// The filters that chains can name.
pub(crate) struct Filters<'m> {
    modules: &'m mut dyn Modules,
    standard: BTreeSet<String>,
    named: BTreeMap<String, Filter>,
    asked: HashMap<(ModuleSource, Option<String>), Answer>,
}

impl<'m> Filters<'m> {
    /// Reads the entries of `filters:`, used or not, and asks for their modules' manifests.
    pub(crate) fn read(
        root: &Node,
        modules: &'m mut dyn Modules,
        files: &mut Files,
        report: &mut Report<'_>,
    ) -> Self {
        let standard = modules.standard().into_iter().collect();
        let mut filters = Self { modules, standard, named: BTreeMap::new(), asked: HashMap::new() };
        for entry in root.get("filters").map(Node::entries).unwrap_or_default() {
            let filter = filters.entry(entry, files, report);
            filters.named.insert(entry.key.clone(), filter);
        }
        filters
    }

    /// The filter with this name, first among the entries of `filters:`, then among the standard ones. `None` if there
    /// is none, which is reported.
    pub(crate) fn find(&mut self, name: &str, at: Position, report: &mut Report<'_>) -> Option<Filter> {
        if let Some(filter) = self.named.get_mut(name) {
            filter.used = true;
            return Some(filter.clone());
        }
        if !self.standard.contains(name) {
            let known = self.named.keys().chain(&self.standard).map(String::as_str);
            let hint = match suggestion(name, known) {
                Some(hint) if hint.starts_with("did you") => hint,
                _ => format!("give {} an entry in `filters:` that names its module", quoted(name)),
            };
            report.error_with(at, format!("unknown filter {}", quoted(name)), hint);
            return None;
        }
        let source = ModuleSource::Standard(name.to_owned());
        let mut filter = Filter {
            module: Some(source.clone()),
            sha256: None,
            on_error: OnError::default(),
            limits: FilterLimits::default(),
            may: Capabilities::default(),
            isolation: Isolation::default(),
            vm: String::new(),
            singleton: false,
            surroundings: Surroundings::default(),
            schema: Schema::Any,
            at,
            used: true,
        };
        match self.ask(&source, None) {
            Ok(schema) => filter.schema = schema,
            Err(reason) => {
                report.error(at, reason);
                filter.module = None;
            }
        }
        self.named.insert(name.to_owned(), filter.clone());
        Some(filter)
    }

    /// Reports faulty manifests of filters that no chain uses; for the others, every use has been reported.
    pub(crate) fn report_unused(&self, report: &mut Report<'_>) {
        for (name, filter) in self.named.iter().filter(|(_, filter)| !filter.used) {
            if let Schema::Faulty(reason) = &filter.schema {
                report.error(filter.at, format!("the module of {} is at fault: {reason}", quoted(name)));
            }
        }
    }

    fn entry(&mut self, entry: &Entry, files: &mut Files, report: &mut Report<'_>) -> Filter {
        let settings: FilterEntry = serde_json::from_value(entry.value.to_value()).unwrap_or_else(|error| {
            // What does not fit the schema has been reported already, in better words.
            if report.is_clean() {
                report.error(entry.at, format!("{} is not understood: {error}", quoted(&entry.key)));
            }
            FilterEntry::default()
        });
        let mut filter = Filter {
            module: None,
            sha256: pin(&entry.value),
            on_error: settings.on_error,
            limits: settings.limits.resolve(),
            may: settings.may,
            isolation: settings.isolation,
            vm: settings.vm.map(|name| name.0).unwrap_or_default(),
            singleton: settings.singleton,
            surroundings: Surroundings {
                root_id: settings.root_id,
                vm_configuration: FilterConfiguration::of(settings.vm_configuration),
                environment: settings.environment.into_iter().collect(),
                compatibility: settings.compatibility,
            },
            schema: Schema::Any,
            at: entry.at,
            used: false,
        };
        let Some((source, at)) = self.source(entry, files, report) else { return filter };
        filter.at = at;
        if entry.value.get("sha256").is_some() && filter.sha256.is_none() {
            // A broken pin is an error of its own; whether the module matches it cannot be asked.
            filter.module = Some(source);
            return filter;
        }
        match self.ask(&source, filter.sha256.as_deref()) {
            Ok(schema) => {
                filter.schema = schema;
                filter.module = Some(source);
            }
            Err(reason) => report.error(at, reason),
        }
        filter
    }

    /// Where an entry's module comes from, and where the entry says so.
    fn source(
        &self,
        entry: &Entry,
        files: &mut Files,
        report: &mut Report<'_>,
    ) -> Option<(ModuleSource, Position)> {
        match entry.value.get("module") {
            Some(module) => {
                let name = module.as_text().filter(|name| !name.is_empty())?;
                let path: PathBuf = files.resolve(name);
                Some((ModuleSource::File(path), module.at))
            }
            None if self.standard.contains(&entry.key) => {
                Some((ModuleSource::Standard(entry.key.clone()), entry.at))
            }
            // Anything but a map has been reported as such.
            None if entry.value.as_map().is_none() => None,
            None => {
                let message = format!("missing key `module` in {}", quoted(&entry.key));
                let standard = self.standard.iter().map(String::as_str);
                let hint = match crate::words::nearest(&entry.key, standard) {
                    Some(near) => format!(
                        "{} is not a standard filter; did you mean {}?",
                        quoted(&entry.key),
                        quoted(near)
                    ),
                    None => {
                        format!("only the standard filters need none, and {} is not one", quoted(&entry.key))
                    }
                };
                report.error_with(entry.at, message, hint);
                None
            }
        }
    }

    /// Asks for a manifest, once per source and pin.
    fn ask(&mut self, source: &ModuleSource, sha256: Option<&str>) -> Answer {
        let key = (source.clone(), sha256.map(str::to_owned));
        if let Some(answer) = self.asked.get(&key) {
            return answer.clone();
        }
        let answer = match self.modules.manifest(source, sha256) {
            Err(reason) => Err(reason),
            Ok(None) => Ok(Schema::Any),
            Ok(Some(bytes)) => Ok(match manifest::configuration_schema(&bytes) {
                Ok(Some(schema)) => Schema::Checked(Rc::new(schema)),
                Ok(None) => Schema::Any,
                Err(reason) => Schema::Faulty(reason),
            }),
        };
        self.asked.insert(key, answer.clone());
        answer
    }
}

/// The pin in an entry, if it is one.
fn pin(entry: &Node) -> Option<String> {
    let text = entry.get("sha256")?.as_text()?;
    formats::complaint("sha256", text).is_none().then(|| text.to_owned())
}
