//! Sockets: accepting, TLS, HTTP/1.1 and HTTP/2, bounded connections, and the order of the end. Owns every connection.

use super::lifecycle::Phase;
use super::options::ServeOptions;
use super::{ServerError, ServerState, routes};
use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

/// How long answers that are ready may take to be sent once everything is to end.
const FLUSH: Duration = Duration::from_secs(2);

/// Pause where the system has no more descriptors: those that are open will end.
const NO_DESCRIPTORS: Duration = Duration::from_millis(50);

/// Streams of one HTTP/2 connection at most.
const HTTP2_STREAMS: u32 = 256;

/// Serves connections until the phase is `Stopped`, or `Draining` and nothing is under way any more.
pub async fn serve(
    state: Arc<ServerState>,
    listener: std::net::TcpListener,
    tls: Option<TlsAcceptor>,
) -> Result<(), ServerError> {
    let listener = TcpListener::from_std(listener)?;
    let router = routes::router(&state);
    let permits = Arc::new(Semaphore::new(state.options.limits.connections));
    let mut connections: JoinSet<()> = JoinSet::new();
    let ended = drained(&state);
    tokio::pin!(ended);
    loop {
        // A connection beyond the bound waits in the system's own queue.
        let accepting = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = &mut ended => break,
            Some(_over) = connections.join_next() => continue,
            accepted = accepting => accepted,
        };
        let Ok(permit) = permit else { break };
        match accepted {
            Ok((socket, peer)) => {
                let connection = Connection {
                    state: Arc::clone(&state),
                    router: router.clone(),
                    tls: tls.clone(),
                    peer,
                    _permit: permit,
                };
                connections.spawn(connection.run(socket));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                sleep(NO_DESCRIPTORS).await;
            }
        }
    }
    drop(listener);
    state.lifecycle.stop();
    let flushed = timeout(FLUSH, async { while connections.join_next().await.is_some() {} }).await;
    if flushed.is_err() {
        tracing::warn!(connections = connections.len(), "connections are cut off");
    }
    Ok(())
}

/// Waits for the end: at once where everything is to stop, else once nothing is under way or it took too long.
async fn drained(state: &ServerState) {
    let mut phases = state.lifecycle.phases();
    // The sender lives as long as the state.
    let _phase = phases.wait_for(|phase| *phase != Phase::Serving).await.map(|phase| *phase);
    tracing::info!(under_way = state.lifecycle.under_way(), "draining");
    tokio::select! {
        () = state.lifecycle.stopped() => {}
        () = state.lifecycle.idle() => {}
        () = sleep(state.options.shutdown_timeout) => {
            tracing::warn!(under_way = state.lifecycle.under_way(), "the drain took too long");
        }
    }
}

/// One connection.
struct Connection {
    state: Arc<ServerState>,
    router: Router,
    tls: Option<TlsAcceptor>,
    peer: SocketAddr,
    _permit: OwnedSemaphorePermit,
}

/// Where a request came from.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

impl Connection {
    async fn run(self, socket: TcpStream) {
        // Tokens are small, and each is awaited.
        let _slower = socket.set_nodelay(true);
        let open = self.state.metrics.connections.clone();
        open.inc();
        match &self.tls {
            None => self.serve(socket).await,
            Some(tls) => {
                let limit = self.state.options.limits.read_timeout;
                match timeout(limit, tls.accept(socket)).await {
                    Ok(Ok(stream)) => self.serve(stream).await,
                    Ok(Err(error)) => tracing::debug!(peer = %self.peer, %error, "no TLS handshake"),
                    Err(_) => tracing::debug!(peer = %self.peer, "the TLS handshake took too long"),
                }
            }
        }
        open.dec();
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: S) {
        let peer = Peer(self.peer);
        let router = self.router.clone();
        let asked = Arc::new(AtomicBool::new(false));
        let service = tower_service_of(router, peer, Arc::clone(&asked));
        let builder = builder(&self.state.options);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            served = connection.as_mut() => Some(served),
            () = self.state.lifecycle.stopped() => None,
            () = silent(&asked, self.state.options.limits.read_timeout) => {
                tracing::debug!(peer = %self.peer, "nothing was asked in time");
                return;
            }
        };
        let served = match ended {
            Some(served) => served,
            None => {
                connection.as_mut().graceful_shutdown();
                connection.as_mut().await
            }
        };
        if let Err(error) = served {
            // Clients go when they like.
            tracing::debug!(peer = %self.peer, error = %error, "the connection ended");
        }
    }
}

/// Ends once the first request has not come in time. hyper waits without end for what tells the version of HTTP.
async fn silent(asked: &AtomicBool, limit: Duration) {
    sleep(limit).await;
    if asked.load(Ordering::Relaxed) {
        std::future::pending().await
    }
}

/// The routes, told who asks; `asked` is told of the first request.
fn tower_service_of(
    router: Router,
    peer: Peer,
    asked: Arc<AtomicBool>,
) -> impl hyper::service::Service<
    hyper::Request<Incoming>,
    Response = axum::response::Response,
    Error = std::convert::Infallible,
    Future: Send,
> + Clone {
    let inner = TowerToHyperService::new(router);
    hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        asked.store(true, Ordering::Relaxed);
        let mut request: Request<Incoming> = request;
        request.extensions_mut().insert(peer);
        hyper::service::Service::call(&inner, request)
    })
}

fn builder(options: &ServeOptions) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(options.limits.read_timeout);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}
