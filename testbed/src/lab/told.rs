//! What `lab up` tells of the pods when they are ready: what runs in place of their images, and what of
//! their manifests is different here.

use std::collections::BTreeMap;

use control::lab_protocol::PodState;

use crate::images;

/// Characters of a line of pods.
const WIDTH: usize = 100;

/// Tells it, on stderr.
pub fn tell(pods: &[PodState]) {
    for line in stand_ins(pods) {
        eprintln!("{line}");
    }
    for pod in pods {
        for warning in &pod.warnings {
            eprintln!("pod {}/{}: {warning}", pod.namespace, pod.name);
        }
    }
}

/// Each image that has a stand-in, what that is, and the containers in which it runs.
fn stand_ins(pods: &[PodState]) -> Vec<String> {
    let mut by_image: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for pod in pods {
        for (container, image) in &pod.stand_ins {
            let named = format!("{}/{} ({container})", pod.namespace, pod.name);
            by_image.entry(image).or_default().push(named);
        }
    }
    if by_image.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![
        "no image is pulled; programs of Weir and of this machine run in their place:".to_owned(),
    ];
    for (image, containers) in by_image {
        let what = match images::find(image) {
            Some(known) => known.description.trim_end_matches(','),
            None => "a responder that answers on the container's ports",
        };
        lines.push(format!("  {image}: {what}"));
        lines.extend(wrapped(&containers));
    }
    lines
}

/// Names in lines of their own, separated by commas.
fn wrapped(names: &[String]) -> Vec<String> {
    let mut lines = vec!["     ".to_owned()];
    for (at, name) in names.iter().enumerate() {
        let comma = if at + 1 < names.len() { "," } else { "" };
        let last = lines.len() - 1;
        let is_begun = !lines[last].trim().is_empty();
        if is_begun && lines[last].len() + 1 + name.len() + comma.len() > WIDTH {
            lines.push("     ".to_owned());
        }
        let last = lines.len() - 1;
        lines[last].push_str(&format!(" {name}{comma}"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, container: &str, image: &str) -> PodState {
        PodState {
            namespace: "shop".into(),
            name: name.into(),
            stand_ins: vec![(container.into(), image.into())],
            ..PodState::default()
        }
    }

    #[test]
    fn an_image_is_named_once_with_all_its_containers() {
        let mut pods: Vec<PodState> = { 0..5 }
            .map(|n| pod(&format!("web-{n}"), "nginx-container", "nginx:1"))
            .collect();
        pods.push(pod("odd", "c", "example.org/odd"));
        assert_eq!(
            stand_ins(&pods),
            [
                "no image is pulled; programs of Weir and of this machine run in their place:",
                "  example.org/odd: a responder that answers on the container's ports",
                "      shop/odd (c)",
                "  nginx:1: a web server with nginx's first page",
                "      shop/web-0 (nginx-container), shop/web-1 (nginx-container), \
                 shop/web-2 (nginx-container),",
                "      shop/web-3 (nginx-container), shop/web-4 (nginx-container)",
            ]
        );
        assert_eq!(stand_ins(&[]), Vec::<String>::new());
    }
}
