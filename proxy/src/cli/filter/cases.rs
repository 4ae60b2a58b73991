//! `meshgate filter test`: runs cases against a compiled module, in a real Meshgate with real sockets.

mod form;
mod gate;
mod grpc;
mod judge;
mod message;
mod servers;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
pub(super) use form::{Answer, Case};
use form::{Expected, File, Request, Several};
use gate::{Around, Gate, Started};
pub(super) use grpc::GrpcAnswering;
use http_body_util::Full;
use judge::Differences;
use serde_json::Value;
pub(super) use servers::Answering;
use servers::Server;

use crate::cli::{FAILED, print, refuse};

/// What the cluster at the end of the chain is called.
const UPSTREAM: &str = "upstream";
/// An exchange that takes longer will not end.
const EXCHANGE: Duration = Duration::from_secs(60);
/// What clients ask for where a case says nothing.
const AUTHORITY: &str = "filter.test";

/// A module under the name that configurations give it.
pub(super) struct Subject {
    pub(super) name: String,
    pub(super) module: PathBuf,
}

/// Runs every file of cases in a folder, or one file.
pub(super) fn run(subject: &Subject, cases: &Path) -> Result<ExitCode> {
    let files = files(cases)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut tally = Tally::default();
    for path in &files {
        let file = match load(path) {
            Ok(file) => file,
            Err(refused) => return Ok(refused),
        };
        tally.text.push_str(&format!("{}\n", path.display()));
        for case in &file.cases {
            let local = tokio::task::LocalSet::new();
            let config = case.config.as_ref().unwrap_or(&file.config);
            let outcome = local.block_on(&runtime, one(subject, case, config));
            tally.add(&case.name, outcome.with_context(|| format!("{}: {}", path.display(), case.name))?);
        }
    }
    tally.finish()
}

/// Reads a file of cases. What is wrong with it has been said.
pub(super) fn load(path: &Path) -> Result<File, ExitCode> {
    meshgate_config::load_document(path, "file of cases").map_err(|diagnostics| refuse(&diagnostics))
}

/// The files in a folder of cases, or the one file.
pub(super) fn files(cases: &Path) -> Result<Vec<PathBuf>> {
    if cases.is_file() {
        return Ok(vec![cases.to_owned()]);
    }
    let entries = std::fs::read_dir(cases).with_context(|| {
        format!("there are no cases in {}: files of YAML, one list of cases each", cases.display())
    })?;
    let mut files: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml"));
    files.sort();
    ensure!(!files.is_empty(), "no file in {} ends with .yaml", cases.display());
    Ok(files)
}

/// What came of a case: nothing, or what differs and the log.
type Outcome = Option<(Vec<String>, Vec<String>)>;

#[derive(Default)]
struct Tally {
    text: String,
    passed: usize,
    failed: usize,
}

impl Tally {
    fn add(&mut self, name: &str, outcome: Outcome) {
        match outcome {
            None => {
                self.passed += 1;
                self.text.push_str(&format!("  ok    {name}\n"));
            }
            Some((differences, log)) => {
                self.failed += 1;
                self.text.push_str(&format!("  FAIL  {name}\n"));
                for line in differences.iter().flat_map(|difference| difference.lines()) {
                    self.text.push_str(&format!("        {line}\n"));
                }
                for line in log {
                    self.text.push_str(&format!("        | {line}\n"));
                }
            }
        }
    }

    fn finish(self) -> Result<ExitCode> {
        let failed = if self.failed == 0 { String::new() } else { format!(", {} failed", self.failed) };
        print(&format!("{}{} passed{failed}\n", self.text, self.passed));
        Ok(if self.failed == 0 { ExitCode::SUCCESS } else { FAILED.into() })
    }
}

async fn one(subject: &Subject, case: &Case, config: &Value) -> Result<Outcome> {
    let servers = start_servers(case).await?;
    let clusters: Vec<_> = servers.iter().map(|(name, server)| (name.clone(), server.address())).collect();
    let around = Around { filter: (&subject.name, &subject.module), config, clusters: &clusters };
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let gate = match Gate::start(&around, folder.path()).await? {
        Started::Running(gate) => *gate,
        Started::Refused(said) => return Ok(refused(&case.expect, said)),
    };
    if case.expect.refused.is_some() {
        return Ok(Some((
            vec!["the configuration should have been refused, and was not".to_owned()],
            Vec::new(),
        )));
    }
    let mut differences = Differences::default();
    let first = (&case.request, &case.upstream, &case.clusters, &case.expect);
    let then = case.then.iter().map(|step| (&step.request, &step.upstream, &step.clusters, &step.expect));
    let mut logged = Vec::new();
    for (request, upstream, clusters, expected) in std::iter::once(first).chain(then) {
        let told = |name: &str| if name == UPSTREAM { Some(upstream) } else { clusters.get(name) };
        for (name, server) in &servers {
            server.answer(answering(told(name).unwrap_or(&Answer::default()))?);
        }
        exchange(&gate, request, expected, &servers, &mut differences).await?;
        logged.extend_from_slice(&expected.log);
    }
    let log = gate.stop().await?;
    differences.log(&logged, &log);
    let Differences(differences) = differences;
    Ok(if differences.is_empty() { None } else { Some((differences, log)) })
}

fn refused(expected: &Expected, said: String) -> Outcome {
    match &expected.refused {
        Some(part) if said.contains(part.as_str()) => None,
        Some(part) => Some((vec![format!("the refusal should contain {part:?}"), said], Vec::new())),
        None => Some((vec!["the configuration was refused:".to_owned(), said], Vec::new())),
    }
}

/// A server for each cluster that the case names anywhere, the upstream first.
async fn start_servers(case: &Case) -> Result<Vec<(String, Server)>> {
    let steps = case.then.iter();
    let mut names: BTreeSet<&str> = steps.flat_map(|step| step.clusters.keys()).map(String::as_str).collect();
    names.extend(case.clusters.keys().map(String::as_str));
    names.remove(UPSTREAM);
    let mut servers = vec![(UPSTREAM.to_owned(), Server::start().await?)];
    for name in names {
        servers.push((name.to_owned(), Server::start().await?));
    }
    Ok(servers)
}

async fn exchange(
    gate: &Gate,
    request: &Request,
    expected: &Expected,
    servers: &[(String, Server)],
    differences: &mut Differences,
) -> Result<()> {
    let asked =
        tokio::time::timeout(EXCHANGE, servers::ask(gate.address(), written(request)?.map(Full::new))).await;
    match asked.context("the exchange took too long")? {
        Ok(response) => {
            if let Some(expected) = &expected.response {
                differences.response(expected, &response);
            }
        }
        Err(error) => differences.0.push(format!("the client got no response: {error}")),
    }
    let server =
        |name: &str| servers.iter().find(|(known, _)| known == name).map(|(_, server)| server.asked());
    if let Some(calls) = &expected.upstream {
        differences.calls(UPSTREAM, calls, &server(UPSTREAM).unwrap_or_default());
    }
    for (name, calls) in &expected.clusters {
        match server(name) {
            Some(asked) => differences.calls(&format!("cluster {name}"), calls, &asked),
            None => bail!("`clusters` says nothing of {name}: what should it answer?"),
        }
    }
    Ok(())
}

/// The request as it is sent.
pub(super) fn written(request: &Request) -> Result<http::Request<Bytes>> {
    let mut written = http::Request::builder().method(request.method.as_str()).uri(&request.path);
    if !request.headers.contains_key("host") {
        written = written.header("host", AUTHORITY);
    }
    for (name, value) in fields(&request.headers) {
        written = written.header(name, value);
    }
    written.body(Bytes::from(request.body.clone())).context("the request cannot be sent")
}

/// What a server does with a request.
pub(super) fn answering(answer: &Answer) -> Result<Answering> {
    let mut response = http::Response::builder().status(answer.status);
    for (name, value) in fields(&answer.headers) {
        response = response.header(name, value);
    }
    let response = response.body(Bytes::from(answer.body.clone())).context("the answer cannot be sent")?;
    let delay =
        answer.delay.as_deref().map(meshgate_config::parse_duration).transpose().context("`delay`")?;
    let grpc = answer.grpc.as_ref().map(GrpcAnswering::of).transpose().map_err(anyhow::Error::msg)?;
    Ok(Answering { response, delay: delay.unwrap_or_default(), fails: answer.fails, grpc })
}

fn fields(fields: &BTreeMap<String, Several>) -> impl Iterator<Item = (&str, &str)> {
    fields
        .iter()
        .flat_map(|(name, several)| several.values().iter().map(move |value| (name.as_str(), value.as_str())))
}
