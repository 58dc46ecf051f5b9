//! The file of trusted SSH keys, in the format of `ssh-keygen -Y verify` (ALLOWED SIGNERS in its manual), the one that
//! git reads as `gpg.ssh.allowedSignersFile`.
//!
//! Principals are not matched: whoever is listed is trusted, whatever name stands in a commit. Certificate authorities
//! are passed over: a signature by a certificate is not known here.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use ssh_key::PublicKey;
use ssh_key::public::KeyData;

/// One line of the file.
#[derive(Debug)]
pub(super) struct AllowedSigner {
    /// Who, as written; for messages.
    pub principals: String,
    pub key: KeyData,
    /// Patterns of what the key may sign; nothing means everything.
    namespaces: Option<String>,
    valid_after: Option<Timestamp>,
    valid_before: Option<Timestamp>,
}

impl AllowedSigner {
    /// Whether the key may sign things of this kind.
    pub(super) fn may_sign(&self, namespace: &str) -> bool {
        self.namespaces.as_ref().is_none_or(|patterns| matches_list(patterns, namespace))
    }

    /// Whether the key counts at that time.
    pub(super) fn counts_at(&self, time: Timestamp) -> bool {
        self.valid_after.is_none_or(|after| time >= after) && self.valid_before.is_none_or(|before| time < before)
    }

    /// Its dates in words.
    pub(super) fn dates(&self) -> String {
        match (self.valid_after, self.valid_before) {
            (Some(after), Some(before)) => format!("valid from {after} to {before}"),
            (Some(after), None) => format!("valid from {after}"),
            (None, Some(before)) => format!("valid until {before}"),
            (None, None) => "valid always".to_owned(),
        }
    }
}

/// Reads a file; an error names the line. One line that cannot be read refuses the file: it may hold the restriction
/// that its author relies on.
pub(super) fn parse(text: &str) -> Result<Vec<AllowedSigner>, String> {
    let mut signers = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        signers.extend(parse_line(line).map_err(|problem| format!("line {number}: {problem}"))?);
    }
    Ok(signers)
}

fn parse_line(line: &str) -> Result<Option<AllowedSigner>, String> {
    let (principals, rest) = word(line)?;
    let mut signer = AllowedSigner {
        principals: principals.replace('"', ""),
        key: KeyData::Ed25519(ssh_key::public::Ed25519PublicKey([0; 32])),
        namespaces: None,
        valid_after: None,
        valid_before: None,
    };
    let (first, after) = word(rest)?;
    let key = match PublicKey::from_openssh(rest) {
        Ok(key) => key,
        Err(_) => {
            if signer.restrict(first)? {
                return Ok(None);
            }
            PublicKey::from_openssh(after).map_err(|error| format!("no public key stands here: {error}"))?
        }
    };
    signer.key = key.key_data().clone();
    Ok(Some(signer))
}

impl AllowedSigner {
    /// Takes over the options; `true` for a certificate authority.
    fn restrict(&mut self, options: &str) -> Result<bool, String> {
        let mut authority = false;
        for option in split_outside_quotes(options, |c| c == ',') {
            let (name, value) = option.split_once('=').map_or((option, ""), |(name, value)| (name, value));
            let value = value.trim_matches('"');
            match name.to_ascii_lowercase().as_str() {
                "cert-authority" => authority = true,
                "namespaces" => self.namespaces = Some(value.to_owned()),
                "valid-after" => self.valid_after = Some(time(value)?),
                "valid-before" => self.valid_before = Some(time(value)?),
                _ => return Err(format!("neither a key nor an option is `{name}`")),
            }
        }
        Ok(authority)
    }
}

/// The first word, which may have quoted parts, and what follows it.
fn word(line: &str) -> Result<(&str, &str), String> {
    let line = line.trim_start();
    let first = split_outside_quotes(line, char::is_whitespace).next().unwrap_or_default();
    if first.is_empty() {
        return Err("it ends before the key".to_owned());
    }
    if first.matches('"').count() % 2 == 1 {
        return Err("a quote is not closed".to_owned());
    }
    Ok((first, line[first.len()..].trim_start()))
}

fn split_outside_quotes(text: &str, at: impl Fn(char) -> bool) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |c: char| {
        quoted ^= c == '"';
        !quoted && at(c)
    })
}

/// `YYYYMMDD[HHMM[SS]]`, in this machine's zone, or in UTC with a `Z` at the end.
fn time(text: &str) -> Result<Timestamp, String> {
    let wrong = || format!("`{text}` is not a date like 20261231 or 20261231235900Z");
    let (digits, utc) = text.strip_suffix('Z').map_or((text, false), |digits| (digits, true));
    let format = match digits.len() {
        8 => "%Y%m%d",
        12 => "%Y%m%d%H%M",
        14 => "%Y%m%d%H%M%S",
        _ => return Err(wrong()),
    };
    let civil = match digits.len() {
        8 => jiff::civil::Date::strptime(format, digits).map(|date| date.at(0, 0, 0, 0)),
        _ => DateTime::strptime(format, digits),
    };
    let zone = if utc { TimeZone::UTC } else { TimeZone::system() };
    let civil = civil.map_err(|_| wrong())?;
    zone.to_ambiguous_timestamp(civil).compatible().map_err(|_| wrong())
}

/// OpenSSH's lists of patterns: `*` and `?` stand for others, one with `!` that matches refuses whatever else matches.
fn matches_list(patterns: &str, text: &str) -> bool {
    let mut found = false;
    for pattern in patterns.split(',') {
        match pattern.strip_prefix('!') {
            Some(pattern) if matches(pattern.as_bytes(), text.as_bytes()) => return false,
            Some(_) => {}
            None => found |= matches(pattern.as_bytes(), text.as_bytes()),
        }
    }
    found
}

fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=text.len()).any(|skipped| matches(rest, &text[skipped..])),
        (Some((b'?', pattern)), Some((_, text))) => matches(pattern, text),
        (Some((wanted, pattern)), Some((found, text))) => wanted == found && matches(pattern, text),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn lines_are_read_as_ssh_keygen_reads_them() {
        let text = format!(
            "# ours\n\nada@example.org,*@example.com {KEY} Ada\n\"bob b\" namespaces=\"git,file\",valid-before=\"20270101Z\" {KEY}\nca cert-authority {KEY}\n"
        );
        let signers = parse(&text).expect("reads");
        assert_eq!(signers.len(), 2);
        assert_eq!(signers[0].principals, "ada@example.org,*@example.com");
        assert!(signers[0].may_sign("git") && signers[0].may_sign("file"));
        assert_eq!(signers[1].principals, "bob b");
        assert!(signers[1].counts_at(at("2026-12-31T23:59:59Z")) && !signers[1].counts_at(at("2027-01-01T00:00:00Z")));
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_line() {
        for (line, said) in [
            ("ada", "line 1: it ends before the key"),
            ("ada colour=red ssh-ed25519 AAAA", "neither a key nor an option is `colour`"),
            ("ada valid-after=\"soon\" ssh-ed25519 AAAA", "`soon` is not a date"),
            ("ada namespaces=\"git ssh-ed25519 AAAA", "a quote is not closed"),
            ("ada namespaces=\"git\" ssh-ed25519 AAAA", "no public key stands here"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(said), "{line}: {error}");
        }
    }

    #[test]
    fn namespaces_are_lists_of_patterns() {
        for (patterns, allowed) in [
            ("git", true),
            ("file,git", true),
            ("g?t", true),
            ("*", true),
            ("file", false),
            ("*,!git", false),
            ("", false),
        ] {
            assert_eq!(matches_list(patterns, "git"), allowed, "{patterns}");
        }
    }

    #[test]
    fn dates_have_three_lengths() {
        assert_eq!(time("20261231Z").expect("a date"), at("2026-12-31T00:00:00Z"));
        assert_eq!(time("202612312359Z").expect("a date"), at("2026-12-31T23:59:00Z"));
        assert_eq!(time("20261231235958Z").expect("a date"), at("2026-12-31T23:59:58Z"));
        for bad in ["", "2026", "20261331", "20261231T10Z"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }
}
