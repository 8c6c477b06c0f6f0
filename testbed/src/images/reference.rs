//! Image references: `[REGISTRY/]PATH[:TAG][@DIGEST]`.

/// Paths under which registries keep what Docker Hub has without one.
const PREFIXES: [&str; 6] = [
    "library/",
    "docker/library/",
    "e2e-test-images/",
    "google-containers/",
    "google_containers/",
    "google-samples/",
];

/// The repository's path without registry, tag and digest, and without what registries put before
/// the names of well-known images.
pub fn repository(image: &str) -> &str {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    let path = match name.split_once('/') {
        // A host has a dot or a port, or is this machine: as Docker tells it from a path.
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => path,
        _ => name,
    };
    let path = match path.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => path,
        _ => path,
    };
    PREFIXES
        .iter()
        .find_map(|prefix| path.strip_prefix(prefix))
        .unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_tags_and_digests_are_no_part_of_the_name() {
        for (image, expected) in [
            ("busybox", "busybox"),
            ("busybox:1.36", "busybox"),
            ("docker.io/library/busybox:latest", "busybox"),
            ("public.ecr.aws/docker/library/mysql:8.0", "mysql"),
            ("registry.k8s.io/e2e-test-images/agnhost:2.53", "agnhost"),
            ("localhost:5000/nginx", "nginx"),
            ("localhost/nginx@sha256:0123", "nginx"),
            ("quay.io:443/a/b:1@sha256:0123", "a/b"),
            ("pnivaggi/flaskback", "pnivaggi/flaskback"),
            ("calico/star-probe:v0.1.0", "calico/star-probe"),
            ("gcr.io/google-samples/hello-app:1.0", "hello-app"),
            ("", ""),
        ] {
            assert_eq!(repository(image), expected, "{image}");
        }
    }
}
