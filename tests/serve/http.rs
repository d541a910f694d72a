//! A small HTTP/1.1 client over plain sockets: tests cut, stall and half-close them, which real clients do not.

use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// An answer whose body has not been read.
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: BufReader<TcpStream>,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub text: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The parameter and the word of an error, which has the shape of one.
    pub fn error(&self) -> (Option<String>, String) {
        let error = self.json()["error"].clone();
        let text = |key: &str| error[key].as_str().map(str::to_owned);
        assert!(text("message").is_some_and(|message| !message.is_empty()), "{}", self.text);
        assert!(text("type").is_some() && error.get("param").is_some(), "{}", self.text);
        (text("param"), text("code").expect("a code"))
    }
}

/// Sends a request as it stands.
pub fn raw(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(address).expect("connects");
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
    // A server that has answered already may have closed.
    let _ = socket.write_all(bytes);
    socket
}

/// Sends a request; its answer's head.
pub fn send(address: SocketAddr, method: &str, path: &str, more: &str, body: Option<&str>) -> Answer {
    let body = body.map(|body| {
        format!("content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    });
    let rest = body.unwrap_or_else(|| "\r\n".to_owned());
    let text = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{more}{rest}");
    head(raw(address, text.as_bytes()))
}

/// The head of an answer.
pub fn head(socket: TcpStream) -> Answer {
    let mut body = BufReader::new(socket);
    let mut line = || {
        let mut line = String::new();
        body.read_line(&mut line).expect("a head");
        line.trim_end().to_owned()
    };
    let status = line();
    let status = status.split(' ').nth(1).and_then(|status| status.parse().ok());
    let mut headers = Vec::new();
    loop {
        let line = line();
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Answer { status: status.expect("a status"), headers, body }
}

impl Answer {
    /// The next piece of a body in chunks; `None` behind the last.
    ///
    /// # Errors
    /// The body breaks off.
    pub fn chunk(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let mut size = String::new();
        self.body.read_line(&mut size)?;
        let broken = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        let size = usize::from_str_radix(size.trim(), 16).map_err(|_| broken())?;
        let mut piece = vec![0; size + 2];
        self.body.read_exact(&mut piece)?;
        piece.truncate(size);
        Ok((size > 0).then_some(piece))
    }

    /// The whole.
    pub fn read(mut self) -> Reply {
        let mut bytes = Vec::new();
        let chunked = self.headers.iter().any(|(name, _)| name == "transfer-encoding");
        match chunked {
            true => {
                while let Some(piece) = self.chunk().expect("a whole body") {
                    bytes.extend(piece);
                }
            }
            false => {
                self.body.read_to_end(&mut bytes).expect("a body");
            }
        }
        Reply { status: self.status, headers: self.headers, text: String::from_utf8(bytes).expect("UTF-8") }
    }
}

/// Documents of a stream, without comments; whether it has its end.
pub fn events(text: &str) -> (Vec<Value>, bool) {
    let data: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    let done = data.last() == Some(&"[DONE]");
    let documents = data.into_iter().filter(|data| *data != "[DONE]");
    (documents.map(|data| serde_json::from_str(data).expect("JSON")).collect(), done)
}
