//! The scenarios that come with Weir, and that they fail when nothing is enforced.

use std::process::Command;

use crate::lab::{needs, text};
use crate::{Outcome, Test, WEIR_LAB};

pub const TESTS: &[Test] = &[
    ("every_tutorial_plays_to_its_end", every_one_holds),
    (
        "a_scenario_fails_when_nothing_is_enforced",
        fails_without_enforcement,
    ),
];

/// Tutorials that are played, each in a lab of its own and two at once: most of their time they wait
/// for what a policy swallows.
const PLAYED: &[&str] = &["spec"];

fn every_one_holds() -> Outcome {
    needs(&["bash"])?;
    let queue = std::sync::Mutex::new(PLAYED.iter());
    let next = || queue.lock().unwrap().next();
    let played = std::thread::scope(|scope| {
        let play_some = || {
            let mut played = Vec::new();
            while let Some(name) = next() {
                let run = Command::new(WEIR_LAB).args(["run", name]).output().unwrap();
                played.push((name, run));
            }
            played
        };
        let players = [(); 2].map(|()| scope.spawn(play_some));
        players.map(|player| player.join().unwrap()).concat()
    });
    assert_eq!(played.len(), PLAYED.len());
    for (_, output) in &played {
        println!("{}", String::from_utf8_lossy(&output.stdout));
    }
    for (name, output) in &played {
        assert!(output.status.success(), "{name}: {}", text(output));
    }
    Ok(())
}

fn fails_without_enforcement() -> Outcome {
    needs(&["bash"])?;
    let output = Command::new(WEIR_LAB)
        .args(["run", "spec", "--enforcement=off"])
        .output()
        .unwrap();
    let seen = text(&output);
    assert_eq!(output.status.code(), Some(1), "{seen}");
    // Every denying step fails; the open ones hold.
    for step in [2, 3, 4, 6, 7] {
        assert!(
            seen.contains(&format!("step {step}: ")),
            "step {step} held: {seen}"
        );
    }
    for step in [1, 5] {
        assert!(!seen.contains(&format!("step {step}: ")), "{seen}");
    }
    Ok(())
}
