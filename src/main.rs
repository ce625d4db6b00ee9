//! The `aplomado` program: see `aplomado --help`.

fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
