//! A TCP address in front of a server's socket, which can be led elsewhere and spoil answers.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
};

pub struct Forwarder {
    port: u16,
    state: Arc<Mutex<State>>,
}

struct State {
    to: PathBuf,
    /// The next answer ends after so many bytes, and its connection with it.
    cut_after: Option<usize>,
    connections: usize,
    /// The connections before this one take everything and answer nothing.
    silent_before: usize,
}

impl Forwarder {
    pub fn to(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let forwarder = Self {
            port: listener.local_addr().unwrap().port(),
            state: Arc::new(Mutex::new(State {
                to: socket,
                cut_after: None,
                connections: 0,
                silent_before: 0,
            })),
        };
        let state = Arc::clone(&forwarder.state);
        thread::spawn(move || {
            for client in listener.incoming() {
                // Where nobody listens, the client is hung up on.
                let _ = forward(client.unwrap(), &state);
            }
        });
        forwarder
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Leads connections that are opened from now on to another socket.
    pub fn lead_to(&self, socket: PathBuf) {
        self.state.lock().unwrap().to = socket;
    }

    /// Hangs up in the middle of the next answer.
    pub fn cut_next_answer(&self, after: usize) {
        self.state.lock().unwrap().cut_after = Some(after);
    }

    pub fn has_cut(&self) -> bool {
        self.state.lock().unwrap().cut_after.is_none()
    }

    /// The connections that there are stay open, and nothing comes back over them any more.
    pub fn silence(&self) {
        let mut state = self.state.lock().unwrap();
        state.silent_before = state.connections;
    }
}

fn forward(client: TcpStream, state: &Arc<Mutex<State>>) -> io::Result<()> {
    let (number, to) = {
        let mut state = state.lock().unwrap();
        state.connections += 1;
        (state.connections - 1, state.to.clone())
    };
    let server = UnixStream::connect(to)?;
    let (mut questions, mut onward) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut questions, &mut onward);
        let _ = onward.shutdown(Shutdown::Both);
    });
    let state = Arc::clone(state);
    thread::spawn(move || {
        let _ = answer(server, &client, number, &state);
        let _ = client.shutdown(Shutdown::Both);
    });
    Ok(())
}

fn answer(
    mut server: UnixStream,
    mut client: &TcpStream,
    number: usize,
    state: &Mutex<State>,
) -> io::Result<()> {
    let mut bytes = [0; 16 * 1024];
    loop {
        let len = server.read(&mut bytes)?;
        if len == 0 {
            return Ok(());
        }
        let cut = {
            let mut state = state.lock().unwrap();
            if number < state.silent_before {
                continue;
            }
            state.cut_after.take()
        };
        client.write_all(&bytes[..cut.unwrap_or(len).min(len)])?;
        if cut.is_some() {
            return server.shutdown(Shutdown::Both);
        }
    }
}
