//! Advice in JSON.

use serde::{Serialize, Serializer};
use sockleak_core::advice::{Advice, Fact};

use super::view::{Time, millis};
use super::words::AdviceId;
use crate::output::advice::words;

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "advice"))]
pub(super) struct AdviceView<'a> {
    id: AdviceId,
    evidence: Named<'a, Fact>,
    brief: &'static str,
    text: &'static str,
    runtimes: Named<'static, &'static str>,
    cost: &'static str,
    will_not_help: &'static [&'static str],
}

impl<'a> AdviceView<'a> {
    pub(super) fn new(advice: &'a Advice) -> Self {
        let words = words(advice.id);
        Self {
            id: AdviceId(advice.id.name()),
            evidence: Named(&advice.evidence),
            brief: words.brief,
            text: words.text,
            runtimes: Named(words.runtimes),
            cost: words.cost,
            will_not_help: words.will_not_help,
        }
    }
}

/// An object whose keys are in the order of the list.
pub(super) struct Named<'a, T>(&'a [(&'static str, T)]);

impl Serialize for Named<'_, Fact> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, fact)| (name, FactView(fact))))
    }
}

impl Serialize for Named<'_, &'static str> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

struct FactView<'a>(&'a Fact);

impl Serialize for FactView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Fact::Count(number) => number.serialize(serializer),
            Fact::Ports(ports) => ports.serialize(serializer),
            Fact::Lasted(duration) => millis(*duration).serialize(serializer),
            Fact::FreeAt(at) => at.map(Time).serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use sockleak_core::advice::AdviceId;
    use sockleak_core::testing::sample;

    use super::*;

    #[test]
    fn a_piece_has_every_key() {
        let report = sample();
        let pieces = report.advice.iter().map(AdviceView::new);
        let pieces: Vec<Value> = pieces
            .map(|piece| serde_json::to_value(piece).expect("it can be written"))
            .collect();
        let unreachable = &pieces[3];
        assert_eq!(unreachable["id"], "unreachable_peer");
        assert_eq!(
            unreachable["evidence"],
            json!({"sockets": 1, "free_at": "2025-10-09T08:55:04.082000000Z"})
        );
        assert!(unreachable["brief"].is_string() && unreachable["text"].is_string());
        assert!(unreachable["runtimes"]["python"].is_string() && unreachable["cost"].is_string());
        assert!(
            unreachable["will_not_help"]
                .as_array()
                .is_some_and(|list| !list.is_empty())
        );
        let evidence = json!({"listeners": 1, "holders": 1, "ports": [8080]});
        assert_eq!(pieces[1]["evidence"]["core_dump_ms"], 4200);
        assert_eq!(
            (&pieces[0]["id"], &pieces[0]["evidence"]),
            (&"inherited_listener".into(), &evidence)
        );
    }

    fn list<T>(of: &[T], item: impl Fn(&T) -> String) -> String {
        of.iter().map(item).collect::<Vec<_>>().join(",")
    }

    #[test]
    fn every_piece_has_its_words_in_the_contracts_order() {
        let string = |text: &str| serde_json::to_string(text).expect("a string can be written");
        for id in AdviceId::ALL {
            let piece = Advice {
                id,
                evidence: vec![("sockets", Fact::Count(2))],
            };
            let written = serde_json::to_string(&AdviceView::new(&piece)).expect("it can be written");
            let words = words(id);
            let expected = format!(
                r#"{{"id":"{}","evidence":{{"sockets":2}},"brief":{},"text":{},"runtimes":{{{}}},"cost":{},"will_not_help":[{}]}}"#,
                id.name(),
                string(words.brief),
                string(words.text),
                list(words.runtimes, |(name, how)| format!(
                    "\"{name}\":{}",
                    string(how)
                )),
                string(words.cost),
                list(words.will_not_help, |vain| string(vain)),
            );
            assert_eq!(written, expected);
        }
    }
}
