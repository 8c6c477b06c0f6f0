//! One pod without a lab: its root, its processes, its streams.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use control::lab_protocol::{Channel, ExitReport, WindowSize, read_frame, write_frame};
use control::netlink::Namespace;
use testbed::pod::capability;
use testbed::pod::message::{FromInit, ProcessSpec, RootSpec, ToInit, Volume, VolumeMount};
use testbed::pod::sandbox::{Program, Sandbox};

use crate::{Outcome, Test, WEIR_APPLETS, WEIR_LAB};

pub const TESTS: &[Test] = &[
    (
        "pod::a_pod_that_deletes_everything_changes_nothing_outside",
        deletes_everything,
    ),
    (
        "pod::a_pod_sees_only_itself_and_cannot_reach_the_machine",
        sees_itself,
    ),
    ("pod::exit_codes_signals_and_missing_programs", exit_codes),
    ("pod::exec_carries_input_outputs_and_status", exec_streams),
    (
        "pod::exec_with_a_terminal_has_its_size_and_follows_it",
        exec_terminal,
    ),
    (
        "pod::a_program_heeds_signals_that_its_ancestors_ignore",
        ignored_signals,
    ),
    ("pod::a_client_that_goes_ends_its_command", client_goes),
    ("pod::volumes_are_the_containers_own", volumes),
    ("pod::the_log_has_every_line", log_lines),
];

struct Pod {
    name: String,
    folder: PathBuf,
    sandbox: Sandbox,
}

impl Pod {
    fn new(name: &str) -> Pod {
        Pod::with_volumes(name, [])
    }

    fn with_volumes<const N: usize>(name: &str, volumes: [(&str, Volume); N]) -> Pod {
        let name = format!("weir-lab-test-{name}");
        let _left_over = Namespace::delete(&name);
        let namespace = Namespace::create(&name).unwrap();
        let folder = PathBuf::from(format!("/run/{name}"));
        let _left_over = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("scratch")).unwrap();
        let root = RootSpec {
            hostname: "web-1".into(),
            hosts: "127.0.0.1 localhost\n".into(),
            resolv_conf: "nameserver 10.0.0.10\n".into(),
            scratch: folder.join("scratch").display().to_string(),
            writable_bytes: 64 << 20,
            volumes: volumes
                .map(|(name, volume)| (name.to_owned(), volume))
                .into(),
            applets: WEIR_APPLETS.into(),
        };
        let program = Program::seal(WEIR_LAB.as_ref()).unwrap();
        let stderr = File::create(folder.join("init.log")).unwrap();
        let sandbox = Sandbox::start(&program, &namespace, root, stderr).unwrap();
        Pod {
            name,
            folder,
            sandbox,
        }
    }

    fn log(&self) -> OwnedFd {
        let path = self.folder.join("container.log");
        let mut options = File::options();
        options
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .unwrap()
            .into()
    }

    fn start(&self, id: u64, spec: ProcessSpec) -> FromInit {
        let process = Box::new(spec);
        self.sandbox
            .tell(&ToInit::Start { id, process }, Some(&self.log()))
            .unwrap();
        self.sandbox.listen(&mut Vec::new()).unwrap()
    }

    /// Runs to the end; exit status and log.
    fn run(&self, command: &[&str]) -> (i32, String) {
        assert_eq!(self.start(7, spec(command)), FromInit::Started { id: 7 });
        let Some(FromInit::Exited { id: 7, code }) = self.sandbox.listen(&mut Vec::new()) else {
            panic!("no exit");
        };
        (
            code,
            fs::read_to_string(self.folder.join("container.log")).unwrap(),
        )
    }

    fn exec(&self, spec: ProcessSpec) -> UnixStream {
        let (near, far) = UnixStream::pair().unwrap();
        let process = Box::new(spec);
        let message = ToInit::Exec {
            container: 1,
            process,
        };
        self.sandbox.tell(&message, Some(&far.into())).unwrap();
        near.set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        near
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.sandbox.end();
        let _gone = Namespace::delete(&self.name);
        let _gone = fs::remove_dir_all(&self.folder);
    }
}

fn spec(command: &[&str]) -> ProcessSpec {
    ProcessSpec {
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        environment: vec![("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into())],
        capabilities: capability::resolve(&[], &[]).0,
        ..ProcessSpec::default()
    }
}

/// Everything a client gets: outputs by channel, and the report.
fn collect(stream: &mut UnixStream) -> (String, String, ExitReport) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some(frame) = read_frame(stream).unwrap() {
        match frame.channel {
            Channel::Stdout => out.extend(frame.payload),
            Channel::Stderr => err.extend(frame.payload),
            Channel::Status => {
                let report = serde_json::from_slice(&frame.payload).unwrap();
                let text = |bytes| String::from_utf8(bytes).unwrap();
                return (text(out), text(err), report);
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("no report");
}

fn deletes_everything() -> Outcome {
    // One folder on each file system that the pod sees a layer of, and one in what it has its own.
    let folders = ["/var/tmp", "/home", "/opt", "/tmp", "/run"];
    let sentinels: Vec<PathBuf> = folders
        .iter()
        .map(|folder| PathBuf::from(folder).join("weir-lab-sentinel/file"))
        .collect();
    for sentinel in &sentinels {
        fs::create_dir_all(sentinel.parent().unwrap()).unwrap();
        fs::write(sentinel, "keep me").unwrap();
    }
    let pod = Pod::new("rm");
    let overwrite = "for f in /var/tmp /home /opt; do echo gone > $f/weir-lab-sentinel/file; done; \
                     cat /home/weir-lab-sentinel/file; echo x > /etc/weir-lab-written; \
                     rm -rf --no-preserve-root / 2>/dev/null; echo done";
    let (code, log) = pod.run(&["sh", "-c", overwrite]);
    let gone = pod.start(8, spec(&["ls", "/"]));
    drop(pod);
    let kept = sentinels
        .iter()
        .all(|path| fs::read_to_string(path).unwrap() == "keep me");
    for sentinel in &sentinels {
        fs::remove_dir_all(sentinel.parent().unwrap()).unwrap();
    }
    assert!(kept);
    assert_eq!(code, 0, "{log}");
    // The pod did see and change its own view, and did delete what it saw.
    assert!(
        log.contains("stdout F gone") && log.contains("stdout F done"),
        "{log}"
    );
    assert!(
        matches!(gone, FromInit::NotStarted { code: 127, .. }),
        "{gone:?}"
    );
    assert!(!PathBuf::from("/etc/weir-lab-written").exists());
    Ok(())
}

fn sees_itself() -> Outcome {
    let pod = Pod::new("itself");
    let script = "hostname; cat /etc/resolv.conf; ls /run /tmp | grep -v lock; \
        ls /sys/class/net; ls /proc | grep -c '^[0-9]'; \
        for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /sys/kernel/mm/ksm/run; do \
          (echo x > $f) 2>/dev/null && echo wrote $f; done; \
        mount -t tmpfs x /mnt 2>/dev/null && echo mounted; \
        mknod /tmp/d b 254 0 2>/dev/null && echo made; \
        cat /proc/1/environ >/dev/null 2>&1 && echo read-init; \
        ls -l /proc/1/root/ >/dev/null 2>&1 && echo entered-init; \
        grep -E 'CapBnd|NoNewPrivs' /proc/self/status";
    let (code, log) = pod.run(&["sh", "-c", script]);
    let lines: Vec<&str> = log
        .lines()
        .map(|line| line.splitn(4, ' ').nth(3).unwrap())
        .collect();
    assert_eq!(code, 0, "{lines:?}");
    assert_eq!(lines[..2], ["web-1", "nameserver 10.0.0.10"], "{lines:?}");
    let bad = [
        "wrote",
        "mounted",
        "made",
        "read-init",
        "entered-init",
        "weir",
    ];
    for word in bad {
        assert!(
            !lines.iter().any(|line| line.contains(word)),
            "{word}: {lines:?}"
        );
    }
    assert!(lines.contains(&"lo"), "{lines:?}");
    assert!(lines.contains(&"CapBnd:\t00000000200425fb"), "{lines:?}");
    assert!(lines.contains(&"NoNewPrivs:\t1"), "{lines:?}");
    Ok(())
}

fn exit_codes() -> Outcome {
    let pod = Pod::new("codes");
    assert_eq!(pod.run(&["sh", "-c", "exit 3"]).0, 3);
    assert_eq!(pod.run(&["sh", "-c", "kill -9 $$"]).0, 137);
    let missing = pod.start(2, spec(&["no-such-program"]));
    let FromInit::NotStarted {
        id: 2,
        code: 127,
        message,
    } = missing
    else {
        panic!("{missing:?}");
    };
    assert_eq!(
        message,
        "exec: \"no-such-program\": executable file not found in $PATH"
    );
    // A process and what it left behind end on a signal.
    assert_eq!(
        pod.start(3, spec(&["sleep", "100"])),
        FromInit::Started { id: 3 }
    );
    let begun = Instant::now();
    pod.sandbox
        .tell(&ToInit::Signal { id: 3, signal: 15 }, None)
        .unwrap();
    let ended = pod.sandbox.listen(&mut Vec::new());
    assert_eq!(ended, Some(FromInit::Exited { id: 3, code: 143 }));
    assert!(begun.elapsed() < Duration::from_secs(1));
    Ok(())
}

fn running(name: &str) -> Pod {
    let pod = Pod::new(name);
    assert_eq!(
        pod.start(1, spec(&["sleep", "1000"])),
        FromInit::Started { id: 1 }
    );
    pod
}

fn exec_streams() -> Outcome {
    let pod = running("exec");
    let mut wanted = spec(&["sh", "-c", "cat; echo oops >&2; exit 5"]);
    wanted.stdin = true;
    let mut client = pod.exec(wanted);
    let long = "x".repeat(200_000);
    write_frame(&mut client, Channel::Stdin, long.as_bytes()).unwrap();
    write_frame(&mut client, Channel::Stdin, b"").unwrap();
    let (out, err, report) = collect(&mut client);
    assert_eq!(
        (out.len(), err.as_str(), report.exit_code),
        (long.len(), "oops\n", 5)
    );
    let (_, _, report) = collect(&mut pod.exec(spec(&["nonesuch"])));
    assert_eq!(report.exit_code, 127);
    assert!(report.error.unwrap().contains("not found in $PATH"));
    // A child that keeps the output open does not keep the client.
    let begun = Instant::now();
    let (out, _, _) = collect(&mut pod.exec(spec(&["sh", "-c", "echo a; sleep 60 &"])));
    assert_eq!(out, "a\n");
    assert!(begun.elapsed() < Duration::from_secs(2));
    Ok(())
}

fn exec_terminal() -> Outcome {
    let pod = running("tty");
    let script = "trap 'stty size; exit 4' WINCH; tty; stty size; while :; do sleep 0.05; done";
    let mut wanted = spec(&["sh", "-c", script]);
    (wanted.stdin, wanted.tty) = (true, true);
    wanted.size = Some(WindowSize {
        columns: 80,
        rows: 24,
    });
    let mut client = pod.exec(wanted);
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("24 80") {
        seen.extend(read_frame(&mut client).unwrap().unwrap().payload);
    }
    write_frame(
        &mut client,
        Channel::Resize,
        br#"{"columns":132,"rows":43}"#,
    )
    .unwrap();
    let (out, _, report) = collect(&mut client);
    assert!(
        String::from_utf8_lossy(&seen).contains("/dev/pts/0"),
        "{seen:?}"
    );
    assert!(out.contains("43 132"), "{out}");
    assert_eq!(report.exit_code, 4);
    // Ctrl-C is a byte; the terminal makes it a signal. The terminal's echo and the copy say that the
    // program runs: a shell that is about to become one may lose the signal.
    let mut wanted = spec(&["cat"]);
    (wanted.stdin, wanted.tty) = (true, true);
    let mut client = pod.exec(wanted);
    write_frame(&mut client, Channel::Stdin, b"up\n").unwrap();
    let mut seen = Vec::new();
    while String::from_utf8_lossy(&seen).matches("up").count() < 2 {
        seen.extend(read_frame(&mut client).unwrap().unwrap().payload);
    }
    write_frame(&mut client, Channel::Stdin, b"\x03").unwrap();
    assert_eq!(collect(&mut client).2.exit_code, 130);
    Ok(())
}

/// A shell's background jobs ignore SIGINT, and so would all that they start.
fn ignored_signals() -> Outcome {
    let again = "trap '' INT QUIT HUP; exec \"$0\" pod::exec_with_a_terminal";
    let status = Command::new("sh")
        .args(["-c", again])
        .arg(std::env::current_exe().unwrap())
        .status();
    assert!(status.unwrap().success());
    Ok(())
}

fn client_goes() -> Outcome {
    let pod = running("gone");
    let mut wanted = spec(&[
        "sh",
        "-c",
        "echo up; trap '' HUP; while :; do sleep 0.1; done",
    ]);
    wanted.stdin = true;
    let mut client = pod.exec(wanted);
    read_frame(&mut client).unwrap();
    drop(client);
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let count = "ps -e -o args | grep -c '[t]rap'; true";
        let (out, _, _) = collect(&mut pod.exec(spec(&["sh", "-c", count])));
        // The command line that counts has the word too.
        if out.trim() == "1" || out.trim() == "0" {
            return Ok(());
        }
        assert!(Instant::now() < deadline, "{out}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn volumes() -> Outcome {
    let files = [("app.conf".to_owned(), "port=80\n".to_owned())].into();
    let list = [
        ("conf", Volume::Files(files)),
        ("work", Volume::Empty { bytes: 1 << 20 }),
    ];
    let pod = Pod::with_volumes("volumes", list);
    let mount = |volume: &str, path: &str, sub: &str| VolumeMount {
        volume: volume.into(),
        path: path.into(),
        sub_path: sub.into(),
        read_only: false,
    };
    let mut first = spec(&["sh", "-c", "echo hello > /work/x; sleep 1000"]);
    first.mounts = vec![mount("work", "/work", "")];
    assert_eq!(pod.start(1, first), FromInit::Started { id: 1 });
    std::thread::sleep(Duration::from_millis(300));
    let script = "cat /etc/app/app.conf /etc/one.conf /data/x; \
                  (echo no > /etc/app/app.conf) 2>/dev/null || echo read-only; ls -d /work";
    let mut second = spec(&["sh", "-c", script]);
    second.mounts = vec![
        mount("conf", "/etc/app", ""),
        mount("conf", "/etc/one.conf", "app.conf"),
        mount("work", "/data", ""),
    ];
    assert_eq!(pod.start(2, second), FromInit::Started { id: 2 });
    pod.sandbox.listen(&mut Vec::new()).unwrap();
    let log = fs::read_to_string(pod.folder.join("container.log")).unwrap();
    assert_eq!(log.matches("port=80").count(), 2, "{log}");
    assert!(log.contains("hello") && log.contains("read-only"), "{log}");
    // What a command of the second container sees is the second container's.
    let (out, _, _) = collect(&mut pod.exec(spec(&["cat", "/work/x"])));
    assert_eq!(out, "hello\n");
    Ok(())
}

fn log_lines() -> Outcome {
    let pod = Pod::new("log");
    let (code, log) = pod.run(&["sh", "-c", "seq 1 20000; echo err >&2; printf end"]);
    assert_eq!(code, 0);
    assert_eq!(log.matches(" stdout F ").count(), 20_000);
    assert_eq!(log.matches(" stderr F err").count(), 1);
    assert!(log.trim_end().ends_with(" stdout P end") || log.contains(" stdout P end"));
    let mut file = File::open(pod.folder.join("init.log")).unwrap();
    let mut complaints = String::new();
    file.read_to_string(&mut complaints).unwrap();
    assert_eq!(complaints, "");
    std::io::stdout().flush().unwrap();
    Ok(())
}
