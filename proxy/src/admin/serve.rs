//! The admin API's sockets: a bounded number of connections, each bounded in time.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use super::pages;
use super::spare::{SpareFile, is_out_of_files};
use super::state::State;

/// Connections at a time; more wait in the kernel's queue.
const CONNECTIONS: usize = 64;
/// How long a request's head may take, and how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// After this, a connection ends with the request it is at …
const OLD: Duration = Duration::from_secs(120);
/// … or, when that does not end, in the middle of it.
const GRACE: Duration = Duration::from_secs(10);
/// The pause after a failed accept: when the process is out of file descriptors, trying again at once would only burn time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the admin API on this listener. Never returns: drop it to stop; connections being served end by themselves.
pub async fn serve(listener: TcpListener, state: Arc<State>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let spare = Arc::new(SpareFile::new());
    loop {
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        spare.restore();
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(connection(stream, Arc::clone(&state), permit, true))),
            Err(error) if is_out_of_files(&error) && spare.is_there() => {
                if let Some(stream) = spare.accept(&listener).await {
                    let (state, spare) = (Arc::clone(&state), Arc::clone(&spare));
                    drop(tokio::spawn(on_spare_file(stream, state, permit, spare)));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the admin API cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A connection that has the spare file's descriptor has it for one request, so that the next client finds one.
async fn on_spare_file(
    stream: TcpStream,
    state: Arc<State>,
    permit: OwnedSemaphorePermit,
    spare: Arc<SpareFile>,
) {
    connection(stream, state, permit, false).await;
    // At once: a worker with clients that wait would take the descriptor.
    spare.restore();
}

async fn connection(stream: TcpStream, state: Arc<State>, _permit: OwnedSemaphorePermit, keep_alive: bool) {
    let service = service_fn(|request: Request<Incoming>| {
        let state = Arc::clone(&state);
        async move {
            let (request, _body) = request.into_parts();
            Ok::<Response<String>, Infallible>(pages::answer(&request, &state).await)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(keep_alive)
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = match timeout(OLD, connection.as_mut()).await {
        Ok(ended) => ended,
        Err(_) => {
            connection.as_mut().graceful_shutdown();
            timeout(GRACE, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an admin connection ended early");
    }
}
