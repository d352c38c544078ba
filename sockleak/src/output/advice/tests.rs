//! What holds for the words of every advice.

use super::*;

/// Every sentence that may be said.
fn sentences() -> impl Iterator<Item = &'static str> {
    AdviceId::ALL.into_iter().flat_map(|id| {
        let words = words(id);
        let runtimes = words.runtimes.iter().map(|(_, how)| *how);
        let vain = words.will_not_help.iter().copied();
        [words.brief, words.text, words.cost]
            .into_iter()
            .chain(runtimes)
            .chain(vain)
    })
}

#[test]
fn folklore_is_not_repeated() {
    let folklore = [
        "tcp_tw_recycle",
        "tcp_max_tw_buckets",
        "tcp_fin_timeout",
        "five minutes",
        "5 minutes",
        "5 min",
    ];
    for sentence in sentences() {
        let lower = sentence.to_lowercase();
        assert!(!folklore.iter().any(|words| lower.contains(words)), "{sentence}");
    }
}

#[test]
fn the_words_are_complete() {
    for id in AdviceId::ALL {
        let words = words(id);
        let names: Vec<_> = words.runtimes.iter().map(|(name, _)| *name).collect();
        assert!(
            names == ["any"] || names == ["c", "python", "go", "node", "java", "rust"],
            "{id:?}"
        );
        assert!(
            !words.will_not_help.is_empty() && !words.cost.is_empty(),
            "{id:?}"
        );
        assert!(words.brief.len() <= 84, "{id:?}");
        assert!(words.text.len() <= 400 && words.text.ends_with('.'), "{id:?}");
    }
}
