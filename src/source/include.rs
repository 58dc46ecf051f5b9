//! Where `include: [../common]` points, by the letters alone.

/// The directory within the repository that `written` means, seen from the app directory `app`.
/// `Err` says why it means none.
pub(crate) fn resolve(app: &str, written: &str) -> Result<String, String> {
    if written.starts_with('/') {
        return Err(format!("`{written}` is absolute; an include is relative to the app's directory"));
    }
    let mut parts: Vec<&str> = components(app).collect();
    for part in components(written) {
        if part == ".." {
            if parts.pop().is_none() {
                return Err(format!("`{written}` leaves the repository; an include must stay within it"));
            }
        } else {
            parts.push(part);
        }
    }
    Ok(parts.join("/"))
}

/// `written` without what does not matter: `./`, doubled slashes, a slash at the end, `x/..`.
/// Two ways to write one include are one content.
pub(crate) fn normalise(written: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in components(written) {
        match (part, parts.last()) {
            ("..", Some(last)) if *last != ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

/// The parts of a path that mean something.
pub(crate) fn components(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".")
}

/// Whether `path` is `directory` or lies in it.
pub(crate) fn within(path: &str, directory: &str) -> bool {
    directory.is_empty() || path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// `child` in `parent`, either of which may be the root.
pub(crate) fn join(parent: &str, child: &str) -> String {
    match (parent, child) {
        ("", child) => child.to_owned(),
        (parent, "") => parent.to_owned(),
        (parent, child) => format!("{parent}/{child}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn includes_are_seen_from_the_app_and_stay_in_the_repository() {
        assert_eq!(resolve("apps/shop", "../common").as_deref(), Ok("apps/common"));
        assert_eq!(resolve("apps/shop", "../../lib/./x/").as_deref(), Ok("lib/x"));
        assert_eq!(resolve("", "common").as_deref(), Ok("common"));
        assert_eq!(resolve("shop", "..").as_deref(), Ok(""));
        assert!(resolve("shop", "../../etc").is_err());
        assert!(resolve("shop", "/etc").is_err());
    }

    #[test]
    fn one_include_has_one_spelling() {
        for written in ["../common", "../common/", ".././common", "../x/../common"] {
            assert_eq!(normalise(written), "../common", "{written}");
        }
        assert_eq!(normalise("../../a"), "../../a");
    }

    #[test]
    fn within_respects_the_borders_of_names() {
        assert!(within("apps/shop", "apps"));
        assert!(within("apps", "apps"));
        assert!(within("x", ""));
        assert!(!within("apps-old/shop", "apps"));
    }
}
