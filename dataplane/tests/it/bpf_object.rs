//! The committed BPF objects are what their sources compile to, in whichever crate this stands.

use std::path::Path;
use std::process::Command;

/// The compiler that built the committed object. Another version may choose other instructions.
const CLANG: u32 = 14;

/// A clang of that version, by either of Debian's names.
fn clang() -> Option<&'static str> {
    ["clang-14", "clang"].into_iter().find(|program| {
        let output = Command::new(program).arg("--version").output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        text.is_ok_and(|text| text.contains(&format!("clang version {CLANG}.")))
    })
}

fn has(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
}

/// The instructions and maps, without what differs between compilers' versions (BTF, strings).
fn disassembly(object: &Path) -> String {
    let output = Command::new("llvm-objdump")
        .args(["-d", "-r", "--no-show-raw-insn"])
        .arg(object)
        .output()
        .expect("llvm-objdump runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).expect("llvm-objdump prints text");
    // The first line names the file.
    text.lines()
        .filter(|line| !line.contains("file format"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// What the source compiles to now.
fn compiled(clang: &str, folder: &Path, name: &str) -> String {
    let built = std::env::temp_dir().join(format!("weir-{}-{name}.bpf.o", std::process::id()));
    let include = format!("-I/usr/include/{}-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(clang)
        .args(["-O2", "-g", "-target", "bpf", "-mcpu=v3", &include, "-c"])
        .arg(format!("{name}.bpf.c"))
        .arg("-o")
        .arg(&built)
        .current_dir(folder)
        .output()
        .expect("clang runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let fresh = disassembly(&built);
    let _ = std::fs::remove_file(&built);
    fresh
}

#[test]
fn sources_and_objects_agree() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("bpf");
    let headers = Path::new("/usr/include/bpf/bpf_helpers.h").exists();
    let Some(clang) = clang().filter(|_| headers && has("llvm-objdump")) else {
        eprintln!(
            "SKIPPED sources_and_objects_agree: needs clang {CLANG}, llvm-objdump and libbpf-dev"
        );
        return;
    };
    let files = std::fs::read_dir(&folder).expect("the sources are there");
    let files = files.map(|file| file.expect("a file").file_name());
    let files = files.map(|file| file.into_string().expect("UTF-8"));
    let sources = files.filter_map(|file| Some(file.strip_suffix(".bpf.c")?.to_owned()));
    let mut objects = 0;
    for name in sources {
        let committed = disassembly(&folder.join(format!("{name}.bpf.o")));
        assert!(
            committed.contains("exit"),
            "{name}.bpf.o has no instructions"
        );
        assert_eq!(
            committed,
            compiled(clang, &folder, &name),
            "{name}.bpf.o is not what {name}.bpf.c compiles to: build it again (command in the source)"
        );
        objects += 1;
    }
    assert!(objects > 0, "no sources in {}", folder.display());
}
