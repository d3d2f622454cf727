//! The log of MariaDB and MySQL, followed.
