//! Stand-ins for images, in pods.

mod servers;

use std::io::Write;
use std::process::{Command, Stdio};

use crate::lab::{Lab, both, needs, wait_for, weir};
use crate::{Outcome, Test};

pub const TESTS: &[Test] = &[
    (
        "stand_ins::busybox_has_its_own_programs_and_other_pods_the_machines",
        busybox,
    ),
    (
        "stand_ins::blogs_come_from_the_database_and_end_with_the_link",
        blogs,
    ),
    (
        "stand_ins::http_echo_is_silent_until_a_request_and_wget_shows_its_answer",
        http_echo,
    ),
    (
        "stand_ins::the_collector_loses_the_stars_that_it_cannot_see",
        stars,
    ),
    ("stand_ins::the_shops_parts_ask_each_other", servers::shop),
    (
        "stand_ins::servers_greet_in_their_protocols_and_agnhost_tells_why_not",
        servers::greetings,
    ),
];

const BUSYBOX: &str = "
apiVersion: v1
kind: Pod
metadata: {name: bb1, labels: {app: bb1}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: bb1, image: 'docker.io/library/busybox:1.28', command: [sleep, infinity]}]
---
apiVersion: v1
kind: Pod
metadata: {name: bb2}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: bb2, image: busybox, command: [sleep, infinity]}]
---
apiVersion: v1
kind: Pod
metadata: {name: other}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: other, image: debian, command: [sleep, infinity]}]
";

const CLOSED: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed}
spec: {podSelector: {matchLabels: {app: bb1}}, ingress: []}
";

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: bb1}
spec: {clusterIP: None, selector: {app: bb1}, ports: [{port: 8888}]}
";

fn busybox() -> Outcome {
    needs(&[])?;
    let lab = Lab::up(BUSYBOX);
    assert!(
        lab.said.contains("busybox's nc, nslookup, sh and wget"),
        "{}",
        lab.said
    );
    // Debian's `nc` and `sh` are names for other programs, which keep their own.
    if std::path::Path::new("/usr/bin/ncat").exists() {
        let (ran, said) = lab.exec("bb1", &["ncat", "--version"]);
        assert!(ran && said.contains("Ncat: Version"), "{said}");
    }
    if std::path::Path::new("/bin/dash").exists() {
        let own = [
            "dash",
            "-c",
            "readlink /proc/$$/exe; echo 'readlink /proc/$$/exe' | dash",
        ];
        let (ran, said) = lab.exec("bb1", &own);
        let all = said.lines().all(|line| line.ends_with("/dash"));
        assert!(ran && all && said.lines().count() == 2, "{said}");
        assert!(
            !lab.exec("bb1", &["test", "/bin/dash", "-ef", "/run/.weir/applets"])
                .0
        );
    }
    let address = lab.address("default/bb1");
    let mut listener = lab
        .weir(&[
            "exec", "-i", "bb1", "--", "nc", "-vlkp", "8888", "-e", "/bin/sh",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let scan = ["nc", "-znv", "-w", "2", &address, "8888"];
    let said = lab.soon("bb2", &scan);
    assert_eq!(said, format!("{address} ({address}:8888) open\n"));
    // Without a Service there is no such name, with a port in it or without.
    for host in [&["bb1:8888"][..], &["bb1", "8888"]] {
        let command = [&["nc", "-znv", "-w", "2"], host].concat();
        lab.fails("bb2", &command, "nc: bad address 'bb1'\n");
    }
    lab.apply(SERVICE);
    let by_name = ["nc", "-znv", "-w", "2", "bb1", "8888"];
    let said = lab.soon("bb2", &by_name);
    assert_eq!(said, format!("bb1 ({address}:8888) open\n"));
    let (found, said) = lab.exec("bb2", &["nslookup", "bb1"]);
    let expected = format!("Name:      bb1\nAddress 1: {address}\n");
    assert!(found && said.contains(&expected), "{said}");
    let talk = ["sh", "-c", "echo 'hostname; exit' | nc bb1 8888"];
    assert_eq!(lab.exec("bb2", &talk), (true, "bb1\n".into()));
    lab.apply(CLOSED);
    let expected = format!("nc: bb1 ({address}:8888): Connection timed out\n");
    lab.fails("bb2", &by_name, &expected);
    listener.kill().unwrap();
    let heard = both(&listener.wait_with_output().unwrap()).1;
    let own = lab.address("default/bb2");
    assert!(heard.starts_with("listening on [::]:8888 ...\n"), "{heard}");
    let connected = format!("connect to [::ffff:{address}]:8888 from [::ffff:{own}]:");
    assert!(heard.contains(&connected), "{heard}");

    prompt(&lab);
    let is_stand_in = ["test", "/bin/sh", "-ef", "/run/.weir/applets"];
    assert!(lab.exec("bb1", &is_stand_in).0);
    assert!(!lab.exec("other", &is_stand_in).0);
    // The machine's file behind it cannot be written, not even by root.
    let write = ["sh", "-c", "echo >>/run/.weir/applets"];
    // While one of them still runs, the kernel says that instead (ETXTBSY).
    wait_for("the stand-ins to end", || match lab.exec("bb1", &write) {
        (false, said) if said.contains("Read-only file system") => Ok(said),
        (_, said) => Err(said),
    });
    Ok(())
}

/// A person at a terminal meets busybox's prompt and words.
fn prompt(lab: &Lab) {
    let command = format!("{} --lab {} exec -it bb1 -- sh", weir().display(), lab.name);
    let mut session = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut keys = session.stdin.take().unwrap();
    keys.write_all(b"no-such\ncd /tmp\nexit 7\n").unwrap();
    let output = session.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    drop(keys);
    assert_eq!(output.status.code(), Some(7), "{said}");
    for piece in ["/ # ", "sh: no-such: not found\r\n", "/tmp # "] {
        assert!(said.contains(piece), "{piece:?} in {said:?}");
    }
}

/// Who asks the others.
const BB: &str = "
---
apiVersion: v1
kind: Pod
metadata: {name: bb}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: bb, image: busybox, command: [sleep, infinity]}]
";

const BLOGS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: mysqldb, labels: {app: mysqldb}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: mysqldb
    image: mysql:latest
    env: [{name: MYSQL_ROOT_PASSWORD, value: password}]
    ports: [{containerPort: 3306}]
---
apiVersion: v1
kind: Service
metadata: {name: mysqldb}
spec: {clusterIP: None, selector: {app: mysqldb}, ports: [{port: 3306}]}
---
apiVersion: v1
kind: Pod
metadata: {name: flaskback, labels: {app: flaskback}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: flaskback
    image: pnivaggi/flaskback
    ports: [{containerPort: 5000}]
    env:
    - {name: MYSQL_SERVICE_PORT, value: '3306'}
    - {name: MYSQL_SERVICE_HOST, value: mysqldb}
    - {name: MYSQL_DEFAULT_DB, value: mydb}
    - {name: MYSQL_ROOT_PWD, value: password}
---
apiVersion: v1
kind: Service
metadata: {name: flaskback}
spec: {clusterIP: None, selector: {app: flaskback}, ports: [{port: 5000}]}
";

const NO_DATABASE: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: mysqldb}
spec: {podSelector: {matchLabels: {app: mysqldb}}, ingress: []}
";

fn blogs() -> Outcome {
    needs(&[])?;
    let lab = Lab::up(&[BLOGS, BB].concat());
    let ask = ["wget", "-qO-", "-T", "8", "flaskback:5000/blogs"];
    let said = lab.soon("bb", &ask);
    let expected = "[[\"K8s is fun\",\"K8s allows to orchestrate application\"],\
                    [\"Network Policy\",\"it provides network security using selector/label\"]]\n";
    assert_eq!(said, expected);
    lab.apply(NO_DATABASE);
    let refused = "wget: server returned error: HTTP/1.1 500 Internal Server Error\n";
    lab.fails("bb", &ask, refused);
    Ok(())
}

const ECHO: &str = "
apiVersion: v1
kind: Pod
metadata: {name: http-echo, labels: {run: http-echo}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: http-echo
    image: solsson/http-echo
    env: [{name: PORT, value: '80'}]
    ports: [{containerPort: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: http-echo}
spec: {clusterIP: None, selector: {run: http-echo}, ports: [{port: 80}]}
";

const NO_ECHO: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed}
spec: {podSelector: {}, policyTypes: [Ingress]}
";

fn http_echo() -> Outcome {
    needs(&[])?;
    let lab = Lab::up(&[ECHO, BB].concat());
    assert_eq!(lab.both(&["logs", "http-echo"]), (true, String::new()));
    let url = "http://http-echo.default.svc.cluster.local/test";
    let body = "{\"message\":\"hello\"}";
    let post = ["wget", "-S", url, "--post-data", body, "-O", "/tmp/test"];
    let said = lab.soon("bb", &post);
    let lines: Vec<&str> = said.lines().collect();
    let address = lab.address("default/http-echo");
    let connecting = format!("Connecting to http-echo.default.svc.cluster.local ({address}:80)");
    assert_eq!(lines[0], connecting);
    assert_eq!(lines[1], "  HTTP/1.1 200 OK");
    assert_eq!(lines[2], "  X-Powered-By: Express");
    assert_eq!(lines[3], "  Content-Type: application/json; charset=utf-8");
    assert!(lines[4].starts_with("  Content-Length: "), "{said}");
    assert!(lines[5].starts_with("  ETag: W/\""), "{said}");
    assert!(lines[6].starts_with("  Date: "), "{said}");
    assert_eq!(lines[7..9], ["  Connection: close", "  "]);
    assert!(
        lines[9].starts_with("test                 100% |***"),
        "{said}"
    );
    let (_, log) = lab.both(&["logs", "http-echo"]);
    assert!(log.contains("\"POST /test HTTP/1.1\" 200 "), "{log}");
    lab.apply(NO_ECHO);
    let late = ["wget", "-T", "1", "-qO-", url];
    lab.fails("bb", &late, "wget: download timed out\n");
    Ok(())
}

/// A probe or collector of the stars demo.
fn star(namespace: &str, name: &str, image: &str, port: u16) -> String {
    let urls = "http://frontend.stars:80/status,http://backend.stars:6379/status,\
                http://client.client:9000/status";
    let command = match image {
        "star-probe" => format!("command: [probe, '--http-port={port}', '--urls={urls}'],"),
        _ => String::new(),
    };
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: \
         {{role: {name}}}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers: [{{name: c, image: \
         'calico/{image}:v0.1.0', {command} ports: [{{containerPort: {port}}}]}}]\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: \
         {{clusterIP: None, selector: {{role: {name}}}, ports: [{{port: {port}}}]}}\n"
    )
}

const NO_STARS: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny, namespace: stars}
spec: {podSelector: {matchLabels: {}}}
";

fn stars() -> Outcome {
    needs(&[])?;
    let mut manifest = String::new();
    for namespace in ["stars", "client", "management-ui"] {
        manifest +=
            &format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n");
    }
    manifest += &star("stars", "frontend", "star-probe", 80);
    manifest += &star("stars", "backend", "star-probe", 6379);
    manifest += &star("client", "client", "star-probe", 9000);
    manifest += &star("management-ui", "management-ui", "star-collect", 9001);
    let lab = Lab::up(&manifest);
    let look = |path: &str| {
        let url = format!("http://localhost:9001{path}");
        let fetch = [
            "exec",
            "-n",
            "management-ui",
            "management-ui",
            "--",
            "curl",
            "-s",
        ];
        lab.both(&[&fetch[..], &[&url]].concat()).1
    };
    assert!(look("/").contains("<svg"), "{}", look("/"));
    let cut = |text: &str| text.matches("\"reachable\":false").count();
    wait_for("all stars", || {
        let said = look("/responses");
        let all = said.matches("\"statusCode\":200").count() == 3 && cut(&said) == 0;
        if all { Ok(()) } else { Err(said) }
    });
    lab.apply(NO_STARS);
    wait_for("the stars to go", || {
        let said = look("/responses");
        let lost = ["\"F\":null", "\"B\":null"]
            .iter()
            .all(|lost| said.contains(lost));
        // The client is seen still, and sees nobody else.
        if lost && cut(&said) == 2 {
            Ok(())
        } else {
            Err(said)
        }
    });
    Ok(())
}
