//! `replace --force`: what is there goes, and what the files hold is made anew.

use crate::cli::session::{Session, VerbError};
use crate::cli::values;
use crate::objects::Object;
use crate::protocol::{ApplyParams, DeleteParams, Mutation, OperationKind, Target};

use super::delete::{grace_period, wait_until_gone};
use super::done::Done;
use super::find;
use super::mutate::{DryRun, decode, dry_run, validation};

/// Deletes the objects of the files, waits until they are gone and creates them.
pub fn by_force(session: &mut Session) -> Result<(), VerbError> {
    let dry_run = dry_run(session.parsed.value("dry-run"))?;
    if dry_run != DryRun::None {
        return Err(VerbError::Local(
            "--dry-run can not be used when --force is set".into(),
        ));
    }
    let limit = values::limit(&session.parsed, "timeout")?;
    // As kubectl's: --force alone gives no time to end.
    let grace_period = Some(grace_period(session)?.unwrap_or(0));
    let objects = decode(session)?;
    let queries = find::of_objects(session, &objects);
    let mut client = session.connect()?;
    let (doomed, _) = find::ask(&mut client, &queries)?;
    let targets: Vec<Target> = doomed.iter().map(find::Found::target).collect();
    if !targets.is_empty() {
        let params = DeleteParams {
            targets,
            ignore_not_found: true,
            grace_period,
            ..DeleteParams::default()
        };
        let mutation: Mutation = client.call("delete", &params)?;
        let kubectl = session.kubectl()?;
        for one in &doomed {
            let namespace = one.target().namespace.filter(|_| one.namespaced);
            let line = kubectl.deleted(&one.shown, one.name(), "deleted", namespace.as_deref());
            println!("{line}");
        }
        session.report_mutation(&mutation)?;
        wait_until_gone(&mut client, &doomed, limit)?;
    }
    let params = ApplyParams {
        objects: objects.iter().map(Object::to_value).collect(),
        namespace: session.namespace(),
        field_validation: validation(session.parsed.value("validate"))?,
        ..ApplyParams::default()
    };
    let mut done = Done::new(session, dry_run)?;
    let mutation: Mutation = client.call("create", &params)?;
    for result in &mutation.results {
        debug_assert_eq!(result.operation, OperationKind::Created);
        done.print(&result.reference.resource, &result.object, "replaced")?;
    }
    session.report_mutation(&mutation)
}
