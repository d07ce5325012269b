//! `install` as the init container runs it, twice.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// P26.
#[test]
fn the_binary_and_names_for_its_user_are_put_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let (bin, passwd) = (dir.path().join("bin"), dir.path().join("etc/passwd"));
    for _ in 0..2 {
        let installed = Command::new(env!("CARGO_BIN_EXE_matriarch-agent"))
            .arg("install")
            .arg("--to")
            .arg(&bin)
            .arg("--passwd")
            .arg(&passwd)
            .status()
            .unwrap();
        assert!(installed.success());
    }
    let copy = bin.join("matriarch-agent");
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o755);
    let version = Command::new(&copy).arg("--version").output().unwrap();
    assert!(String::from_utf8_lossy(&version.stdout).starts_with("matriarch-agent "));
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let text = fs::read_to_string(&passwd).unwrap();
    assert!(text.starts_with(&format!("postgres:x:{uid}:{gid}:PostgreSQL:/tmp:")), "{text}");
    assert!(
        fs::read_to_string(dir.path().join("etc/group")).unwrap().starts_with(&format!("postgres:x:{gid}:"))
    );
    assert_eq!(fs::read_dir(&bin).unwrap().count(), 1, "nothing else is left");
}
