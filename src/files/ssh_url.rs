//! Addresses of repositories over ssh: `ssh://user@host[:port]/path` and `user@host:path`, the two forms git itself has.
//!
//! Invariant: an address that was parsed here holds nothing that could be taken for an option, a second line or
//! a second command, wherever it is used.

use super::keys::Problem;

/// The port of ssh.
pub const PORT: u16 = 22;

/// Where a repository lies behind ssh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshAddress {
    /// Who to sign in as.
    pub user: String,
    /// Name or address, in lower case and without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The repository, as the server is to be asked for it.
    pub path: String,
}

/// Whether a text that names a repository means one behind ssh.
pub fn is_ssh(url: &str) -> bool {
    match url.split_once("://") {
        Some((scheme, _)) => scheme == "ssh",
        // A path with a colon in it has a slash before that: `./a:b`.
        None => scp_like(url).is_some(),
    }
}

/// Host and path of `[user@]host:path`; an IPv6 address has brackets.
pub fn scp_like(url: &str) -> Option<(&str, &str)> {
    let end = match url.find('[') {
        Some(open) if url[..open].is_empty() || url[..open].ends_with('@') => url.find("]:")? + 1,
        _ => url.find(':')?,
    };
    let (authority, path) = (&url[..end], &url[end + 1..]);
    (!authority.contains('/')).then_some((authority, path))
}

impl SshAddress {
    /// Reads either form.
    pub fn parse(url: &str) -> Result<Self, Problem> {
        let bad =
            || Problem::hinted(format!("`{url}` names no repository"), "ssh://USER@HOST[:PORT]/PATH or USER@HOST:PATH");
        if url.contains(char::is_control) {
            return Err(Problem::new("must not contain control characters"));
        }
        let (authority, path, port) = match url.strip_prefix("ssh://") {
            Some(rest) => {
                let (authority, path) = rest.split_at(rest.find('/').ok_or_else(bad)?);
                let (authority, port) = split_port(authority).ok_or_else(bad)?;
                // `/~user/x` is a path in somebody's home; the slash only ends the host.
                let path = decoded(path).ok_or_else(bad)?;
                (authority, path.strip_prefix("/~").map(|rest| format!("~{rest}")).unwrap_or(path), port)
            }
            None => {
                let (authority, path) = scp_like(url).ok_or_else(bad)?;
                (authority, path.to_owned(), PORT)
            }
        };
        let (user, host) = authority.rsplit_once('@').ok_or_else(|| {
            Problem::hinted("must name the user to sign in as", "most forges want `git`: git@HOST:PATH")
        })?;
        if user.contains(':') {
            return Err(Problem::new("a URL must not carry a password; it would show up in logs"));
        }
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if !is_word(user, "._-+@") || !is_word(host, ".-_:") || matches!(path.trim_matches('/'), "" | "~") {
            return Err(bad());
        }
        if path.starts_with('-') || path.contains(char::is_control) {
            return Err(bad());
        }
        Ok(Self { user: user.to_owned(), host: host.to_ascii_lowercase(), port, path })
    }
}

/// The colons of an IPv6 address are inside brackets.
fn split_port(authority: &str) -> Option<(&str, u16)> {
    match authority.rsplit_once(':') {
        Some((host, port))
            if !port.ends_with(']') && (!host.contains(':') || host.ends_with(']') || host.contains('@')) =>
        {
            Some((host, port.parse().ok().filter(|port| *port != 0)?))
        }
        _ => Some((authority, PORT)),
    }
}

/// Whether a text is letters, digits and `others`, and no option.
fn is_word(text: &str, others: &str) -> bool {
    !text.is_empty() && !text.starts_with('-') && text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
}

/// A path with its `%20` and the like undone.
fn decoded(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                u8::try_from(high * 16 + low).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(url: &str) -> (String, String, u16, String) {
        let SshAddress { user, host, port, path } =
            SshAddress::parse(url).unwrap_or_else(|problem| panic!("{url}: {problem:?}"));
        (user, host, port, path)
    }

    #[test]
    fn both_forms_give_user_host_port_and_path() {
        for (url, user, host, port, path) in [
            ("ssh://git@h.example.com/a/b.git", "git", "h.example.com", 22, "/a/b.git"),
            ("ssh://git@H.Example.com:2222/a", "git", "h.example.com", 2222, "/a"),
            ("ssh://git@[::1]:2222/a", "git", "::1", 2222, "/a"),
            ("ssh://git@[::1]/a", "git", "::1", 22, "/a"),
            ("ssh://git@h/~/a", "git", "h", 22, "~/a"),
            ("ssh://git@h/~bob/a", "git", "h", 22, "~bob/a"),
            ("ssh://git@h/a%20b", "git", "h", 22, "/a b"),
            ("git@github.com:acme/fleet.git", "git", "github.com", 22, "acme/fleet.git"),
            ("git@[::1]:a", "git", "::1", 22, "a"),
            ("org-1@h:v3/a:b", "org-1", "h", 22, "v3/a:b"),
        ] {
            assert!(is_ssh(url), "{url}");
            assert_eq!(address(url), (user.into(), host.into(), port, path.into()), "{url}");
        }
    }

    #[test]
    fn paths_and_other_schemes_are_not_ssh() {
        for url in ["/srv/a:b", "./a:b", "../a", "https://h:1/a", "git://h/a", "file:///a:b", "a"] {
            assert!(!is_ssh(url), "{url}");
        }
    }

    #[test]
    fn what_could_be_taken_for_something_else_is_refused() {
        for url in [
            "ssh://h/a",
            "h:a",
            "ssh://git@h",
            "ssh://git@h/",
            "ssh://git:secret@h/a",
            "ssh://git@-oProxyCommand=x/a",
            "git@-h:a",
            "-l@h:a",
            "git@h:-a",
            "git@h:",
            "git@h:a\nb",
            "ssh://git@h/a%0ab",
            "ssh://git@h/a%zz",
            "ssh://git@h/a%2",
            "ssh://git@h:0/a",
            "ssh://git@h:99999/a",
            "ssh://git@h x/a",
            "ssh://git@$(x)/a",
        ] {
            assert!(SshAddress::parse(url).is_err(), "{url}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_an_unsafe_address(url in "(ssh://)?[-a-z@:\\[\\]/%0-9'\";$~ .]{0,40}") {
            let _ = is_ssh(&url);
            if let Ok(address) = SshAddress::parse(&url) {
                prop_assert!(!address.host.is_empty() && !address.host.starts_with('-') && !address.host.contains(' '));
                prop_assert!(!address.user.is_empty() && !address.user.starts_with('-'));
                prop_assert!(!address.path.starts_with('-') && !address.path.contains(char::is_control));
            }
        }
    }
}
