//! Decides whether the symbolic links of an app's files stay inside of them.
//!
//! Following by letters alone is not enough: with `d -> sub/deep`, `d/..` is `sub`, and with `s/t/d -> ../..` it is the
//! directory above the root. So links are followed as the kernel follows them, over the links there are.
//!
//! Invariant: a tree that passes holds no link that leads outside, alone or through others.

use std::collections::HashMap;

use super::error::StoreError;

/// As many links in one path as Linux follows; with more it gives up, so nothing escapes that way.
const MAX_HOPS: usize = 40;

/// All symbolic links of a tree: path → target.
#[derive(Debug, Default)]
pub(crate) struct Links(HashMap<String, String>);

impl Links {
    pub(crate) fn insert(&mut self, path: String, target: String) {
        self.0.insert(path, target);
    }

    /// Fails on the first link (in path order) that leads outside.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let mut paths: Vec<&String> = self.0.keys().collect();
        paths.sort_unstable();
        for path in paths {
            if self.escapes(path) {
                let target = self.0.get(path).cloned().unwrap_or_default();
                return Err(StoreError::EscapingSymlink { path: path.clone(), target });
            }
        }
        Ok(())
    }

    fn escapes(&self, path: &str) -> bool {
        let mut here: Vec<String> = Vec::new();
        // The components still to walk, the next one last.
        let mut ahead: Vec<String> = path.rsplit('/').map(str::to_owned).collect();
        let mut hops = 0;
        while let Some(part) = ahead.pop() {
            match part.as_str() {
                "" | "." => {}
                ".." => {
                    if here.pop().is_none() {
                        return true;
                    }
                }
                _ => {
                    here.push(part);
                    let Some(target) = self.0.get(&here.join("/")) else { continue };
                    hops += 1;
                    if target.starts_with('/') {
                        return true;
                    }
                    if hops > MAX_HOPS {
                        return false;
                    }
                    here.pop();
                    ahead.extend(target.rsplit('/').map(str::to_owned));
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escapes(links: &[(&str, &str)]) -> bool {
        let mut all = Links::default();
        for (path, target) in links {
            all.insert((*path).to_owned(), (*target).to_owned());
        }
        all.check().is_err()
    }

    #[test]
    fn links_inside_are_fine() {
        assert!(!escapes(&[("a", "b"), ("x/y", "../b"), ("x/z", "./w/../y"), ("d", ".")]));
        assert!(!escapes(&[("loop", "loop")]));
        assert!(!escapes(&[("a", "b"), ("b", "a")]));
        assert!(!escapes(&[("gone", "nowhere/at/all")]));
    }

    #[test]
    fn links_outside_are_caught() {
        assert!(escapes(&[("a", "/etc/passwd")]));
        assert!(escapes(&[("a", "..")]));
        assert!(escapes(&[("x/a", "../../etc")]));
        assert!(escapes(&[("x/a", "b/../../../etc")]));
    }

    #[test]
    fn links_that_leave_only_through_other_links_are_caught() {
        // By the letters `s/t/d/..` is `s/t`; the kernel goes to the root and then above it.
        assert!(escapes(&[("s/t/d", "../.."), ("s/t/e", "d/..")]));
        assert!(!escapes(&[("d", "sub/deep"), ("e", "d/../x")]));
    }
}
