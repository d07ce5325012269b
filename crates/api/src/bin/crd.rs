//! Prints the custom resource definitions as YAML; `cargo xtask crd` writes them to `crds/`.

use std::io::Write as _;

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for crd in api::crds() {
        writeln!(out, "---")?;
        let text = serde_yaml::to_string(&crd).map_err(std::io::Error::other)?;
        out.write_all(text.as_bytes())?;
    }
    Ok(())
}
