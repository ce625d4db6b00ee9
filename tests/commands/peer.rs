//! Commands to a partner that answers badly.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use aplomado::control::peer::{PeerConnection, PeerTarget};

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n";

/// A partner whose connections do what `partner` does with them, one after the other, and a connection to it.
fn partner(partner: impl Fn(usize, TcpStream) + Send + 'static) -> PeerConnection {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            partner(number, stream);
        }
    });
    PeerConnection::new(&PeerTarget { address, credentials: None, tls: None })
}

/// Waits for a request; whether one came.
fn hears(stream: &mut TcpStream) -> bool {
    stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0)
}

fn rest(ms: u64) {
    std::thread::park_timeout(Duration::from_millis(ms));
}

/// The library's own resolver starts a thread for every request, which no look at the answers would show.
#[test]
fn the_address_of_a_partner_is_never_looked_up() {
    let connection = partner(|_, _| {});
    let parts = format!("{connection:?}");
    assert!(parts.contains("PeerAddress(127.0.0.1:"), "{parts}");
}

#[test]
fn all_steps_of_a_command_share_its_time() {
    // Each pause is shorter than the time that the command has; all together are longer, and a busy machine makes them longer still.
    let connection = partner(|_, mut stream| {
        while hears(&mut stream) {
            for part in [HEAD, b"[]"] {
                rest(300);
                let _ = stream.write_all(part);
            }
        }
    });
    assert!(connection.post(b"{}", Duration::from_millis(450)).is_err(), "600 ms are not 450");
    assert_eq!(connection.post(b"{}", Duration::from_secs(60)).expect("an answer"), b"[]");
}

#[test]
fn a_kept_connection_that_is_closed_when_it_is_used_is_opened_again() {
    let connection = partner(|number, mut stream| {
        while hears(&mut stream) {
            let _ = stream.write_all(HEAD).and_then(|()| stream.write_all(b"[]"));
            if number == 0 {
                // The next command comes, and finds the end instead of an answer.
                let _ = hears(&mut stream);
                return;
            }
        }
    });
    for _ in 0..3 {
        assert_eq!(connection.post(b"{}", Duration::from_secs(60)).expect("an answer"), b"[]");
    }
}

#[test]
fn a_command_whose_answer_is_cut_is_not_sent_again() {
    // Of three connections the first is good for one answer and the beginning of the next.
    let connection = partner(|number, mut stream| {
        assert!(hears(&mut stream));
        if number == 0 {
            let _ = stream.write_all(HEAD).and_then(|()| stream.write_all(b"[]"));
            assert!(hears(&mut stream));
            let _ = stream.write_all(HEAD).and_then(|()| stream.write_all(b"["));
        } else {
            let _ = stream.write_all(HEAD).and_then(|()| stream.write_all(b"{}"));
        }
    });
    assert_eq!(connection.post(b"{}", Duration::from_secs(60)).expect("an answer"), b"[]");
    assert!(connection.post(b"{}", Duration::from_secs(60)).is_err(), "the answer was cut");
    assert_eq!(connection.post(b"{}", Duration::from_secs(60)).expect("an answer"), b"{}");
}

#[test]
fn a_partner_that_closes_every_connection_is_asked_once() {
    let (told, asked) = std::sync::mpsc::channel();
    let connection = partner(move |_, mut stream| {
        let _ = told.send(hears(&mut stream));
    });
    assert!(connection.post(b"{}", Duration::from_secs(60)).is_err());
    assert!(connection.post(b"{}", Duration::from_secs(60)).is_err());
    drop(connection);
    assert!(asked.recv().expect("the first") && asked.recv().expect("the second"));
    assert!(asked.try_recv().is_err(), "no command was sent twice");
}
