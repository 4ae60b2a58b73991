//! An address where connections are never made: what is sent there is lost, as behind a firewall that drops packets.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// How long the kernel may take to accept a connection for a queue that has room.
const PATIENCE: Duration = Duration::from_millis(300);

/// A listening socket with a full queue, which nobody takes a connection from: the kernel drops further ones.
pub struct BlackHole {
    socket: Socket,
    filling: Vec<TcpStream>,
}

impl BlackHole {
    /// On a free port of 127.0.0.1. It blocks for a moment.
    pub fn start() -> BlackHole {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
        socket.listen(0).expect("a listening socket");
        let mut hole = BlackHole { socket, filling: Vec::new() };
        let address = hole.address();
        while let Ok(connection) = TcpStream::connect_timeout(&address, PATIENCE) {
            hole.filling.push(connection);
            assert!(hole.filling.len() < 100, "the queue has no end");
        }
        hole
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        let address = self.socket.local_addr().expect("bound");
        address.as_socket().expect("an address of IP")
    }
}
