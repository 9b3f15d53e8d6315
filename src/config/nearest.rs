//! "Did you mean": the known word that is nearest to the one that was written.

/// `None` if nothing is near enough to be meant.
pub(crate) fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |known: &str| strsim::jaro_winkler(&written.to_lowercase(), known);
    let (likeness, word) =
        known.into_iter().map(|known| (likeness(known), known)).max_by(|(one, _), (other, _)| one.total_cmp(other))?;
    (likeness > 0.8).then_some(word)
}
