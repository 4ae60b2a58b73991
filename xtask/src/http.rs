//! A tiny HTTP/1.1 client and server over the standard library's sockets. Used by `demo`, so that it needs no curl.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

const LIMIT: Duration = Duration::from_secs(10);

/// An answer, as far as the demo looks at it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The head without the status line, names in lower case.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Sends one GET request on a connection of its own.
pub(crate) fn get(address: SocketAddr, path: &str, fields: &[(&str, &str)]) -> Result<Answer> {
    let mut stream =
        TcpStream::connect_timeout(&address, LIMIT).with_context(|| format!("no answer from {address}"))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let mut request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    for (name, value) in fields {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes())?;

    let mut reader = BufReader::new(stream);
    let status_line = read_line(&mut reader)?;
    let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.with_context(|| format!("not an HTTP answer: {status_line:?}"))?;
    let fields = read_fields(&mut reader)?;
    let find = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let body = match (find("transfer-encoding"), find("content-length")) {
        (Some(coding), _) if coding.eq_ignore_ascii_case("chunked") => read_chunks(&mut reader)?,
        (_, Some(length)) => read_exactly(&mut reader, length.parse().context("a wrong content-length")?)?,
        _ => {
            let mut rest = Vec::new();
            reader.read_to_end(&mut rest)?;
            rest
        }
    };
    Ok(Answer { status, fields, body: String::from_utf8_lossy(&body).into_owned() })
}

/// Answers every request to `listener` with 200 and one line that says who answered what, for ever.
pub(crate) fn serve(listener: TcpListener, name: &'static str) {
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A connection that breaks is its client's concern.
            thread::spawn(move || serve_connection(stream, name).ok());
        }
    });
}

fn serve_connection(mut stream: TcpStream, name: &str) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let line = read_line(&mut reader)?;
        let mut words = line.split(' ');
        let (Some(method), Some(path)) = (words.next(), words.next()) else {
            bail!("not a request: {line:?}")
        };
        let fields = read_fields(&mut reader)?;
        let find =
            |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        if let Some(length) = find("content-length") {
            read_exactly(&mut reader, length.parse()?)?;
        } else if find("transfer-encoding").is_some() {
            read_chunks(&mut reader)?;
        }
        let body = format!("{name}: {method} {path}\n");
        let length = body.len();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all((head + &body).as_bytes())?;
    }
}

fn read_line(reader: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        bail!("the connection was closed");
    }
    Ok(line.trim_end().to_owned())
}

fn read_fields(reader: &mut impl BufRead) -> Result<Vec<(String, String)>> {
    let mut fields = Vec::new();
    loop {
        let line = read_line(reader)?;
        let Some((name, value)) = line.split_once(':') else { break };
        fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Ok(fields)
}

fn read_exactly(reader: &mut impl BufRead, length: usize) -> Result<Vec<u8>> {
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(body)
}

fn read_chunks(reader: &mut impl BufRead) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(reader)?;
        let length = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)
            .with_context(|| format!("a wrong chunk size: {line:?}"))?;
        if length == 0 {
            read_fields(reader)?;
            return Ok(body);
        }
        body.extend(read_exactly(reader, length)?);
        read_line(reader)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_understands_the_server() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        serve(listener, "demo");
        let answer = get(address, "/a?b", &[("x-c", "d")]).unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "demo: GET /a?b\n"));
        assert_eq!(answer.field("content-type"), Some("text/plain"));
    }

    #[test]
    fn chunks_are_put_together() {
        let mut text = &b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nx-trailer: 1\r\n\r\nrest"[..];
        assert_eq!(read_chunks(&mut text).unwrap(), b"abcde");
        assert_eq!(text, b"rest");
    }
}
