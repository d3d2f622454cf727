//! Ports that are free, and stay so.
//!
//! A port that the operating system picks may be given to the next outgoing connection of anybody as soon as its server is
//! dead, and then the server could not come back to it. So ports are taken from below the range that outgoing connections
//! use, and each is reserved, among all processes of this user, by a lock on a file of its name. The lock goes with the
//! process that holds it.

use std::collections::hash_map::RandomState;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher};
use std::net::{Ipv4Addr, TcpListener};

use crate::templates::shared_folder;

const FIRST: u16 = 10_000;
/// Linux hands out ports from 32,768 on to outgoing connections.
const LAST: u16 = 32_000;

/// A port of the loopback interface that no other server of this crate gets while this value lives.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    _reservation: File,
}

impl Port {
    pub(crate) fn reserve() -> Port {
        let folder = shared_folder().join("ports");
        fs::create_dir_all(&folder).expect("the temp folder is writable");
        let start = RandomState::new().build_hasher().finish();
        let count = u64::from(LAST - FIRST);
        for step in 0..count {
            let number = FIRST + ((start % count + step) % count) as u16;
            let reservation = File::create(folder.join(number.to_string())).expect("the temp folder is writable");
            // Whoever listens there without a reservation is found by trying.
            if reservation.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Port { number, _reservation: reservation };
            }
        }
        panic!("no port from {FIRST} to {LAST} is free");
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }
}
