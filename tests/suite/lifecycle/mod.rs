//! From start to stop: options, restarts, retention, the command line.

mod command_line;
mod configuration;
mod restart;
mod retention;
mod stop;
mod tail;
