//! What the programs beside the tests have in common: demo, campaign, soak, benches.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};

/// Runs such a program: it must be root, and its labs end with it, however it ends. `run` returns whether all was well.
pub fn run(name: &str, run: impl FnOnce() -> anyhow::Result<bool>) -> ExitCode {
    if !rustix::process::geteuid().is_root() {
        return fail(&format!("{name}: it makes network namespaces and must run as root"));
    }
    super::clean_up_on_interrupt();
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(&format!("{name}: {error:#}")),
    }
}

/// It was told what makes no sense.
pub fn misused(usage: &str) -> ExitCode {
    eprintln!("{usage}");
    ExitCode::from(2)
}

/// A program that is its own service, too, is started as such by the words `serve PORT`; `None` if it was not. `cargo bench` and
/// `cargo test --benches` pass words of their own.
pub fn as_service(serve: impl FnOnce(u16) -> io::Result<()>) -> Option<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [word, port] = &words[..] else { return None };
    let port = port.parse().ok().filter(|_| word == "serve")?;
    Some(match serve(port) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("serve: {error}")),
    })
}

fn fail(why: &str) -> ExitCode {
    eprintln!("{why}");
    ExitCode::FAILURE
}

/// As many descriptors as this process, and those that it starts, may have.
pub fn raise_descriptor_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current, maximum });
}

/// A service's socket, on all addresses of both families, with room for thousands that connect at once.
pub fn listen(port: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port).into())?;
    socket.listen(4_096)?;
    Ok(socket)
}
