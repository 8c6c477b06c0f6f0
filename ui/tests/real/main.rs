//! The page in headless Chromium before a lab's real pods: `cargo test -p weir-ui --test real
//! [FILTER]`, after `cargo build`. Each is `ok`, `FAILED` or `skipped: REASON`; without root,
//! Chromium or its driver all are skipped. `WEIR_SCREENSHOTS=FOLDER` keeps pictures.

mod access;
mod browser;
mod page;
mod scene;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use scene::Scene;

/// What a test needs and this machine lacks.
fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root".into());
    }
    let absent = |name: &&&str| !scene::on_path(name);
    if let Some(name) = ["chromium", "chromedriver", "curl"].iter().find(absent) {
        return Some(format!(
            "needs {name} (Debian: chromium, chromium-driver, curl)"
        ));
    }
    let unbuilt = |name: &&&str| !scene::beside(name).exists();
    let name = ["weir", "weir-lab"].iter().find(unbuilt)?;
    Some(format!(
        "needs {name} beside weir-ui: cargo build --workspace"
    ))
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let filter = arguments.find(|argument| !argument.starts_with('-'));
    let is_wanted = |name: &str| {
        filter
            .as_ref()
            .is_none_or(|part| name.contains(part.as_str()))
    };
    let wanted: Vec<_> = page::TESTS
        .iter()
        .filter(|(name, _)| is_wanted(name))
        .collect();
    let (mut passed, mut failed) = (0, 0);
    if let Some(reason) = missing() {
        for (name, _) in &wanted {
            println!("test {name} ... skipped: {reason}");
        }
        println!("0 passed, 0 failed, {} skipped", wanted.len());
        return ExitCode::SUCCESS;
    }
    if wanted.is_empty() {
        return ExitCode::SUCCESS;
    }
    let Ok(mut scene) = catch_unwind(Scene::set_up) else {
        println!("the lab, the page or Chromium could not be started");
        return ExitCode::FAILURE;
    };
    for (name, test) in wanted {
        match catch_unwind(AssertUnwindSafe(|| test(&mut scene))) {
            Ok(()) => {
                passed += 1;
                println!("test {name} ... ok");
            }
            Err(_) => {
                failed += 1;
                scene.picture(&format!("failed-{name}"));
                println!("test {name} ... FAILED");
            }
        }
    }
    println!("{passed} passed, {failed} failed, 0 skipped");
    ExitCode::from(u8::from(failed > 0))
}
