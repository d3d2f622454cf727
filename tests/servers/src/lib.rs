//! Real servers for tests and benchmarks: each a process of its own with a folder of its own on a free port of the
//! loopback interface, ready when its constructor returns, killed and removed when it is dropped.
