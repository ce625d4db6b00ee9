//! The `aplomado` program: see `aplomado --help`.

fn main() -> aplomado::cli::Exit {
    aplomado::cli::main()
}
