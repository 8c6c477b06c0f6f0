//! Judges one test.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::fmt;

use super::flows::{Flow, Flows};
use super::judge::{self, Answer, Specification};
use super::model::{Expect, PolicyTest, Step};
use super::scene::{Scene, decode};
use crate::family::Family;
use crate::lower::{AUDIT, MODE};
use crate::objects::Object;
use crate::offline::Offline;
use crate::trace::{Trace, View, families};

/// The most failures of one test that are kept; the rest are counted.
pub const MAX_FAILURES: usize = 100;

/// The kinds whose objects a test can fail to touch.
const POLICY_KINDS: [&str; 5] = [
    "NetworkPolicy",
    "ClusterNetworkPolicy",
    "AdminNetworkPolicy",
    "BaselineAdminNetworkPolicy",
    "SecurityGroupPolicy",
];

/// How tests are judged.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Note which policies no expectation touches.
    pub strict: bool,
    /// Let the naive specification and `trace` judge every connection too, and fail where one
    /// disagrees with the compiled table: for Weir's own tests.
    pub check: bool,
}

/// Names a policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyKey {
    /// `NetworkPolicy`.
    pub kind: &'static str,
    /// Its namespace; empty if it lives in none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl PolicyKey {
    fn of(object: &Object) -> Option<PolicyKey> {
        let kind = object.kind().kind;
        // What is only watched decides nothing.
        let enforced = object.annotation(MODE) != Some(AUDIT);
        (enforced && POLICY_KINDS.contains(&kind)).then(|| PolicyKey {
            kind,
            namespace: object.namespace().to_owned(),
            name: object.name().to_owned(),
        })
    }
}

impl fmt::Display for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{} {}", self.kind, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}

/// Objects that tests have in common.
#[derive(Debug, Default)]
pub struct Shared {
    objects: Vec<Object>,
    /// Compiled, for tests that bring none of their own.
    scene: OnceCell<Offline>,
}

impl Shared {
    /// These objects.
    pub fn new(objects: Vec<Object>) -> Shared {
        Shared {
            objects,
            scene: OnceCell::new(),
        }
    }

    /// The objects.
    pub fn objects(&self) -> &[Object] {
        &self.objects
    }
}

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything holds.
    Passed,
    /// Something does not.
    Failed,
    /// It is not meant to run here; why.
    Skipped(String),
    /// It cannot be judged; why.
    Broken {
        /// The line of the file.
        line: Option<usize>,
        /// Why.
        message: String,
    },
}

/// What does not hold.
#[derive(Clone, Debug, Default)]
pub struct Failure {
    /// The line of the file.
    pub line: Option<usize>,
    /// The step, if it is in one.
    pub step: Option<String>,
    /// The connection in a line; empty for a change that should have been refused.
    pub flow: String,
    /// `allow`, `deny`, or of a change `refused`.
    pub expected: String,
    /// What is.
    pub found: String,
    /// Everything that was consulted.
    pub trace: Option<Trace>,
}

/// What became of a test.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub verdict: Verdict,
    /// Connections judged.
    pub flows: usize,
    /// Connections left out by a line's or step's `skip`.
    pub skipped: usize,
    /// What does not hold, the first [`MAX_FAILURES`].
    pub failures: Vec<Failure>,
    /// How much does not hold.
    pub failed: usize,
    /// The policies that decided a connection or isolate one of its ends; only if asked for.
    pub touched: BTreeSet<PolicyKey>,
    /// The test's own policies that no expectation touches; only if asked for.
    pub untouched: BTreeSet<PolicyKey>,
    /// For stderr, behind `Warning: `.
    pub warnings: Vec<String>,
}

impl Outcome {
    /// One of which nothing has been judged.
    pub fn new(verdict: Verdict) -> Outcome {
        Outcome {
            verdict,
            flows: 0,
            skipped: 0,
            failures: Vec::new(),
            failed: 0,
            touched: BTreeSet::new(),
            untouched: BTreeSet::new(),
            warnings: Vec::new(),
        }
    }
}

/// Why a test cannot be judged.
struct Broken {
    line: Option<usize>,
    message: String,
}

/// Judges a test on its own objects and the shared ones.
pub fn run(test: &PolicyTest, shared: &Shared, options: &Options) -> Outcome {
    let mut running = Running {
        options,
        outcome: Outcome::new(Verdict::Passed),
        step: None,
    };
    if let Some(reason) = &test.skip.offline {
        running.outcome.verdict = Verdict::Skipped(reason.clone());
        return running.outcome;
    }
    let ended = running.test(test, shared);
    let mut outcome = running.outcome;
    outcome.verdict = match ended {
        Err(Broken { line, message }) => Verdict::Broken { line, message },
        Ok(()) if outcome.failed > 0 => Verdict::Failed,
        Ok(()) => Verdict::Passed,
    };
    outcome
}

/// The shared policies that none of the tests touches.
pub fn untouched<'a>(
    shared: &[Object],
    outcomes: impl IntoIterator<Item = &'a Outcome>,
) -> BTreeSet<PolicyKey> {
    let mut policies: BTreeSet<PolicyKey> = shared.iter().filter_map(PolicyKey::of).collect();
    for outcome in outcomes {
        policies.retain(|policy| !outcome.touched.contains(policy));
    }
    policies
}

struct Running<'a> {
    options: &'a Options,
    outcome: Outcome,
    step: Option<String>,
}

impl Running<'_> {
    fn test(&mut self, test: &PolicyTest, shared: &Shared) -> Result<(), Broken> {
        let broken = |error: String| Broken {
            line: test.line,
            message: error,
        };
        if test.files.is_empty() && test.objects.is_empty() && test.steps.is_empty() {
            let offline = match shared.scene.get() {
                Some(known) => known,
                None => {
                    let made = Offline::new(shared.objects.clone());
                    let made = made.map_err(|refusal| broken(refusal.message))?;
                    shared.scene.get_or_init(|| made)
                }
            };
            self.outcome.warnings = offline.warnings.clone();
            return self.judge(offline.view(), &test.expect);
        }
        let mut scene = Scene::new(&shared.objects, test).map_err(|e| broken(e.to_string()))?;
        self.judge(scene.view(), &test.expect)?;
        let mut last = &test.expect;
        for (index, step) in test.steps.iter().enumerate() {
            let name = step.name.clone();
            self.step = Some(name.unwrap_or_else(|| format!("step {}", index + 1)));
            if step.skip.offline.is_some() {
                continue;
            }
            self.change(&mut scene, step)?;
            // What a refused change must not have changed is what held before it.
            if !step.expect.is_empty() || step.refused.is_none() {
                last = &step.expect;
            }
            self.judge(scene.view(), last)?;
        }
        self.outcome.warnings = scene.warnings().to_vec();
        if self.options.strict {
            self.note_untouched(test);
        }
        Ok(())
    }

    fn change(&mut self, scene: &mut Scene, step: &Step) -> Result<(), Broken> {
        let changed = scene.change(step);
        let Some(wanted) = &step.refused else {
            return changed.map_err(|error| Broken {
                line: step.line,
                message: format!("{}: {error}", self.step.as_deref().unwrap_or_default()),
            });
        };
        let found = match changed {
            Err(error) if error.to_string().contains(wanted) => return Ok(()),
            Err(error) => format!("refused, but: {error}"),
            Ok(()) => "accepted".to_owned(),
        };
        self.fail(Failure {
            line: step.line,
            expected: format!("refused: {wanted}"),
            found,
            ..Failure::default()
        });
        Ok(())
    }

    fn judge(&mut self, view: View<'_>, lines: &[Expect]) -> Result<(), Broken> {
        let Flows { ends, flows } = Flows::expand(view, lines).map_err(|error| Broken {
            line: error.line,
            message: error.message,
        })?;
        let specification = self.options.check.then(|| Specification::new(view));
        for flow in &flows {
            let line = &lines[flow.line];
            if line.skip.offline.is_some() {
                self.outcome.skipped += 1;
                continue;
            }
            self.outcome.flows += 1;
            let answer = judge::by_engine(view, &ends, flow);
            let mut wrong = Vec::new();
            if answer.allows() != line.allow {
                wrong.push(found(&ends, flow, answer));
            }
            if let Some(specification) = &specification {
                wrong.extend(specification.disagreement(view, &ends, flow, answer));
            }
            if let Some(policy) = &line.because
                && wrong.is_empty()
            {
                let trace = judge::by_trace(view, &ends, flow);
                let deciders = trace.deciders();
                if !deciders.iter().any(|decider| decider == policy) {
                    let by = match deciders.is_empty() {
                        true => "by no policy".to_owned(),
                        false => format!("by {}", deciders.join(", ")),
                    };
                    wrong.push(format!("{} {by}", word(answer.allows())));
                }
            }
            if self.options.strict {
                judge::touched(view, &ends, flow, &mut self.outcome.touched);
            }
            if wrong.is_empty() {
                continue;
            }
            let because = line.because.as_ref();
            let because = because.map_or(String::new(), |by| format!(" by {by}"));
            self.fail(Failure {
                line: line.line,
                flow: describe(&ends, flow),
                expected: format!("{}{because}", word(line.allow)),
                found: wrong.join("; "),
                trace: Some(judge::by_trace(view, &ends, flow)),
                ..Failure::default()
            });
        }
        Ok(())
    }

    fn fail(&mut self, failure: Failure) {
        self.outcome.failed += 1;
        if self.outcome.failures.len() < MAX_FAILURES {
            self.outcome.failures.push(Failure {
                step: self.step.clone(),
                ..failure
            });
        }
    }

    fn note_untouched(&mut self, test: &PolicyTest) {
        let mut own: BTreeSet<PolicyKey> = test.files.iter().filter_map(PolicyKey::of).collect();
        let applied = test.steps.iter().filter(|step| step.refused.is_none());
        let applied = applied.map(|step| &step.apply).chain([&test.objects]);
        for manifests in applied {
            // What did not decode has ended the test already.
            let objects = decode(manifests).unwrap_or_default();
            own.extend(objects.iter().filter_map(PolicyKey::of));
        }
        own.retain(|policy| !self.outcome.touched.contains(policy));
        self.outcome.untouched = own;
    }
}

const fn word(allow: bool) -> &'static str {
    if allow { "allow" } else { "deny" }
}

/// `deny`; of a Service that nobody serves, with what the sender gets.
fn found(ends: &super::Ends, flow: &Flow, answer: Answer) -> String {
    let word = word(answer.allows());
    match (answer, &flow.unserved) {
        (Answer::Unserved(without), Some(unserved)) => {
            let service = &ends.get(flow.to).name;
            format!("{word}, since {}", without.reason(service, unserved))
        }
        _ => word.to_owned(),
    }
}

/// `shop/client -> shop/web TCP 80`, with the family where the ends have both.
fn describe(ends: &super::Ends, flow: &Flow) -> String {
    let (from, to) = (ends.get(flow.from), ends.get(flow.to));
    let port = flow.port.map_or(String::new(), |port| format!(" {port}"));
    let family = match families(from, to).len() {
        0 | 1 => String::new(),
        _ => format!(" ({})", Family::of(flow.source).name()),
    };
    format!(
        "{} -> {} {}{port}{family}",
        from.name,
        to.name,
        flow.transport.name()
    )
}
