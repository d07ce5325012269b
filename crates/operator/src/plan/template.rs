//! Which pod template is in force.
//!
//! With `OnDelete` every pod that is made anew gets the newest template, so a roll-out that stops at a bad template is
//! unsafe by itself: the last good one is put back until the spec changes (K12). What the spec asks for is compared by
//! the hash of its inputs, so another version of the operator changes no template of a cluster that is at rest.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::PodTemplateSpec;

use super::Facts;
use crate::build::pod::hash_of;

/// How long a pod may be in a state that rarely ends by itself before it counts as failing.
pub const FAILING_AFTER: Duration = Duration::from_secs(30);
/// How long the first member with a new template may take to become ready. It has its data and stopped cleanly, so it
/// neither clones nor recovers.
pub const ROLL_OUT_BOUND: Duration = Duration::from_secs(300);

/// What is remembered of templates, in a ConfigMap.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// The last template with which every member was ready.
    pub good: Option<PodTemplateSpec>,
    /// The hash of one that was given up, and why.
    pub bad: Option<(String, String)>,
}

const GOOD: &str = "good.json";
const BAD: &str = "bad-hash";
const WHY: &str = "bad-why";

impl Memory {
    /// Reads the ConfigMap's data. What cannot be read is forgotten: the template is only kept for comfort.
    pub fn from_data(data: &BTreeMap<String, String>) -> Self {
        Self {
            good: data.get(GOOD).and_then(|text| serde_json::from_str(text).ok()),
            bad: data.get(BAD).map(|hash| (hash.clone(), data.get(WHY).cloned().unwrap_or_default())),
        }
    }

    /// Writes the ConfigMap's data.
    pub fn to_data(&self) -> BTreeMap<String, String> {
        let mut data = BTreeMap::new();
        if let Some(text) = self.good.as_ref().and_then(|good| serde_json::to_string(good).ok()) {
            data.insert(GOOD.to_owned(), text);
        }
        if let Some((hash, why)) = &self.bad {
            data.insert(BAD.to_owned(), hash.clone());
            data.insert(WHY.to_owned(), why.clone());
        }
        data
    }
}

/// The template in force, and what to remember.
#[derive(Clone, Debug, PartialEq)]
pub struct InForce {
    /// The template.
    pub template: PodTemplateSpec,
    /// Its hash.
    pub hash: String,
    /// What to remember.
    pub memory: Memory,
    /// Why what the spec asks for is not in force.
    pub halted: Option<String>,
}

/// Decides which template is in force; `wanted` is what the spec asks for.
pub fn in_force(facts: &Facts, wanted: PodTemplateSpec, memory: &Memory) -> InForce {
    let hash = hash_of(wanted.metadata.as_ref()).unwrap_or_default().to_owned();
    let good = memory.good.as_ref().map(|good| (good, hash_of(good.metadata.as_ref()).unwrap_or_default()));
    if let Some((good, _)) = good.filter(|(_, of_good)| *of_good == hash) {
        let memory = Memory { good: Some(good.clone()), bad: None };
        return InForce { template: good.clone(), hash, memory, halted: None };
    }
    let given_up = memory.bad.clone().filter(|(bad, _)| *bad == hash).map(|(_, why)| why);
    if let Some((good, of_good)) = good
        && let Some(why) = given_up.or_else(|| failing(facts, &hash))
    {
        let memory = Memory { good: memory.good.clone(), bad: Some((hash, why.clone())) };
        return InForce { template: good.clone(), hash: of_good.to_owned(), memory, halted: Some(why) };
    }
    let everybody = (0..facts.instances).all(|ordinal| {
        facts
            .members
            .get(&api::names::pod(&facts.cluster, ordinal))
            .is_some_and(|member| member.ready && member.hash.as_deref() == Some(hash.as_str()))
    });
    let good = if everybody { Some(wanted.clone()) } else { memory.good.clone() };
    InForce { template: wanted, hash, memory: Memory { good, bad: None }, halted: None }
}

/// The last good template stays, whatever the spec asks for; `None` when there is none yet.
pub fn kept(memory: &Memory) -> Option<InForce> {
    let template = memory.good.clone()?;
    let hash = hash_of(template.metadata.as_ref()).unwrap_or_default().to_owned();
    Some(InForce { template, hash, memory: memory.clone(), halted: None })
}

fn failing(facts: &Facts, hash: &str) -> Option<String> {
    facts.members.iter().find_map(|(pod, member)| {
        if member.hash.as_deref() != Some(hash) || member.ready || member.terminating {
            return None;
        }
        match &member.failing {
            Some(why) => Some(format!("{pod}: {why}")),
            None => (member.age > ROLL_OUT_BOUND)
                .then(|| format!("{pod}: not ready within {} minutes", ROLL_OUT_BOUND.as_secs() / 60)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::healthy;
    use super::*;
    use api::names::labels::TEMPLATE_HASH;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    fn template(hash: &str) -> PodTemplateSpec {
        let annotations = Some([(TEMPLATE_HASH.to_owned(), hash.to_owned())].into());
        PodTemplateSpec { metadata: Some(ObjectMeta { annotations, ..ObjectMeta::default() }), spec: None }
    }

    fn good(hash: &str) -> Memory {
        Memory { good: Some(template(hash)), bad: None }
    }

    #[test]
    fn a_template_is_good_when_everybody_is_ready_with_it() {
        let facts = healthy(3);
        let first = in_force(&facts, template("old"), &Memory::default());
        assert_eq!(first.memory, good("old"));
        assert_eq!(in_force(&facts, template("new"), &first.memory).memory, good("old"), "nobody has it yet");
    }

    #[test]
    fn k12_a_bad_template_is_taken_back_until_the_spec_changes() {
        let mut facts = healthy(3);
        let member = facts.members.get_mut("pg-2").unwrap();
        (member.ready, member.hash, member.failing) =
            (false, Some("bad".into()), Some("ErrImagePull".into()));
        let halted = in_force(&facts, template("bad"), &good("old"));
        assert_eq!((halted.hash.as_str(), halted.halted.as_deref()), ("old", Some("pg-2: ErrImagePull")));

        let memory = Memory::from_data(&halted.memory.to_data());
        let healed = healthy(3);
        let still = in_force(&healed, template("bad"), &memory);
        assert_eq!(
            (still.hash.as_str(), still.halted.is_some()),
            ("old", true),
            "a healthy cluster stays halted"
        );

        let undone = in_force(&healed, template("old"), &memory);
        assert_eq!((undone.halted, undone.memory), (None, good("old")));
        assert_eq!(in_force(&healed, template("third"), &memory).hash, "third");
    }

    #[test]
    fn k12_a_member_that_never_becomes_ready_is_bad_too() {
        let mut facts = healthy(3);
        let member = facts.members.get_mut("pg-2").unwrap();
        (member.ready, member.hash, member.age) = (false, Some("bad".into()), Duration::from_secs(299));
        assert_eq!(in_force(&facts, template("bad"), &good("old")).halted, None);
        facts.members.get_mut("pg-2").unwrap().age = Duration::from_secs(301);
        let halted = in_force(&facts, template("bad"), &good("old")).halted.unwrap();
        assert_eq!(halted, "pg-2: not ready within 5 minutes");
    }

    #[test]
    fn without_a_good_one_there_is_nothing_to_go_back_to() {
        let mut facts = healthy(1);
        let member = facts.members.get_mut("pg-0").unwrap();
        (member.ready, member.failing) = (false, Some("ErrImagePull".into()));
        let decided = in_force(&facts, template("old"), &Memory::default());
        assert_eq!((decided.hash.as_str(), decided.halted), ("old", None));
    }

    #[test]
    fn another_operator_changes_nothing_at_rest() {
        let mut built_anew = template("old");
        built_anew.metadata.as_mut().unwrap().labels = Some([("new".to_owned(), "label".to_owned())].into());
        assert_eq!(in_force(&healthy(3), built_anew, &good("old")).template, template("old"));
    }
}
