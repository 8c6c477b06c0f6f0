//! The page for everybody: by keyboard, in light and dark, on narrow screens.

use serde_json::Value;

use crate::scene::{SIZE, Scene};

/// What has the focus, in a word.
const FOCUS: &str = "const e = document.activeElement; return e.dataset?.stop ?? (e.id || e.name || \
                     e.textContent.trim().slice(0, 20) || e.tagName)";

/// Everything is reached by Tab and arrows, is seen to have the focus, and has a name.
pub fn keyboard(scene: &mut Scene) {
    scene.open_all();
    scene.policy(Some("stars"), "default-deny");
    scene.reload();
    scene.client_asks_backend();
    let browser = &scene.browser;
    browser.wait("a row", "document.querySelector('#flow-rows tr')");
    browser.run("document.activeElement.blur(); window.scrollTo(0, 0)");
    let mut seen = Vec::new();
    for _ in 0..45 {
        browser.press(&["Tab"]);
        let focus = browser.run(FOCUS).as_str().unwrap().to_owned();
        let is_seen = browser.run(
            "const e = document.activeElement; \
             const marks = [e, e.nextElementSibling, ...e.querySelectorAll('rect')].filter(Boolean); \
             return e === document.body || marks.some(m => { const s = getComputedStyle(m); \
             return s.outlineStyle !== 'none' || parseFloat(s.strokeWidth) >= 3 || e.classList.contains('skip'); })",
        );
        assert_eq!(is_seen, true, "the focus on {focus} is not to be seen");
        seen.push(focus);
    }
    for stop in [
        "Skip to the flows",
        "theme",
        "mode",
        "show-node",
        "fold",
        "zoom-in",
        "[client]",
        "verdict",
        "filter-name",
        "filter-value",
        "filter-not",
        "text",
        "pause",
        "from",
        "to",
        "port",
        "protocol",
    ] {
        assert!(seen.iter().any(|name| name == stop), "{stop} in {seen:?}");
    }
    let names = browser.run(
        "return [...document.querySelectorAll('button, input, select, [role=button]')].filter(e => \
         !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length || e.title)).map(e => e.outerHTML)",
    );
    assert_eq!(names, Value::Array(vec![]), "each control has a name");

    browser.run("document.querySelector('[data-stop=\"[client]\"]').focus()");
    browser.press(&["ArrowDown"]);
    let pod = browser.run(FOCUS);
    assert!(pod.as_str().unwrap().starts_with("client/client"), "{pod}");
    scene.picture("keyboard");
    browser.press(&["Enter"]);
    browser.wait(
        "the pod",
        "document.querySelector('#inspector-title').textContent.startsWith('client/client')",
    );
    assert_eq!(browser.run(FOCUS), "inspector-title");
    browser.press(&["Escape"]);
    assert_eq!(browser.run(FOCUS), pod, "back where it was");
    browser.press(&["ArrowUp", "Enter"]);
    browser.wait("folded", "document.querySelector('[data-stop=\"[client]\"]').getAttribute('aria-expanded') === 'false'");
    browser.press(&["Enter"]);
    browser.wait("unfolded", "document.querySelector('[data-stop=\"[client]\"]').getAttribute('aria-expanded') === 'true'");
    browser.run("document.querySelector('#flow-rows tr').focus()");
    browser.press(&["ArrowDown", "ArrowUp", "Enter"]);
    browser.wait("the flow", "document.querySelector('#inspector .sentence')");
}

/// Contrast of text on what it stands on (WCAG 2.2, 1.4.3: at least 4.5).
const CONTRAST: &str = "
    const style = getComputedStyle(document.documentElement);
    const luminance = (name) => {
      const probe = document.createElement('span');
      probe.style.color = style.getPropertyValue(name);
      document.body.append(probe);
      const [r, g, b] = getComputedStyle(probe).color.match(/[0-9.]+/g).map(Number).map((v) => {
        const c = v / 255;
        return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
      });
      probe.remove();
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const pairs = [['--ink', '--panel'], ['--ink', '--page'], ['--muted', '--panel'], ['--muted', '--raised'],
      ['--muted', '--page'], ['--accent', '--panel'], ['--accent', '--accent-soft'], ['--allow', '--panel'],
      ['--allow', '--allow-soft'], ['--deny', '--panel'], ['--deny', '--deny-soft'], ['--audit', '--audit-soft'],
      ['--ink', '--deny-soft'], ['--ink', '--allow-soft'], ['--panel', '--accent']];
    return pairs.map(([ink, ground]) => {
      const [a, b] = [luminance(ink), luminance(ground)];
      return [ink, ground, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
    }).filter(([, , contrast]) => contrast < 4.5);";

/// Both schemes, by the system's wish and by the switch.
pub fn colours(scene: &mut Scene) {
    scene.open_all();
    for name in [
        "allow-ui",
        "allow-ui-client",
        "backend-policy",
        "frontend-policy",
    ] {
        scene.policy(None, name);
    }
    scene.reload();
    scene.client_asks_backend();
    let browser = &scene.browser;
    browser.wait(
        "a denial",
        "document.querySelector('tr[data-verdict=DROPPED]')",
    );
    browser.click("tr[data-verdict=DROPPED] .why");
    browser.wait(
        "the sentence",
        "document.querySelector('#inspector .sentence')",
    );
    browser.wait("the trace", "document.querySelector('#inspector .steps')");
    let ground = "return getComputedStyle(document.body).backgroundColor";
    let mut grounds = Vec::new();
    for scheme in ["light", "dark"] {
        browser.prefer(scheme);
        grounds.push(browser.run(ground));
        assert_eq!(browser.run(CONTRAST), Value::Array(vec![]), "{scheme}");
        scene.picture(scheme);
    }
    assert_ne!(grounds[0], grounds[1]);
    // The switch overrules the system: as the system, light, dark.
    browser.click("#theme");
    assert_eq!(browser.run(ground), grounds[0]);
    browser.prefer("light");
    browser.click("#theme");
    assert_eq!(browser.run(ground), grounds[1]);
    assert_eq!(browser.run(CONTRAST), Value::Array(vec![]));
    browser.open(&scene.url);
    assert_eq!(browser.run(ground), grounds[1], "it is remembered");
    browser.click("#theme");
    assert_eq!(browser.run(ground), grounds[0]);
}

/// A telephone and a tablet.
pub fn narrow(scene: &mut Scene) {
    scene.reload();
    let browser = &scene.browser;
    for (width, height) in [(390, 844), (768, 1024)] {
        browser.resize(width, height);
        browser.open(&scene.url);
        browser.wait("the pods", "document.querySelectorAll('.pill').length >= 5");
        let excess = browser.run("return document.documentElement.scrollWidth - window.innerWidth");
        assert!(
            excess.as_i64().unwrap() <= 0,
            "at {width} nothing is beside the screen"
        );
        for part in ["#graph", "#question", "#inspector", "#flow-frame"] {
            let height = browser.run(&format!(
                "return document.querySelector('{part}').getBoundingClientRect().height"
            ));
            assert!(
                height.as_f64().unwrap() > 30.0,
                "{part} at {width}: {height}"
            );
        }
        scene.picture(&format!("narrow-{width}"));
    }
    browser.resize(SIZE.0, SIZE.1);
}
