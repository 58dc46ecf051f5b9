//! `git://`: one connection, one request line, then the protocol both ways.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use git2::transport::{Service, SmartSubtransport, SmartSubtransportStream};

use super::super::error::{SourceErrorKind, Trouble};
use super::{Context, NOTICE};

const PORT: u16 = 9418;

/// Makes the one stream of a `git://` remote.
pub(crate) struct TcpTransport {
    context: Context,
}

impl TcpTransport {
    pub(crate) fn new(context: Context) -> Self {
        Self { context }
    }

    fn open(&self, url: &str) -> Result<Stream, Trouble> {
        let (host, port, path) = parse(url)?;
        let unusable = |error: std::io::Error| Trouble::io("preparing the connection", &error);
        let stream = self.context.connect(host.trim_matches(['[', ']']), port)?;
        let stream = stream.into_std().map_err(unusable)?;
        stream.set_nonblocking(false).map_err(unusable)?;
        // Reads and writes wake up often enough to notice the deadline and a cancellation.
        stream.set_read_timeout(Some(NOTICE)).map_err(unusable)?;
        stream.set_write_timeout(Some(NOTICE)).map_err(unusable)?;
        let mut stream = Stream { stream, context: self.context.clone() };
        let line = format!("git-upload-pack {path}\0host={host}\0");
        let request = format!("{:04x}{line}", line.len() + 4);
        stream.write_all(request.as_bytes()).map_err(|error| Trouble::io("asking the server", &error))?;
        Ok(stream)
    }
}

/// Host, port and path of a `git://` URL.
fn parse(url: &str) -> Result<(&str, u16, &str), Trouble> {
    let bad = || {
        let mend = "write git://HOST[:PORT]/PATH";
        Trouble::new(SourceErrorKind::Unsupported, "the URL is not understood", mend)
    };
    let rest = url.strip_prefix("git://").ok_or_else(bad)?;
    let (authority, path) = rest.split_at(rest.find('/').ok_or_else(bad)?);
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    // The colons of an IPv6 address are inside brackets.
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| bad())?),
        _ => (authority, PORT),
    };
    // A zero byte or a line end would smuggle something into the request line.
    if host.is_empty() || url.contains(['\0', '\n']) { Err(bad()) } else { Ok((host, port, path)) }
}

impl SmartSubtransport for TcpTransport {
    fn action(&self, url: &str, action: Service) -> Result<Box<dyn SmartSubtransportStream>, git2::Error> {
        match action {
            Service::UploadPackLs | Service::UploadPack => {
                let stream = self.open(url).map_err(|trouble| self.context.fail_git(trouble))?;
                Ok(Box::new(stream))
            }
            Service::ReceivePackLs | Service::ReceivePack => {
                let mend = "push over another scheme";
                Err(self.context.fail_git(Trouble::new(SourceErrorKind::Unsupported, "sources are only read", mend)))
            }
        }
    }

    fn close(&self) -> Result<(), git2::Error> {
        Ok(())
    }
}

struct Stream {
    stream: TcpStream,
    context: Context,
}

impl Stream {
    fn until_deadline(
        &mut self,
        during: &str,
        mut step: impl FnMut(&mut TcpStream) -> std::io::Result<usize>,
    ) -> std::io::Result<usize> {
        loop {
            match step(&mut self.stream) {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    self.context.limits.check(during).map_err(|trouble| self.context.fail(trouble))?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    let mend = "it is tried again at the next look";
                    let trouble = Trouble::new(SourceErrorKind::Network, format!("{during}: {error}"), mend);
                    return Err(self.context.fail(trouble));
                }
                Ok(count) => {
                    // A server that drips a byte now and then must not outlive the deadline either.
                    if Instant::now() >= self.context.limits.deadline {
                        return Err(self.context.fail(Trouble::timeout(during)));
                    }
                    return Ok(count);
                }
            }
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.until_deadline("reading from the server", |stream| stream.read(buffer))
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.until_deadline("writing to the server", |stream| stream.write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_give_host_port_and_path() {
        assert_eq!(parse("git://h/a.git"), Ok(("h", PORT, "/a.git")));
        assert_eq!(parse("git://u@h:77/a"), Ok(("h", 77, "/a")));
        assert_eq!(parse("git://[::1]:77/a"), Ok(("[::1]", 77, "/a")));
        assert_eq!(parse("git://[::1]/a"), Ok(("[::1]", PORT, "/a")));
        for bad in ["git://h", "git:///a", "git://h:x/a", "git://h/a\nb", "http://h/a"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
