//! Which of the names there are may have been meant by one that is not there.

/// The name that is most like this one, if any is.
pub fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Below this two names have little in common.
    const ALIKE: f64 = 0.75;
    let likeness = |other: &'a str| (strsim::jaro_winkler(name, other), other);
    let best = names.into_iter().map(likeness).max_by(|one, other| one.0.total_cmp(&other.0))?;
    (best.0 >= ALIKE).then_some(best.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_nearly_right_is_recognised() {
        let names = ["resize", "notify", "transcribe"];
        assert_eq!(nearest("resise", names), Some("resize"));
        assert_eq!(nearest("transcript", names), Some("transcribe"));
        assert_eq!(nearest("xyz", names), None);
        assert_eq!(nearest("xyz", []), None);
    }
}
