//! nginx: the yardstick of all ratios. `proxy_pass` with a keep-alive upstream.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{Start, output_of};
use crate::link::{Link, NAME};
use crate::process::find_program;

pub(super) fn find() -> Result<PathBuf> {
    find_program("nginx").context("not installed (Debian: apt-get install nginx-light)")
}

pub(super) fn version(program: &Path) -> Result<String> {
    let text = output_of(program, "-v")?;
    Ok(text.trim().rsplit('/').next().unwrap_or_default().to_owned())
}

pub(super) fn command(start: &Start<'_>) -> Result<Command> {
    let file = start.directory.join("nginx.conf");
    fs::write(&file, configuration(start))?;
    let mut command = Command::new(start.program);
    command.arg("-p").arg(start.directory).arg("-c").arg(&file).args(["-e", "stderr"]);
    Ok(command)
}

/// Whoever starts the master as root gets workers that may not read the scratch directory, hence no `user` change.
fn configuration(start: &Start<'_>) -> String {
    let (listen, backend) = (start.listen, start.backend);
    let directory = start.directory.display();
    let file = |name| start.certificates.file(name);
    let listen = match start.link {
        Link::Http1 => format!("{listen};"),
        Link::Http2 => format!("{listen} http2; http2_max_concurrent_streams 128;"),
        Link::Tls | Link::Mtls => format!(
            "{listen} ssl; ssl_protocols TLSv1.3; ssl_certificate {}; ssl_certificate_key {};",
            file("own.pem"),
            file("own.key")
        ),
    };
    let (clients, scheme, upstream) = match start.link {
        Link::Mtls => (
            format!("ssl_verify_client on; ssl_client_certificate {};", file("ca.pem")),
            "https",
            format!(
                "proxy_ssl_protocols TLSv1.3; proxy_ssl_certificate {}; proxy_ssl_certificate_key {}; \
                 proxy_ssl_verify on; proxy_ssl_trusted_certificate {}; proxy_ssl_name {NAME}; proxy_ssl_server_name on;",
                file("own.pem"),
                file("own.key"),
                file("ca.pem")
            ),
        ),
        _ => (String::new(), "http", String::new()),
    };
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    format!(
        "daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr crit;
{user}
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    keepalive_requests 1000000000;
    client_max_body_size 16m;
    upstream backend {{
        server {backend};
        keepalive 128;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {listen}
        {clients}
        location / {{
            proxy_pass {scheme}://backend;
            {upstream}
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_request_buffering off;    # streamed as by the others, not through a file
            proxy_max_temp_file_size 0;
        }}
    }}
}}
"
    )
}
