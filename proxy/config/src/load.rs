//! The way from a path to a checked configuration, step by step.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::assemble::{Resolved, assemble};
use crate::chains::Builder;
use crate::diagnostic::Report;
use crate::file;
use crate::files::Files;
use crate::filters::Filters;
use crate::schema::Checker;
use crate::tree::{Kind, Node};
use crate::{
    Chain, Config, Diagnostics, FilterUse, Modules, Position, Source, forwarded, isolation, opaque,
    passthrough, references, tls, yaml,
};

/// Largest configuration file, in bytes.
const LARGEST: usize = 4 << 20;

/// What came of loading a file.
#[derive(Debug)]
pub struct Load {
    /// The configuration, or everything that is wrong with it.
    pub outcome: Result<Config, Diagnostics>,
    /// Every file that was looked at, also on failure, the configuration itself first: a change to any of them, or its
    /// coming into being, can change the outcome.
    pub files: Vec<PathBuf>,
}

/// Loads and checks a configuration file. Never panics, whatever the file holds; reads files and resolves host names,
/// so it may take a while.
///
/// Everything in the file is checked, used or not: a chain that no listener names, a cluster that nothing refers to and
/// an entry of `filters:` that no chain mentions are no errors, but mistakes in them are.
pub fn load(path: &Path, modules: &mut dyn Modules) -> Load {
    let name = path.display().to_string();
    let text = match read(path, "configuration") {
        Ok(text) => text,
        Err((message, at)) => {
            let diagnostic = Source::new(name, "").diagnostic(at, message, None);
            return Load { outcome: Err(diagnostic.into()), files: vec![path.to_owned()] };
        }
    };
    let base = path.parent().unwrap_or(Path::new(""));
    let mut load = load_text(&name, text, base, modules);
    load.files.insert(0, path.to_owned());
    load
}

/// Loads and checks a configuration that is not, or not yet, in a file. `name` is what diagnostics call it; relative
/// paths in it are resolved against `base`.
pub fn load_text(name: &str, text: impl Into<String>, base: &Path, modules: &mut dyn Modules) -> Load {
    let source = Arc::new(Source::new(name, text));
    let mut files = Files::new(base);
    let outcome = check(&source, modules, &mut files);
    Load { outcome, files: files.into_seen() }
}

/// Reads a file that is one of ours: `what` it is.
pub(crate) fn read(path: &Path, what: &str) -> Result<String, (String, Position)> {
    let whole = |message: String| (message, Position::default());
    let unreadable = |error: std::io::Error| whole(format!("cannot read the {what}: {error}"));
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(LARGEST as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > LARGEST {
        return Err(whole(format!("the {what} is larger than {} MiB", LARGEST >> 20)));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let position = Source::new("", String::from_utf8_lossy(valid)).position(valid.len());
        whole(format!("the {what} is not UTF-8: see line {}, column {}", position.line, position.column))
    })
}

fn check(source: &Arc<Source>, modules: &mut dyn Modules, files: &mut Files) -> Result<Config, Diagnostics> {
    let mut report = Report::new(source);
    if source.text().len() > LARGEST {
        report.error(Position::default(), format!("the configuration is larger than {} MiB", LARGEST >> 20));
        return Err(report.finish());
    }
    let Some(root) = yaml::parse(source, &mut report) else { return Err(report.finish()) };
    check_form(&root, &mut report);
    let clusters = references::clusters(&root, &mut report);
    references::listeners(&root, &clusters, &mut report);
    references::bounds(&root, &mut report);
    tls::check(&root, files, &mut report);
    passthrough::check(&root, &clusters, &mut report);
    opaque::check(&root, &clusters, &mut report);
    forwarded::check(&root, &mut report);
    let endpoints = references::endpoints(&root, files, &mut report);
    isolation::clusters(&root, &clusters, &mut report);
    let (chains, services) = build_chains(&root, &clusters, modules, files, &mut report);
    isolation::places(&chains, &services, &mut report);
    if !report.is_clean() {
        return Err(report.finish());
    }
    assemble(source, &root, Resolved { chains, services, endpoints }, files).map_err(|reason| {
        // The schema and the types say the same, so this does not happen; if it does, refusing is right.
        source
            .diagnostic(Position::default(), format!("the configuration is not understood: {reason}"), None)
            .into()
    })
}

/// Checks the file against its schema, chains apart: their builder says more about them.
fn check_form(root: &Node, report: &mut Report<'_>) {
    static CHECKER: OnceLock<Result<Checker, String>> = OnceLock::new();
    match CHECKER.get_or_init(|| Checker::new(file::schema())) {
        Ok(checker) => {
            for problem in checker.check(root, "the configuration") {
                if !is_inside_chain(&problem.path) {
                    report.push(problem.at, &problem.message, problem.hint.as_deref());
                }
            }
        }
        Err(error) => report.error(Position::default(), format!("the configuration's own schema {error}")),
    }
}

fn is_inside_chain(path: &str) -> bool {
    path.strip_prefix("/chains/").is_some() || path == "/services" || path.starts_with("/services/")
}

fn build_chains(
    root: &Node,
    clusters: &BTreeSet<&str>,
    modules: &mut dyn Modules,
    files: &mut Files,
    report: &mut Report<'_>,
) -> (Vec<Chain>, Vec<FilterUse>) {
    let mut filters = Filters::read(root, modules, files, report);
    let entries = root.get("chains").map(Node::entries).unwrap_or_default();
    let mut builder =
        Builder { filters: &mut filters, clusters, files, report, named: entries.len(), done: Vec::new() };
    let mut chains = Vec::new();
    for entry in entries {
        if let Kind::Null = entry.value.kind {
            let message = format!("the chain {} is empty", crate::words::quoted(&entry.key));
            builder.report.error_with(entry.at, message, "write `[]` for a chain without filters");
        } else {
            chains.push(builder.chain(&entry.key, &entry.value, 0));
        }
    }
    let services = root.get("services").filter(|node| !matches!(node.kind, Kind::Null));
    let services = services.map(|node| builder.chain("services", node, 0).filters).unwrap_or_default();
    chains.append(&mut builder.done);
    filters.report_unused(report);
    (chains, services)
}
